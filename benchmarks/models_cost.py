"""The parts of `models.py` that ask what sharding costs: waiting, loading, deaths, moves, many answers."""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import subprocess
import sys
import threading
import time
from collections import deque
from dataclasses import replace
from itertools import product
from typing import TYPE_CHECKING, Any, Final

import psutil

import actors
from actors.models import ShardedModel
from actors.models.sampler import Choice
from actors.models.sampling import Request, Sampling
from actors.models.schedule import Schedule

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from actors.models.stage import Step

IDLE_SECONDS: Final = 5.0
STREAMS: Final = 64
ONE: Final = """
import json, sys, time
begun = time.perf_counter()
import mlx.core as mx
from mlx_lm.generate import generate_step
from actors.models.checkpoint import open_checkpoint
checkpoint = open_checkpoint(sys.argv[1])
model = checkpoint.load(0, checkpoint.info().layers - 1)
next(generate_step(mx.array([100, 101, 102, 103]), model, max_tokens=1))
print(json.dumps({"seconds": time.perf_counter() - begun}))
"""


def idle(path: str, say: Callable[[str, float, str], None]) -> None:
    """What stages take of a core that wait, with an answer under way that nobody reads on."""
    with actors.init(local_nodes=3), ShardedModel.load(path, arithmetic="stored", strategy="pipeline") as model:
        answer = model.submit([100, 101], max_tokens=200)
        next(answer)
        processes = [psutil.Process(each["pid"]) for each in model.status()["stages"]]
        before = [0.0]
        while (now := _seconds(processes)) != before:  # until it is as far ahead of its reader as it may be
            before = now
            time.sleep(0.5)
        time.sleep(IDLE_SECONDS)
        after = _seconds(processes)
        for number, (start, end) in enumerate(zip(before, after, strict=True)):
            say(f"idle: % of a core that stage {number} takes, waiting", 100 * (end - start) / IDLE_SECONDS, "<= 1")
        answer.cancel()


def _seconds(processes: Iterable[psutil.Process]) -> list[float]:
    return [sum(each.cpu_times()[:2]) for each in processes]


def start(path: str, say: Callable[[str, float, str], None]) -> None:
    """Three stages loaded and the first token of a short prompt, beside one process that does it all."""
    done = subprocess.run([sys.executable, "-c", ONE, path], capture_output=True, text=True, check=True)
    one = float(json.loads(done.stdout)["seconds"])
    with actors.init(local_nodes=3):
        for _ in range(3):  # workers that are warm: what was started first is there
            actors.get([actors.remote(os.getpid).options(node=node.name).remote() for node in actors.nodes()])
            time.sleep(1)
        begun = time.perf_counter()
        with ShardedModel.load(path, arithmetic="stored", strategy="pipeline") as model:
            next(model.tokens([100, 101, 102, 103], max_tokens=1))
            took = time.perf_counter() - begun
    say("start: one process, from its beginning to the first token, s", one, "")
    say("start: three stages from warm workers, s more than that", took - one, "<= 1.5")


def death(path: str, say: Callable[[str, float, str], None]) -> None:
    """A stage's process is killed in mid-answer, then its node, without the caches kept twice and with."""
    prompt, whole = list(range(100, 228)), list[int]()
    for shadow, what in product((False, True), ("process", "node")):
        with actors.init(local_nodes=3), ShardedModel.load(path, strategy="pipeline", shadow=shadow) as model:
            whole = whole or list(model.tokens(prompt, max_tokens=30))  # before anything has died
            answer = model.submit(prompt, max_tokens=30)
            tokens = (token.id for token in answer)
            got = [next(tokens) for _ in range(12)]
            pid = model.status()["stages"][1]["pid"]
            if what == "node":
                name = model.plan.stages[1].node
                pid = next(node.pid for node in actors.nodes() if node.name == name)
            psutil.Process(pid).kill()
            stall = max(_gaps(tokens, got))
            how, goal = ("caches kept twice", "<= 1") if shadow else ("replay included", "<= 2 + replay")
            say(f"death: a stage's {what} killed, the longest wait, {how}, s", stall, goal)
            print(f"the tokens are the same: {got == whole}; computed again: {answer.replayed_tokens}")


def move(path: str, say: Callable[[str, float, str], None]) -> None:
    """From two nodes to three in mid-answer: ten layers and more move to a newcomer."""
    with actors.init(local_nodes=3):
        names = [node.name for node in actors.nodes()]
        with ShardedModel.load(path, nodes=names[:2], strategy="pipeline") as model:
            whole = list(model.tokens([100, 101, 102, 103], max_tokens=80))
            succession = model._succession
            succession._recipe = replace(succession._recipe, nodes=names)  # as if the third had come now
            tokens = model.tokens([100, 101, 102, 103], max_tokens=80)
            got = [next(tokens) for _ in range(12)]
            thread = threading.Thread(target=model.rebalance)
            thread.start()
            waits = _gaps(tokens, got)
            thread.join()
            say("move: the token's wait at the switch, s", _at_switch(model, waits), "")
            say("move: the longest wait for a token meanwhile, s", max(waits), "<= 0.3 + a token")
            say("move: half of the tokens took less, s", statistics.median(waits), "")
            print(f"the tokens are the same: {got == whole}; stages now: {len(model.plan.stages)}")


def _at_switch(model: ShardedModel, waits: Sequence[float]) -> float:
    """The wait for the first token that the new stages made: they made all from there to the end."""
    made = model.status()["tokens"]
    return waits[-made] if made else 0.0


def _gaps(tokens: Iterable[int], got: list[int]) -> list[float]:
    waits, last = [], time.perf_counter()
    for token in tokens:
        now = time.perf_counter()
        waits.append(now - last)
        last = now
        got.append(token)
    return waits


def streams(path: str, say: Callable[[str, float, str], None]) -> None:
    """What it takes to choose the steps of 64 answers, beside the steps themselves."""
    own = asyncio.run(_chosen())
    with actors.init(local_nodes=2), ShardedModel.load(path, arithmetic="float32", strategy="pipeline") as model:
        answers = [model.submit([100 + number, 101], max_tokens=12) for number in range(STREAMS)]
        for answer in answers:
            next(answer)
        begun, before = time.perf_counter(), model.status()["tokens"]
        readers = [threading.Thread(target=deque, args=(answer, 0)) for answer in answers]
        for reader in readers:
            reader.start()
        for reader in readers:
            reader.join()
        took = (time.perf_counter() - begun) / max(model.status()["tokens"] - before, 1)
    say("streams: us of the schedule for each token of 64 answers", own * 1e6, "")
    say("streams: % of what a token takes, 64 answers over two stages", 100 * own / took, "<= 5")


async def _chosen() -> float:
    """Processor time that the schedule takes for a token, where steps are over at once."""

    async def begin(step: Step, finish: Any) -> Any:
        await asyncio.sleep(0)
        return None if finish is None or step.silent else [Choice(7, None, ()) for _ in step.rows]

    schedule = Schedule(begin, width=2, limit=10**9, batched=True)
    request = Request((100, 101), 200, Sampling(), 64, frozenset(), processor=None)
    entries = [schedule.enter(request) for _ in range(STREAMS)]

    async def read(entry: Any) -> None:
        async for _ in entry.items():
            pass

    start = time.process_time()
    await asyncio.gather(*map(read, entries))
    took = time.process_time() - start
    schedule.close()
    return took / (STREAMS * request.max_tokens)
