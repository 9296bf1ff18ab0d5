"""What the bare sides do with 1 GiB: written into a new file of shared memory, mapped at the other end, and gone."""

from __future__ import annotations

import mmap
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import count
from typing import TYPE_CHECKING

import numpy as np
from workloads import BESIDE_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

WRITTEN_BYTES = 1 << 20  # at once
_numbers = count(1)


class Much:
    """So many bytes of one process."""

    def __init__(self) -> None:
        self._view = np.ones(BESIDE_BYTES // 8).view(np.uint8).data

    def written(self) -> str:
        """Writes them into a new file and returns its path."""
        path = f"/dev/shm/raw-{os.getpid()}-{next(_numbers)}"  # which is memory
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            os.ftruncate(descriptor, BESIDE_BYTES)
            for at in range(0, BESIDE_BYTES, WRITTEN_BYTES):
                os.pwrite(descriptor, self._view[at : at + WRITTEN_BYTES], at)
        finally:
            os.close(descriptor)
        return path


def mapped(path: str) -> int:
    """Maps a file, lets go of it again and says how long it was."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        with mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ) as mapping:
            os.unlink(path)
            return len(mapping)
    finally:
        os.close(descriptor)


@contextmanager
def going_on(work: Callable[[], None]) -> Iterator[None]:
    """In this block another thread does so, again and again."""
    going = threading.Event()
    going.set()

    def again() -> None:
        while going.is_set():
            work()

    with ThreadPoolExecutor(1) as other:
        doing = other.submit(again)
        try:
            yield
        finally:
            going.clear()
            doing.result()
