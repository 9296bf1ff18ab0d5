"""The stages of a model, one deployment after another, as devices die, come, and become slower."""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from actors.exceptions import ActorDiedError, ActorsError, ModelError, PlacementError

from .deployment import Deployment, end
from .holders import Shelves
from .levelling import level

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from actors.handle import ActorHandle

    from .plan import Plan
    from .recipe import Recipe

_ATTEMPTS: Final = 3  # to begin anew on what nodes there are, while more of them die
_SETTLING: Final = 0.5  # seconds until another attempt


class Succession:
    """Sees to it that there are stages that work.

    Args:
        recipe: what they are made by.
        in_use: tells the deployments that give answers now.
    """

    def __init__(self, recipe: Recipe, in_use: Callable[[], Collection[Deployment]]) -> None:
        self._recipe, self._in_use = recipe, in_use
        self._changing = threading.RLock()  # held while one deployment takes the place of another
        self._closed = self._begun = False
        self._balancing = threading.Lock()
        self._listing = threading.Lock()  # of those that are retired
        self._retired: list[Deployment] = []
        self._shelves = Shelves()
        self._current = self._deploy(())
        self._begun = True

    @property
    def current(self) -> Deployment:
        """The one that is given new answers, though it may be broken."""
        return self._current

    def working(self) -> Deployment:
        """The stages; made anew where they ended and the model did not fit.

        Raises:
            ModelError: the model was closed, or does not fit.
        """
        with self._changing:
            self._refuse_if_closed()
            if self._current.broken:
                self._renew(None)
            return self._current

    def replace(self, broken: Deployment, error: ActorDiedError | None) -> Deployment:
        """Returns stages that work in place of `broken`, of which one has died.

        Raises:
            ModelError: the model was closed, or no longer fits.
        """
        with self._changing:
            self._refuse_if_closed()
            if self._current is broken:
                self._renew(error)
            elif broken.heir is None:
                broken.close()
            return self.working()

    def mend(self) -> None:
        """Have stages made in place of those that are broken, if the model fits, before somebody asks."""
        threading.Thread(target=self._mend, name="model-mending", daemon=True).start()

    def rebalance(self) -> None:
        """Deal the layers out anew; see `ShardedModel.rebalance`."""
        with self._balancing:
            old, plan = self.working(), self._better()
            if plan is None:
                return
            # Answers go on meanwhile.
            new = Deployment.start(plan, **self._recipe.how, shelves=self._shelves, after=old)
            with self._changing:
                if self._closed or self._current is not old:  # or stages died, and others were made of what there is
                    new.close()
                    self._refuse_if_closed()
                    return
                self._move(old, new)
                self._current = new
            self._retire(old)

    def sweep(self) -> None:
        """End those that nobody uses any more."""
        with self._listing:
            used = {each for each in self._in_use() if not each.broken}
            idle = [each for each in self._retired if each not in used]
            self._retired = [each for each in self._retired if each in used]
        for each in idle:
            each.close()

    def close(self) -> None:
        """End all of them."""
        with self._changing:
            self._closed = True
            for deployment in (*self._retired, self._current):
                deployment.close()
            self._retired.clear()

    def _mend(self) -> None:
        with suppress(ActorsError):  # whoever asks for an answer is told
            self.working()

    def _move(self, old: Deployment, new: Deployment) -> None:
        if old.broken or new.plan.shares:  # parts of each layer, whose caches do not fit one another
            return
        try:
            old.move(new)
        except (ActorsError, TimeoutError):
            # A stage died: whoever reads an answer finds that out, and it is computed again.
            old.abandon()

    def _better(self) -> Plan | None:
        old, plan = self._current, self._recipe.plan(lost=True)
        if old.broken or [each.node for each in plan.stages] != [each.node for each in old.plan.stages]:
            return plan
        return None if plan.shares else level(old.plan, old.measure())

    def _renew(self, cause: BaseException | None) -> None:
        old = self._current
        gone, spare = old.part()
        self._current = self._deploy(gone, cause, spare, after=old)

    def _deploy(
        self,
        gone: Collection[str],
        cause: BaseException | None = None,
        spare: dict[str, ActorHandle] | None = None,
        after: Deployment | None = None,
    ) -> Deployment:
        spare = {} if spare is None else spare
        known = {**self._recipe.how, "shelves": self._shelves, "after": after, "gone": gone, "spare": spare}
        try:
            for attempt in range(_ATTEMPTS):
                plan = self._recipe.plan(gone, lost=self._begun)
                try:
                    return Deployment.start(plan, **known)
                except (ActorDiedError, PlacementError):
                    if attempt == _ATTEMPTS - 1:
                        raise
                    time.sleep(_SETTLING)
        except ModelError as error:
            raise error from cause
        finally:
            end(spare)
        raise AssertionError

    def _retire(self, old: Deployment) -> None:
        with self._listing:
            self._retired.append(old)
        self.sweep()

    def _refuse_if_closed(self) -> None:
        if self._closed:
            raise ModelError("this model was closed: load it again")
