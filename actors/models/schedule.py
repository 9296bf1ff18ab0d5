"""Which sequences a pipeline takes further next: many answers at once, fair, with a bound on their caches.

The last stage holds the schedule, since tokens are chosen there. Answers that are under way are dealt out to *lanes*,
a few for each stage: a lane takes one step at a time, and while it waits for one stage, the others work for other
lanes. Answers join and leave a lane between its steps. Prompts pass in chunks, several at once, so that a long one
fills all stages; requests take turns with their chunks, and steps of lanes come in between.
"""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import suppress
from contextvars import Context
from typing import TYPE_CHECKING, Any

from .entry import Entry
from .moved import Moved
from .prefixes import Kept, Prefixes
from .sampling import refuse_if_never
from .stage import Row, Step

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Sequence

    import mlx.core as mx

    from .sampler import Choice
    from .sampling import Request
    from .speculation import Speculation


class Schedule:
    """Takes requests, and steps of the pipeline. All of it runs on one event loop.

    Args:
        begin: takes a step through all stages, and its output through a function; steps are taken in the order in
            which they were begun.
        width: how many stages there are, so many steps can be under way.
        limit: tokens that all caches together have room for.
        batched: answers of a lane go through the stages as one matrix; there are no more lanes than stages then, so
            that these are as large as can be.
        can_fork: see `StageModel.can_fork`.
        speculation: guesses what an answer that is alone in its lane goes on with; None where there is no draft model.
    """

    def __init__(
        self,
        begin: Callable[[Step, Any], Awaitable[Any]],
        *,
        width: int,
        limit: int,
        batched: bool = False,
        can_fork: Callable[[str, int, int], bool] = lambda *_: False,
        speculation: Speculation | None = None,
    ) -> None:
        self._begin, self._can_fork, self._speculation = begin, can_fork, speculation
        self._limit, self._batched = limit, batched
        self._used = 0
        self._made = 0
        self._closed = False
        self._waiting: deque[Entry] = deque()
        self._running: set[Entry] = set()
        self.prefixes = Prefixes()
        self._changes: dict[str, list[Any]] = {}
        self._chunks = asyncio.Semaphore(width)
        self._lanes = [_Lane() for _ in range(width + (width > 1 and not batched))]
        self._tasks: set[asyncio.Task[None]] = set()
        for lane in self._lanes:
            self._spawn(self._drive(lane))

    def enter(self, request: Request) -> Entry:
        """Begin an answer, or have it wait until there is room.

        Raises:
            ModelError: there can never be room for it.
        """
        refuse_if_never(request, self._limit)
        entry = Entry(self, request)
        if request.max_tokens <= len(request.kept):
            entry.over = True
            return entry
        self._waiting.append(entry)
        self._admit()
        return entry

    def leave(self, entry: Entry, keep: Sequence[int] = ()) -> None:
        """It is over: everything that it held is free, in all stages, but for a cache that is kept for others."""
        if entry in self._running:
            self._running.discard(entry)
            self._used -= entry.request.slots
            for lane in self._lanes:
                lane.discard(entry)
            if self._speculation is not None:
                self._speculation.leave(entry)
            if keep and entry.request.key is None:
                self._change("keep", entry.key)
                self._change("drop", *self.prefixes.add(entry.key, keep))
            else:
                self._change("forget", entry.key)
            self._spawn(self._flush())
        else:
            self._waiting.remove(entry)
        self._admit()

    def wake(self, entry: Entry) -> None:
        """Its reader has taken something."""
        for lane in self._lanes:
            if entry in lane.entries:
                lane.news.set()

    def busy(self) -> dict[str, Any]:
        """How many answers run and wait, tokens that their caches may need, of how many, and tokens made so far.

        With a draft model, what came of its guesses as well (`draft`); see `Speculation.counts`.
        """
        guesses = {} if self._speculation is None else {"draft": self._speculation.counts()}
        return {
            **guesses,
            "running": len(self._running),
            "waiting": len(self._waiting),
            "kv_tokens": self._used,
            "kv_limit": self._limit,
            "tokens": self._made,
        }

    def keep(self, key: str, tokens: Sequence[int], holds: int = 0) -> None:
        """Have a sequence, whose caches all stages have got from elsewhere, among those that are kept."""
        self._change("drop", *self.prefixes.add(key, tokens, holds))
        while self._used + self.prefixes.slots > self._limit:
            self._change("drop", self.prefixes.pop())

    async def suspend(self) -> list[Kept]:
        """Begin nothing any more, and have all answers go on elsewhere (`Moved`).

        Returns:
            The sequences whose caches are kept now in all stages, those of the answers among them.
        """
        self._closed = True
        for lane in self._lanes:
            lane.news.set()
        while self._tasks:  # each ends with what it has begun
            await asyncio.wait(self._tasks)
        for entry in (*self._running, *self._waiting):
            entry.tell(Moved())
            entry.close(keep=entry.taken[: entry.inside])
        await self._step((), None)
        return self.prefixes.all()

    def close(self) -> None:
        """Begin nothing any more. Whoever reads an answer knows by other means that nothing more comes."""
        self._closed = True
        for task in self._tasks:
            task.cancel()

    async def settle(self) -> None:
        """Wait until all stages have done what was begun before."""
        await self._step((), None)

    def _admit(self) -> None:
        """In the order in which they came: a large one that waits is not overtaken."""
        while not self._closed and self._waiting and self._used + self._waiting[0].request.slots <= self._limit:
            entry = self._waiting.popleft()
            self._used += entry.request.slots
            self._running.add(entry)
            self._fork(entry)
            while self.prefixes and self._used + self.prefixes.slots > self._limit:
                self._change("drop", self.prefixes.pop())
            self._spawn(self._prefill(entry))

    def _fork(self, entry: Entry) -> None:
        """Begin with what another one has in its cache; not where an answer goes on, for that to be as it was.

        Where it was moved here, its own cache is among those.
        """
        request = entry.request
        alone = (request.kept and not request.moved) or request.key is not None
        found = None if alone else self.prefixes.find(entry.taken, self._can_fork)
        if found is not None:
            source, entry.cached = found
            entry.inside = entry.cached
            self._change("fork", (source, entry.key, entry.cached))

    def _change(self, kind: str, *what: Any) -> None:
        """Have the caches arranged by the next step."""
        self._changes.setdefault(kind, []).extend(what)

    async def _prefill(self, entry: Entry) -> None:
        entry.tell(entry.cached)
        if self._speculation is not None and len(self._running) == 1:
            self._speculation.enter(entry)
        for ids in entry.chunks():
            await self._chunks.acquire()
            if entry.over or self._closed:
                self._chunks.release()
                return
            entry.inside += len(ids)
            self._spawn(self._settle(entry, self._step((Row(entry.key, ids),), lambda _: None, silent=True)))
        if not (entry.over or self._closed):
            min(self._lanes, key=lambda lane: len(lane.entries)).add(entry)

    async def _settle(self, entry: Entry, chunk: Awaitable[Any]) -> None:
        try:
            await chunk
        except Exception as error:  # of any stage: the reader is told
            entry.fail(error)
        finally:
            self._chunks.release()

    async def _drive(self, lane: _Lane) -> None:
        while not self._closed:
            self._level(lane)
            entries = [entry for entry in lane.entries if entry.wants]
            if len(entries) == 1 and self._speculation is not None:
                await self._ahead(entries[0], self._speculation)
            elif entries:
                await self._decode(entries)
            else:
                lane.news.clear()
                await lane.news.wait()

    async def _decode(self, entries: Sequence[Entry]) -> None:
        try:
            choices = await self._step(tuple(entry.row for entry in entries), lambda logits: _choose(entries, logits))
        except Exception as error:  # of any stage: the readers are told
            for entry in entries:
                entry.fail(error)
            return
        for entry, choice in zip(entries, choices, strict=True):
            self._take(entry, choice)

    async def _ahead(self, entry: Entry, speculation: Speculation) -> None:
        """A step with what the draft model guesses, as far as it is right; a plain one where it guesses nothing."""
        with speculation.timed(entry) as round_:
            await round_.guess()
            if entry.over:
                return
            steps = deque((self._step(*each), len(each[0][0].ids)) for each in round_.pieces())
            fed = sum(length for _, length in steps)
            try:
                more = True
                while steps and more:
                    choices, more = await steps.popleft()[0]
                    for choice in choices:
                        self._take(entry, choice)
                        round_.made += 1
            except Exception as error:  # of any stage: the reader is told
                entry.fail(error)
            if fed > round_.made:  # what was guessed wrong is taken back, after the steps that are still under way
                self._change("trim", (entry.key, fed - round_.made))
            for step, _ in steps:
                self._spawn(_ignored(step))

    def _take(self, entry: Entry, choice: Choice | Exception) -> None:
        if isinstance(choice, Exception):
            entry.fail(choice)
        else:
            self._made += 1
            entry.took(choice)

    def _level(self, lane: _Lane) -> None:
        """Give to a lane that has less to do, now that none of this one's is in a step."""
        least = min(self._lanes, key=lambda lane: len(lane.entries))
        while len(lane.entries) - len(least.entries) > 1:
            least.add(lane.entries.pop())

    def _step(
        self, rows: tuple[Row, ...], finish: Callable[[mx.array], Any] | None, *, silent: bool = False
    ) -> Awaitable[Any]:
        changes, self._changes = self._changes, {}
        arranged = {kind: tuple(what) for kind, what in changes.items()}
        return self._begin(Step(rows, silent=silent, batched=self._batched, **arranged), finish)

    async def _flush(self) -> None:
        if self._changes and not self._closed:
            with suppress(Exception):  # a stage is gone, and the caches with it
                await self._step((), None)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        # In a context of its own: it is nobody's part, so that cancelling one request ends no other one's calls.
        task = asyncio.get_running_loop().create_task(work, context=Context())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


class _Lane:
    """Answers that are taken further together."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.news = asyncio.Event()

    def add(self, entry: Entry) -> None:
        self.entries.append(entry)
        self.news.set()

    def discard(self, entry: Entry) -> None:
        if entry in self.entries:
            self.entries.remove(entry)


async def _ignored(step: Awaitable[Any]) -> None:
    """What comes of it is of no interest any more."""
    with suppress(Exception):
        await step


def _choose(entries: Sequence[Entry], logits: mx.array) -> list[Choice | Exception]:
    """On the thread of MLX: the next token of each, or why there is none."""
    import mlx.core as mx

    lazy: list[tuple[mx.array, mx.array] | Exception] = []
    for number, entry in enumerate(entries):
        try:
            lazy.append(entry.lazily(logits[number : number + 1, -1, :]))
        except Exception as error:  # a user's own processor may raise anything; it ends its own answer alone
            lazy.append(error)
    mx.eval([each for each in lazy if not isinstance(each, Exception)])
    return [
        each if isinstance(each, Exception) else entry.chosen(*each) for entry, each in zip(entries, lazy, strict=True)
    ]
