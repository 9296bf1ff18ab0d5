"""The actor of one stage: takes sequences through its layers, asking the stage before it first."""

from __future__ import annotations

import asyncio
import os
import sys
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import psutil

from actors.api import get, get_runtime_context
from actors.exceptions import ActorDiedError
from actors.util.progress import tqdm

from .cores import keep_to_core
from .extra import on_cpu
from .heap import keep_together
from .hub import is_on_hub
from .lean import require_lean_mlx_lm
from .openblas import bring
from .stagecaches import StageCaches, awaited
from .stock import complete
from .turns import Turns

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

    import mlx.core as mx

    from actors.cable import Place
    from actors.handle import ActorHandle
    from actors.refs import ObjectRef

    from .beside import Beside
    from .line import Line
    from .means import Means
    from .sampling import Request
    from .sharing import Share
    from .stage import StageModel, Step

PROBE: Final = "probe"


class StageActor(StageCaches):
    """Layers `first` to `last` of a model, in a process of their own.

    The last stage chooses what all stages do next (`schedule.Schedule`). Each step goes to the first, and from stage to
    stage with the hidden states (`line.Line`). Many steps are under way at once: every stage takes them in the order in
    which they began.

    Args:
        path: the model, as this stage's device sees it.
        first: number of its first layer.
        last: number of its last layer, inclusive.
        shares: where layers are cut lengthwise, what each rank has of all of them; `rank` is this one's. The last rank
            chooses what all do next.
        means: what the stage may make use of.
        libraries: have the weights; where this device does not see `path`, or with `send`, they are fetched from there.
    """

    def __init__(
        self,
        path: str,
        first: int,
        last: int,
        *,
        shares: tuple[Share, ...] = (),
        rank: int = 0,
        means: Means,
        libraries: Sequence[ActorHandle] = (),
        send: bool = False,
    ) -> None:
        keep_together()
        self._blas = means.wide and bring(means.threads)
        require_lean_mlx_lm()
        from .stage import StageModel

        # MLX's lazy arrays belong to the thread that made them, and turns are taken in the order they are asked for.
        self._turns = Turns()
        if means.place is not None and not (self._blas and means.threads > 1):
            self._turns.submit(keep_to_core, *means.place).result()  # and so MLX's own thread, which it starts
        self._means, self._what = means, (path, first, last)
        path = found(path, first, last, libraries, send=send)
        if shares:
            self._model = self._turns.submit(StageModel.load_share, path, shares, rank, wide=self._room).result()
        else:
            self._model = self._turns.submit(StageModel.load, path, first, last, wide=self._room).result()
        self._line: Line | None = None
        self._others: list[ActorHandle] = []
        super().__init__()

    @property
    def _room(self) -> float:
        return self._means.room if self._blas else 0

    async def reload(
        self,
        path: str,
        first: int,
        last: int,
        *,
        means: Means,
        libraries: Sequence[ActorHandle] = (),
        send: bool = False,
    ) -> None:
        """Becomes the stage of other layers, in the same process; those that it has are not loaded again.

        Whatever was under way is forgotten, but for what a neighbour was to have of it (`legacy`). See the class for
        the arguments.
        """
        if self._schedule is not None:
            self._schedule.close()
        shading, self._shading = self._shading, None
        if shading is not None:
            shading.close()
        await self._leave()
        self._schedule, self._means = None, means

        def load() -> StageModel:
            self._bequeath(shading)
            if (path, first, last) == self._what:
                return self._model.emptied()
            here = found(path, first, last, libraries, send=send)
            return type(self._model).load(here, first, last, wide=self._room, like=self._model)

        self._model = await self._do(load)
        self._what = path, first, last

    async def loaded(self) -> dict[str, Any]:
        """Returns what this stage holds, and where.

        `node`, `pid`, `first`, `last`, `nbytes` of its weights, whether it computes on a `cpu`, the `seconds` that a
        token takes here at best, the bytes `free` in memory, those that one more token of a sequence takes in its
        caches (`token_nbytes`), `how` it computes, in words, whether its weights are in float32 (`wide`), and why
        sequences do not go through together, empty where they do (`apart`).
        """
        model = self._model
        where = {"node": get_runtime_context().node_name, "pid": os.getpid(), "cpu": on_cpu()}
        what = {"first": model.first, "last": model.last, "nbytes": model.nbytes}
        free = psutil.virtual_memory().available
        numbers = {"token_nbytes": model.token_nbytes(PROBE), "seconds": model.seconds, "free": free}
        how = computing(self._means, blas=self._blas, wide=model.wide)
        return {**where, **what, **numbers, "how": how, "wide": model.wide, "apart": self._apart()}

    def _apart(self) -> str:
        if on_cpu() and not self._model.wide:
            return "products of weights as stored gain nothing from it on a CPU"
        kind = self._model.unbatched
        return f"{self._model.info.architecture} keeps a {kind}, which is of one sequence" if kind else ""

    async def open(self, *, width: int, limit: int, batched: bool = False, draft: ActorHandle | None = None) -> None:
        """Makes the last stage take requests; see `schedule.Schedule` for the arguments."""
        from .schedule import Schedule
        from .speculation import Speculation
        from .stage import Step

        assert self._model.is_last
        await self.begin(Step(forget=(PROBE,)), None)
        guesses = None if draft is None else Speculation(draft, split=width > 1 and not batched)
        self._schedule = Schedule(
            self.begin, width=width, limit=limit, batched=batched, can_fork=self._model.can_fork, speculation=guesses
        )

    async def lead(self, others: list[ActorHandle]) -> None:
        """Makes this rank have the others do what it does."""
        self._others = others

    async def follow(self, step: Step) -> None:
        """Does what the leading rank does at the same time."""
        await self.begin(step, lambda _: None)

    async def place(self) -> Place:
        """Returns where the stage before finds this one, in a line of stages that is to be."""
        from .line import Line

        await self._leave()
        self._line = Line(self._turns, self._run)
        return self._line.place

    async def join(self, number: int, after: Place, others: list[ActorHandle]) -> None:
        """Takes its place in the line; see `line.Line.join`."""
        assert self._line is not None
        await self._line.join(number, after, others)

    async def _leave(self) -> None:
        """Whatever line it is in."""
        line, self._line = self._line, None
        if line is not None:
            await line.close()

    async def attend(self) -> None:
        """Returns when the stage before is no longer heard; see `line.Line.attended`."""
        assert self._line is not None
        await self._line.attended()

    async def failure(self, number: int) -> None:
        """Raises what went wrong here in a step."""
        assert self._line is not None
        raise self._line.failure(number)

    async def ready(self) -> None:
        """Returns when the layers are loaded, or raises why they are not."""

    async def probe(self, times: int) -> None:
        """Takes the sequence `PROBE` through all stages, so that they can say what a token costs; in the last one."""
        from .stage import Row, Step

        for _ in range(times):
            await self.begin(Step((Row(PROBE, (0,)),)), None)

    async def measure(self, times: int) -> None:
        """Takes a sequence through all stages as `probe` does, and forgets it; in the last one."""
        from .stage import Step

        await self.probe(times)
        await self.begin(Step(forget=(PROBE,)), None)

    async def why_apart(self) -> str:
        """Says why sequences cannot go through all stages together, empty if they can; in the last one."""
        from .trial import why_apart

        return await why_apart(self.begin)

    async def beat(self) -> None:
        """Answers, as a sign that it can."""

    async def sequences(self) -> tuple[str, ...]:
        """Returns the keys of the sequences that have a cache here."""
        return self._model.sequences

    async def answer(self, request: Request) -> AsyncIterator[Any]:
        """Yields the number of prompt tokens taken from the prefix cache, then each `sampler.Choice`.

        Only in the last stage. Several may be under way, whoever reads them and however slowly.
        """
        assert self._schedule is not None
        with closing(self._schedule.enter(request)) as entry:
            async for item in entry.items():
                yield item

    # -- a user's code beside the layers ------------------------------------------------------------------------

    async def attach(self, key: str, beside: Beside) -> None:
        """Has a user's code stand beside the layers here, for a sequence to come."""
        await self._do(self._model.attach, key, beside)

    async def seen(self, key: str) -> tuple[dict[int, list[Any]], Exception | None]:
        """Returns what probes of a sequence saw here, by layer, and what the code raised."""
        found = await self._do(self._model.seen, key)
        return ({}, None) if found is None else (found.seen, found.error)

    async def detach(self, key: str) -> None:
        """Forgets the code that stood beside a sequence."""
        await self._do(self._model.detach, key)

    async def busy(self) -> dict[str, Any]:
        """Returns how busy the last stage is; see `schedule.Schedule.busy`."""
        assert self._schedule is not None
        return self._schedule.busy()

    def begin(self, step: Step, finish: Callable[[mx.array], Any] | None) -> Awaitable[Any]:
        """Begin a step; see `StageModel.run`. Steps pass through all stages in the order of these calls."""
        if self._line is not None:
            return self._line.begin(step, finish)
        mine = asyncio.get_running_loop().run_in_executor(self._turns, self._run, step, None, finish)
        if not self._others:
            return mine
        return asyncio.ensure_future(_together(mine, [other.follow.remote(step) for other in self._others]))

    def _run(self, step: Step, hidden: Any, finish: Any) -> Any:
        """On the thread of MLX."""
        shading = self._shading
        try:
            return self._model.run(step, hidden, finish)
        finally:
            if shading is not None:
                shading.note(step)
                self._loop.call_soon_threadsafe(shading.wake)


def connect(stages: Sequence[ActorHandle]) -> None:
    """Makes stages one line, in this order."""
    places = get([stage.place.remote() for stage in stages])
    last = len(stages) - 1
    joined = []
    for number, stage in enumerate(stages):
        others = list(stages[:-1]) if number == last else []
        joined.append(stage.join.remote(number, places[(number + 1) % len(stages)], others))
    get(joined)


def found(path: str, first: int, last: int, libraries: Sequence[ActorHandle], *, send: bool) -> str:
    """Where this device sees the weights of these layers."""
    if is_on_hub(path):
        return str(complete(path, first, last) or _fetched(path, first, last, libraries))
    return _fetched(path, first, last, libraries) if libraries and (send or not Path(path).exists()) else path


def _fetched(path: str, first: int, last: int, libraries: Sequence[ActorHandle]) -> str:
    """Where the weights of these layers are, once they are here; whoever made the model sees how far that is."""
    from .holders import hub_of
    from .weights import Sender, fetch

    what = f"weights of layers {first} to {last} to {get_runtime_context().node_name}, bytes"
    bar: tqdm[None] = tqdm(desc=what)
    with bar, hub_of(path) as hubs:

        def progress(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        return str(fetch([Sender(each) for each in libraries], first, last, progress=progress, model=path, hubs=hubs))


def computing(means: Means, *, blas: bool, wide: bool) -> str:
    """How this process computes, in words."""
    return means.words(cpu=on_cpu(), linux=sys.platform == "linux", blas=blas, wide=wide)


async def _together(mine: Awaitable[Any], others: list[ObjectRef[Any]]) -> Any:
    """What this rank gives, when all are done. A rank that died makes all fail; its death is the cause to be told."""
    value, *found = await asyncio.gather(mine, *map(awaited, others), return_exceptions=True)
    failures = [each for each in (*found, value) if isinstance(each, BaseException)]
    if failures:
        raise next((each for each in failures if isinstance(each, ActorDiedError)), failures[0])
    return value
