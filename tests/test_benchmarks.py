"""The benchmark of calls does what it says: every side gives right results, and nothing of it stays behind.

How quick anything was is never looked at.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import xml.etree.ElementTree as ET
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

CALLS = Path(__file__).parents[1] / "benchmarks" / "calls.py"
SIDES = {"ours", "unary", "unary-tcp", "stream", "stream-tcp"}
WORKLOADS = {"sync_call", "in_flight", "argument", "result", "nested", "spawn", "spawn_many"}
OF_OURS = {
    "put", "argument_mlx", "result_mlx", "batch", "many_to_many", "alone", "beside", "beside_argument", "light",
    "first_result", "loading", "idle",
}  # fmt: skip
PATIENCE = 120


def _run(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(CALLS), *words]
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=PATIENCE)


@contextmanager
def _running(*words: str) -> Iterator[subprocess.Popen[str]]:
    """Gives a run that has just begun to measure."""
    with subprocess.Popen(
        [sys.executable, str(CALLS), *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as run:
        try:
            assert run.stderr is not None
            assert run.stderr.readline().startswith("sync_call:")
            yield run
        finally:
            run.terminate()


def _family(pid: int) -> list[psutil.Process]:
    return psutil.Process(pid).children(recursive=True)


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[str, Any]]:
    file = tmp_path_factory.mktemp("report") / "calls.json"
    run = _run("--quick", "--json", str(file))
    # Each operation checks its result, so status 0 means that all of them were right.
    assert run.returncode == 0, run.stderr
    return run.stdout, json.loads(file.read_text())


@pytest.mark.slow
def test_all_sides_do_all_workloads(quick: tuple[str, dict[str, Any]]) -> None:
    _, report = quick
    assert set(report["sides"]) == SIDES
    assert set(report["workloads"]) == WORKLOADS | OF_OURS
    assert report["settings"]["failures"] == []
    for name, workload in report["workloads"].items():
        assert set(workload["sides"]) == (SIDES if name in WORKLOADS else {"ours"})
        assert set(workload["ratios"]) == set(workload["sides"]) - {"ours"}


@pytest.mark.slow
def test_figures_are_in_order_and_ratios_are_of_the_medians(quick: tuple[str, dict[str, Any]]) -> None:
    _, report = quick
    for workload in report["workloads"].values():
        sign = {"lower": 1, "higher": -1}[workload["better"]]
        for figures in workload["sides"].values():
            order = [sign * figures[key] for key in ("best", "median", "p99", "worst")]
            assert order == sorted(order)
            assert figures["count"] >= len(figures["rounds"]) == report["settings"]["rounds"]
        ours = workload["sides"]["ours"]["median"]
        for name, ratios in workload["ratios"].items():
            assert ratios["median"] == pytest.approx(ours / workload["sides"][name]["median"])
            assert ratios["least"] <= ratios["most"]


@pytest.mark.slow
def test_the_report_says_where_it_was_made(quick: tuple[str, dict[str, Any]]) -> None:
    _, report = quick
    assert report["machine"]["cores"] >= 1
    assert report["machine"]["python"] == ".".join(map(str, sys.version_info[:3]))
    assert report["machine"]["grpcio"] == report["settings"]["versions"]["unary"]
    assert set(report["settings"]["versions"]) == SIDES


@pytest.mark.slow
def test_the_table_names_everything_once_and_says_what_is_better(quick: tuple[str, dict[str, Any]]) -> None:
    table, report = quick
    lines = table.splitlines()
    assert lines[0].split() == ["workload", "unit", "better", *report["sides"]]
    rows = {
        line.split()[0]: line.split()[2]
        for line in lines[2:]
        if line.split()[:1] and line.split()[0] in report["workloads"]
    }
    assert rows == {name: workload["better"] for name, workload in report["workloads"].items()}


def test_what_others_can_do_is_measured_beside_ours_and_goals_are_told(tmp_path: Path) -> None:
    plot = tmp_path / "calls.svg"
    run = _run("--quick", "--only", "ours-grpc", "managers", "sync_call", "batch", "nested", "--plot", str(plot))
    assert run.returncode == 0, run.stderr
    rows = {line.split()[0]: line.split() for line in run.stdout.splitlines() if line.strip()}
    assert rows["workload"][3:] == ["ours", "ours-grpc", "managers"]
    assert rows["batch"][-1] == "-"  # managers have no such thing
    assert "sync_call: " in run.stdout.partition("Goals")[2]
    shapes = [element.tag.rpartition("}")[2] for element in ET.parse(plot).getroot()]
    assert shapes.count("rect") == 1 + 2 + 1 + 2 + 2  # the ground, a bar for each ratio, the key


@pytest.mark.slow
def test_the_floors_answer_rightly_and_so_does_ours_over_tcp(tmp_path: Path) -> None:
    file = tmp_path / "calls.json"
    small = ("sync_call", "in_flight", "nested", "beside", "beside_argument")
    run = _run("--quick", "--only", "session", "handed", "ours-tcp", *small, "--json", str(file))
    assert run.returncode == 0, run.stderr
    workloads = json.loads(file.read_text())["workloads"]
    assert set(workloads) == set(small)
    assert all(set(workload["sides"]) == {"ours", "session", "handed", "ours-tcp"} for workload in workloads.values())


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="processes cannot be pinned here")
def test_the_floor_is_told_for_each_place() -> None:
    command = [sys.executable, str(CALLS.with_name("floor.py")), "1"]
    run = subprocess.run(command, check=False, capture_output=True, text=True, timeout=PATIENCE)
    assert run.returncode == 0, run.stderr
    for place in ("anywhere", "one core", "a core each"):
        rows = [line.split() for line in run.stdout.splitlines() if line.startswith(f"  {place} ")]
        assert [row[len(place.split())] for row in rows] == ["socket", "session", "handed", "ours"]
    assert "its class pickled" in run.stdout


@pytest.mark.slow
def test_a_peer_is_installed_in_an_environment_of_its_own(tmp_path: Path) -> None:
    file = tmp_path / "calls.json"
    run = _run("--quick", "--only", "pyro5", "sync_call", "many_to_many", "argument", "--json", str(file))
    assert run.returncode == 0, run.stderr
    report = json.loads(file.read_text())
    assert all(set(workload["sides"]) == {"ours", "pyro5"} for workload in report["workloads"].values())
    assert report["settings"]["versions"]["pyro5"] == "5.17"


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_ends_all_it_started(how: signal.Signals) -> None:
    with _running("--only", "sync_call") as run:
        family = _family(run.pid)
        assert len(family) > 2 * len(SIDES)
        os.kill(run.pid, how)
        assert run.wait(PATIENCE) == 130
        assert not [process for process in family if process.is_running()]
        assert not list(Path("/tmp").glob(f"calls-{run.pid}-*"))


def test_what_a_killed_run_started_ends_by_itself() -> None:
    with _running("--only", "sync_call", "stream") as run:
        family = _family(run.pid)
        run.kill()
        _, left = psutil.wait_procs(family, timeout=30)
    for folder in Path("/tmp").glob(f"calls-{run.pid}-*"):  # nobody is left who could
        shutil.rmtree(folder)
    assert not left


@pytest.mark.slow
def test_a_side_that_fails_is_told_and_the_others_go_on(tmp_path: Path) -> None:
    file = tmp_path / "calls.json"
    with _running("--only", "sync_call", "unary", "stream", "--json", str(file)) as run:
        drivers = [process for process in _family(run.pid) if process.cmdline()[2:3] == ["stream"]]
        for server in drivers[0].children():
            server.kill()
        table, errors = run.communicate(timeout=PATIENCE)
    assert run.returncode == 1
    assert "failed: stream: " in errors
    assert "failed" in table
    sides = json.loads(file.read_text())["workloads"]["sync_call"]["sides"]
    assert set(sides) == {"ours", "unary"}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--only", "sync_cal"], "sync_call"),
        (["--json", "/no/such/folder/calls.json"], "/no/such/folder"),
    ],
)
def test_a_wrong_command_line_is_refused_at_once(words: list[str], said: str) -> None:
    run = _run(*words)
    assert run.returncode == 2
    assert said in run.stderr
