"""The same stages over MLX's own ring, two processes started by environment variables; prints one JSON object."""

from __future__ import annotations

import json
import sys
import time

import mlx.core as mx

from actors.models import StageModel
from actors.models.stage import Row, Step


def main() -> None:
    path, cut, tokens = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    group = mx.distributed.init(strict=True, backend="ring")
    first = group.rank() == 0
    last = StageModel.load(path, 0, 0).info.layers - 1
    stage = StageModel.load(path, 0, cut - 1) if first else StageModel.load(path, cut, last)
    token, start = 100, 0.0
    for number in range(tokens + 2):
        if number == 2:
            start = time.perf_counter()
        if first:
            hidden = stage.run(Step((Row("ring", (token,)),)))
            mx.eval(mx.distributed.send(hidden, 1))
            got = mx.distributed.recv((1,), mx.int32, 1)
        else:
            hidden = mx.distributed.recv((1, 1, stage.info.hidden_size), mx.float32, 0)
            mx.eval(hidden)
            logits = stage.run(Step((Row("ring", (token,)),)), hidden)
            got = mx.distributed.send(mx.argmax(logits[0, -1:], axis=-1).astype(mx.int32), 0)
        mx.eval(got)
        token = int(got.item())
    if first:
        print(json.dumps({"decode": tokens / (time.perf_counter() - start)}))


if __name__ == "__main__":
    main()
