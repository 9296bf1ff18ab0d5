"""The report: figures of one run, as an object for programs and as a table for people."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from side import OURS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from machine import Machine
    from samples import Summary
    from side import Entry
    from workloads import Workload

LEGEND = (
    "Medians; in brackets the ratio ours / side. Better lower: below 1 ours is ahead; better higher: above 1.\n"
    "All sides took turns in one run. Compare ratios, never figures of different runs or machines."
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Result:
    """A workload, what each side that could do it needed, and the names of those that failed at it or before."""

    workload: Workload
    sides: Mapping[str, Summary]
    failed: Sequence[str] = ()


def as_object(
    machine: Machine, settings: Mapping[str, Any], entries: Sequence[Entry], results: Sequence[Result]
) -> dict[str, Any]:
    """Returns the whole run as what JSON can hold."""
    return {
        "machine": asdict(machine),
        "settings": dict(settings),
        "sides": {entry.name: entry.about for entry in entries},
        "workloads": {result.workload.name: _workload(result) for result in results},
    }


def _workload(result: Result) -> dict[str, Any]:
    workload = result.workload
    return {
        "title": workload.title,
        "unit": workload.unit,
        "better": workload.better,
        "sides": {name: _figures(workload, summary) for name, summary in result.sides.items()},
        "ratios": {name: _ratios(result, name) for name in result.sides if name != OURS and OURS in result.sides},
        "failed": list(result.failed),
    }


def _figures(workload: Workload, summary: Summary) -> dict[str, Any]:
    return {
        "count": summary.count,
        "median": workload.figure(summary.median),
        "p99": workload.figure(summary.p99),
        "best": workload.figure(summary.best),
        "worst": workload.figure(summary.worst),
        "rounds": [workload.figure(median) for median in summary.rounds],
    }


def _ratios(result: Result, name: str) -> dict[str, float]:
    """Returns ours / side: of the medians, of the 99th percentiles, and the least and most of any single round."""
    figure, ours, side = result.workload.figure, result.sides[OURS], result.sides[name]
    rounds = [figure(a) / figure(b) for a, b in zip(ours.rounds, side.rounds, strict=True)]
    return {
        "median": figure(ours.median) / figure(side.median),
        "p99": figure(ours.p99) / figure(side.p99),
        "least": min(rounds),
        "most": max(rounds),
    }


def as_table(report: Mapping[str, Any]) -> str:
    """Returns the table of a run: a row for each workload, a column for each side."""
    names = list(report["sides"])
    rows = [["workload", "unit", "better", *names]]
    for name, workload in report["workloads"].items():
        rows.append([name, workload["unit"], workload["better"], *(_cell(workload, side, "median") for side in names)])
        if workload["unit"] == "µs":
            rows.append(["  its p99", "µs", "lower", *(_cell(workload, side, "p99") for side in names)])
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    lines.insert(1, "  ".join("-" * width for width in widths))
    titles = [f"{name}: {workload['title']}" for name, workload in report["workloads"].items()]
    abouts = [f"{name}: {about}" for name, about in report["sides"].items()]
    return "\n".join([*lines, "", LEGEND, "", *titles, "", *abouts])


def _cell(workload: Mapping[str, Any], side: str, figure: str) -> str:
    if side not in workload["sides"]:
        return "failed" if side in workload["failed"] else "-"
    value = (
        f"{workload['sides'][side][figure]:,.4g}"
        if workload["unit"] == "GB/s"
        else f"{workload['sides'][side][figure]:,.0f}"
    )
    ratio = workload["ratios"].get(side)
    return value if ratio is None else f"{value} ({ratio[figure]:.2f})"
