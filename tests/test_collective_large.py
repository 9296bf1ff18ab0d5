"""Arrays of over 4 GiB, and what a collective holds beyond the caller's arrays, on real ranks."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import psutil
import pytest

if TYPE_CHECKING:
    from pathlib import Path

GIB = 1 << 30
LARGE = """
import numpy as np
from actors import collective
n = (1 << 32) + (1 << 26) + 3  # 4.06 GiB
rank = collective.get_rank()
x = np.full(n, rank + 1, np.uint8)
x[-1] = 7 * rank
total = collective.reduce(x, 0, timeout=300)
if rank == 0:
    assert total.dtype == np.uint8 and total.shape == (n,)
    assert total[0] == 3 and total[1 << 31] == 3 and total[n - 2] == 3 and total[-1] == 7, total[-1]
del total
x = x if rank == 0 else None
sent = collective.broadcast(x, timeout=300)
assert sent.shape == (n,) and sent[0] == sent[1 << 31] == sent[n - 2] == 1 and sent[-1] == 0
print("equal")
"""
STEADY = """
import os, numpy as np, psutil
from actors import collective
x = np.ones(1 << 20, np.float32)
me, seen = psutil.Process(), []
before = me.memory_info().rss
for turn in range(1000):
    collective.allreduce(x)
    seen.append(me.memory_info().rss - before)
# Beside two payloads, the window of 9 MiB for each rank and what the interpreter takes once.
assert max(seen) < 2 * x.nbytes + (12 << 20), max(seen)
assert max(seen[-50:]) - max(seen[50:100]) < 1 << 20, (seen[100], seen[-1])
print("flat")
"""


def launch(folder: Path, text: str, seconds: float) -> str:
    script = folder / "script.py"
    script.write_text(text)
    command = [sys.executable, "-c", "from actors.cli import main; main()", "launch", "-n", "2", str(script)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=seconds)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.timeout(500)  # seconds on a quiet machine, minutes on a busy one
def test_arrays_of_over_4_gib(tmp_path: Path) -> None:
    if psutil.virtual_memory().available < 15 * GIB:
        pytest.skip("three arrays of 4 GiB, of two ranks, need 15 GiB of free memory")
    assert launch(tmp_path, LARGE, 400).count("equal") == 2


@pytest.mark.slow
def test_memory_is_flat_over_a_thousand_calls(tmp_path: Path) -> None:
    assert launch(tmp_path, STEADY, 120).count("flat") == 2
