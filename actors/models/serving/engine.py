"""The model behind the server: loading, ready, or gone; and the requests that it is given."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from threading import Thread
from typing import TYPE_CHECKING, Any, Final, TypeVar

from actors.exceptions import ModelError

from .answer import Answer, Choice
from .errors import ApiError, error_of, wrong
from .grammar import vocabulary_of
from .scanner import Scanner
from .tools import dialect_of
from .words import Words

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from actors.models import Generation, ShardedModel

    from .grammar import Guide, Vocabulary
    from .tools import Dialect, Toolbox

LONGEST: Final = 4096
"""Tokens of an answer at most, where a request does not say: room is kept for all of them while it is written."""
_WATCH: Final = 5.0  # seconds between looks at a model's health

T = TypeVar("T")


@dataclass(frozen=True)
class Order:
    """What a request asks of the model.

    Attributes:
        param: the field that the prompts come from.
        prompts: the tokens of each; each gets `n` choices.
        sampling: as `ShardedModel.submit` takes it; without `max_tokens`, as many as the model has room for.
        guide: the form of the answer.
        toolbox: the tools it may call.
    """

    param: str
    prompts: tuple[list[int], ...]
    n: int
    sampling: Mapping[str, Any]
    guide: Guide | None = None
    toolbox: Toolbox | None = None


@dataclass
class Engine:
    """A model that requests are put to.

    Args:
        load: makes the model; it is called in a thread.
    """

    load: Callable[[], ShardedModel]
    answers: set[Answer] = field(default_factory=set)
    stopping: bool = False

    def __post_init__(self) -> None:
        self.idle = asyncio.Event()
        self.idle.set()
        self._model: ShardedModel | None = None
        self._words: Words | None = None
        # A tokenizer is no good in two threads at once, and a long text must not hold up the others' answers.
        self._tokenizing = ThreadPoolExecutor(1, thread_name_prefix="tokenizer")
        self.vocabulary: Vocabulary | None = None
        self.dialect: Dialect | None = None

    async def start(self) -> None:
        """Loads the model.

        Raises:
            ActorsError: it cannot be loaded.
        """
        model = await _in_daemon(self.load)
        self.vocabulary = await self._in_turn(vocabulary_of, model.tokenizer)
        self.dialect = dialect_of(model.tokenizer)
        if self.vocabulary is not None:
            await self._in_turn(self.vocabulary.tokenizer)
        self._words = Words(model.tokenizer, self.vocabulary)
        self._model = model

    async def state(self) -> str:
        """`"loading"`, `"ready"`, `"lost"` while a device is missing, or `"stopping"`."""
        if self.stopping:
            return "stopping"
        if self._model is None:
            return "loading"
        return "ready" if (await asyncio.to_thread(self.status))["ready"] else "lost"

    async def watch(self) -> None:
        """Sees to it that a model that lost a device is whole again before somebody asks; never returns."""
        while True:
            await asyncio.sleep(_WATCH)
            if await self.state() == "lost":
                with suppress(Exception):  # as long as it does not fit what is left
                    await asyncio.to_thread(self._try)

    def _try(self) -> None:
        """Has the model make one token; it is dealt out anew for that where it has to be."""
        for _ in self.model.submit(sorted(self.model.tokenizer.stop_ids)[:1] or [0], max_tokens=1):
            pass

    @property
    def model(self) -> ShardedModel:
        """The model.

        Raises:
            ApiError: it is not there yet, or not any more.
        """
        if self.stopping:
            raise ApiError(503, "the server is stopping", code="stopping")
        if self._model is None:
            raise ApiError(503, "the model is still being loaded: try again soon", code="loading")
        return self._model

    def status(self) -> Mapping[str, Any]:
        """What the model has to do; empty while there is none."""
        return {} if self._model is None else self._model.status()

    @property
    def words(self) -> Words:
        """What the model's tokens stand for."""
        assert self._words is not None
        return self._words

    async def encode(self, text: str) -> list[int]:
        """Tokens of a text.

        Raises:
            ApiError: it has more of them than the model has room for, without a doubt.
        """
        self._refuse_if_hopeless("prompt", len(text))
        tokens: list[int] = await self._in_turn(self.model.tokenizer.encode, text)
        return tokens

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of tokens."""
        return self.model.tokenizer.decode(tokens)

    async def encode_chat(
        self, messages: Sequence[Mapping[str, Any]], tools: Sequence[dict[str, Any]] | None, options: Mapping[str, Any]
    ) -> list[int]:
        """Tokens of a conversation, by the model's own template.

        Raises:
            ApiError: there is no template, or it refuses these messages, or they are far too long.
        """
        self._refuse_if_hopeless("messages", sum(len(str(each.get("content", ""))) for each in messages))
        try:
            tokens: list[int] = await self._in_turn(
                lambda: self.model.tokenizer.encode_chat(messages, tools=tools, **options)
            )
            return tokens
        except ModelError as error:
            raise wrong("messages", str(error)) from error

    async def check(self, guide: Guide, param: str) -> None:
        """Finds out whether an answer can be given this form.

        Raises:
            ApiError: it cannot.
        """
        await self._in_turn(guide.check, param)

    async def ask(self, order: Order) -> Answer:
        """Puts a request to the model; all of it or nothing.

        Raises:
            ApiError: it cannot be taken.
        """
        # In a thread: where a device has been lost, the model is dealt out anew before it takes anything.
        generations = await asyncio.to_thread(self._submit, order)
        prompts = [prompt for prompt in order.prompts for _ in range(order.n)]
        choices = [
            self._choice(index, prompt, generation, order)
            for index, (prompt, generation) in enumerate(zip(prompts, generations, strict=True))
        ]
        answer = Answer(choices, sum(map(len, order.prompts)))
        self.answers.add(answer)
        self.idle.clear()
        return answer

    def ended(self, answer: Answer) -> None:
        """Notes that an answer has come to its end, a good one or not."""
        self.answers.discard(answer)
        if not self.answers:
            self.idle.set()

    def close(self) -> None:
        """Ends the model."""
        self._tokenizing.shutdown(wait=False, cancel_futures=True)
        if self._model is not None:
            self._model.close()

    def _submit(self, order: Order) -> list[Generation]:
        wanted, most = len(order.prompts) * order.n, self.model.max_requests
        if wanted > most:  # not a matter of coming again
            raise wrong(
                "n" if order.n > 1 else order.param, f"{wanted} answers in one request; {most} are taken at most"
            )
        started: list[Generation] = []
        seed = order.sampling.get("seed")
        try:
            for prompt in order.prompts:
                sampling = {**order.sampling, "max_tokens": self._room(order, prompt), "processor": order.guide}
                for number in range(order.n):
                    if seed is not None:
                        sampling["seed"] = (seed + number) % 2**64
                    started.append(self.model.submit(prompt, **sampling))
        except Exception as error:  # whatever it is, the client is told
            for generation in started:
                generation.cancel()
            raise error_of(error) from error
        return started

    def _refuse_if_hopeless(self, param: str, characters: int) -> None:
        """Takes a look at a text's length: cutting megabytes into tokens takes many seconds of others' time."""
        least = characters // (2 * self.words.longest)  # doubled, since a tokenizer may write a text shorter at first
        if least > self.model.room:
            raise _too_long(param, self.model.room, f"the prompt has more than {least}")

    def _room(self, order: Order, prompt: Sequence[int]) -> int:
        """How many tokens may follow a prompt."""
        if not prompt:
            raise wrong(order.param, "the prompt is empty; the model needs at least one token to go on from")
        wanted: int | None = order.sampling.get("max_tokens")
        room = self.model.room - len(prompt)
        if room < (1 if wanted is None else wanted):
            asked = "" if wanted is None else f", and {wanted} more are asked for"
            raise _too_long(order.param, self.model.room, f"the prompt has {len(prompt)}{asked}")
        return min(room, LONGEST) if wanted is None else wanted

    def _choice(self, index: int, prompt: Sequence[int], generation: Generation, order: Order) -> Choice:
        thoughts = self.words.thoughts if order.guide is None else None
        inside = self.words.opened(prompt) if thoughts else None
        marks = tuple(mark for mark in (order.toolbox and order.toolbox.dialect.mark, thoughts) if mark)
        return Choice(index, generation, self.words, order.toolbox, Scanner(marks, inside) if marks else None)

    async def _in_turn(self, work: Callable[..., Any], *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._tokenizing, work, *arguments)


def _too_long(param: str, context: int, told: str) -> ApiError:
    return wrong(param, f"this model has room for {context} tokens, but {told}", "context_length_exceeded")


async def _in_daemon(work: Callable[[], T]) -> T:
    """Does something in a thread that the program's end does not wait for."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()

    def tell(outcome: Callable[[], None]) -> None:
        with suppress(RuntimeError):  # the loop has ended meanwhile
            loop.call_soon_threadsafe(lambda: None if done.done() else outcome())

    def run() -> None:
        try:
            value = work()
        except BaseException as error:
            reason = error
            tell(lambda: done.set_exception(reason))
        else:
            tell(lambda: done.set_result(value))

    Thread(target=run, name="loading", daemon=True).start()
    return await done
