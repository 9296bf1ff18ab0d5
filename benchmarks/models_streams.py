"""The parts of `models.py` about several answers at once, and about a draft model that guesses for one."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Final, Self

import mlx.core as mx
from mlx.utils import tree_flatten

import actors
from actors.models import ShardedModel, load_tokenizer
from actors.models.checkpoint import open_checkpoint

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROUNDS: Final = 3
TOKENS: Final = 20
DEPTH: Final = 3
SILENT: Final = ("self_attn.o_proj", "mlp.down_proj")  # what a layer adds to the hidden state comes from these
PROMPT: Final = [504, 3575, 282, 4649, 314]


class Whole:
    """mlx-lm's whole model in a process of its own."""

    def __init__(self, path: str) -> None:
        command = [sys.executable, str(Path(__file__).with_name("models_bare.py")), path]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._read()

    def begin(self, streams: int) -> None:
        """Have it make tokens for so many answers."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{streams} {TOKENS}\n")
        self._process.stdin.flush()

    def rate(self) -> float:
        """Tokens a second that it made."""
        return float(self._read())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    def _read(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline()


def two(path: str, say: Callable[[str, float, str], None]) -> None:
    """Two answers over two stages, weights as stored, beside mlx-lm's batch of them and two processes of mlx-lm."""
    with ExitStack() as stack:
        stack.enter_context(actors.init(local_nodes=2))
        model = stack.enter_context(ShardedModel.load(path, arithmetic="stored", strategy="pipeline"))
        wholes = [stack.enter_context(Whole(path)) for _ in range(2)]
        ours, theirs = list[float](), list[float]()
        batch, apart = list[float](), list[float]()
        for _ in range(ROUNDS):  # in turns, as the machine changes
            one = _rates(wholes[:1], 1)
            side_by_side, together = _rates(wholes, 1), _rates(wholes[:1], 2)
            alone, both = _answers(model, 1), _answers(model, 2)
            ours.append(both / alone)
            theirs.append(side_by_side / one)
            batch.append(both / together)
            apart.append(both / side_by_side)
        say("two answers / one answer", median(ours), ">= 1.9")
        say("  the machine's bound: two mlx-lm processes / one", median(theirs), "")
        say("two answers / two mlx-lm processes, one answer each", median(apart), "")
        say("two answers / mlx-lm's own batch of them", median(batch), ">= 1.6")


def _rates(wholes: list[Whole], streams: int) -> float:
    for whole in wholes:
        whole.begin(streams)
    return sum(whole.rate() for whole in wholes)


def _answers(model: ShardedModel, streams: int) -> float:
    """Tokens a second of so many answers, once all prompts are in."""
    answers = [model.submit([1000 + number, *range(2000, 2007)], max_tokens=TOKENS) for number in range(streams)]
    for answer in answers:
        next(answer)
    made = [0] * streams

    def read(number: int) -> None:
        made[number] = sum(1 for _ in answers[number])

    threads = [threading.Thread(target=read, args=(number,)) for number in range(streams)]
    start = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(made) / (time.perf_counter() - start)


def draft(path: str, say: Callable[[str, float, str], None]) -> None:
    """A model three times as deep that says the same, with the model as its draft and without."""
    with tempfile.TemporaryDirectory() as folder:
        _deepen(path, Path(folder))
        for arithmetic in ("float32", "stored"):
            took, said = list[float](), list[list[int]]()
            for guesses in (None, path):
                with (
                    actors.init(local_nodes=2),
                    ShardedModel.load(folder, arithmetic=arithmetic, strategy="pipeline", draft=guesses) as model,
                ):
                    tokens = model.tokens(PROMPT, max_tokens=2 * TOKENS)
                    said.append([next(tokens)])
                    start = time.perf_counter()
                    said[-1] += tokens
                    took.append(time.perf_counter() - start)
                    print(model.plan.draft or "no draft")
            say(f"tokens a second with a draft of a third of its size / without, {arithmetic}", took[0] / took[1], "")
            print(f"the tokens are the same: {said[0] == said[1]}")


def _deepen(path: str, folder: Path) -> None:
    """Write the same model with more layers, which compute as much as others do and add nothing."""
    checkpoint = open_checkpoint(path)
    layers = checkpoint.info().layers
    weights = dict(_named(checkpoint.load(0, layers - 1)))
    for name, array in list(weights.items()):
        if (found := re.match(rf"model\.layers\.{layers - 1}\.(.+)\.(\w+)$", name)) is not None:
            silent = found[1] in SILENT and array.dtype != mx.uint32  # of quantised weights the scales and offsets
            for number in range(layers, DEPTH * layers):
                weights[f"model.layers.{number}.{found[1]}.{found[2]}"] = mx.zeros_like(array) if silent else array
    mx.save_safetensors(str(folder / "model.safetensors"), weights, metadata={"format": "mlx"})
    settings = {"num_hidden_layers": DEPTH * layers, "quantization": {"group_size": 32, "bits": 4}}
    (folder / "config.json").write_text(json.dumps({**checkpoint.config, **settings}))
    load_tokenizer(path).inner._tokenizer.save_pretrained(str(folder))


def _named(model: object) -> Iterator[tuple[str, mx.array]]:
    yield from tree_flatten(model.parameters())  # type: ignore[attr-defined]
