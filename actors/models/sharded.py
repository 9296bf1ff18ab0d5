"""One model over several nodes."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from actors.actorclass import remote
from actors.api import nodes as cluster_nodes
from actors.exceptions import ActorDiedError, ModelError, PlacementError, TaskError
from actors.handle import kill
from actors.ids import new_id
from actors.refs import get

from .checkpoint import describe
from .extra import require_mlx_lm
from .plan import Device, Plan, make_plan
from .stageactor import Stage
from .tokenizer import load_tokenizer

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from types import TracebackType

    from actors.handle import ActorHandle
    from actors.nodeinfo import NodeInfo
    from actors.refs import ObjectRef

    from .tokenizer import Tokenizer

STRATEGIES = ("auto", "pipeline")


class ShardedModel:
    """A language model whose layers live on several nodes. Make one with `load`; it is a context manager too.

    The program that holds it never holds the weights.

    Attributes:
        plan: which layers are on which node, and why.
        tokenizer: of the model.
    """

    def __init__(self, plan: Plan, stages: Sequence[ActorHandle], tokenizer: Tokenizer) -> None:
        self.plan = plan
        self.tokenizer = tokenizer
        self._stages = list(stages)

    @classmethod
    def load(cls, path: str | Path, *, nodes: Sequence[str] | None = None, strategy: str = "auto") -> Self:
        """Cuts a model by its layers and loads each piece on a node of its own.

        Args:
            path: a `.gguf` file, or a directory of mlx-lm or Hugging Face; every node must see it there.
            nodes: names of the nodes to use, in the order of the layers; None takes all that are alive. Where there
                are more of them than layers, the last ones get nothing to do.
            strategy: `"pipeline"` cuts by layers; `"auto"` chooses, and there is one way as yet.

        Raises:
            ModelError: the model cannot be read, cut or held; the message says why.
            PlacementError: a node is not known.
            ValueError: `nodes` is empty or names a node twice, or there is no such strategy.
            NotImplementedError: `strategy="tensor"`.
        """
        _check_strategy(strategy)
        require_mlx_lm()
        path = Path(path).expanduser().absolute()  # the stages run in other folders
        info = describe(path)
        chosen = _choose(nodes)[: info.layers]
        plan = make_plan(info, [_device(node) for node in chosen])
        tokenizer = load_tokenizer(path)
        stages = _start(plan)
        model = cls(plan, stages, tokenizer)
        try:
            model._await_loaded()
        except BaseException:
            model.close()
            raise
        return model

    def _await_loaded(self) -> None:
        loaded = [stage.loaded.remote() for stage in self._stages]
        for stage, ref in zip(self.plan.stages, loaded, strict=True):
            try:
                get(ref)
            except ActorDiedError as error:
                cause = error.__cause__
                if not isinstance(cause, ModelError):
                    raise
                told = getattr(cause, "cause", None) or cause  # without the remote traceback
                raise ModelError(f"node {stage.node} could not load its layers: {told}") from error

    def tokens(
        self,
        prompt_ids: Sequence[int],
        *,
        max_tokens: int = 256,
        temperature: float = 0.0,
        top_p: float = 1.0,
        seed: int | None = None,
    ) -> Iterator[int]:
        """Gives the tokens that follow those of a prompt, as they are made; closing the iterator stops the work.

        Several may be read side by side: the stages give each a turn. The work begins when the first token is asked
        for, and stays a few tokens ahead of its reader.

        Args:
            prompt_ids: at least one token.
            max_tokens: how many at most.
            temperature: 0 takes the likeliest token each time.
            top_p: keep the likeliest tokens that together have this probability.
            seed: makes sampling repeatable.

        Raises:
            ValueError: an argument out of its range.
            ModelError: the model was closed.
            ActorDiedError: while it is read: a stage, or its node, is gone.
        """
        from .generate import Sampling, check_request

        Sampling(temperature, top_p, seed)
        check_request(prompt_ids, max_tokens)
        self._last_stage()
        return self._answer(
            list(prompt_ids), max_tokens=max_tokens, temperature=temperature, top_p=top_p, seed=seed,
            stop_ids=sorted(self.tokenizer.stop_ids),
        )  # fmt: skip

    def _answer(self, prompt_ids: list[int], **sampling: Any) -> Iterator[int]:
        answer = self._last_stage().generate.remote(new_id("sequence"), prompt_ids, **sampling)
        try:
            for ref in answer:
                yield _token(ref)
        finally:
            answer.close()

    def _last_stage(self) -> ActorHandle:
        if not self._stages:
            raise ModelError("this model was closed: load it again")
        return self._stages[-1]

    def stream(self, prompt: str, **sampling: Any) -> Iterator[str]:
        """Yields the text that follows a prompt, piece by piece; see `tokens` for the arguments and errors."""
        if not isinstance(prompt, str):
            raise TypeError(f"a prompt is a text, not {prompt!r}")
        return self._text(self.tokenizer.encode(prompt), sampling)

    def generate(self, prompt: str, **sampling: Any) -> str:
        """Returns the text that follows a prompt; see `tokens` for the arguments and errors."""
        return "".join(self.stream(prompt, **sampling))

    def chat(self, messages: Sequence[Mapping[str, str]], **sampling: Any) -> Iterator[str]:
        """Yields the answer to a conversation of `{"role", "content"}`, by the model's own chat template."""
        if isinstance(messages, str) or not all(isinstance(each, Mapping) for each in messages):
            raise TypeError(f'messages are a list of {{"role": "user", "content": "…"}}, not {messages!r}')
        return self._text(self.tokenizer.encode_chat(messages), sampling)

    def _text(self, prompt_ids: Sequence[int], sampling: dict[str, Any]) -> Iterator[str]:
        stop = self.tokenizer.stop_ids
        kept = itertools.takewhile(lambda token: token not in stop, self.tokens(prompt_ids, **sampling))
        return self.tokenizer.stream(kept)

    def close(self) -> None:
        """Ends the stages and gives their memory back."""
        while self._stages:
            kill(self._stages.pop())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"ShardedModel({self.plan})"


def _token(ref: ObjectRef[int]) -> int:
    try:
        token: int = get(ref)
    except TaskError as error:
        if isinstance(error.cause, ActorDiedError):  # of a stage before the last; the way it came is of no interest
            raise error.cause from None
        raise
    return token


def _check_strategy(strategy: str) -> None:
    if strategy == "tensor":
        raise NotImplementedError("strategy='tensor' is not there yet; 'pipeline' cuts the model by its layers")
    if strategy not in STRATEGIES:
        raise ValueError(f"strategy must be one of {', '.join(STRATEGIES)}, not {strategy!r}")


def _choose(names: Sequence[str] | None) -> list[NodeInfo]:
    alive = [node for node in cluster_nodes() if node.alive]
    if names is None:
        return alive
    if isinstance(names, str) or not names:
        raise ValueError(f"nodes must be a list of at least one name, not {names!r}")
    if len(set(names)) < len(names):
        raise ValueError(f"a node has one stage of a model, but nodes= names one twice: {', '.join(names)}")
    known = {node.name: node for node in alive}
    for name in names:
        if name not in known:
            raise PlacementError(f"no node is called {name!r}; there are: {', '.join(known)}")
    return [known[name] for name in names]


def _device(node: NodeInfo) -> Device:
    memory = node.device["memory"]
    assert isinstance(memory, int)
    return Device(node.name, memory=memory)


def _start(plan: Plan) -> list[ActorHandle]:
    actor_class = remote(Stage)
    stages: list[ActorHandle] = []
    for stage in plan.stages:
        before = stages[-1] if stages else None
        options = actor_class.options(node=stage.node)
        stages.append(options.remote(str(plan.model.path), stage.first, stage.last, before))
    return stages
