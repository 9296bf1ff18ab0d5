"""Measures a sharded model beside mlx-lm in one process, MLX's own ring and llama.cpp, with the same weights; ratios.

    python benchmarks/models.py [--only stored --only openblas --only tensor --only peers] [--tokens 16] [--prompt 96]

Run it on a quiet machine: what is compared shares the cores with whatever else runs. Exit status 0: everything was
measured, and greedy tokens of one answer are mlx-lm's; 1: not.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mlx.core as mx
import psutil
from environments import interpreter, prepare
from mlx_lm.generate import BatchGenerator, generate_step
from side import Entry

import actors
from actors.models import ShardedModel, demo_model
from actors.models.checkpoint import open_checkpoint

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

HERE = Path(__file__).parent
LLAMA = Entry("llama.cpp", "llama.cpp by its wheel", "models_llama", "", ("xllamacpp==2026.10.11549",))
PORTS = (52113, 52114)


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
        checkpoint = open_checkpoint(self.path)
        self.whole = checkpoint.load(0, checkpoint.info().layers - 1)
        self.layers = checkpoint.info().layers
        list(self.alone([100, 101], 2))

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

    def batched(self, streams: int) -> float:
        """Tokens a second of so many answers by mlx-lm's own batching."""
        generator = BatchGenerator(self.whole, max_tokens=self.tokens)
        generator.insert([self.prompt(number, 8) for number in range(streams)], [self.tokens] * streams)
        made = len(generator.next_generated())  # the prompts are in
        start, first = time.perf_counter(), made
        while found := generator.next_generated():
            made += len(found)
        generator.close()
        return (made - first) / (time.perf_counter() - start)

    # -- cases --------------------------------------------------------------------------------------------------

    def stored(self) -> None:
        """Weights as they are on disk, two stages: one answer, two, the first token, memory."""
        bare = _bare()
        with (
            actors.init(local_nodes=2),
            ShardedModel.load(self.path, arithmetic="stored", strategy="pipeline") as model,
        ):
            print(model.plan)
            for held in model.status()["stages"]:
                above = psutil.Process(held["pid"]).memory_info().rss - bare
                self.say(
                    f"memory of layers {held['first']} to {held['last']} / its weights",
                    above / held["nbytes"],
                    "<= 1.1",
                )
            prompt = self.prompt(0)
            ours, first, each = timed(model.tokens(prompt, max_tokens=self.tokens))
            theirs, whole_first, whole_each = timed(self.alone(prompt, self.tokens))
            _, again, _ = timed(model.tokens(prompt, max_tokens=2))
            self.same = ours == theirs
            self.say("decode, one answer / mlx-lm in one process", whole_each / each, ">= 0.97")
            self.say(f"first token of {len(prompt)} / mlx-lm's", first / whole_first, "<= 0.6")
            self.say("the same prompt once more / mlx-lm's first token", again / whole_first, "<= 0.03")
            two = self.together(model, 2)
            batched = self.batched(2)
            self.say("two answers / one answer", two * each, ">= 1.9")
            self.say("two answers / mlx-lm's own batch of them", two / batched, ">= 1.6")

    def openblas(self) -> None:
        """Float32 by OpenBLAS, two stages: eight answers, the first token."""
        with (
            actors.init(local_nodes=2),
            ShardedModel.load(self.path, arithmetic="float32", strategy="pipeline") as model,
        ):
            print(model.plan)
            prompt = self.prompt(0)
            _, first, each = timed(model.tokens(prompt, max_tokens=self.tokens))
            _, whole_first, whole_each = timed(self.alone(prompt, 4))
            self.say("float32: decode, one answer / mlx-lm in one process", whole_each / each, "")
            for streams in (2, 4, 8):
                rate = self.together(model, streams)
                self.say(f"float32: {streams} answers / one", rate * each, ">= 5" if streams == 8 else "")
                self.say(f"float32: {streams} answers / mlx-lm's one", rate * whole_each, "")
            self.say(f"float32: mlx-lm's first token of {len(prompt)} / ours", whole_first / first, ">= 10")

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


def _bare() -> int:
    """Bytes that a process takes with everything imported that a stage imports."""
    program = (
        "import actors, actors.models.stage, psutil, mlx.core as mx; mx.eval(mx.ones(1)); "
        "print(psutil.Process().memory_info().rss)"
    )
    return int(subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout)


def main() -> int:
    names = ("stored", "openblas", "tensor", "peers")
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", action="append", choices=names)
    parser.add_argument("--tokens", type=int, default=16)
    parser.add_argument("--prompt", type=int, default=96)
    settings = parser.parse_args()
    bench = Bench(settings.tokens, settings.prompt)
    for name in settings.only or names:
        case: Callable[[], None] = getattr(bench, name)
        print(f"-- {case.__doc__}")
        case()
    print(f"the tokens of one answer are mlx-lm's: {bench.same}")
    return 0 if bench.same else 1


if __name__ == "__main__":
    raise SystemExit(main())
