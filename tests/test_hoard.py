"""Memory of large arrays that the C library keeps for the next one, within bounds and for a while only."""

from __future__ import annotations

import subprocess
import sys

import pytest

from actors import hoard

if hoard._found() is None:
    pytest.skip("this C library keeps no memory, or was told how", allow_module_level=True)

BEGIN = """
import ctypes
from actors import hoard

library = ctypes.CDLL(None)
library.malloc.restype, library.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
library.free.argtypes = [ctypes.c_void_p]
library.memset.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t]
own = hoard.Hoard(library)
SIZE = 64 << 20

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096

def array():
    with own.keeping(SIZE):
        made = library.malloc(SIZE)
    library.memset(made, 1, SIZE)
    return made

before = resident()
"""


def _run(code: str) -> None:
    """In a process of its own, whose heap is nobody else's."""
    done = subprocess.run([sys.executable, "-c", BEGIN + code], check=False, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_the_next_array_has_the_memory_of_the_last_and_it_is_given_back_in_the_end() -> None:
    _run("""
made = array()
library.free(made)
assert resident() - before > SIZE * 0.9
own.trim()
assert resident() - before > SIZE * 0.9, "given back before it was idle"
made = array()
assert resident() - before < SIZE * 1.2, "the memory that was kept is not used again"
library.free(made)
own.trim(0)
assert resident() - before < SIZE * 0.1
""")


def test_other_large_memory_is_given_back_at_once() -> None:
    _run("""
library.free(array())
kept = resident()
other = library.malloc(2 * SIZE)
library.memset(other, 1, 2 * SIZE)
assert resident() - kept > SIZE
library.free(other)
assert resident() - kept < SIZE * 0.1
""")


def test_a_heap_in_pieces_is_given_back_before_the_next_array() -> None:
    _run("""
library.free(array())
blocks = []
for _ in range(30):
    blocks.append(library.malloc(20 << 20))
    library.memset(blocks[-1], 1, 20 << 20)
    library.malloc(1 << 16)  # stays, and keeps its neighbours apart
for block in blocks:
    library.free(block)
assert resident() - before > 500 << 20
array()
assert resident() - before < 2 * SIZE
""")
