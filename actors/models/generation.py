"""One answer as its reader sees it: tokens and text as they come, whatever happens to the devices meanwhile."""

from __future__ import annotations

import asyncio
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from actors.api import get, wait
from actors.exceptions import ActorDiedError, NodeDiedError, TaskCancelledError, TaskError

from .moved import Moved
from .text import Detokenizer, StopText

if TYPE_CHECKING:
    from collections.abc import Sequence

    from actors.stream import ObjectRefGenerator

    from .beside import Beside
    from .deployment import Deployment
    from .sampling import Request
    from .sharded import ShardedModel
    from .tokenizer import Tokenizer

_PATIENCE = 0.1  # seconds until a reader looks whether its stages were given up
_TELL_SECONDS = 0.5  # between two words to whoever looks at the cluster


@dataclass(frozen=True, slots=True)
class Token:
    """One token of an answer.

    Attributes:
        id: its number in the vocabulary.
        text: what it completes: never a part of a character, nor of a text that ends the answer; often empty.
        logprob: logarithm of its probability, where that was asked for.
        top_logprobs: tokens that were likeliest here, with the logarithms of their probabilities.
        finish_reason: of the last one: `"stop"` (the model ended, or a text of `stop` came) or `"length"`.
    """

    id: int
    text: str
    logprob: float | None = None
    top_logprobs: tuple[tuple[int, float], ...] = ()
    finish_reason: str | None = None


class Generation:
    """An answer under way. One reader takes its tokens, by `for` or `async for`; `cancel` may come from any thread.

    A device that dies is made up for: the answer goes on elsewhere, from the tokens that there are.

    Attributes:
        prompt_tokens: how many tokens the prompt has.
        cached_tokens: how many of them were in the prefix cache; 0 until the first token is there.
        replayed_tokens: how many tokens of prompt and answer were computed again, as a device had died.
        finish_reason: `"stop"`, `"length"`, `"cancelled"`, or `"error"` where reading it raised; None while it runs.
        source: the stages that give it; for use inside this package.
    """

    def __init__(
        self,
        model: ShardedModel,
        source: Deployment,
        request: Request,
        tokenizer: Tokenizer,
        stops: Sequence[str],
        *,
        beside: Beside,
    ) -> None:
        self.prompt_tokens = len(request.prompt)
        self.cached_tokens = self.replayed_tokens = 0
        self.finish_reason: str | None = None
        self._model, self.source, self._request = model, source, request
        self._kept: list[int] = []
        self._text, self._stop = Detokenizer(tokenizer), StopText(stops)
        self._guard = threading.Lock()
        self._beside, self._seen = beside, dict[int, list[Any]]()
        if request.key is not None:
            source.attach(request.key, beside)
        self._answer = source.answer(request)
        self._told, self._told_at = 0, time.monotonic()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Token:
        while self.finish_reason is None:
            answer = self._answer
            try:
                while not answer.pending.done():
                    wait([answer], timeout=_PATIENCE)
                    self._check_given_up(answer)
                ref = next(answer, None)
                item = None if ref is None else get(ref)
            except BaseException as error:
                self._go_on_after(error, answer)
                continue
            if isinstance(item, Moved):
                self._go_on(None)
            elif (token := self._take(item)) is not None:
                return token
        raise StopIteration

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Token:
        while self.finish_reason is None:
            answer = self._answer
            try:
                future = asyncio.wrap_future(answer.pending)
                while not future.done():
                    await asyncio.wait({future}, timeout=_PATIENCE)
                    self._check_given_up(answer)
                ref = await anext(answer, None)
                item = None if ref is None else await ref
            except BaseException as error:
                if _death(error) is None:
                    self._go_on_after(error, answer)
                else:
                    await asyncio.to_thread(self._go_on_after, error, answer)
                continue
            if isinstance(item, Moved):
                await asyncio.to_thread(self._go_on, None)
            elif (token := self._take(item)) is not None:
                return token
        raise StopAsyncIteration

    @property
    def tokens(self) -> tuple[int, ...]:
        """Those of the prompt, and of the answer as far as it was read."""
        return (*self._request.prompt, *self._kept)

    @property
    def probed(self) -> dict[int, list[Any]]:
        """What the functions of `probe` returned so far: by layer, one value for each piece of the prompt and token.

        Raises:
            TaskError: what the code of `probe` or `steer` raised.
        """
        if self.finish_reason is None and self._request.key is not None:
            return self.source.seen(self._request.key, self._beside)
        return self._seen

    def cancel(self) -> None:
        """Ends the answer; what it held on the devices is free at once. Does nothing when it is over."""
        self._finish("cancelled")

    def __del__(self) -> None:
        if hasattr(self, "_answer"):
            self.cancel()

    def _check_given_up(self, answer: ObjectRefGenerator[Any]) -> None:
        """Wait no longer for a node that is silent: the last stage may be there, and then tells nothing."""
        if answer is self._answer and self.source.broken and not answer.pending.done():
            raise NodeDiedError("a node of the model has gone silent, and its stages were given up")

    def _take(self, item: Any) -> Token | None:
        if item is None:  # over without a token
            self._finish("length")
            return None
        if isinstance(item, int):
            if self._kept:
                self.replayed_tokens += self.prompt_tokens + len(self._kept) - 1 - item
            else:
                self.cached_tokens = item
            return None
        self._kept.append(item.id)
        if time.monotonic() - self._told_at > _TELL_SECONDS:
            self._tell()
        reason = None
        if item.id in self._request.stop_ids:
            text, reason = self._stop.add(self._text.rest()), "stop"
        else:
            text = self._stop.add(self._text.add(item.id))
            if len(self._kept) >= self._request.max_tokens:
                text, reason = text + self._stop.add(self._text.rest()), "length"
        if self._stop.found:
            reason = "stop"
        elif reason is not None:
            text += self._stop.rest()
        if reason is not None:
            self._finish(reason)
        return Token(item.id, text, item.logprob, item.top_logprobs, reason)

    def _finish(self, reason: str) -> None:
        with self._guard:
            if self.finish_reason is not None:
                return
            self.finish_reason = reason
            self._answer.close()
        self._tell()
        try:
            self._part(reason)
        finally:
            self._model.left(self)

    def _part(self, reason: str) -> None:
        """From whoever stood beside it."""
        if (key := self._request.key) is None:
            return
        try:
            if reason in {"stop", "length"}:
                self._seen = self.source.seen(key, self._beside)
        finally:
            self.source.detach(key, self._beside)

    def _tell(self) -> None:
        """Says how many tokens came since this was said last, for whoever looks."""
        now, made = time.monotonic(), len(self._kept) - self._told
        if made:
            self.source.made(made, now - self._told_at)
        self._told, self._told_at = len(self._kept), now

    def _go_on_after(self, error: BaseException, answer: ObjectRefGenerator[Any]) -> None:
        """See to it that the answer goes on, or raise what ends it."""
        if self.finish_reason is not None or answer is not self._answer:
            return  # cancelled, which ended the read as well
        death = _death(error)
        if death is None:
            if not isinstance(error, TaskCancelledError | KeyboardInterrupt | asyncio.CancelledError):
                self._finish("error")
            raise error
        self._go_on(death)

    def _go_on(self, death: ActorDiedError | None) -> None:
        """With other stages: those that have its caches or, after the death of one, those that are made."""
        try:
            source = self._model.replace(self.source, death)
        except BaseException:
            self._finish("error")
            raise
        with self._guard:
            if self.finish_reason is None:
                self.source = source
                if self._request.key is not None:
                    source.attach(self._request.key, self._beside)
                moved = death is None or source.recovered
                self._answer = source.answer(self._request.going_on(self._kept, moved=moved))


def _death(error: BaseException) -> ActorDiedError | None:
    """The death of a stage, whichever way it came."""
    if isinstance(error, ActorDiedError):
        return error
    if isinstance(error, TaskError) and isinstance(error.cause, ActorDiedError):  # of a stage before the last
        return error.cause
    return None
