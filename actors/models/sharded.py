"""One model over several nodes."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, Literal, Self, overload
from weakref import WeakSet

from actors.exceptions import ActorDiedError, ModelError, PendingCallsLimitExceeded
from actors.ids import new_id

from .beside import Beside
from .checkpoint import open_checkpoint
from .conversation import Conversation
from .extra import require_mlx_lm
from .generation import Generation, Token
from .kinship import open_draft
from .means import ARITHMETIC
from .recipe import Recipe, shape_of
from .remains import check_shadow
from .sampling import Request, Sampling, check_stops, refuse_if_never
from .source import whereabouts
from .succession import Succession
from .tokenizer import load_tokenizer
from .watch import Watch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from types import TracebackType

    from .beside import Code
    from .checkpoint import ModelInfo
    from .deployment import Deployment
    from .plan import Plan
    from .sampling import Processor
    from .tokenizer import Tokenizer

WEIGHTS = ("auto", "local", "send")
STRATEGIES = ("auto", "pipeline", "tensor")
_MOST_REQUESTS: Final = 256


class ShardedModel:
    """A language model whose layers live on several nodes. Make one with `load`; it is a context manager too.

    The program that holds it never holds the weights. Any number of threads may ask it at once. When a device dies,
    answers under way go on, on those that remain: with `temperature=0` with exactly the tokens that would have come.

    Attributes:
        tokenizer: of the model.
        max_requests: how many may be under way or waiting.
    """

    def __init__(
        self,
        recipe: Recipe,
        tokenizer: Tokenizer,
        *,
        max_requests: int,
    ) -> None:
        self.tokenizer = tokenizer
        self._info = recipe.info
        self.max_requests = max_requests
        self._guard = threading.RLock()  # of the open answers
        self._open: WeakSet[Generation] = WeakSet()  # one that nobody holds any more ends itself
        self._succession = Succession(recipe, self._sources)
        self._chunk = self._deployment.chunk  # kept for life, so that an answer goes on as it began
        self._watch = Watch(self._sources, self._latest, self._lost)
        self._watch.start()

    @overload
    @classmethod
    def load(
        cls,
        path: str | Path,
        *,
        nodes: Sequence[str] | None = None,
        strategy: str = "auto",
        max_requests: int = _MOST_REQUESTS,
        arithmetic: str = "auto",
        draft: str | Path | None = None,
        dry_run: Literal[True],
    ) -> Plan: ...

    @overload
    @classmethod
    def load(
        cls,
        path: str | Path,
        *,
        nodes: Sequence[str] | None = None,
        strategy: str = "auto",
        kv_memory: int | None = None,
        max_requests: int = _MOST_REQUESTS,
        weights: str = "auto",
        arithmetic: str = "auto",
        draft: str | Path | None = None,
        shadow: bool = False,
        dry_run: Literal[False] = False,
    ) -> Self: ...

    @classmethod
    def load(
        cls,
        path: str | Path,
        *,
        nodes: Sequence[str] | None = None,
        strategy: str = "auto",
        kv_memory: int | None = None,
        max_requests: int = _MOST_REQUESTS,
        weights: str = "auto",
        arithmetic: str = "auto",
        draft: str | Path | None = None,
        shadow: bool = False,
        dry_run: bool = False,
    ) -> Self | Plan:
        """Cuts a model by its layers and loads each piece on a node of its own.

        Args:
            path: a `.gguf` file, a directory of mlx-lm or Hugging Face, or what a model is called on the Hugging Face
                hub (`"organisation/model"`, with `@` and a revision or `/` and one `.gguf` file behind it, if need be).
                Of that each node fetches what its stage needs, and keeps it in its cache.
            nodes: names of the nodes to use, in the order of the layers; None takes all that are alive. Where there
                are more of them than layers, the last ones get nothing to do.
            strategy: `"pipeline"` cuts the model by its layers, so that several answers keep all nodes busy; `"tensor"`
                cuts every layer, so that all nodes work on each token, which is faster for one answer where nodes are
                close to each other (Llama family; not more nodes than heads of keys and values, the others get nothing
                to do). `"auto"` is `"tensor"` where only one answer is under way at a time (`max_requests=1`) and the
                nodes are on one host, as far as the model can be cut so; else `"pipeline"`, which works everywhere.
            kv_memory: bytes on each node for the caches of all answers; None takes a quarter of what is free once the
                weights are there. Requests wait until there is room for them.
            max_requests: how many may be under way or waiting; more are refused.
            weights: `"local"` has each node read the model at `path`; `"send"` sends each node what its stage needs,
                from whichever nodes have it, and it keeps that in its cache; `"auto"` sends to nodes that do not see
                `path`. This program's own need not see it either.
            arithmetic: where a CPU computes under Linux, `"float32"` has the weights in float32 and multiplies by
                OpenBLAS, which makes prompts, and several answers at once, many times faster; `"stored"` leaves them as
                they are on disk, which takes a seventh of the memory where that is 4 bits; `"auto"` takes float32 where
                OpenBLAS is installed and that takes at most half of a node's memory. The plan says what each stage
                does.
            draft: a small model of the same tokens, file or directory, that guesses what comes next, on the first
                stage's node; the model takes guesses in together and keeps those that are right. Tokens are the same as
                without it. An answer is guessed for while it is alone in a step, and as long as that is faster.
            shadow: each stage's caches are copied to the next stage's node as they grow, so that answers go on from
                there when a device dies, without their tokens being computed again. Caches take twice the memory. For
                models with full attention alone, cut by their layers; nothing waits for the copies.
            dry_run: load nothing, and return the plan alone, with memory and speed as they are foretold.

        Raises:
            ModelError: the model cannot be read, cut or held, or the draft cannot guess for it; the message says why.
            PlacementError: a node is not known.
            ValueError: `nodes` is empty or names a node twice, or there is no such strategy.
        """
        _check_strategy(strategy)
        _check_bound("max_requests", max_requests)
        if weights not in WEIGHTS:
            raise ValueError(f"weights must be one of {', '.join(WEIGHTS)}, not {weights!r}")
        if arithmetic not in ARITHMETIC:
            raise ValueError(f"arithmetic must be one of {', '.join(ARITHMETIC)}, not {arithmetic!r}")
        if kv_memory is not None:
            _check_bound("kv_memory", kv_memory)
        require_mlx_lm()
        name, here = whereabouts(path, weights)
        checkpoint = open_checkpoint(here)
        info = replace(checkpoint.info(), path=name)
        if shadow and strategy == "tensor":
            raise ValueError("shadow=True is for a model cut by its layers; use strategy='pipeline', or load without")
        if shadow:
            strategy = "pipeline"
            check_shadow(checkpoint)
        shape = shape_of(strategy, checkpoint, info, nodes, most=max_requests)
        tokenizer = None if dry_run and draft is None else load_tokenizer(here)
        small = None if draft is None or tokenizer is None else _draft(draft, here, tokenizer)
        how = {"kv_memory": kv_memory, "weights": weights, "arithmetic": arithmetic, "shadow": shadow}
        recipe = Recipe(info, shape, nodes, small, how)
        if dry_run or tokenizer is None:
            return recipe.plan(measure=True)
        return cls(recipe, tokenizer, max_requests=max_requests)

    @property
    def _deployment(self) -> Deployment:
        return self._succession.current

    @property
    def plan(self) -> Plan:
        """Which layers are on which node, and why."""
        return self._deployment.plan_now()

    @property
    def kv_limit(self) -> int:
        """Tokens that the caches of all requests together have room for."""
        return self._deployment.limit

    @property
    def room(self) -> int:
        """Tokens that a prompt and its answer may have: as many as the model was made for and its caches can hold."""
        return min(self._info.context or self.kv_limit, self.kv_limit)

    def submit(
        self,
        prompt: str | Sequence[int],
        *,
        max_tokens: int = 256,
        stop: str | Sequence[str] = (),
        processor: Callable[[], Processor] | None = None,
        probe: Code | None = None,
        steer: Code | None = None,
        **sampling: Any,
    ) -> Generation:
        """Begins an answer and returns at once. Any number may be under way; the stages work on several at a time.

        Args:
            prompt: a text, or at least one token.
            max_tokens: how many tokens at most.
            stop: texts that end the answer; they are no part of it.
            processor: makes, in the process of the last stage, a function of the answer's tokens so far and the logits
                (vocabulary) of the next token, that returns the logits to use. It must be possible to pickle it.
            probe: by layer numbers, functions that see the hidden state after the layer (tokens, hidden size), in the
                process that has the layer; what they return is in the answer's `probed`. They must be picklable.
            steer: the same for functions that return the hidden state to go on with. A probe of the same layer sees
                that one.
            **sampling: see `sampling.Sampling`; `logit_bias` is a mapping of tokens to what is added to their logits.

        Raises:
            ValueError: an argument out of its range.
            TypeError: no such argument, or a prompt that is none.
            PendingCallsLimitExceeded: `max_requests` are under way or waiting.
            ModelError: the model was closed, no longer fits the devices that remain, or has no room for a request this
                long.
        """
        request = self._request(prompt, max_tokens, processor, Sampling.of(**sampling))
        beside = Beside(probe or {}, steer or {})
        beside.check(self._info.layers)
        if beside:
            request = replace(request, key=new_id("sequence"))
        stops = check_stops(stop)
        source = self._succession.working()
        refuse_if_never(request, source.limit)
        with self._guard:
            self._refuse_if_full()
            answer = Generation(self, source, request, self.tokenizer, stops, beside=beside)
            self._open.add(answer)
        self._watch.look()
        return answer

    def tokens(self, prompt: str | Sequence[int], **options: Any) -> Iterator[int]:
        """Gives the tokens that follow those of a prompt, as they are made; closing the iterator stops the work.

        The token that ends the answer is given too. See `submit` for the arguments and errors.
        """
        return _each(self.submit(prompt, **options), lambda token: token.id)

    def stream(self, prompt: str, **options: Any) -> Iterator[str]:
        """Yields the text that follows a prompt, piece by piece; see `submit` for the arguments and errors."""
        if not isinstance(prompt, str):
            raise TypeError(f"a prompt is a text, not {prompt!r}")
        return self._text(prompt, options)

    def generate(self, prompt: str, **options: Any) -> str:
        """Returns the text that follows a prompt; see `submit` for the arguments and errors."""
        return "".join(self.stream(prompt, **options))

    def chat(self, messages: Sequence[Mapping[str, Any]], **options: Any) -> Iterator[str]:
        """Yields the answer to a conversation of `{"role", "content"}`, by the model's own chat template."""
        if isinstance(messages, str) or not all(isinstance(each, Mapping) for each in messages):
            raise TypeError(f'messages are a list of {{"role": "user", "content": "…"}}, not {messages!r}')
        return self._text(self.tokenizer.encode_chat(messages), options)

    def conversation(self, tokens: Sequence[int] = ()) -> Conversation:
        """Begins a conversation, which can be gone on with and forked; see `Conversation`."""
        return Conversation(self, tokens)

    def status(self) -> dict[str, Any]:
        """Says how busy the model is.

        Returns:
            `ready`; and if so `running` and `waiting` requests, `kv_tokens` that their caches may need of `kv_limit`,
            `tokens` made so far by the stages as they are, and what each of the `stages` said of itself; with a draft
            model, how many tokens it `guessed` and how many were `right` (`draft`).
        """
        deployment = self._deployment
        try:
            busy = deployment.busy()
        except (ActorDiedError, TimeoutError):
            return {"ready": False}
        return {"ready": not deployment.broken, **busy, "stages": deployment.held}

    def rebalance(self) -> Plan:
        """Deals the layers out anew, over the nodes that there are now, and returns the plan.

        Where the nodes are the same, a token's time is measured in each stage, and a device that became slower than the
        others is given less, if that makes the slowest stage a third faster.

        Answers go on while the new stages are loaded. Then they stop for as long as it takes to send their caches, and
        go on there. With `strategy="tensor"` they end where they began.

        Raises:
            ModelError: the model was closed, or does not fit.
        """
        self._succession.rebalance()
        return self.plan

    def close(self) -> None:
        """Ends the stages and gives their memory back."""
        self._watch.close()
        self._succession.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"ShardedModel({self.plan})"

    # -- requests -----------------------------------------------------------------------------------------------

    def _request(self, prompt: str | Sequence[int], max_tokens: int, processor: Any, sampling: Sampling) -> Request:
        if not isinstance(prompt, str | Sequence):
            raise TypeError(f"a prompt is a text or a list of tokens, not {prompt!r}")
        if processor is not None and not callable(processor):
            raise TypeError(f"processor is {processor!r}; it must be a function that makes one of tokens and logits")
        ids = self.tokenizer.encode(prompt) if isinstance(prompt, str) else prompt
        if sampling.temperature > 0 and sampling.seed is None:
            sampling = replace(sampling, seed=secrets.randbits(64))  # so that it can be gone on with elsewhere
        request = Request(tuple(ids), max_tokens, sampling, self._chunk, self.tokenizer.stop_ids, processor=processor)
        request.check_vocabulary(self._info.vocab_size)
        return request

    def _text(self, prompt: str | Sequence[int], options: dict[str, Any]) -> Iterator[str]:
        pieces = _each(self.submit(prompt, **options), lambda token: token.text)
        return (piece for piece in pieces if piece)

    def _refuse_if_full(self) -> None:
        if len(self._open) >= self.max_requests:
            raise PendingCallsLimitExceeded(
                f"{len(self._open)} requests are under way or waiting, as many as this model takes "
                f"(max_requests={self.max_requests}); ask again later"
            )

    def left(self, answer: Generation) -> None:
        """An answer is over; for use inside this package."""
        with self._guard:
            self._open.discard(answer)
        self._succession.sweep()

    # -- caches of conversations; for use inside this package -----------------------------------------------------

    def hold(self, tokens: Sequence[int]) -> tuple[Deployment, str] | None:
        """Keeps the caches of a sequence that is over; None where they were given up."""
        deployment = self._deployment
        try:
            key = None if deployment.broken else deployment.hold(tokens)
        except ActorDiedError:  # its next answer sees to it
            return None
        return None if key is None else (deployment, key)

    def take_over(self, source: Deployment, key: str, tokens: Sequence[int]) -> tuple[Deployment, str] | None:
        """Brings the caches of a sequence from another model's stages."""
        deployment = self._succession.working()
        found = None if source.broken else deployment.take_over(source, key, tokens)
        return None if found is None else (deployment, found)

    def check_same(self, other: ShardedModel) -> None:
        """See that another one has the same weights, as far as their sizes tell.

        Raises:
            ModelError: it has not.
        """
        if not isinstance(other, ShardedModel):
            raise TypeError(f"a conversation is forked onto a ShardedModel, not onto {other!r}")
        mine, others = self.plan.model, other.plan.model
        if replace(mine, path="") != replace(others, path=""):
            raise ModelError(f"caches of {mine.path} are of no use to {others.path}: it is another model")

    # -- devices that come and go -------------------------------------------------------------------------------

    def replace(self, broken: Deployment, error: ActorDiedError | None) -> Deployment:
        """Returns stages that work in place of `broken`, or have its answers now; for use inside this package.

        Raises:
            ModelError: the model was closed, or no longer fits.
        """
        return self._succession.replace(broken, error)

    def _sources(self) -> set[Deployment]:
        with self._guard:
            return {each.source for each in self._open}

    def _latest(self) -> Deployment:
        return self._succession.current

    def _lost(self, deployment: Deployment, silent: set[str]) -> None:
        """Stages that need a node that has gone silent, or of which one has died."""
        deployment.abandon(silent)
        if not self._sources():  # nobody who reads an answer sees to it
            self._succession.mend()


def _each(answer: Generation, what: Callable[[Token], Any]) -> Iterator[Any]:
    try:
        for token in answer:
            yield what(token)
    finally:
        answer.cancel()


def _check_strategy(strategy: str) -> None:
    if strategy not in STRATEGIES:
        raise ValueError(f"strategy must be one of {', '.join(STRATEGIES)}, not {strategy!r}")


def _draft(path: str | Path, model: Path, tokenizer: Tokenizer) -> ModelInfo:
    name, here = whereabouts(path, "auto")
    return replace(open_draft(here, model, tokenizer), path=name)


def _check_bound(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{name} is {value!r}; it must be a whole number from 1")
