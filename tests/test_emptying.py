"""A large file of shared memory gives its memory back by a thread of its own, where nobody else may read it."""

from __future__ import annotations

import _thread
import os
import threading
from typing import TYPE_CHECKING

import numpy as np
import pytest

from actors import emptying
from actors.arena import Arena
from actors.emptying import LEAST_BYTES, MODE, discard, wait

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LARGE = LEAST_BYTES + 12345


class File:
    """A file whose length can be seen after it has lost its name."""

    def __init__(self, path: Path, size: int = LARGE, mode: int = MODE) -> None:
        self.path = path
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT, mode)
        os.ftruncate(self._descriptor, size)

    @property
    def size(self) -> int:
        return os.fstat(self._descriptor).st_size

    def close(self) -> None:
        os.close(self._descriptor)


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """How large the files were for which a thread has been started."""
    found: list[int] = []
    start = _thread.start_new_thread

    def count(function, args):
        found.append(args[1])
        return start(function, args)

    monkeypatch.setattr(emptying._thread, "start_new_thread", count)
    yield found
    wait()


def test_a_large_file_loses_its_name_at_once_and_then_its_memory(tmp_path: Path, started: list[int]) -> None:
    file = File(tmp_path / "process-1")
    discard(file.path)
    assert not list(tmp_path.iterdir())
    wait()
    assert (file.size, started) == (0, [LARGE])
    assert not emptying._under_way
    file.close()


def test_what_it_keeps_goes_after_the_memory(tmp_path: Path) -> None:
    file, sizes, gone = File(tmp_path / "process-1"), [], threading.Event()

    class Mapping:
        def __del__(self) -> None:
            sizes.append(file.size)
            gone.set()

    discard(file.path, Mapping())
    assert gone.wait(10)
    assert sizes == [0]
    file.close()


def test_a_small_one_is_emptied_here(tmp_path: Path, started: list[int]) -> None:
    file = File(tmp_path / "process-1", 4096)
    discard(file.path)
    assert (file.size, started, list(tmp_path.iterdir())) == (0, [], [])
    file.close()


def test_what_another_reads_keeps_its_memory(tmp_path: Path, started: list[int]) -> None:
    file = File(tmp_path / "process-1")
    os.link(file.path, tmp_path / "other-1")
    discard(file.path)
    assert [path.name for path in tmp_path.iterdir()] == ["other-1"]
    discard(tmp_path / "other-1")
    wait()
    assert (file.size, started) == (0, [LARGE])
    file.close()


def test_what_a_forked_child_may_read_keeps_its_memory(tmp_path: Path, started: list[int]) -> None:
    file = File(tmp_path / "process-1", mode=0o400)
    discard(file.path)
    assert (file.size, started, list(tmp_path.iterdir())) == (LARGE, [], [])
    file.close()


def test_where_no_thread_can_be_started_it_is_emptied_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(emptying._thread, "start_new_thread", none)
    file = File(tmp_path / "process-1")
    discard(file.path)
    assert (file.size, list(tmp_path.iterdir()), emptying._under_way) == (0, [], [])
    file.close()


def test_a_folder_that_is_gone(tmp_path: Path) -> None:
    discard(tmp_path / "gone" / "process-1")


def test_a_reader_that_is_the_last_gives_the_memory_back(tmp_path: Path, started: list[int]) -> None:
    writer, reader = Arena(tmp_path, "writer"), Arena(tmp_path, "reader")
    stored = writer.store([memoryview(np.zeros(LARGE, np.uint8))])
    assert stored is not None
    lent = writer.lend(stored)
    descriptor = os.open(tmp_path / lent[0].name, os.O_RDONLY)
    taken = reader.take(lent)
    del stored, lent
    assert started == []
    assert bytes(taken[0][-3:]) == bytes(3)
    del taken
    wait()
    assert os.fstat(descriptor).st_size == 0
    assert not list(tmp_path.iterdir())
    os.close(descriptor)
