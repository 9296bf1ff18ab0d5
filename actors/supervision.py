"""Supervision trees: what is to happen to the others when one actor dies, and when it is too much.

The words are Erlang's. A supervisor is an actor that makes its children, in order, and makes one anew that has died;
what becomes of the others is its strategy. Where children die more often than it allows, it gives up: it dies itself,
with all that is below it, and that is a death to its own supervisor.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections import deque
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from actors.actorclass import ActorClass
from actors.cluster import joined
from actors.exceptions import ActorError, ArgumentError
from actors.life import State
from actors.options import ActorOptions

if TYPE_CHECKING:
    from collections.abc import Mapping

    from actors.charge import Charge
    from actors.handle import ActorHandle
    from actors.transport.peer import Death

STRATEGIES = ("one_for_one", "one_for_all", "rest_for_one")


@dataclass(frozen=True, slots=True, init=False)
class Child:
    """An actor that a supervisor makes: its class, with options, and the arguments of its constructor."""

    cls: ActorClass[Any, Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    def __init__(self, cls: ActorClass[Any, Any], /, *args: Any, **kwargs: Any) -> None:
        """Says what is to be made.

        Raises:
            TypeError: ``cls`` is no actor class.
            ValueError: it has an option of its own about restarts or its end, which its supervisor decides.
        """
        if not isinstance(cls, ActorClass):
            raise ArgumentError(f"a child is made from an actor class (@actors.remote), not {cls!r}")
        options = cls._options
        if options.max_restarts or options.detached:
            raise ValueError(f"{cls!r} has max_restarts= or lifetime=, which its supervisor decides: leave it out")
        object.__setattr__(self, "cls", cls)
        object.__setattr__(self, "args", args)
        object.__setattr__(self, "kwargs", kwargs)

    def make(self) -> ActorHandle:
        """Makes the actor; it is made anew as often as its supervisor lives to see it."""
        made: ActorHandle = self.cls.options(max_restarts=-1).remote(*self.args, **self.kwargs)
        return made


@dataclass(frozen=True, slots=True)
class Supervisor:
    """A description of a supervisor, which `start` makes or which is a child of another.

    Attributes:
        children: by name, in the order in which they are made: actor classes, `Child` with arguments, or further
            supervisors.
        strategy: who is made anew when one has died: ``"one_for_one"``, it alone; ``"one_for_all"``, all; or
            ``"rest_for_one"``, it and those after it. All of those have ended before the first is made anew, and they
            are made in order.
        max_restarts: how many deaths it allows; one more within the time, and it gives up.
        within: that time, in seconds.

    Raises:
        TypeError: a child is none.
        ValueError: an unknown strategy, or a value out of range.
    """

    children: Mapping[str, ActorClass[Any, Any] | Child | Supervisor]
    strategy: str = "one_for_one"
    max_restarts: int = 3
    within: float = 60.0
    _made: tuple[tuple[str, Child], ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.strategy not in STRATEGIES:
            raise ValueError(f"strategy must be one of {', '.join(STRATEGIES)}, not {self.strategy!r}")
        if not isinstance(self.max_restarts, int) or self.max_restarts < 0:
            raise ValueError(f"max_restarts must be a whole number from 0, not {self.max_restarts!r}")
        if not self.within > 0:
            raise ValueError(f"within is a time in seconds, not {self.within!r}")
        if not self.children:
            raise ValueError("a supervisor has at least one child")
        made = tuple((name, _child(name, child)) for name, child in dict(self.children).items())
        object.__setattr__(self, "_made", made)

    def start(self, **options: Any) -> ActorHandle:
        """Makes the supervisor, and so all below it.

        Args:
            options: of the actor that it is, such as ``name``.

        Returns:
            Its handle. ``child.remote(name)`` gives the handle of a child, which stays good when that is made anew,
            and of one further down by ``"upper/lower"``; ``status.remote()`` says how often each was made anew. When
            the last handle is gone, it ends with all its children.
        """
        made: ActorHandle = _ACTOR.options(**options).remote(self)
        return made


def _child(name: object, child: object) -> Child:
    if not isinstance(name, str) or not name or "/" in name:
        raise ArgumentError(f"a child's name is a non-empty string without a slash, not {name!r}")
    if isinstance(child, Supervisor):
        return Child(_ACTOR, child)
    return child if isinstance(child, Child) else Child(child)  # type: ignore[arg-type]


class _Supervising:
    """The actor that a supervisor is."""

    def __init__(self, plan: Supervisor) -> None:
        self._plan = plan
        self._names = [name for name, _ in plan._made]  # noqa: SLF001 - one of us
        self._handles = [child.make() for _, child in plan._made]  # noqa: SLF001
        self._process = joined()
        self._deaths: deque[float] = deque()
        self._times = [0] * len(self._names)
        self._ended: set[int] = set()  # killed for another's sake: their deaths do not count
        self._down: dict[int, asyncio.Event] = {}  # not made anew yet
        self._process.portal.run(self._begin())

    async def _begin(self) -> None:
        charges = self._process.keeper.charges
        self._charges: list[Any] = [charges[handle._id] for handle in self._handles]  # noqa: SLF001
        self._watches = []
        for number, charge in enumerate(self._charges):
            charge.before_restart = partial(self._before_restart, number)
            self._watches.append(self._process.loop.create_task(self._watch(number, charge)))

    def child(self, path: str) -> Any:
        """Returns the handle of a child, or of one further down by ``"upper/lower"``."""
        import actors

        name, _, rest = path.partition("/")
        if name not in self._names:
            raise ValueError(f"there is no child {name!r}; there are: {', '.join(self._names)}")
        handle = self._handles[self._names.index(name)]
        return actors.get(handle.child.remote(rest)) if rest else handle

    def status(self) -> dict[str, int]:
        """Returns how often each child was made anew."""
        return dict(zip(self._names, self._times, strict=True))

    # -- on the I/O loop ----------------------------------------------------------------------------------------

    async def _watch(self, number: int, charge: Charge) -> None:
        """Says when a child is there again, and gives up where one never comes to life."""
        life: str | None = None
        try:
            while True:
                life = (await charge.located(life)).life
                await charge.constructed()
                if (down := self._down.pop(number, None)) is not None:
                    down.set()
        except ActorError as error:
            if (down := self._down.pop(number, None)) is not None:
                down.set()
            if error.method in {"__init__", "__actor_load__"}:
                self._give_up(f"its child {self._names[number]!r} cannot be made: {error}")

    async def _before_restart(self, number: int, death: Death) -> None:
        """A child has died: the strategy is carried out before it is made anew."""
        self._times[number] += 1
        mine = self._down.setdefault(number, asyncio.Event())
        if number in self._ended:
            self._ended.discard(number)
        else:
            self._count(number, death)
            alive = [other for other in self._along_with(number) if self._charges[other].life.state is State.ALIVE]
            others = [other for other in alive if other not in self._down]
            self._ended.update(others)
            self._down.update({other: asyncio.Event() for other in others})  # before their deaths are known here
            await asyncio.gather(*(self._charges[other].kill(False) for other in others))
        for other, event in sorted(self._down.items()):
            if other < number and event is not mine:
                await event.wait()

    def _along_with(self, number: int) -> list[int]:
        every = range(len(self._names))
        if self._plan.strategy == "one_for_one":
            return []
        first = 0 if self._plan.strategy == "one_for_all" else number
        return [other for other in every if other >= first and other != number]

    def _count(self, number: int, death: Death) -> None:
        now = time.monotonic()
        self._deaths.append(now)
        while self._deaths[0] < now - self._plan.within:
            self._deaths.popleft()
        if len(self._deaths) > self._plan.max_restarts:
            self._give_up(
                f"{len(self._deaths)} deaths of its children within {self._plan.within:g} s are more than it allows "
                f"(max_restarts={self._plan.max_restarts}); the last was that of {self._names[number]!r}: "
                f"{death.reason}"
            )

    @staticmethod
    def _give_up(why: str) -> None:
        """Ends this process, and with it all that it has made: whoever supervises it hears of a death."""
        print(f"the supervisor gives up: {why}", file=sys.stderr, flush=True)
        os._exit(1)


_ACTOR: ActorClass[Any, Any] = ActorClass(_Supervising, ActorOptions())
