"""The stages of a model at work on their nodes."""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

from actors.actorclass import remote
from actors.api import get, kill, nodes
from actors.collective import create_group
from actors.events import ModelChanged, TokensMade
from actors.events.recorder import emit
from actors.exceptions import ActorDiedError, ActorsError, ModelError, NodeDiedError, TaskError
from actors.ids import new_id

from .draftactor import DraftActor
from .holders import Shelves
from .moving import move, recover, take_over
from .neighbours import crowded, means_of
from .stageactor import StageActor, connect

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from actors.group import ActorGroup
    from actors.handle import ActorHandle
    from actors.refs import ObjectRef
    from actors.stream import ObjectRefGenerator

    from .beside import Beside
    from .means import Means
    from .plan import DraftPlan, Plan
    from .sampling import Request

_KV_SHARE: Final = 4  # the caches of a stage take this part of the memory that is free once the weights are there
_PATIENCE: Final = 10.0  # seconds; a stage that does not answer then is not counted on
_BRIEF: Final = 0.3  # the same, where its node has not answered for a while
_PROBES: Final = 3  # passes that tell how long a token takes; the first brings up what the others need
_CHUNK_GPU: Final = 512  # tokens of a prompt that are taken in at once
_CHUNK_WIDE: Final = 64  # on a CPU by OpenBLAS, whose products gain from more rows
_CHUNK_STORED: Final = 32  # on a CPU otherwise: they do not, and all stages are busy the sooner


class Deployment:
    """One actor for each stage of a plan, loaded and ready. Make one with `start`.

    Attributes:
        plan: which layers are on which node.
        stages: the actors, in the order of the layers.
        held: what each stage said of itself; see `StageActor.loaded`.
        limit: tokens that the caches of all answers together have room for.
        recovered: it has caches of one whose stage has died.
        broken: it gives no more answers, since a stage has died, or it was closed.
        trial: why sequences cannot go through its layers together, as was tried (`trial.why_apart`); None where it was
            not.
        heir: the one that has its caches now, and gives its answers; None where there is none.
    """

    def __init__(self, plan: Plan, stages: Sequence[ActorHandle]) -> None:
        self.plan = plan
        self.stages = list(stages)
        self.held: list[dict[str, Any]] = []
        self.limit = 0
        self.recovered = False
        self.broken = self._ended = False
        self.heir: Deployment | None = None
        self.trial: str | None = None
        self._silent: set[str] = set()  # names of nodes that do not answer
        self._group: ActorGroup[Any] | None = None  # held for as long as its members add up what they have
        self._draft: ActorHandle | None = None
        self._id = new_id("model")

    @property
    def name(self) -> str:
        """What the model is called: its file or folder."""
        return Path(str(self.plan.model.path)).name

    def _tell(self, state: str) -> None:
        stages = tuple((stage.node, stage.first, stage.last) for stage in self.plan.stages)
        emit(ModelChanged(time.time(), self._id, self.name, stages, state))

    def made(self, tokens: int, seconds: float) -> None:
        """It has made tokens, in so many seconds: whoever looks is told."""
        emit(TokensMade(time.time(), self._id, self.name, tokens, seconds))

    @classmethod
    def start(
        cls,
        plan: Plan,
        *,
        kv_memory: int | None,
        weights: str = "auto",
        arithmetic: str = "auto",
        shadow: bool = False,
        shelves: Shelves | None = None,
        spare: dict[str, ActorHandle] | None = None,
        after: Deployment | None = None,
        gone: Collection[str] = (),
    ) -> Self:
        """Make the actors and wait until their layers are loaded.

        Args:
            plan: which layers are on which node.
            kv_memory: bytes for caches on each node; None takes a quarter of what is free.
            weights: see `ShardedModel.load`.
            arithmetic: see `ShardedModel.load`.
            shadow: see `ShardedModel.load`.
            spare: actors by their nodes that are stages no more (see `part`): they become those of this one, and have
                some of its layers already. They end with this one in any case.
            shelves: know where the weights are.
            after: the one before it, of the same model: what was tried there is not tried again. Where it is broken,
                answers wait for this one, and a token is taken through once rather than several times. Else answers go
                on meanwhile, and stages of one host are loaded one after the other.
            gone: names of nodes that are not counted on.

        Raises:
            ModelError: a stage could not load its layers.
            ActorDiedError: a stage has died.
        """
        self = cls(plan, [])
        path, send = str(plan.model.path), weights == "send"
        shelves, names = shelves or Shelves(), {stage.node for stage in plan.stages}
        libraries = [] if weights == "local" else shelves.libraries(path, names, always=send, gone=gone)
        means = means_of(plan, arithmetic)
        gently = after is not None and not after.broken and crowded(plan)  # answers go on beside it, on the same cores
        spare = {} if spare is None else spare
        loading: list[ObjectRef[Any]] = []
        try:
            for rank, stage in enumerate(plan.stages):
                what = path, stage.first, stage.last
                how: dict[str, Any] = {"means": means[rank], "libraries": libraries, "send": send}
                stage_actor = None if plan.shares else spare.pop(stage.node, None)
                if stage_actor is None:
                    made = remote(StageActor).options(node=stage.node)
                    stage_actor = made.remote(*what, shares=plan.shares, rank=rank, **how)
                    loading.append(stage_actor.ready.remote())
                else:
                    loading.append(stage_actor.reload.remote(*what, **how))
                self.stages.append(stage_actor)
                if gently:
                    _loaded(loading[-1], stage.node, "its layers")
            end(spare)
            if plan.draft is not None:
                drafts = shelves.libraries(plan.draft.path, names, always=send, gone=gone) if libraries else []
                self._draft = _draft(plan.draft, plan.model.vocab_size, means[0], libraries=drafts, send=send)
            for stage, ref in zip(plan.stages, loading, strict=True):
                _loaded(ref, stage.node, "its layers")
            if plan.shares:
                self._group = create_group(self.stages)
                get(self.stages[-1].lead.remote(self.stages[:-1]))
            elif len(self.stages) > 1:
                connect(self.stages)
            self._probe(_PROBES if after is None or not after.broken else 1)
            self.held = get([stage.loaded.remote() for stage in self.stages])
            apart = self._why_apart(after)
            self.plan = plan.with_found(self.held, apart)
            if self._draft is not None:
                self._take_in(self._draft)
            self._shade(wanted=shadow)
            self.limit = min(_room(held, kv_memory) for held in self.held)
            width = 1 if plan.shares else len(self.stages)
            ways = {"width": width, "limit": self.limit, "batched": not apart, "draft": self._draft}
            get(self.stages[-1].open.remote(**ways))
            self.recovered = shadow and after is not None and after.broken and recover(self.stages)
        except BaseException:
            end(spare)
            self.close()
            raise
        self._tell("LOADED")
        return self

    def _why_apart(self, after: Deployment | None) -> str:
        """Why answers go through one at a time; empty where several go through together."""
        self.trial = None if after is None else after.trial
        if known := next((held["apart"] for held in self.held if held["apart"]), ""):
            return str(known)
        if self.trial is None:
            self.trial = str(get(self.stages[-1].why_apart.remote()))
        return self.trial

    @property
    def chunk(self) -> int:
        """Tokens of a prompt that are taken in at once."""
        if not any(held["cpu"] for held in self.held):
            return _CHUNK_GPU
        return _CHUNK_WIDE if all(held["wide"] for held in self.held if held["cpu"]) else _CHUNK_STORED

    def answer(self, request: Request) -> ObjectRefGenerator[Any]:
        """Begin an answer; see `StageActor.answer`."""
        answer: ObjectRefGenerator[Any] = self.stages[-1].answer.remote(request)
        return answer

    # -- caches of conversations, and code beside layers --------------------------------------------------------

    def hold(self, tokens: Sequence[int]) -> str | None:
        """See `StageActor.hold`."""
        key: str | None = get(self.stages[-1].hold.remote(tuple(tokens)))
        return key

    def release(self, key: str) -> None:
        """Nobody waits for it: see `StageActor.release`."""
        if not self.broken:
            self.stages[-1].release.remote(key)

    def kept(self, key: str) -> int:
        """See `StageActor.kept`; 0 where the stages are gone."""
        try:
            return 0 if self.broken else int(get(self.stages[-1].kept.remote(key)))
        except ActorDiedError:
            return 0

    def take_over(self, source: Deployment, key: str, tokens: Sequence[int]) -> str | None:
        """Bring the caches of a sequence of another deployment here, and hold them; None where there are none."""
        if self.plan.shares or source.plan.shares:  # parts of each layer, which do not fit one another
            return None
        return take_over(source.stages, self.stages, key, tuple(tokens))

    @property
    def latest(self) -> Deployment:
        """This one, or the one that has its caches now."""
        return self if self.heir is None else self.heir.latest

    def move(self, heir: Deployment) -> None:
        """Have another one go on with all answers, and have its caches: only they are sent, as all is loaded there."""
        move(self.stages, heir.stages)
        self.heir = heir

    def attach(self, key: str, beside: Beside) -> None:
        """Have a user's code stand beside its layers for a sequence to come."""
        get([stage.attach.remote(key, beside) for stage in self._beside(beside)])

    def seen(self, key: str, beside: Beside) -> dict[int, list[Any]]:
        """What the probes of a sequence returned, by layer.

        Raises:
            TaskError: what the code raised.
        """
        found: dict[int, list[Any]] = {}
        for values, error in get([stage.seen.remote(key) for stage in self._beside(beside)]):
            if error is not None:
                raise error
            found |= {number: each for number, each in values.items() if number not in found}
        return found

    def detach(self, key: str, beside: Beside) -> None:
        """Nobody waits for it: the code is no longer wanted."""
        if not self.broken:
            for stage in self._beside(beside):
                stage.detach.remote(key)

    def _beside(self, beside: Beside) -> list[ActorHandle]:
        pairs = zip(self.plan.stages, self.stages, strict=True)
        return [actor for stage, actor in pairs if beside.layers & set(range(stage.first, stage.last + 1))]

    def abandon(self, silent: Collection[str] = ()) -> None:
        """Have its answers go on elsewhere; actors that answer are there for another one still.

        Args:
            silent: names of nodes that do not answer.
        """
        self._silent |= set(silent)
        self.broken = True

    def part(self) -> tuple[set[str], dict[str, ActorHandle]]:
        """End it, but for those of its actors that others can be made of.

        Returns:
            Names of the nodes that are gone or silent, as far as calls to the stages tell; and actors that answer, by
            the names of their nodes, for another one to `start` with.
        """
        if self._ended:
            return set(), {}
        there = _alive()
        lost = {stage.node for stage in self.plan.stages if stage.node not in there}
        pairs = zip(self.plan.stages, self.stages, strict=True)
        asked = [(stage.node, actor, actor.sequences.remote()) for stage, actor in pairs if stage.node in there]
        spare: dict[str, ActorHandle] = {}
        for node, actor, ref in asked:
            try:
                get(ref, timeout=_BRIEF if node in self._silent else _PATIENCE)
                spare[node] = actor
            except NodeDiedError:
                lost.add(node)
            except ActorDiedError:
                pass
            except TimeoutError:
                lost |= {node} & self._silent
        self._end(keep=spare)
        return lost, spare

    def close(self) -> None:
        """End the actors and give their memory back; does nothing the second time."""
        if not self._ended:
            self._end(keep={})

    def _end(self, keep: Collection[str]) -> None:
        self.broken = self._ended = True
        self._tell("CLOSED")
        pairs = zip(self.plan.stages, self.stages, strict=False)
        ending = {stage.node: actor for stage, actor in pairs if stage.node not in keep}
        end(ending, self._silent)
        if self._draft is not None and self.plan.draft is not None:
            end({self.plan.draft.node: self._draft}, self._silent)

    def busy(self) -> dict[str, Any]:
        """See `schedule.Schedule.busy`."""
        found: dict[str, Any] = get(self.stages[-1].busy.remote(), timeout=5)
        return found

    def plan_now(self) -> Plan:
        """The plan, with what came of the draft's guesses until now."""
        if self.plan.draft is None or self.broken:
            return self.plan
        with suppress(ActorDiedError, TimeoutError):
            return replace(self.plan, draft=replace(self.plan.draft, **self.busy()["draft"]))
        return self.plan

    def _take_in(self, draft: ActorHandle) -> None:
        """Wait until it is loaded; its caches are beside those of the first stage."""
        assert self.plan.draft is not None
        held = _loaded(draft.loaded.remote(), self.plan.draft.node, "the draft model")
        known = replace(self.plan.draft, **{key: held[key] for key in ("nbytes", "seconds", "how")})
        self.plan = replace(self.plan, draft=known)
        self.held[0]["token_nbytes"] += held["token_nbytes"]

    def _shade(self, *, wanted: bool) -> None:
        """Have each stage keep a copy of the caches of the one before it, and the first one of those of the last."""
        others = [*self.stages[1:], self.stages[0]]
        if wanted and len(others) > 1:
            get([stage.shade.remote(other) for stage, other in zip(self.stages, others, strict=True)])
            own = [held["token_nbytes"] for held in self.held]
            for held, more in zip(self.held, [own[-1], *own], strict=False):
                held["token_nbytes"] += more

    def measure(self) -> list[float]:
        """Seconds that a token takes in each stage now."""
        get(self.stages[-1].measure.remote(_PROBES))
        return [held["seconds"] for held in get([stage.loaded.remote() for stage in self.stages])]

    def _probe(self, times: int) -> None:
        try:
            get(self.stages[-1].probe.remote(times))
        except TaskError as error:
            if isinstance(error.cause, ModelError):  # an architecture that shows only as it runs that it cannot be cut
                raise ModelError(str(error.cause)) from error
            raise


def end(actors: dict[str, ActorHandle], silent: Collection[str] = ()) -> None:
    """End actors, by the names of their nodes, and forget them; of those that are silent no answer is waited for."""
    there = _alive() - set(silent)
    while actors:
        node, actor = actors.popitem()
        if node in there:
            kill(actor)
        else:  # nobody waits for an answer; if it comes back, its lease has ended it
            threading.Thread(target=_kill, args=(actor,), daemon=True).start()


def _loaded(ref: ObjectRef[Any], node: str, what: str) -> Any:
    try:
        return get(ref)
    except (ActorDiedError, TaskError) as error:
        cause = error.__cause__ if isinstance(error, ActorDiedError) else error.cause
        if isinstance(cause, ActorDiedError):
            raise cause from error
        if not isinstance(cause, ModelError):
            raise
        told = getattr(cause, "cause", None) or cause  # without the remote traceback
        raise ModelError(f"node {node} could not load {what}: {told}") from error


def _draft(draft: DraftPlan, vocabulary: int, means: Means, **weights: Any) -> ActorHandle:
    made = remote(DraftActor).options(node=draft.node)
    handle: ActorHandle = made.remote(draft.path, draft.layers, vocabulary, means=means, **weights)
    return handle


def _alive() -> set[str]:
    return {node.name for node in nodes() if node.alive}


def _kill(actor: ActorHandle) -> None:
    with suppress(ActorsError, TimeoutError):
        kill(actor)


def _room(held: dict[str, Any], kv_memory: int | None) -> int:
    memory = held["free"] // _KV_SHARE if kv_memory is None else kv_memory
    return int(memory // max(held["token_nbytes"], 1))
