"""Runs random programs of collectives by this package, by torch.distributed's gloo and by Open MPI: all must agree.

    python benchmarks/collective_programs.py [--programs 3] [--calls 50] [--ranks 2 3 4] [--seed 0] [--sides ours ...]

Each program is a sequence of calls that every rank of every side makes in the same order, on arrays of whole numbers,
so that the results are equal bit for bit. Exit status 0: they are; 1: they are not, or a side failed.
"""

from __future__ import annotations

import argparse
import random
import sys
from contextlib import ExitStack
from typing import Any

from collective_calls import CALLS, OPS
from collective_jobs import Job, JobFailedError

SIDES = ("ours", "gloo", "openmpi-shm")
DTYPES = ("uint8", "int32", "int64", "float32", "float64")
LENGTHS = (1, 1, 3, 40, 5_000, 120_000)
"""Elements of a rank's array, for each rank: what goes with the offer, and what goes in blocks and chunks."""


def program(seed: int, calls: int, ranks: int) -> list[dict[str, Any]]:
    """Returns a program: the same for the same arguments."""
    chance = random.Random(f"{seed}/{ranks}")
    return [
        {
            "what": chance.choice(CALLS),
            "op": chance.choice(OPS),
            "root": chance.randrange(ranks),
            "dtype": chance.choice(DTYPES),
            "shape": [ranks * chance.choice(LENGTHS), *([2] if chance.random() < 0.3 else [])],
            "seed": chance.randrange(1 << 30),
        }
        for _ in range(calls)
    ]


def compare(steps: list[dict[str, Any]], found: dict[str, list[list[str]]]) -> list[str]:
    """Returns where sides differ, in words; what each rank got is told as a digest."""
    first, *rest = found
    return [
        f"call {number} {step}: rank {rank} of {side} has {found[side][rank][number]}, that of {first} "
        f"{found[first][rank][number]}"
        for side in rest
        for rank in range(len(found[first]))
        for number, step in enumerate(steps)
        if found[side][rank][number] != found[first][rank][number]
    ]


def run(sides: list[str], ranks: int, programs: int, calls: int, seed: int) -> list[str]:
    """Runs programs among so many ranks; returns what is wrong."""
    wrong = []
    with ExitStack() as stack:
        try:
            jobs = {}
            for side in sides:
                jobs[side] = Job(side, ranks)
                stack.callback(jobs[side].close)
            for number in range(seed, seed + programs):
                steps = program(number, calls, ranks)
                found = {side: job.do(do="program", steps=steps) for side, job in jobs.items()}
                wrong += [f"seed {number}, {ranks} ranks, {words}" for words in compare(steps, found)]
        except JobFailedError as error:
            wrong.append(str(error))
    return wrong


def main() -> int:
    """Runs and reports."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--programs", type=int, default=3, help="for each number of ranks")
    parser.add_argument("--calls", type=int, default=50)
    parser.add_argument("--ranks", type=int, nargs="+", default=[2, 3, 4])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=list(SIDES))
    asked = parser.parse_args()
    wrong: list[str] = []
    for ranks in asked.ranks:
        failed = run(asked.sides, ranks, asked.programs, asked.calls, asked.seed)
        beside = " and ".join(asked.sides)
        print(f"{ranks} ranks: {asked.programs} programs of {asked.calls} calls by {beside}: ", end="")
        print(f"{len(failed)} differences" if failed else "equal", flush=True)
        wrong += failed
    for words in wrong[:20]:
        print(words, file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
