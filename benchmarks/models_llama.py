"""llama.cpp in one process, by its wheel `xllamacpp`; prints one JSON object. Run by `models.py`."""

from __future__ import annotations

import json
import sys

import xllamacpp


def main() -> None:
    path, threads, prompt, tokens = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
    params = xllamacpp.CommonParams()
    params.model.path = path
    params.n_ctx, params.cpuparams.n_threads, params.warmup = 1024, threads, False
    server = xllamacpp.Server(params)
    asked = {"prompt": list(range(100, 100 + prompt)), "n_predict": tokens, "temperature": 0, "ignore_eos": True}
    told: list[dict] = []
    server.handle_completions({**asked, "stream": False}, told.append)
    answer = told[-1] if isinstance(told[-1], dict) else json.loads(told[-1])
    timings = answer["timings"]
    print(json.dumps({"decode": timings["predicted_per_second"], "prefill": timings["prompt_per_second"]}))


if __name__ == "__main__":
    main()
