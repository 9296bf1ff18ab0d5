"""Environments: a virtual environment for each peer, made once and kept beside the benchmarks."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from side import Entry

FOLDER = Path(__file__).with_name(".peers")
INSTALL_SECONDS = 1200.0


def interpreter(entry: Entry) -> Path:
    """Returns the Python that runs a side: this one, or that of the environment made by `prepare`."""
    return _folder(entry) / "bin" / "python" if entry.requires else Path(sys.executable)


def prepare(entry: Entry) -> None:
    """Makes a side's environment, where it needs one and there is none for these requirements yet.

    Raises:
        RuntimeError: pip could not; the message ends with its last lines.
    """
    stamp = _folder(entry) / "requirements.txt"
    wanted = "\n".join(entry.requires)
    if not entry.requires or (stamp.is_file() and stamp.read_text() == wanted):
        return
    subprocess.run([sys.executable, "-m", "venv", "--clear", _folder(entry)], check=True, capture_output=True)
    pip = [interpreter(entry), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *entry.requires]
    done = subprocess.run(pip, check=False, capture_output=True, text=True, timeout=INSTALL_SECONDS)
    if done.returncode:
        raise RuntimeError(f"{entry.name} could not be installed: {' / '.join(done.stderr.splitlines()[-3:])}")
    stamp.write_text(wanted)


def _folder(entry: Entry) -> Path:
    return FOLDER / f"{entry.name}-{sys.version_info[0]}.{sys.version_info[1]}"
