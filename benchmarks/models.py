"""Measures a sharded model beside mlx-lm in one process, with the same weights; prints ratios.

    python benchmarks/models.py [--stages 2] [--tokens 24] [--prompt 128] [--strategy pipeline]

Run it on a quiet machine. Exit status 0: both sides were measured and gave the same tokens; 1: not.
"""

from __future__ import annotations

import argparse
import time
from typing import TYPE_CHECKING

import mlx.core as mx
from mlx_lm.generate import generate_step

import actors
from actors.models import ShardedModel, demo_model
from actors.models.checkpoint import open_checkpoint

if TYPE_CHECKING:
    from collections.abc import Iterator


def timed(tokens: Iterator[int]) -> tuple[list[int], float, float]:
    """Returns the tokens, seconds to the first one, and seconds for each after it."""
    start = time.perf_counter()
    got = [next(tokens)]
    first = time.perf_counter()
    got += tokens
    return got, first - start, (time.perf_counter() - first) / (len(got) - 1)


def alone(path: str, prompt: list[int], count: int) -> tuple[list[int], float, float]:
    """mlx-lm's own loop over the whole model, in this process."""
    checkpoint = open_checkpoint(path)
    model = checkpoint.load(0, checkpoint.info().layers - 1)
    list(generate_step(mx.array(prompt[:4]), model, max_tokens=2))
    return timed(int(token) for token, _ in generate_step(mx.array(prompt), model, max_tokens=count))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--stages", type=int, default=2)
    parser.add_argument("--tokens", type=int, default=24)
    parser.add_argument("--prompt", type=int, default=128)
    parser.add_argument("--strategy", default="pipeline")
    settings = parser.parse_args()
    path = demo_model(print)
    with actors.init(local_nodes=settings.stages), ShardedModel.load(path, strategy=settings.strategy) as model:
        print(model.plan)
        text = "The quick brown fox jumps over the lazy dog and goes on. " * settings.prompt
        prompt = model.tokenizer.encode(text)[: settings.prompt]
        whole, whole_first, whole_each = alone(str(path), prompt, settings.tokens)
        ours, first, each = timed(model.tokens(prompt, max_tokens=settings.tokens))
        _, again, _ = timed(model.tokens(prompt, max_tokens=2))
        many = [model.submit([number, *prompt[:8]], max_tokens=settings.tokens) for number in range(5, 7)]
        for answer in many:
            next(answer)
        start, left = time.perf_counter(), settings.tokens - 1
        for answer in many:
            list(answer)
        together = 2 * left / (time.perf_counter() - start)
    print(f"decode, one answer:            {whole_each / each:.2f} times mlx-lm in one process")
    print(f"decode, two answers together:  {together * each:.2f} times one answer")
    print(f"first token of {len(prompt)}:           {first / whole_first:.2f} times mlx-lm's time")
    print(f"the same prompt once more:     {again / first:.3f} times that")
    print(f"the same tokens:               {ours == whole}")
    return 0 if ours == whole else 1


if __name__ == "__main__":
    raise SystemExit(main())
