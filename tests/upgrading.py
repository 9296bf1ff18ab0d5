"""An older version beside this one: the last tag or, while there is none, a commit that is written down."""

from __future__ import annotations

import socket
import subprocess
from pathlib import Path

import pytest
from devices import Device

ROOT = Path(__file__).resolve().parent.parent
RECORDED = Path(__file__).with_name("upgrade_from.txt")


def older_sources(folder: Path, untagged: str = "") -> tuple[str, Path]:
    """Unpacks the sources that an upgrade begins with; returns which they are, and where.

    The test is skipped where there is no history to take them from.

    Args:
        folder: where to.
        untagged: the commit to begin with while there is no tag, in place of the one that is written down.
    """
    version = _last_tag() or untagged or RECORDED.read_text().split()[0]
    if _git("cat-file", "-e", f"{version}^{{commit}}").returncode:
        pytest.skip(f"no older version to upgrade from: {version} is not in a git history here")
    folder.mkdir()
    archive = _git("archive", "--format=tar", version, "actors", "discovery")
    assert archive.returncode == 0, archive.stderr
    subprocess.run(["tar", "-x", "-C", folder], input=archive.stdout, check=True)
    return version, folder


def _last_tag() -> str | None:
    """The newest tag before what is checked out; one that stands here is no older version."""
    found = _git("describe", "--tags", "--abbrev=0", "--match", "v*", "HEAD^")
    return found.stdout.decode().strip() if found.returncode == 0 else None


def _git(*arguments: str) -> subprocess.CompletedProcess[bytes]:
    try:
        return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, check=False)
    except FileNotFoundError:
        pytest.skip("no older version to upgrade from: git is not installed")


class Versioned(Device):
    """A device on which another version of the sources can be installed.

    Args:
        home: its ``ACTORS_HOME``.
        sources: the version that it has at first.

    Attributes:
        port: of its door; it is the same after a restart unless the test sets another.
    """

    def __init__(self, home: Path, sources: Path) -> None:
        super().__init__(home)
        self.install(sources)
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            self.port = str(taken.getsockname()[1])

    def start(self) -> None:
        self.does("start", "--host", "127.0.0.1", "--port", self.port)

    def install(self, sources: Path) -> None:
        """What is started on it from now on is of that version."""
        self.environment = {**self.environment, "PYTHONPATH": str(sources), "PYTHONSAFEPATH": "1"}
