"""One answer under way, in the last stage: what it takes in next, and what its reader is to be told."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Any, Final

from actors.ids import new_id

from .sampler import Choice, Sampler
from .stage import Row

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Sequence

    import mlx.core as mx

    from .sampling import Request
    from .schedule import Schedule

_AHEAD: Final = 16  # tokens that an answer is ahead of its reader


class Entry:
    """One answer under way."""

    def __init__(self, schedule: Schedule, request: Request) -> None:
        self._schedule = schedule
        self.request = request
        self.key = request.key or new_id("sequence")
        self.over = False
        self.cached = 0  # tokens that are in its cache from the beginning
        self.inside = 0  # and now, once what is under way is done
        self._taken = [*request.prompt, *request.kept]
        self._made = len(request.kept)
        self._next = (request.kept or request.prompt)[-1]
        self._sampler: Sampler | None = None
        self._items: deque[Any] = deque()
        self._error: Exception | None = None
        self._news = asyncio.Event()

    @property
    def wants(self) -> bool:
        """Whether it goes on in the next step: not if its reader is far behind."""
        return not self.over and len(self._items) < _AHEAD

    @property
    def left(self) -> int:
        """How many tokens it may still get."""
        return self.request.max_tokens - self._made

    @property
    def taken(self) -> Sequence[int]:
        """All its tokens, those of the prompt too."""
        return self._taken

    @property
    def row(self) -> Row:
        """What it takes in next."""
        return Row(self.key, (self._next,))

    def chunks(self) -> Iterator[tuple[int, ...]]:
        """What is taken in before its first step, in the pieces in which it would be, or was, the first time."""
        request = self.request
        *head, last = request.prompt
        for start in range(self.cached, len(head), request.chunk):
            yield tuple(head[start : start + request.chunk])
        if request.kept:
            rest = (last, *request.kept[:-1])
            yield from ((token,) for token in rest[max(self.cached - len(head), 0) :])

    async def items(self) -> AsyncIterator[Any]:
        """Yield what is to be told, as it comes; raise what ended it."""
        while True:
            while self._items:
                item = self._items.popleft()
                self._schedule.wake(self)
                yield item
            if self._error is not None:
                raise self._error
            if self.over:
                return
            self._news.clear()
            await self._news.wait()

    def tell(self, item: Any) -> None:
        """Have the reader given `item`."""
        self._items.append(item)
        self._news.set()

    def took(self, choice: Choice) -> None:
        """A token was chosen."""
        if self.over:
            return
        self._next = choice.id
        self._made += 1
        self.tell(choice)
        if choice.id in self.request.stop_ids or self._made >= self.request.max_tokens:
            self.close(keep=self._taken)
        self._taken.append(choice.id)
        self.inside = len(self._taken) - 1

    def fail(self, error: Exception) -> None:
        """It cannot go on."""
        if not self.over:
            self._error = error
            self.close()

    def close(self, keep: Sequence[int] = ()) -> None:
        """It is over, or nobody wants it any more; all that it held is free.

        Args:
            keep: the tokens in its cache, if that may be of use to others.
        """
        if not self.over:
            self.over = True
            self._news.set()
            self._schedule.leave(self, keep)

    # -- on the thread of MLX -----------------------------------------------------------------------------------

    def lazily(self, logits: mx.array) -> tuple[mx.array, mx.array]:
        """See `Sampler.lazily`."""
        if self._sampler is None:
            self._sampler = Sampler(self.request)
        return self._sampler.lazily(logits)

    def chosen(self, token: mx.array, logprobs: mx.array) -> Choice:
        """See `Sampler.tell`."""
        assert self._sampler is not None
        return self._sampler.tell(token, logprobs)
