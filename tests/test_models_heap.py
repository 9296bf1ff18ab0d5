"""What is free goes back to the system."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

pytest.importorskip("mlx.core")
pytest.importorskip("psutil")

FREED = """
import mlx.core as mx, psutil
from actors.models.heap import give_back, keep_together

keep_together()
pieces = [mx.zeros((16384,)) + number for number in range(512)]  # 64 KiB each
mx.eval(pieces)
held = psutil.Process().memory_full_info().uss
del pieces
give_back()
print(held - psutil.Process().memory_full_info().uss)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries give it back whenever they like")
def test_what_was_freed_is_no_longer_the_process_s():
    out = subprocess.run([sys.executable, "-c", FREED], capture_output=True, text=True, check=True, timeout=60).stdout
    assert int(out) > 24 << 20
