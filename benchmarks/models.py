"""Measures a sharded model beside mlx-lm in one process, MLX's own ring and llama.cpp, with the same weights; ratios.

    python benchmarks/models.py [CASE …] [--tokens 16] [--prompt 96]

Without a word all cases run: memory, decode, first, openblas, tensor and peers, which have mlx-lm's whole model beside
them; hop, wire and far (`models_hop.py`), idle, start, death, move and streams (`models_cost.py`), two and draft
(`models_streams.py`), which do not. Each takes a minute or less. Run it on a quiet machine: what is compared shares the
cores with whatever else runs. Exit status 0: everything was measured, and greedy tokens of one answer are mlx-lm's; 1:
not.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from functools import cached_property
from importlib import import_module
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import mlx.core as mx
import models_cost
import models_hop
import models_streams
import psutil
from environments import interpreter, prepare
from mlx_lm.generate import generate_step
from side import Entry

import actors
from actors.models import ShardedModel, demo_model
from actors.models.checkpoint import open_checkpoint
from actors.models.lean import require_lean_mlx_lm

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from mlx import nn

HERE = Path(__file__).parent
LLAMA = Entry("llama.cpp", "llama.cpp by its wheel", "models_llama", "", ("xllamacpp==2026.10.11549",))
PORTS = (52113, 52114)
BESIDE = ("memory", "decode", "first", "openblas", "tensor", "peers")
HOPS = ("hop", "wire", "far")
COST = ("idle", "start", "death", "move", "streams")
STREAMS = ("two", "draft")


def timed(tokens: Iterator[int]) -> tuple[list[int], float, float]:
    """Returns the tokens, seconds to the first one, and seconds for each after it."""
    start = time.perf_counter()
    got = [next(tokens)]
    first = time.perf_counter()
    got += tokens
    return got, first - start, (time.perf_counter() - first) / max(len(got) - 1, 1)


class Bench:
    """One model, and mlx-lm's own whole one in this process."""

    def __init__(self, tokens: int, prompt: int) -> None:
        self.path, self.tokens, self.length = str(demo_model(print)), tokens, prompt
        self.same = True
        self.layers = open_checkpoint(self.path).info().layers

    @cached_property
    def whole(self) -> nn.Module:
        """The whole model, which has computed already."""
        model = open_checkpoint(self.path).load(0, self.layers - 1)
        list(generate_step(mx.array([100, 101]), model, max_tokens=2))
        return model

    def alone(self, prompt: list[int], count: int) -> Iterator[int]:
        """mlx-lm's own loop."""
        return (int(token) for token, _ in generate_step(mx.array(prompt), self.whole, max_tokens=count))

    def prompt(self, number: int, length: int | None = None) -> list[int]:
        """Tokens that no other number begins with."""
        return [1000 + number + 7 * place % 500 for place in range(length or self.length)]

    def say(self, what: str, ratio: float, goal: str) -> None:
        """Print one line of the table."""
        print(f"{what:<62} {ratio:>7.3f}   goal {goal}", flush=True)

    def together(self, model: ShardedModel, streams: int) -> float:
        """Tokens a second of so many answers at once."""
        answers = [model.submit(self.prompt(number, 8), max_tokens=self.tokens) for number in range(streams)]
        for answer in answers:
            next(answer)
        start, made = time.perf_counter(), [0] * streams

        def read(number: int) -> None:
            made[number] = sum(1 for _ in answers[number])

        threads = [threading.Thread(target=read, args=(number,)) for number in range(streams)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return sum(made) / (time.perf_counter() - start)

    @contextmanager
    def loaded(self, stages: int, arithmetic: str) -> Iterator[ShardedModel]:
        """The model in so many stages on this machine."""
        with (
            actors.init(local_nodes=stages),
            ShardedModel.load(self.path, arithmetic=arithmetic, strategy="pipeline") as model,
        ):
            print(model.plan)
            yield model

    # -- cases --------------------------------------------------------------------------------------------------

    def memory(self) -> None:
        """What a process takes above a bare one for its layers, in two stages and in three, weights as stored.

        The bare one has imported what a stage imports and computed a token, so that it has the same pages of libraries;
        those that a stage has besides, which all processes of a host share, are counted apart.
        """
        for stages in (2, 3):
            with self.loaded(stages, "stored") as model:
                bare_own, bare_all = actors.get(Bare.remote().nbytes.remote())
                for held in model.status()["stages"]:
                    own, whole = _memory(held["pid"])
                    above = own - bare_own
                    what = f"memory of layers {held['first']} to {held['last']} / its weights"
                    self.say(what, above / held["nbytes"], "<= 1.1")
                    self.say("  the same, resident", (whole - bare_all) / held["nbytes"], "<= 1.1")
                    self.say("  MiB of that which are no weights", (above - held["nbytes"]) / 2**20, "")
                    self.say("  MiB of libraries besides, shared with others", (whole - bare_all - above) / 2**20, "")

    def decode(self) -> None:
        """Weights as they are on disk, two stages and three: one answer, beside mlx-lm with the same."""
        prompt = self.prompt(0, 8)
        for stages, goal in ((2, ">= 0.97"), (3, ">= 0.94")):
            with self.loaded(stages, "stored") as model:
                ratios, each = [], 0.0
                for _ in range(3):  # in turns, as the machine changes
                    theirs, _, whole_each = timed(self.alone(prompt, self.tokens))
                    ours, _, each = timed(model.tokens(prompt, max_tokens=self.tokens))
                    self.same = self.same and ours == theirs
                    ratios.append(whole_each / each)
                self.say(f"decode, one answer, {stages} stages / mlx-lm in one process", median(ratios), goal)
                alone = sum(held["seconds"] for held in actors.get(_held(model)))
                self.say("  at most, by the stages' arithmetic alone at its quickest", whole_each / alone, "")

    def first(self) -> None:
        """The first token of a long prompt: weights as stored, again from the prefix cache, and in float32."""
        prompt = self.prompt(0)
        _, whole, _ = timed(self.alone(prompt, 1))
        with self.loaded(2, "stored") as model:
            _, first, _ = timed(model.tokens(prompt, max_tokens=1))
            _, again, _ = timed(model.tokens(prompt, max_tokens=1))
            self.say(f"first token of {len(prompt)} / mlx-lm's", first / whole, "<= 0.6")
            self.say("the same prompt once more / mlx-lm's first token", again / whole, "<= 0.03")
        with self.loaded(2, "float32") as model:
            _, first, _ = timed(model.tokens(prompt, max_tokens=1))
            self.say(f"float32: mlx-lm's first token of {len(prompt)} / ours", whole / first, ">= 10")

    def openblas(self) -> None:
        """Float32 by OpenBLAS, two stages: one answer, two, four and eight."""
        with self.loaded(2, "float32") as model:
            _, _, each = timed(model.tokens(self.prompt(0, 8), max_tokens=self.tokens))
            _, _, whole_each = timed(self.alone(self.prompt(0, 8), 8))
            self.say("float32: decode, one answer / mlx-lm in one process", whole_each / each, "")
            for streams in (2, 4, 8):
                rate = self.together(model, streams)
                self.say(f"float32: {streams} answers / one", rate * each, ">= 5" if streams == 8 else "")
                self.say(f"float32: {streams} answers / mlx-lm's one", rate * whole_each, "")

    def tensor(self) -> None:
        """Two ranks that have a part of every layer."""
        with actors.init(local_nodes=2), ShardedModel.load(self.path, arithmetic="stored", strategy="tensor") as model:
            ours, _, each = timed(model.tokens(self.prompt(0, 16), max_tokens=self.tokens))
            theirs, _, whole_each = timed(self.alone(self.prompt(0, 16), self.tokens))
            self.say("tensor, two ranks, one answer / mlx-lm in one process", whole_each / each, ">= 1.5")
            print(f"tensor gives mlx-lm's tokens: {ours == theirs}")

    def peers(self) -> None:
        """MLX's own ring, and llama.cpp with one thread and two."""
        _, _, whole_each = timed(self.alone(self.prompt(0, 4), 8))
        self.say("MLX's ring, the same two stages / mlx-lm in one process", self._ring() * whole_each, "")
        prepare(LLAMA)
        for threads in (1, 2):
            command = [interpreter(LLAMA), HERE / "models_llama.py", self.path, threads, self.length, self.tokens]
            told = _json([str(word) for word in command], {})
            self.say(f"llama.cpp, {threads} thread(s), decode / mlx-lm in one process", told["decode"] * whole_each, "")

    def _ring(self) -> float:
        hosts = HERE / ".peers" / "ring.json"
        hosts.parent.mkdir(exist_ok=True)
        hosts.write_text(json.dumps([[f"127.0.0.1:{port}"] for port in PORTS]))
        command = [
            sys.executable,
            str(HERE / "models_ring.py"),
            self.path,
            str(self.layers * 19 // 30),
            str(self.tokens),
        ]
        ranks = [{"MLX_HOSTFILE": str(hosts), "MLX_RANK": str(rank)} for rank in range(2)]
        other = subprocess.Popen(command, env={**os.environ, **ranks[1]}, stdout=subprocess.DEVNULL)
        try:
            return float(_json(command, ranks[0])["decode"])
        finally:
            other.kill()
            other.wait()


def _json(command: list[str], environment: dict[str, str]) -> dict[str, Any]:
    done = subprocess.run(
        command, env={**os.environ, **environment}, capture_output=True, text=True, check=True, timeout=300
    )
    found: dict[str, Any] = json.loads(next(line for line in done.stdout.splitlines() if line.startswith('{"')))
    return found


def _held(model: ShardedModel) -> list[Any]:
    """What each stage says of itself now."""
    return [stage.loaded.remote() for stage in model._deployment.stages]


def _memory(pid: int) -> tuple[int, int]:
    """Bytes that a process alone has, and all that it has."""
    found = psutil.Process(pid).memory_full_info()
    return found.uss, found.rss


@actors.remote
class Bare:
    """A process of an actor with everything imported that a stage imports, which has computed a token in one layer."""

    async def nbytes(self) -> tuple[int, int]:
        """Returns the bytes that it alone has, and all that it has."""
        require_lean_mlx_lm()
        for name in ("stage", "gguf", "ggufmodel", "schedule", "hop"):
            import_module(f"actors.models.{name}")
        await asyncio.get_running_loop().run_in_executor(None, _compute)
        return _memory(os.getpid())


def _compute() -> None:
    """A token, through one quantised layer of some kilobytes."""
    from mlx import nn
    from mlx_lm.models.cache import make_prompt_cache
    from mlx_lm.models.llama import Model, ModelArgs

    sizes = {"hidden_size": 64, "intermediate_size": 96, "num_attention_heads": 4, "num_key_value_heads": 2}
    model = Model(ModelArgs("llama", num_hidden_layers=1, rms_norm_eps=1e-5, vocab_size=160, **sizes))
    nn.quantize(model, group_size=32, bits=4)
    mx.eval(mx.argmax(model(mx.array([[1]]), cache=make_prompt_cache(model))))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    cases = BESIDE + HOPS + COST + STREAMS
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"of {', '.join(cases)}; all without a word")
    parser.add_argument("--tokens", type=int, default=16)
    parser.add_argument("--prompt", type=int, default=96)
    settings = parser.parse_args()
    if unknown := set(settings.cases) - {*cases}:
        parser.error(f"no case is called {', '.join(sorted(unknown))}")
    bench = Bench(settings.tokens, settings.prompt)
    homes = ((bench, BESIDE), (models_hop, HOPS), (models_cost, COST), (models_streams, STREAMS))
    for name in settings.cases or cases:
        home = next(where for where, names in homes if name in names)
        case: Callable[..., None] = getattr(home, name)
        print(f"-- {(case.__doc__ or '').splitlines()[0]}")
        case(*[] if name in BESIDE else [bench.say] if name in HOPS else [bench.path, bench.say])
    print(f"the tokens of one answer are mlx-lm's: {bench.same}")
    return 0 if bench.same else 1


if __name__ == "__main__":
    raise SystemExit(main())
