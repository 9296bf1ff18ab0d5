"""What it costs to be seen: ``python benchmarks/faces.py [--rounds N] [--json FILE]``.

Programs that make the same small calls, in turn, round after round: one that records nothing (``off``), one as it is by
default (``recorded``), one whose cluster a dashboard shows and Prometheus reads meanwhile (``watched``), one that
records spans with OpenTelemetry's SDK at both ends (``traced``), and one that in place of those does what no trace can
do without (``bare``): it draws ids for each call and has them travel. Then what the commands take to start, beside
Python.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Sequence

CALLS = 200  # of one turn: short, so that what else the machine does meets all sides alike
TRIES = 9  # starts of one command
SIDES = ("off", "recorded", "watched", "traced", "bare")
STARTS = {
    "python -c pass": ["-c", "pass"],
    "actors --help": ["-c", "from actors.cli import main; main()", "--help"],
    "actors status": ["-c", "from actors.cli import main; main()", "status"],
}
GOALS = {"actors --help": 0.120, "actors status": 0.300}  # seconds

PROGRAM = """
import sys, time
import actors

actors.init("local", num_cpus=2)

@actors.remote
class Echo:
    def echo(self, value):
        return value

echo = Echo.remote()
for value in range(2000):
    actors.get(echo.echo.remote(value))
print("ready", flush=True)
for line in sys.stdin:
    times = []
    for value in range(int(line)):
        begun = time.perf_counter_ns()
        assert actors.get(echo.echo.remote(value)) == value
        times.append(time.perf_counter_ns() - begun)
    times.sort()
    print(times[len(times) // 2] / 1000, flush=True)
actors.shutdown()
"""

TRACED = """
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

class Nowhere(SpanExporter):
    def export(self, spans):
        return SpanExportResult.SUCCESS

def begin():
    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(Nowhere()))
    trace.set_tracer_provider(provider)
"""

BARE = """
from random import randbytes

def call(call, running):
    drawn = randbytes(24).hex()
    call.trace = f"00-{drawn[:32]}-{drawn[32:]}-01"

def serve(job):
    return None

def begin():
    from actors import tracing
    tracing.begin, tracing.serve = call, serve
"""
SPANS = {"traced": TRACED, "bare": BARE}


class Side:
    """A program that makes calls when it is told to. A context manager."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        self._home = folder / name
        self._watching: list[subprocess.Popen[str]] = []
        environment = {**os.environ, "ACTORS_HOME": str(self._home)}
        program = PROGRAM
        if name == "off":
            environment["ACTORS_RECORD_CALLS"] = "0"
        if name in SPANS:
            (folder / f"{name}.py").write_text(SPANS[name], "utf-8")
            environment |= {"ACTORS_TRACING": f"{name}:begin", "PYTHONPATH": str(folder)}
            program = f"import {name}; {name}.begin()\n{PROGRAM}"
        self._process = subprocess.Popen(
            [sys.executable, "-c", program], env=environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        self._environment = environment

    def begin(self) -> Self:
        """Waits until it is warm."""
        assert self._process.stdout is not None
        if self._process.stdout.readline() != "ready\n":
            raise SystemExit(f"the program of {self.name} could not begin")
        if self.name == "watched":
            self._watch()
        return self

    def _watch(self) -> None:
        """As a person with the dashboard does, and Prometheus, in a process that outlives no turn."""
        look = "from actors.cli import main; main()"
        dashboard = subprocess.Popen(
            [sys.executable, "-c", look, "dashboard", "--json"],
            env=self._environment,
            text=True,
            stdout=subprocess.PIPE,
        )
        self._watching.append(dashboard)
        assert dashboard.stdout is not None
        told = json.loads(dashboard.stdout.readline())
        self._watching.append(subprocess.Popen([sys.executable, "-c", LOOK, told["url"], told["token"]], text=True))

    def turn(self, calls: int) -> float:
        """Makes so many calls; returns the median, in microseconds."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{calls}\n")
        self._process.stdin.flush()
        return float(self._process.stdout.readline())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for process in reversed(self._watching):
            process.terminate()
            process.wait(20)
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(30)


LOOK = """
import http.client, sys, threading, time
from urllib.parse import urlsplit

where, token = urlsplit(sys.argv[1]), sys.argv[2]
bearer = {"Authorization": f"Bearer {token}"}

def events():
    connection = http.client.HTTPConnection(where.hostname, where.port)
    connection.request("GET", "/live", headers=bearer)
    answer = connection.getresponse()
    while answer.readline():
        pass

threading.Thread(target=events, daemon=True).start()
while True:
    connection = http.client.HTTPConnection(where.hostname, where.port)
    connection.request("GET", "/metrics", headers=bearer)
    assert connection.getresponse().status == 200
    connection.close()
    time.sleep(5)
"""


def calls(rounds: int, folder: Path) -> dict[str, list[float]]:
    """Returns the medians of each side's turns, in microseconds."""
    with contextlib.ExitStack() as stack:
        sides = [stack.enter_context(Side(name, folder)) for name in SIDES]
        for side in sides:
            side.begin()
        found: dict[str, list[float]] = {name: [] for name in SIDES}
        for number in range(rounds + 1):  # the first is not counted
            for side in sides[number % len(sides) :] + sides[: number % len(sides)]:
                median = side.turn(CALLS)
                if number:
                    found[side.name].append(median)
        return found


def starts(folder: Path) -> dict[str, dict[str, float]]:
    """Returns what commands take, in seconds: of the clock, the least, and of the processor, the median."""
    found: dict[str, dict[str, list[float]]] = {name: {"clock": [], "processor": []} for name in STARTS}
    environment = {**os.environ, "ACTORS_HOME": str(folder / "started")}
    run = [sys.executable, "-c", "from actors.cli import main; main()"]
    subprocess.run([*run, "start"], env=environment, check=True, stdout=subprocess.DEVNULL)
    try:
        for number in range(TRIES + 1):
            for name, words in STARTS.items():
                before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
                subprocess.run([sys.executable, *words], env=environment, check=True, stdout=subprocess.DEVNULL)
                after, ended = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
                if number:
                    found[name]["clock"].append(ended - begun)
                    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
                    found[name]["processor"].append(used)
    finally:
        subprocess.run([*run, "stop"], env=environment, check=True, stdout=subprocess.DEVNULL)
    return {
        name: {"clock": min(each["clock"]), "processor": statistics.median(each["processor"])}
        for name, each in found.items()
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures and tells."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--json", metavar="FILE")
    given = parser.parse_args(arguments)
    folder = Path(tempfile.mkdtemp(prefix="faces-", dir="/tmp"))
    try:
        turns = calls(given.rounds, folder)
        commands = starts(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    ratios: dict[str, Any] = {}
    print(f"a small call, least, first quartile and median of {given.rounds} turns of {CALLS}, beside one unrecorded")
    for name in SIDES[1:]:
        mine, off = (statistics.quantiles(turns[side], n=4) for side in (name, "off"))
        least = min(turns[name]) / min(turns["off"])
        ratios[name] = {"least": least, "quick": mine[0] / off[0], "median": mine[1] / off[1]}
        print(f"  {name:<10} {least:5.2f} x least {mine[0] / off[0]:5.2f} x quicker {mine[1] / off[1]:5.2f} x median")
    print(f"what a command takes to start, the least of {TRIES} by the clock, and the median of the processor's time")
    for name, took in commands.items():
        goal = f"   goal {1000 * GOALS[name]:.0f} ms" if name in GOALS else ""
        print(f"  {name:<16} {1000 * took['clock']:5.0f} ms  {1000 * took['processor']:5.0f} ms{goal}")
    if given.json:
        Path(given.json).write_text(json.dumps({"calls": ratios, "starts": commands}, indent=2), "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
