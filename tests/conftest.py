"""What every test module is held to: it leaves no process, no socket and no shared memory behind.

The whole run has an ``ACTORS_HOME`` of its own, so that no test meets the user's state, and a mark in its environment
that every process started by a test inherits, so that detached ones are found as well.
"""

from __future__ import annotations

import compileall
import os
import secrets
import shutil
import signal
import stat
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest
import ray_differs
from hypothesis import settings

import actors
import discovery
from actors.home import arena_path

if TYPE_CHECKING:
    from collections.abc import Iterator

_MARK = "ACTORS_TEST_SESSION"
_PATIENCE = 10.0  # seconds for what is ending while its test returns


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--run-slow", action="store_true", help="run the tests marked slow, too")


def pytest_configure(config: pytest.Config) -> None:
    # Not under TMPDIR: macOS gives a long one, and a socket's path has room for 103 bytes.
    home = Path(tempfile.mkdtemp(prefix="actors-", dir="/tmp")).resolve()
    config.add_cleanup(lambda: shutil.rmtree(home, ignore_errors=True))
    os.environ["ACTORS_HOME"] = str(home)
    os.environ[_MARK] = secrets.token_hex(8)
    if "CI" not in os.environ:  # there hypothesis takes a profile of its own, which has no deadline either
        settings.register_profile("busy machine", deadline=None)
        settings.load_profile("busy machine")
    if not hasattr(config, "workerinput"):
        # As pip does where it installs a copy: else, with PYTHONDONTWRITEBYTECODE, as containers have it, each process
        # that a test starts would compile all modules anew, which takes it as long as loading them.
        for package in (actors, discovery):
            compileall.compile_dir(Path(package.__file__).parent, quiet=2)
    # A shell that runs tests in the background has them ignore Ctrl-C, and what they start would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if "ACTORS_TEST_RAY" in os.environ:
        ray_differs.mark(items)
    if config.getoption("--run-slow"):
        return
    for item in items:
        if "slow" in item.keywords:
            item.add_marker(pytest.mark.skip(reason="slow: make test-all, or pytest --run-slow"))


@pytest.fixture(scope="session", autouse=True)
def _session_leaves_nothing() -> Iterator[None]:
    before = _segments()
    yield
    _judge(before)


@pytest.fixture(scope="module", autouse=True)
def _module_leaves_nothing() -> Iterator[None]:
    before = _segments()
    yield
    _judge(before)


@pytest.fixture(scope="module")
def cluster() -> Iterator[actors.Cluster]:
    """A LAN in miniature, shared by the tests of a module: three nodes as processes of their own.

    Under `on_ray.py` a Ray cluster in its place.
    """
    if "ACTORS_TEST_RAY" in os.environ:
        with actors.init(os.environ["ACTORS_TEST_RAY"], engine="ray") as cluster:
            yield cluster
        return
    with actors.init(local_nodes=3) as cluster:
        yield cluster


def _judge(segments_before: set[Path]) -> None:
    """Fail where something is left after a while, and remove it so that later modules start clean."""
    deadline = time.monotonic() + _PATIENCE
    while (processes := _processes()) or _sockets() or _segments() - segments_before:
        if time.monotonic() > deadline:
            break
        time.sleep(0.05)
    else:
        return
    files = sorted(_sockets() | (_segments() - segments_before))
    found = [*map(_describe, processes), *map(str, files)]
    _end(processes)
    for file in files:
        _remove(file)
    if found:
        pytest.fail(f"left behind {_PATIENCE:g} s after the last test:\n" + "\n".join(found), pytrace=False)


def _processes() -> list[psutil.Process]:
    this = psutil.Process()
    found = {*this.children(recursive=True), *filter(_is_marked, psutil.process_iter())} - {this}
    return sorted((process for process in found if not _is_resource_tracker(process)), key=lambda process: process.pid)


def _is_marked(process: psutil.Process) -> bool:
    try:
        return process.environ().get(_MARK) == os.environ[_MARK]
    except (psutil.Error, OSError):  # ended meanwhile, or another user's
        return False


def _is_resource_tracker(process: psutil.Process) -> bool:
    """Whether it is multiprocessing's own helper, which lives as long as the process that first needed it."""
    try:
        return any("multiprocessing.resource_tracker" in word for word in process.cmdline())
    except psutil.Error:
        return False


def _describe(process: psutil.Process) -> str:
    try:
        if process.status() == psutil.STATUS_ZOMBIE:
            return f"process {process.pid}: ended, and its parent {process.ppid()} never waited for it"
        return f"process {process.pid}, of {process.ppid()}: {' '.join(process.cmdline())}"
    except psutil.Error:
        return f"process {process.pid}: ended just now"


def _end(processes: list[psutil.Process]) -> None:
    for process in processes:
        with suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(processes, timeout=5)


def _sockets() -> set[Path]:
    """Run folders of clusters, and sockets anywhere else in the state folder."""
    home = os.environ["ACTORS_HOME"]
    found = set()
    for folder, folders, names in os.walk(home):
        found |= {path for name in names if _is_socket(path := Path(folder, name))}
        if folder == f"{home}/run":
            found |= {Path(folder, name) for name in folders}
    return found


def _is_socket(path: Path) -> bool:
    try:
        return stat.S_ISSOCK(path.lstat().st_mode)
    except OSError:
        return False


def _segments() -> set[Path]:
    """Folders of shared memory; not those of other test runs beside this one. None on macOS."""
    any_of_ours = arena_path(Path(os.environ["ACTORS_HOME"], "run", "*"))
    return set(any_of_ours.parent.glob(any_of_ours.name))


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
