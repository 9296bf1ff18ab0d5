"""Measures actor calls side by side with plain gRPC and, with ``--peers``, with other frameworks.

``python benchmarks/calls.py [--peers] [--json FILE] [--plot FILE] [--quick] [--only NAME …]``; README.md tells how to
read what comes out.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from environments import prepare
from goals import as_lines
from harness import Harness
from machine import this_machine
from plot import as_svg
from report import Result, as_object, as_table
from samples import Count, summarise
from side import OURS, PEERS, SIDES
from workloads import WORKLOADS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from side import Entry
    from workloads import Workload

ROUNDS = Count(warm=1, measured=5)
QUICK_ROUNDS = Count(warm=0, measured=1)
INTERRUPTED = 130


@dataclass(frozen=True, slots=True)
class Plan:
    """What to measure, and where to write it."""

    workloads: Sequence[Workload]
    sides: Sequence[Entry]
    quick: bool
    file: Path | None
    plot: Path | None


def parse(words: Sequence[str]) -> Plan:
    """Reads the command line; ends the program with a sentence and status 2 where it is wrong."""
    known = [*(workload.name for workload in WORKLOADS), *(entry.name for entry in (*SIDES, *PEERS))]
    parser = argparse.ArgumentParser(prog="calls.py", description="Actor calls side by side with plain gRPC.")
    parser.add_argument("--peers", action="store_true", help="other frameworks too, each installed once by pip")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write everything there")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="also draw the ratios there, as SVG")
    parser.add_argument("--quick", action="store_true", help="few operations: shows that it works, not how fast")
    names = f"workloads and sides, of: {', '.join(known)}; {OURS} is always in"
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", choices=known, help=names)
    options = parser.parse_args(words)
    for option, file in (("--json", options.json), ("--plot", options.plot)):
        if file is not None and not file.resolve().parent.is_dir():
            parser.error(f"{option} {file}: there is no folder {file.resolve().parent}")
    workloads = [workload for workload in WORKLOADS if workload.name in options.only] or WORKLOADS
    offered = (*SIDES, *PEERS) if options.peers else SIDES
    chosen = [entry for entry in (*SIDES, *PEERS) if entry.name in options.only] or offered
    ours = [entry for entry in SIDES if entry.name == OURS and entry not in chosen]
    return Plan(workloads, [*ours, *chosen], options.quick, options.json, options.plot)


def measure(plan: Plan) -> tuple[dict[str, object], list[str]]:
    """Runs the plan; returns the report and, for each side that failed, a line that says how."""
    for entry in plan.sides:
        prepare(entry)
    machine = this_machine()
    rounds = QUICK_ROUNDS if plan.quick else ROUNDS
    results = []
    # Not in TMPDIR: macOS gives a long one, and a socket's path has room for 103 bytes.
    with (
        tempfile.TemporaryDirectory(prefix=f"calls-{os.getpid()}-", dir="/tmp") as folder,
        Harness(plan.sides, Path(folder), tell) as harness,
    ):
        versions = {driver.entry.name: driver.version for driver in harness.drivers}
        for workload in plan.workloads:
            tell(f"{workload.name}: {workload.title}")
            samples = harness.run(workload, workload.quick if plan.quick else workload.full, rounds)
            failed = [driver.entry.name for driver in harness.drivers if driver.failure is not None]
            results.append(Result(workload, {name: summarise(found) for name, found in samples.items()}, failed))
        failures = [f"{d.entry.name}: {d.failure}" for d in harness.drivers if d.failure is not None]
    settings = {"quick": plan.quick, "rounds": rounds.measured, "versions": versions, "failures": failures}
    return as_object(machine, settings, plan.sides, results), failures


def tell(line: str) -> None:
    """Shows progress, apart from the table."""
    print(line, file=sys.stderr, flush=True)


def main() -> int:
    """Runs the program; returns its exit status: 1 where a side failed, 130 on Ctrl-C."""
    plan = parse(sys.argv[1:])
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends everything, as Ctrl-C does
    try:
        report, failures = measure(plan)
    except KeyboardInterrupt:
        tell("interrupted; everything that was started has been ended")
        return INTERRUPTED
    except RuntimeError as error:  # a peer's environment
        tell(f"failed: {error}")
        return 1
    if plan.file is not None:
        plan.file.write_text(json.dumps(report, indent=1) + "\n")
    if plan.plot is not None:
        plan.plot.write_text(as_svg(report))
    print(as_table(report))
    for line in as_lines(report):
        print(line)
    for failure in failures:
        tell(f"failed: {failure}")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
