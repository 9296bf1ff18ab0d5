"""The pytest plugin: the fixture ``actors_cluster``, a cluster of two nodes that tests share.

    def test_counting(actors_cluster):
        counter = Counter.remote()
        assert actors.get(counter.add.remote(1)) == 1

It is made for each module, unless pytest's option ``actors_cluster_scope`` says otherwise, and is closed to all others:
no node, actor or setting of the user's is met, and nothing is left after it. The mark ``actors_cluster`` gives it the
arguments of `actors.init`:

    pytestmark = pytest.mark.actors_cluster(local_nodes=3, resources={"camera": 1})
"""

from __future__ import annotations

import os
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import actors

if TYPE_CHECKING:
    from collections.abc import Iterator

MARK = "actors_cluster"
NODES = 2  # with one, a mistake that shows only between nodes would stay hidden
SCOPES = ("function", "class", "module", "package", "session")
_SCOPE = "actors_cluster_scope"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declares the plugin's settings."""
    parser.addini(
        _SCOPE, f"how long a cluster of the fixture actors_cluster lives: {', '.join(SCOPES)}", "string", "module"
    )


def pytest_configure(config: pytest.Config) -> None:
    """Declares the plugin's mark, and looks at its settings."""
    config.addinivalue_line("markers", f"{MARK}(**arguments): arguments of actors.init for the fixture {MARK}")
    scope = config.getini(_SCOPE)
    if scope not in SCOPES:
        raise pytest.UsageError(f"{_SCOPE} must be one of {', '.join(SCOPES)}, not {scope!r}")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Refuses a mark that the cluster of its test would not heed, since it is shared by more tests than are marked."""
    kind = {"function": pytest.Function, "class": pytest.Class, "module": pytest.Module, "package": pytest.Package}.get(
        config.getini(_SCOPE), pytest.Session
    )
    for item in items:
        if MARK not in getattr(item, "fixturenames", ()):
            continue
        if any(item.iter_markers(MARK)) and not any(
            mark for node in item.listchain() if isinstance(node, kind) for mark in node.iter_markers(MARK)
        ):
            raise pytest.UsageError(
                f"{item.nodeid} has the mark {MARK}, but shares its cluster with a whole {config.getini(_SCOPE)}: "
                f"mark that (pytestmark = pytest.mark.{MARK}(…)), or set {_SCOPE} = function"
            )


def _scope(fixture_name: str, config: pytest.Config) -> Any:
    del fixture_name
    return config.getini(_SCOPE)


@pytest.fixture(scope=_scope)
def actors_cluster(request: pytest.FixtureRequest) -> Iterator[actors.Cluster]:
    """A cluster of nodes on this machine, which `actors.init` has joined; two nodes unless a mark says otherwise."""
    if actors.is_initialized():
        raise pytest.UsageError("actors.init was called before: the fixture actors_cluster is a cluster of its own")
    mark = request.node.get_closest_marker(MARK)
    if mark is not None and mark.args:
        raise pytest.UsageError(f"the mark {MARK} takes the arguments of actors.init by name, not {mark.args!r}")
    arguments = {"local_nodes": NODES, **(mark.kwargs if mark is not None else {})}
    with _home_of_its_own(), actors.init("local", **arguments) as cluster:
        yield cluster


@contextmanager
def _home_of_its_own() -> Iterator[None]:
    """Sets ``ACTORS_HOME`` to a new folder, for what this process starts meanwhile."""
    # Not under TMPDIR: macOS gives a long one, and a socket's path has room for 103 bytes.
    home = Path(tempfile.mkdtemp(prefix="actors-", dir="/tmp")).resolve()
    before = os.environ.get("ACTORS_HOME")
    os.environ["ACTORS_HOME"] = str(home)
    try:
        yield
    finally:
        if before is None:
            del os.environ["ACTORS_HOME"]
        else:
            os.environ["ACTORS_HOME"] = before
        shutil.rmtree(home, ignore_errors=True)
