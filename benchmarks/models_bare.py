"""mlx-lm's whole model in a process of its own, which makes tokens when it is told to; run by `models_streams.py`.

Each line on standard input says how many answers and how many tokens of each; one on standard output, how many tokens
a second that made, by mlx-lm's own loop for one answer and by its own batching for more.
"""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

import mlx.core as mx
from mlx_lm.generate import BatchGenerator, generate_step

from actors.models.checkpoint import open_checkpoint

if TYPE_CHECKING:
    from mlx import nn


def rate(model: nn.Module, streams: int, tokens: int) -> float:
    """Tokens a second of so many answers, once all prompts are in."""
    prompts = [[1000 + number + 7 * place for place in range(8)] for number in range(streams)]
    if streams == 1:
        steps = generate_step(mx.array(prompts[0]), model, max_tokens=tokens)
        next(steps)
        start = time.perf_counter()
        made = sum(1 for _ in steps)
    else:
        generator = BatchGenerator(model, max_tokens=tokens)
        generator.insert(prompts, [tokens] * streams)
        generator.next_generated()
        start, made = time.perf_counter(), 0
        while found := generator.next_generated():
            made += len(found)
        generator.close()
    return made / (time.perf_counter() - start)


def main() -> None:
    checkpoint = open_checkpoint(sys.argv[1])
    model = checkpoint.load(0, checkpoint.info().layers - 1)
    rate(model, 1, 2)
    print("ready", flush=True)
    for line in sys.stdin:
        print(rate(model, *map(int, line.split())), flush=True)


if __name__ == "__main__":
    main()
