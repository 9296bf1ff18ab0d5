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
n = (1 << 32) + (1 << 20) + 3
rank = collective.get_rank()
# Zeros that nobody has written take no memory: of three arrays of 4 GiB only the result is there.
x = np.zeros(n, np.int8)
places = (0, 1 << 31, (1 << 32) + 1, n - 1)
for place in places:
    x[place] = rank + place % 3
total = collective.reduce(x, 0, timeout=300)
if rank == 0:
    assert total.dtype == np.int8 and total.shape == (n,)
    assert [int(total[place]) for place in places] == [1 + 2 * (place % 3) for place in places]
    assert not total[4 : 1 << 20].any()
else:
    assert total is None
print("equal")
"""
SENT = """
import numpy as np
from actors import collective
n = (1 << 32) + (1 << 20) + 3
x = np.zeros(n, np.int8) if collective.get_rank() == 0 else None
places = (0, 1 << 31, (1 << 32) + 1, n - 1)
for place in places if x is not None else ():
    x[place] = 1 + place % 3
sent = collective.broadcast(x, timeout=300)
assert sent.dtype == np.int8 and sent.shape == (n,)
assert [int(sent[place]) for place in places] == [1 + place % 3 for place in places]
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
@pytest.mark.parametrize(("text", "gib"), [(LARGE, 6), (SENT, 10)], ids=["reduce", "broadcast"])
def test_arrays_of_over_4_gib(tmp_path: Path, text: str, gib: int) -> None:
    if psutil.virtual_memory().available < gib * GIB:
        pytest.skip(f"results of 4 GiB need {gib} GiB of free memory")
    assert launch(tmp_path, text, 400).count("equal") == 2


@pytest.mark.slow
def test_memory_is_flat_over_a_thousand_calls(tmp_path: Path) -> None:
    assert launch(tmp_path, STEADY, 120).count("flat") == 2
