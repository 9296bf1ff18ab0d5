"""A conversation as an object: its tokens, and the caches that the stages keep of them."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Self

from actors.exceptions import ActorsError, ModelError

if TYPE_CHECKING:
    from types import TracebackType

    from .deployment import Deployment
    from .generation import Generation
    from .sharded import ShardedModel


class Conversation:
    """What was said, and what the stages of a model hold of it. Make one with `ShardedModel.conversation`.

    Its caches stay in the stages until it is closed or forgotten, but for requests that would not fit otherwise; what
    is not there is computed again when the conversation goes on. It is a context manager.
    """

    def __init__(self, model: ShardedModel, tokens: Sequence[int] = ()) -> None:
        if isinstance(tokens, str):
            raise TypeError(f"a conversation begins with tokens, not with {tokens!r}; say a text by its `submit`")
        self._tokens = tuple(tokens)
        self._model = model
        self._guard = threading.Lock()
        self._under_way: Generation | None = None
        self._held: tuple[Deployment, str] | None = None
        self._closed = False

    def submit(self, prompt: str | Sequence[int], **options: Any) -> Generation:
        """Goes on with a text or tokens; what is answered is part of the conversation from then on.

        See `ShardedModel.submit` for the arguments and errors.

        Raises:
            ModelError: the conversation was closed, or an answer of it is under way.
        """
        if not isinstance(prompt, str | Sequence):
            raise TypeError(f"a prompt is a text or a list of tokens, not {prompt!r}")
        self._settle()
        ids = self._model.tokenizer.encode(prompt) if isinstance(prompt, str) else list(prompt)
        self._under_way = self._model.submit([*self.tokens, *ids], **options)
        return self._under_way

    def generate(self, prompt: str, **options: Any) -> str:
        """Goes on with a text and returns what follows; see `submit`."""
        return "".join(token.text for token in self.submit(prompt, **options))

    def fork(self, model: ShardedModel | None = None) -> Conversation:
        """Returns another conversation that begins as this one did, and goes on by itself.

        Args:
            model: the same weights on other nodes, or cut otherwise: the caches are sent from stages to stages. None
                stays where it is; both share the caches until they differ.

        Raises:
            ModelError: it was closed, an answer is under way, or `model` is another one.
        """
        self._settle()
        into = self._model if model is None else model
        self._model.check_same(into)
        other = Conversation(into, self.tokens)
        if into is self._model:
            other._hold()
        elif self._held is not None:
            other._held = into.take_over(self._held[0].latest, self._held[1], self.tokens[:-1])
        return other

    @property
    def tokens(self) -> tuple[int, ...]:
        """All that was said, but for an answer that is under way."""
        answer = self._under_way
        return self._tokens if answer is None or answer.finish_reason is None else answer.tokens

    @property
    def cached_tokens(self) -> int:
        """How many of its tokens are in the caches of the stages now; 0 where others needed the room."""
        self._settle()
        return 0 if self._held is None else self._held[0].latest.kept(self._held[1])

    def close(self) -> None:
        """Gives up the caches; does nothing the second time."""
        self._closed = True
        if self._under_way is not None:
            self._under_way.cancel()
        self._let_go()

    def _settle(self) -> None:
        """Take what was answered into account."""
        with self._guard:
            if self._closed:
                raise ModelError("this conversation was closed")
            answer = self._under_way
            if answer is None:
                return
            if answer.finish_reason is None:
                raise ModelError("an answer of this conversation is under way: read it to its end, or cancel it")
            self._under_way = None
            self._tokens = answer.tokens
            self._hold()

    def _hold(self) -> None:
        """Keep the caches of all that was said; those of what was said before are no longer of use."""
        old, self._held = self._held, None
        if len(self.tokens) > 1:
            self._held = self._model.hold(self.tokens[:-1])
        if self._held is None:
            self._held = old
        elif old is not None:
            old[0].latest.release(old[1])

    def _let_go(self) -> None:
        held, self._held = self._held, None
        if held is not None:
            with suppress(ActorsError):
                held[0].latest.release(held[1])

    def __del__(self) -> None:
        if getattr(self, "_held", None) is not None:
            self._let_go()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Conversation({len(self.tokens)} tokens)"
