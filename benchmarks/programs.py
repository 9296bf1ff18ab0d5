"""Programs: what a side measures by starting a new program of its own."""

from __future__ import annotations

import subprocess
import sys

PATIENCE_SECONDS = 60.0

MEMORY = """
import psutil, time
def memory():
    before, found = None, 0.0
    for _ in range(50):  # until nothing changes any more: what is being started has started
        time.sleep(0.2)
        us = psutil.Process()
        found = sum(p.memory_full_info().pss for p in [us, *us.children(recursive=True)]) / 1e6
        if before is not None and abs(found - before) < 0.2:
            break
        before = found
    return found
"""
"""Gives a program the function ``memory``: MB of itself and all it has started, proportional set size. Linux only."""


def run(program: str) -> float:
    """Runs a program and returns the number on its last line.

    Raises:
        RuntimeError: it failed; the message ends with what it said.
    """
    done = subprocess.run(
        [sys.executable, "-c", program], check=False, capture_output=True, text=True, timeout=PATIENCE_SECONDS
    )
    if done.returncode:
        raise RuntimeError(f"a program failed: {' / '.join(done.stderr.splitlines()[-3:])}")
    return float(done.stdout.split()[-1])


def loading(module: str) -> float:
    """Returns the seconds that a new interpreter takes to import a module."""
    return run(f"import time; t = time.perf_counter(); import {module}; print(time.perf_counter() - t)")
