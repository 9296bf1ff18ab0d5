"""The answers to one request: one or several choices, written side by side."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Self

from .errors import ApiError, error_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from types import TracebackType

    from actors.models import Generation, Token

    from .scanner import Scanner, Segment
    from .tools import Call, Toolbox
    from .words import Words

_AHEAD: Final = 64  # pieces that wait for a client who reads slowly; then the model waits for it, too


@dataclass(frozen=True, slots=True)
class Delta:
    """What has been added to a choice; one with a `finish_reason` is its last."""

    choice: int
    text: str = ""
    thought: str = ""
    calls: tuple[Call, ...] = ()
    tokens: tuple[Token, ...] = ()
    finish_reason: str | None = None

    @property
    def says_anything(self) -> bool:
        """Whether a client has to hear of it."""
        return bool(self.text or self.thought or self.calls or self.finish_reason)


class Choice:
    """One generation, taken apart into text, thoughts and calls.

    Args:
        scanner: takes it apart; None where it is text and nothing else.
    """

    def __init__(
        self, index: int, generation: Generation, words: Words, toolbox: Toolbox | None, scanner: Scanner | None
    ) -> None:
        self.generation = generation
        self.tokens = 0
        self._index = index
        self._words = words
        self._toolbox = toolbox
        self._scanner = scanner
        self._called = False

    async def deltas(self) -> AsyncIterator[Delta]:
        """Gives the answer as it is written; what is held back goes with its last delta."""
        kept: list[Token] = []
        async for token in self.generation:
            self.tokens += 1
            kept.append(token)
            delta = self._delta(token, kept)
            if delta.finish_reason:
                yield delta
                return
            if delta.says_anything:
                kept = []
                yield delta
            if self._called and self._toolbox and self._toolbox.single:
                self.generation.cancel()
                yield Delta(self._index, finish_reason="tool_calls")
                return
        yield self._last("", kept, self.generation.finish_reason or "stop")

    def _delta(self, token: Token, kept: Sequence[Token]) -> Delta:
        if token.finish_reason:
            return self._last(token.text, kept, token.finish_reason)
        if self._scanner is None:
            return Delta(self._index, token.text, tokens=tuple(kept))
        text = token.text + self._words.mark(token.id)
        return self._sorted(self._scanner.feed(text), kept)

    def _last(self, text: str, kept: Sequence[Token], reason: str) -> Delta:
        if self._scanner is None:
            return Delta(self._index, text, tokens=tuple(kept), finish_reason=reason)
        delta = self._sorted([*self._scanner.feed(text), *self._scanner.finish()], kept)
        reason = "tool_calls" if self._called and reason == "stop" else reason
        return Delta(self._index, delta.text, delta.thought, delta.calls, delta.tokens, reason)

    def _sorted(self, segments: Sequence[Segment], kept: Sequence[Token]) -> Delta:
        text, thought = "", ""
        calls: list[Call] = []
        for segment in segments:
            match segment.kind:
                case "text":
                    text += segment.text
                case "thought":
                    thought += segment.text
                case "call":
                    assert self._toolbox is not None
                    found = self._toolbox.dialect.calls(segment, self._toolbox.tools)
                    if found is None:
                        text += segment.raw  # not lost, where the model has made a mess of it
                        continue
                    self._called = True
                    calls += found[:1] if self._toolbox.single else found
        return Delta(self._index, text, thought, tuple(calls), tuple(kept))


class Answer:
    """All choices of a request as one stream; a context manager that ends the work in whatever state it is.

    Attributes:
        choices: by their index.
        prompt_tokens: of all prompts.
        began: when it was asked for, by the monotonic clock.
    """

    def __init__(self, choices: Sequence[Choice], prompt_tokens: int) -> None:
        self.choices = tuple(choices)
        self.prompt_tokens = prompt_tokens
        self.began = time.monotonic()
        self._going = len(self.choices)
        self._deltas: asyncio.Queue[Delta | ApiError] = asyncio.Queue(_AHEAD)
        self._readers = [asyncio.create_task(self._read(choice)) for choice in self.choices]

    @property
    def completion_tokens(self) -> int:
        """Tokens written so far, of all choices."""
        return sum(choice.tokens for choice in self.choices)

    @property
    def cached_tokens(self) -> int:
        """Of the prompts' tokens: those that were known from earlier requests."""
        return sum(choice.generation.cached_tokens for choice in self.choices)

    async def next(self, within: float | None = None) -> Delta | None:
        """Gives what is written next, of any choice; None at the end of the last.

        Args:
            within: seconds to wait for it.

        Raises:
            TimeoutError: nothing came; it may be asked again.
            ApiError: the answer cannot go on.
        """
        if not self._going:
            return None
        async with asyncio.timeout(within):
            delta = await self._deltas.get()
        if isinstance(delta, ApiError):
            raise delta
        self._going -= delta.finish_reason is not None
        return delta

    def fail(self, fault: ApiError) -> None:
        """Ends the answer with an error, now."""
        for reader in self._readers:
            reader.cancel()
        while not self._deltas.empty():
            self._deltas.get_nowait()
        self._deltas.put_nowait(fault)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for choice in self.choices:
            choice.generation.cancel()
        for reader in self._readers:
            reader.cancel()
        await asyncio.gather(*self._readers, return_exceptions=True)

    async def _read(self, choice: Choice) -> None:
        try:
            async for delta in choice.deltas():
                await self._deltas.put(delta)
        except Exception as error:  # whatever it is, the client is told
            await self._deltas.put(error_of(error))
