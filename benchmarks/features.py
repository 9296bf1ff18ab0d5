"""The features of Ray's actor API against ours, row by row: what each of them really does.

    python benchmarks/features.py                                  # asks ours, compares with the Ray that was measured
    python benchmarks/features.py --ray /path/to/python            # asks Ray too, by a Python that has it
    python benchmarks/features.py --only cancel                    # rows whose name holds this, and what errors say

Each row is a probe in ``probes/``: a small program written against ``import ray``, run with the one module and with
the other. One that does not come back is ended, and hangs. The outcomes are kept in ``features.json``, the table in
``features.md``. Exit status 1: a row differs and no reason is written beside it.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE = Path(__file__).parent
KEPT = HERE / "features.json"
TABLE = HERE / "features.md"
TOPICS = {
    "creation": "Making and naming",
    "options": "Options",
    "methods": "Methods and order",
    "references": "References",
    "failures": "Exceptions",
    "life": "Restarts, retries, ends",
    "cancelling": "Cancelling",
    "placing": "Placement and environments",
    "tasks": "Tasks",
    "utilities": "Utilities and context",
    "pains": "What is known to hurt",
}
START_SECONDS = 60.0
MOST_SHOWN = 160


@dataclass(frozen=True, slots=True)
class Program:
    """One topic's probes under one engine.

    Attributes:
        topic: name of the file in ``probes/``.
        engine: ``"ray"`` or ``"actors"``.
        python: the interpreter that has it.
        aloud: whether what errors say is printed.
    """

    topic: str
    engine: str
    python: str
    aloud: bool

    def rows(self) -> list[dict[str, Any]]:
        """Returns the rows of the topic, in their order."""
        listed = subprocess.run(
            [self.python, self._file(), "--list"], env=self._env(), stdout=subprocess.PIPE, check=True, timeout=60
        )
        return list(json.loads(listed.stdout))

    def run(self, rows: list[dict[str, Any]]) -> dict[str, str]:
        """Runs rows; returns the outcome of each by its name. After one that hangs or dies, a new process goes on."""
        outcomes: dict[str, str] = {}
        while rest := [row for row in rows if row["name"] not in outcomes]:
            outcomes.update(self._run(rest))
        return outcomes

    def _run(self, rows: list[dict[str, Any]]) -> dict[str, str]:
        outcomes: dict[str, str] = {}
        seconds = {row["name"]: row["seconds"] for row in rows}
        with tempfile.TemporaryDirectory() as folder:
            process = subprocess.Popen(
                [self.python, self._file(), *seconds],
                env={**self._env(), "ACTORS_HOME": folder},
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=False,
                start_new_session=True,
            )
            current, deadline = rows[0]["name"], [time.monotonic() + START_SECONDS]
            try:
                for line in _lines(process, deadline):
                    found = json.loads(line)
                    current = found["name"]
                    if found.get("begins"):
                        print(f"  {self.engine:7}{self.topic}.{current}", end="", flush=True)
                        deadline[0] = time.monotonic() + seconds[current]
                    else:
                        print(f"  {found['shown'][:90]}", flush=True)
                        if self.aloud:
                            print(*(f"      {said}" for said in found["said"]), sep="\n", flush=True)
                        outcomes[current] = found["shown"]
                        deadline[0] = time.monotonic() + START_SECONDS
            finally:
                late = time.monotonic() >= deadline[0]
                _end(process)
        if len(outcomes) < len(rows):
            if current in outcomes:  # it was the next one that did not even begin
                current = next(name for name in seconds if name not in outcomes)
            outcomes[current] = "hangs" if late else "the program dies"
            print(f"  {outcomes[current]}", flush=True)
        return outcomes

    def _file(self) -> str:
        return str(HERE / "probes" / f"{self.topic}.py")

    def _env(self) -> dict[str, str]:
        return {**os.environ, "FEATURES_ENGINE": self.engine, "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}


def _lines(process: subprocess.Popen[bytes], deadline: list[float]) -> Iterator[bytes]:
    """Yields the lines of a process until it ends or the deadline, which the reader may move, is over."""
    out = process.stdout
    assert out is not None
    kept = b""
    with selectors.DefaultSelector() as selector:
        selector.register(out, selectors.EVENT_READ)
        while (left := deadline[0] - time.monotonic()) > 0:
            if not selector.select(left):
                continue
            piece = os.read(out.fileno(), 1 << 16)
            if not piece:
                return
            *lines, kept = (kept + piece).split(b"\n")
            yield from lines


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ends the program and what it has started."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(timeout=0 if process.poll() is None else 1)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    try:
        process.wait(timeout=8)
    except subprocess.TimeoutExpired:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert process.stdout is not None
    process.stdout.close()


def version_of(engine: str, python: str) -> str:
    """Returns the version of an engine as its Python has it."""
    asked = subprocess.run(
        [python, "-c", f"import {engine}; print({engine}.__version__)"], capture_output=True, check=True, text=True
    )
    return asked.stdout.strip()


def alike(ray: str, ours: str) -> bool:
    """Whether two outcomes are one: an `ArgumentError` is caught as a TypeError and as a ValueError."""
    return re.fullmatch(re.escape(ours).replace("ArgumentError", "(Type|Value|Argument)Error"), ray) is not None


def verdict(row: dict[str, Any], ray: str, ours: str) -> str:
    """Returns what the table says of a row: works, differs, or refused, with the reason."""
    if alike(ray, ours):
        return "works"
    why = row["why"]
    if not why:
        return "DIFFERS"
    return f"refused: {why}" if "NotImplementedError" in ours else f"differs: {why}"


def cell(shown: str) -> str:
    """Returns an outcome as a cell of the table."""
    short = shown if len(shown) <= MOST_SHOWN else shown[: MOST_SHOWN - 1] + "…"
    return "`" + short.replace("|", "¦").replace("`", "'").replace("\n", " ") + "`"


def table(kept: dict[str, Any]) -> str:
    """Returns the table of all outcomes."""
    versions = kept["versions"]
    lines = [
        "# Ray's actor API, row by row",
        "",
        "Made by `python benchmarks/features.py`; each cell is what the row's probe gave when it ran. `no error: x`",
        "is a call that gave x where it might have raised. A row that differs says why.",
        "",
    ]
    counts = {"works": 0, "differs": 0, "refused": 0, "DIFFERS": 0}
    body: list[str] = []
    for topic, title in TOPICS.items():
        body += [
            f"## {title}",
            "",
            f"| row | Ray {versions['ray']} | mlx-actors {versions['actors']} | verdict |",
            "|---|---|---|---|",
        ]
        for row in kept["rows"][topic]:
            ray, ours = (kept[engine].get(f"{topic}.{row['name']}") for engine in ("ray", "actors"))
            if ray is None or ours is None:
                continue
            said = verdict(row, ray, ours)
            counts[said.split(":")[0]] += 1
            same = "the same" if said == "works" else cell(ours)
            body.append(f"| {row['about'].replace('|', '¦')} | {cell(ray)} | {same} | {said} |")
        body.append("")
    total = f"{counts['works']} rows work alike, {counts['differs']} differ on purpose, {counts['refused']} are refused"
    unexplained = f", {counts['DIFFERS']} DIFFER and should not" if counts["DIFFERS"] else ""
    return "\n".join([*lines, total + unexplained + ".", "", *body])


def main() -> int:
    """Runs the probes and writes the table; returns the exit status."""
    options = argparse.ArgumentParser(description="Ray's actor API against ours, row by row")
    options.add_argument("--ray", metavar="PYTHON", help="an interpreter that has Ray, to measure Ray too")
    options.add_argument("--only", metavar="TEXT", default="", help="only rows whose topic.name holds this")
    options.add_argument("--skip-ours", action="store_true", help="measure Ray alone")
    options.add_argument("--table", action="store_true", help="make the table again of what was measured")
    asked = options.parse_args()
    empty: dict[str, Any] = {"versions": {}, "rows": {}, "ray": {}, "actors": {}}
    kept: dict[str, Any] = json.loads(KEPT.read_text()) if KEPT.exists() else empty
    engines = {"ray": asked.ray} if asked.ray else {}
    if not asked.skip_ours:
        engines["actors"] = sys.executable
    if asked.table:
        engines = {}
    for engine, python in engines.items():
        kept["versions"][engine] = version_of(engine, python)
        for topic in TOPICS:
            program = Program(topic, engine, python, aloud=bool(asked.only))
            rows = program.rows()
            kept["rows"][topic] = rows
            chosen = [row for row in rows if asked.only in f"{topic}.{row['name']}"]
            for name, outcome in program.run(chosen).items():
                kept[engine][f"{topic}.{name}"] = outcome
            KEPT.write_text(json.dumps(kept, indent=1, ensure_ascii=False) + "\n")
    there = {f"{topic}.{row['name']}" for topic, rows in kept["rows"].items() for row in rows}
    for engine in ("ray", "actors"):
        kept[engine] = {name: outcome for name, outcome in kept[engine].items() if name in there}
    KEPT.write_text(json.dumps(kept, indent=1, ensure_ascii=False) + "\n")
    if len(kept["versions"]) < 2:
        return 0
    TABLE.write_text(table(kept))
    return 1 if "| DIFFERS |" in TABLE.read_text() else 0


if __name__ == "__main__":
    sys.exit(main())
