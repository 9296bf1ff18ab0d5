"""The heap: memory that chunks pass through is kept as long as they come, and given back afterwards."""

from __future__ import annotations

import ctypes
import json
import subprocess
import sys

import pytest

from actors.transport.heap import chosen

PROGRAM = """
import asyncio, json, resource
import psutil
from actors.transport import heap

heap.IDLE_SECONDS = 0.05

def pass_through():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    chunks = [bytearray(b"x") * (1 << 20) for _ in range(32)]
    del chunks
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

async def main():
    heap.use()
    heap.use()
    first, again = pass_through(), pass_through()
    kept = psutil.Process().memory_info().rss
    while heap._timer is not None:
        await asyncio.sleep(0.01)
    left = psutil.Process().memory_info().rss
    print(json.dumps({"first": first, "again": again, "given back": kept - left}))

asyncio.run(main())
"""


@pytest.mark.skipif(sys.platform != "linux" or not hasattr(ctypes.CDLL(None), "mallopt"), reason="glibc's heap")
def test_it_is_kept_while_chunks_come_and_given_back_afterwards() -> None:
    """32 MiB are 8,192 pages: asked for once, not each time."""
    told = subprocess.run([sys.executable, "-c", PROGRAM], check=True, capture_output=True, text=True, timeout=60)
    found = json.loads(told.stdout)
    assert found["again"] < max(found["first"] / 4, 500)  # there are fewer faults where the system gives large pages
    assert found["given back"] > 16 << 20


@pytest.mark.parametrize(
    ("environ", "found"),
    [
        ({}, False),
        ({"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}, False),
        ({"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1:glibc.malloc.trim_threshold=1024"}, True),
        ({"MALLOC_MMAP_THRESHOLD_": "1024"}, True),
    ],
)
def test_a_choice_of_the_users_stays(environ: dict[str, str], found: bool) -> None:
    """Whoever has set these limits meant it."""
    assert chosen(environ) is found
