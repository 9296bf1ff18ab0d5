"""Measures collectives on this machine, with ``--peers`` side by side with gloo, MLX's ring and Open MPI.

    python benchmarks/collectives.py [--ranks 2 4 8] [--peers] [--rounds 5] [--cases WORDS …] [--json FILE]
        [--plot FILE] [--memory]

README.md tells how to read the table. Exit status 0: all sides were measured; 1: one failed.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from collective_jobs import ENTRIES, Job, JobFailedError
from machine import this_machine
from plot import as_svg

MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Case:
    """One operation.

    Attributes:
        title: in the table.
        what: the collective.
        nbytes: of one rank's array.
        repeats: in one round.
        together: whether each begins with a barrier, and lasts from the first rank's begin to the last one's end; else
            they follow each other, and rank 0's time counts.
    """

    title: str
    what: str
    nbytes: int
    repeats: int
    together: bool


CASES = (
    Case("all-reduce 4 B", "allreduce", 4, 200, False),
    Case("barrier", "barrier", 0, 200, False),
    Case("all-reduce 4 KiB", "allreduce", 4096, 100, False),
    Case("all-reduce 1 MiB", "allreduce", MIB, 20, False),
    Case("all-reduce 64 MiB", "allreduce", 64 * MIB, 3, True),
    Case("broadcast 64 MiB", "broadcast", 64 * MIB, 3, True),
    Case("all-gather 8 MiB", "allgather", 8 * MIB, 5, True),
    Case("reduce-scatter 64 MiB", "reducescatter", 64 * MIB, 3, True),
    Case("all-reduce 12.5 MiB", "allreduce", 200 * 65536, 5, True),
    Case("tree of 200, 12.5 MiB", "tree of 200", 200 * 65536, 5, True),
    Case("all-reduce 200 KiB", "allreduce", 200 * 1024, 100, False),
    Case("tree of 200, 200 KiB", "tree of 200", 200 * 1024, 100, False),
    Case("the same, joined by hand", "200 joined by hand", 200 * 1024, 100, False),
)
LARGE = {2: CASES, 4: (CASES[0], CASES[4]), 8: (CASES[0], CASES[4])}
"""Beyond two ranks, what there are goals for."""

GOALS = (
    # ranks, case, sides of which the quickest counts, how many times its speed
    (2, "all-reduce 4 B", ("gloo",), 4.0),
    (2, "all-reduce 4 B", ("mlx-ring",), 1.0),
    (2, "barrier", ("gloo",), 4.0),
    (2, "barrier", ("mlx-ring",), 1.0),
    (2, "all-reduce 64 MiB", ("gloo",), 3.0),
    (2, "all-reduce 64 MiB", ("openmpi-shm",), 1.3),
    (2, "all-reduce 1 MiB", ("openmpi-tcp",), 1.0),
    (2, "broadcast 64 MiB", ("gloo",), 1.0),
    (2, "all-gather 8 MiB", ("gloo",), 1.0),
    (2, "reduce-scatter 64 MiB", ("gloo",), 1.0),
    (4, "all-reduce 64 MiB", ("gloo", "openmpi-tcp"), 1.5),
    (4, "all-reduce 4 B", ("gloo",), 1.0),
    (8, "all-reduce 64 MiB", ("gloo", "openmpi-tcp"), 1.5),
    (8, "all-reduce 4 B", ("gloo",), 1.0),
)


def seconds_of(answers: list[dict[str, Any]], case: Case) -> list[float] | None:
    """Returns how long each operation took, from what the ranks say; None where the side has no such thing."""
    if answers[0]["began"] is None:
        return None
    if not case.together:
        return [end - begin for begin, end in zip(answers[0]["began"], answers[0]["ended"], strict=True)]
    began, ended = (list(zip(*(rank[key] for rank in answers), strict=True)) for key in ("began", "ended"))
    return [max(end) - min(begin) for begin, end in zip(began, ended, strict=True)]


def measure(sides: list[str], ranks: int, rounds: int, wanted: list[str]) -> tuple[dict[str, Any], list[str]]:
    """Has all sides do the same in turn, round after round; returns their figures, and what failed."""
    failures: list[str] = []
    times: dict[str, dict[str, list[float]]] = {}
    with ExitStack() as stack:
        jobs = {}
        for side in sides:
            try:
                jobs[side] = Job(side, ranks)
            except JobFailedError as error:
                failures.append(str(error))
            else:
                stack.callback(jobs[side].close)
        for case in LARGE.get(ranks, (CASES[0], CASES[4])):
            if not all(word in case.title for word in wanted):
                continue
            of_case = times.setdefault(case.title, {})
            for turn in range(rounds):
                order = sorted(jobs, key=lambda side: (sides.index(side) + turn) % len(sides))
                for side in order:
                    try:
                        found = _turn(jobs[side], case)
                    except JobFailedError as error:
                        failures.append(str(error))
                        jobs.pop(side)
                        continue
                    if found is not None:
                        of_case.setdefault(side, []).extend(found)
            print(f"{ranks} ranks, {case.title}: done", file=sys.stderr, flush=True)
        versions = {side: job.version for side, job in jobs.items()}
    figures = {title: {side: _figures(found) for side, found in of_case.items()} for title, of_case in times.items()}
    return {"versions": versions, "cases": figures}, failures


def _figures(seconds: list[float]) -> dict[str, float]:
    ordered = sorted(seconds)
    return {"us": statistics.median(ordered) * 1e6, "low": ordered[len(ordered) // 10] * 1e6, "n": len(ordered)}


def _turn(job: Job, case: Case) -> list[float] | None:
    answers = job.do(do="measure", what=case.what, nbytes=case.nbytes, repeats=case.repeats, together=case.together)
    return seconds_of(answers, case)


def weigh(ranks: int = 2, nbytes: int = 16 * MIB, calls: int = 1000) -> dict[str, Any]:
    """Returns what our ranks hold beyond their arrays, in payloads, early and after 1,000 calls."""
    job = Job("ours", ranks)
    try:
        answers = job.do(do="memory", nbytes=nbytes, calls=calls)
    finally:
        job.close()
    worst = {key: max(answer[key] for answer in answers) / nbytes for key in ("first", "last")}
    return {"payload": nbytes, "calls": calls, **worst}


def table(ranks: int, result: dict[str, Any], which: str = "us") -> str:
    """Returns the figures of one number of ranks in words: microseconds, and how many times as quick ours is."""
    sides = list(result["versions"])
    name = {"us": "medians", "low": "lowest deciles"}[which]
    lines = [f"{ranks} ranks, microseconds, {name} (and how many times as long as ours)"]
    lines.append(f"{'':24}" + "".join(f"{side:>22}" for side in sides))
    for title, found in result["cases"].items():
        cells = []
        for side in sides:
            if side not in found:
                cells.append(f"{'-':>22}")
                continue
            us = found[side][which]
            ratio = f" ({us / found['ours'][which]:.2f})" if side != "ours" and "ours" in found else ""
            cells.append(f"{f'{us:,.1f}{ratio}':>22}")
        lines.append(f"{title:24}" + "".join(cells))
    return "\n".join(lines)


def verdicts(results: dict[int, dict[str, Any]]) -> list[dict[str, Any]]:
    """Returns each goal that this run can tell of, and whether it was met."""
    told = []
    for ranks, title, rivals, wanted in GOALS:
        found = results.get(ranks, {}).get("cases", {}).get(title, {})
        if "ours" in found and all(rival in found for rival in rivals):
            reached, undisturbed = (min(found[r][key] for r in rivals) / found["ours"][key] for key in ("us", "low"))
            told.append(_verdict(ranks, title, rivals, wanted, reached, undisturbed))
    pair = results.get(2, {}).get("cases", {})
    whole, tree = (pair.get(title, {}).get("ours") for title in ("all-reduce 12.5 MiB", "tree of 200, 12.5 MiB"))
    if whole and tree:
        shares = (whole[key] / tree[key] for key in ("us", "low"))
        told.append(_verdict(2, "tree of 200", ("one array",), 1 / 1.3, *shares))
    return told


def _verdict(  # noqa: PLR0917 - a row
    ranks: int, case: str, beside: tuple[str, ...], goal: float, reached: float, undisturbed: float
) -> dict[str, Any]:
    return {
        "ranks": ranks, "case": case, "beside": beside, "goal": goal, "reached": reached, "undisturbed": undisturbed,
    }  # fmt: skip


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--ranks", type=int, nargs="+", default=[2])
    parser.add_argument("--peers", action="store_true", help="the others too, each installed once by pip")
    parser.add_argument("--only", nargs="+", choices=sorted(ENTRIES), help="these sides beside ours")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--cases", nargs="+", default=[], metavar="WORD", help="only those with these words in them")
    parser.add_argument("--memory", action="store_true", help="also weigh 1,000 calls")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--plot", type=Path, metavar="FILE")
    return parser.parse_args()


def main() -> int:
    """Measures and reports."""
    asked = _arguments()
    sides = list(ENTRIES) if asked.peers else ["ours", *(side for side in asked.only or () if side != "ours")]
    results, failures = {}, []
    for ranks in asked.ranks:
        results[ranks], failed = measure(sides, ranks, asked.rounds, asked.cases)
        failures += failed
        print(table(ranks, results[ranks]), table(ranks, results[ranks], "low"), sep="\n\n", end="\n\n")
    told = verdicts(results)
    for goal in told:
        met = "met" if goal["reached"] >= goal["goal"] else "NOT MET"
        beside = " and ".join(goal["beside"])
        reached = (
            f"{goal['reached']:.2f} times {beside} (goal {goal['goal']:.2f}; undisturbed {goal['undisturbed']:.2f})"
        )
        print(f"{met:8}{goal['case']}, {goal['ranks']} ranks: {reached}")
    weighed = weigh() if asked.memory else None
    if weighed:
        print(f"memory beyond the arrays, in payloads: {weighed['first']:.2f} early, {weighed['last']:.2f} in the end")
    if asked.json is not None:
        whole = {
            "machine": asdict(this_machine()),
            "results": results,
            "goals": told,
            "memory": weighed,
            "failures": failures,
        }
        asked.json.write_text(json.dumps(whole, indent=1))
    if asked.plot is not None:
        asked.plot.write_text(as_svg(_for_plot(results)))
    for failure in failures:
        print(f"failed: {failure}", file=sys.stderr)
    return 1 if failures else 0


def _for_plot(results: dict[int, dict[str, Any]]) -> dict[str, Any]:
    workloads = {}
    for ranks, result in results.items():
        for title, found in result["cases"].items():
            others = {side: cell["us"] for side, cell in found.items() if side != "ours" and "ours" in found}
            ratios = {side: {"median": found["ours"]["us"] / us} for side, us in others.items()}
            workloads[f"{ranks}: {title}"] = {"ratios": ratios, "better": "lower"}
    return {"sides": list(ENTRIES), "workloads": workloads}


if __name__ == "__main__":
    sys.exit(main())
