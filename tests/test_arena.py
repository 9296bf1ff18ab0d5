"""Shared memory: large values lie once on a host, are read-only, and nothing of them is left."""

from __future__ import annotations

import asyncio
import gc
import itertools
import os
import platform
import resource
import shutil
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mlx.core as mx
import numpy as np
import psutil
import pytest
from clusters import Program, eventually, is_gone
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from memory_links import link_pair
from test_door import call, through_the_door

import actors
from actors import arena as arena_module
from actors import home
from actors._wire import distributed_comm_pb2 as pb
from actors.arena import Arena, segment_of
from actors.cluster import current
from actors.messages import Payload, Shared
from actors.node.tuning import tuned
from actors.serialize import dumps, loads
from actors.transport.acceptor import Acceptor
from actors.version import PROTOCOL

if TYPE_CHECKING:
    from collections.abc import Iterator

MIB = 1 << 20
LARGE = 32 * MIB
HUGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "arena"
    path.mkdir(mode=0o700)
    return path


@pytest.fixture
def used(folder: Path) -> Iterator[Arena]:
    """An arena that pickling in this process uses."""
    before = arena_module.current()
    arena = Arena(folder, "maker")
    arena_module.use(arena)
    yield arena
    arena_module.use(before)


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def stored(arena: Arena, *contents: bytes) -> list[memoryview]:
    found = arena.store([memoryview(content) for content in contents])
    assert found is not None
    return found


def lies_in_the_arena(array: Any) -> bool:
    return segment_of(memoryview(array)) is not None


@contextmanager
def limit(which: int, soft: int) -> Iterator[None]:
    before = resource.getrlimit(which)
    resource.setrlimit(which, (soft, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(which, before)


# -- one process ------------------------------------------------------------------------------------------------


@settings(deadline=None)
@given(st.lists(st.binary(max_size=300), min_size=1).filter(any))
def test_buffers_lie_aligned_in_one_file_that_goes_with_them(contents: list[bytes]) -> None:
    with home.run_dir("arena") as run:
        folder = home.arena_dir(run.path)
        assert folder is not None
        arena = Arena(folder, "maker")
        views = stored(arena, *contents)
        assert [bytes(view) for view in views] == contents
        assert all(view.readonly for view in views)
        assert names(folder) == ["maker-1"]
        assert (folder / "maker-1").stat().st_mode & 0o777 == 0o600
        lent = arena.lend([*views, b"bytes"])
        assert [part.index for part in lent] == [index for index, content in enumerate(contents) if content]
        assert all(part.offset % 64 == 0 for part in lent)
        taken = Arena(folder, "reader").take(lent)
        assert [bytes(view) for view in taken] == [content for content in contents if content]
        del lent, views
        assert names(folder) == ["reader-1"]
        del taken
        assert names(folder) == []


def test_who_receives_passes_on_whatever_the_maker_does(folder: Path) -> None:
    maker, second, third = (Arena(folder, name) for name in ("maker", "second", "third"))
    views = stored(maker, b"a" * 100, b"b" * 100)
    lent = maker.lend(views)
    taken = second.take(lent)
    del views, lent
    assert names(folder) == ["second-1"]
    again = third.take(second.lend(taken))
    second.clear()
    del taken
    assert names(folder) == ["third-1"]
    assert [bytes(view) for view in again] == [b"a" * 100, b"b" * 100]


def test_a_part_of_what_lies_there_is_lent_as_such(folder: Path) -> None:
    maker = Arena(folder, "maker")
    (view,) = stored(maker, np.arange(1000, dtype=np.int64).tobytes())
    part = np.frombuffer(view, np.int64)[200:300]
    (lent,) = maker.lend([memoryview(part).cast("B")])
    assert (lent.offset, lent.size) == (1600, 800)
    (taken,) = Arena(folder, "reader").take([lent])
    assert np.array_equal(np.frombuffer(taken, np.int64), np.arange(200, 300))
    assert Arena(folder.parent, "another").lend([view]) == ()


def test_where_there_is_no_room_nothing_is_stored_and_nothing_left(folder: Path) -> None:
    arena = Arena(folder, "maker")
    with limit(resource.RLIMIT_FSIZE, MIB):
        assert arena.store([memoryview(bytes(2 * MIB))]) is None
    assert names(folder) == []
    room = os.statvfs(folder)
    piece = memoryview(bytes(64 * MIB))
    assert arena.store([piece] * (room.f_bavail * room.f_frsize // 2 // len(piece) + 1)) is None
    assert names(folder) == []
    folder.rmdir()
    assert arena.store([piece]) is None


@pytest.mark.skipif(sys.version_info >= (3, 13), reason="a mapping keeps no file open there")
def test_beyond_a_share_of_the_open_files_values_are_copied(folder: Path) -> None:
    with limit(resource.RLIMIT_NOFILE, 40):
        few = Arena(folder, "few")
    kept = [stored(few, b"x" * 100) for _ in range(10)]
    assert few.store([memoryview(b"y" * 100)]) is None
    maker = Arena(folder, "maker")
    lent = maker.lend(stored(maker, b"z" * 100))
    (taken,) = few.take(lent)
    assert bytes(taken) == b"z" * 100
    assert taken.readonly
    assert segment_of(taken) is None
    del kept
    assert names(folder) == ["maker-1"]
    assert few.store([memoryview(b"y" * 100)]) is not None


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../secret", "/etc/passwd", "a/b", "a\0b", "link", "pipe", "folder", "empty", "x" * 5000]
)
def test_what_is_no_shared_memory_is_not_mapped(folder: Path, name: str) -> None:
    (folder.parent / "secret").write_bytes(b"secret")
    (folder / "link").symlink_to(folder.parent / "secret")
    os.mkfifo(folder / "pipe")
    (folder / "folder").mkdir()
    (folder / "empty").touch()
    before = names(folder)
    arena = Arena(folder, "reader")
    with pytest.raises((ValueError, OSError)) as refused:
        arena.take([Shared(0, name, 0, 1)])
    assert name != "empty" or " is no shared memory" in str(refused.value)
    assert names(folder) == before


@pytest.mark.parametrize(("offset", "size"), [(0, 101), (100, 1), (2**63, 1), (50, 2**64 - 1)])
def test_what_is_outside_a_file_is_not_read(folder: Path, offset: int, size: int) -> None:
    maker = Arena(folder, "maker")
    views = stored(maker, b"x" * 100)
    with pytest.raises(ValueError, match="has 100 bytes"):
        Arena(folder, "reader").take([Shared(0, "maker-1", offset, size)])
    del views
    assert names(folder) == []


def test_a_forked_child_leaves_its_parents_memory_alone(folder: Path) -> None:
    code = """
import os, sys
from pathlib import Path
from actors.arena import Arena
arena = Arena(Path(sys.argv[1]), "maker")
views = arena.store([memoryview(bytes(100))])
child = os.fork()
if child == 0:
    made = arena.store([memoryview(bytes(100))])
    del views
    os._exit(0 if made is None else 1)
print(os.waitpid(child, 0)[1], os.listdir(sys.argv[1]))
"""
    ran = subprocess.run([sys.executable, "-c", code, folder], capture_output=True, text=True, timeout=30, check=True)
    assert ran.stdout == "0 ['maker-1']\n"
    assert names(folder) == []  # a process that ends gives its names up


# -- pickling ---------------------------------------------------------------------------------------------------


def test_large_buffers_are_pickled_into_the_arena_as_they_are_now(used: Arena, folder: Path) -> None:
    array = np.arange(MIB, dtype=np.float64)
    payload = dumps([array, array[:10].copy(), "x"])
    array[:] = 0
    back = loads(payload)
    assert lies_in_the_arena(back[0])
    assert back[0][-1] == MIB - 1
    assert back[1][-1] == 9
    with pytest.raises(ValueError, match="read-only"):
        back[0][0] = 1
    with pytest.raises(ValueError, match="cannot set WRITEABLE"):
        back[0].flags.writeable = True
    del payload
    assert names(folder) == ["maker-1"]  # an array keeps it
    del back
    assert names(folder) == []


def test_what_lies_in_the_arena_is_not_stored_again(used: Arena, folder: Path) -> None:
    array = loads(dumps(np.arange(MIB, dtype=np.float64)))
    inner = dumps({"whole": array, "part": array[1000:]})
    assert [part.offset for part in used.lend(inner.buffers)] == [0, 8000]
    outer = dumps(("a payload in a payload", inner))
    assert len(used.lend(outer.buffers)) == 2
    assert names(folder) == ["maker-1"]


def test_small_buffers_stay_with_their_message(used: Arena, folder: Path) -> None:
    payload = dumps([np.zeros(1000), np.zeros(1000)])
    assert all(isinstance(buffer, bytes) for buffer in payload.buffers)
    assert names(folder) == []


def test_where_nothing_can_be_stored_values_are_copied(used: Arena, folder: Path) -> None:
    folder.rmdir()
    array = np.arange(MIB, dtype=np.float64)
    payload = dumps(array)
    array += 1
    (buffer,) = payload.buffers
    assert memoryview(buffer).readonly
    assert np.array_equal(loads(payload), array - 1)


# -- the wire ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("claimed", ["", "the same"])
@pytest.mark.parametrize("node", [None, "node-elsewhere"])
@pytest.mark.parametrize("name", ["maker-1", "../secret", "maker-2"])
def test_memory_is_shared_with_this_host_alone(folder: Path, claimed: str, node: str | None, name: str) -> None:
    class Receiver:
        def __init__(self) -> None:
            self.messages: list[Any] = []

        def anywhere(self, message: Any) -> bool:
            return False

        def received(self, message: Any, visitor: Any) -> None:
            self.messages.append(message)

        def link_lost(self, visitor: Any) -> None: ...

        def gone(self, visitor: Any) -> None: ...

    async def work() -> tuple[list[Any], str]:
        receiver = Receiver()
        arena = Arena(folder, "reader")
        acceptor = Acceptor("me", receiver, asyncio.get_running_loop(), arena=arena)
        near, far = link_pair()
        far.node = node
        hello = pb.Hello(protocol=PROTOCOL, session="s", lane="control", source="maker", target="me")
        hello.arena = arena.key if claimed else ""
        serving = asyncio.create_task(acceptor.serve(far, hello))
        frame = pb.Frame()
        data = frame.envelopes.add(seq=1).data
        data.comm_type, data.pickle_data = "call", b"p"
        data.buffers.append(b"")
        data.header.shared.add(index=0, name=name, offset=0, size=100)
        await near.write(frame)
        reason = ""
        while (answer := await near.read()) is not None and not (answer.ack or reason):
            reason = answer.goodbye.reason
        await near.close()
        await acceptor.close("the test is over")
        await serving
        return receiver.messages, reason

    maker = Arena(folder, "maker")
    views = stored(maker, b"x" * 100)
    messages, reason = asyncio.run(asyncio.wait_for(work(), 10))
    if claimed and node is None and name == "maker-1":
        assert messages[0].payload == Payload(b"p", (b"x" * 100,))
        assert not reason
    else:
        assert messages == []
        assert "memory" in reason
    del messages, views
    gc.collect()
    assert names(folder) == []


# -- written again -----------------------------------------------------------------------------------------------


@pytest.fixture
def memory() -> Iterator[Path]:
    """A folder in memory, where files are written again."""
    if sys.platform != "linux":
        pytest.skip("only Linux has files in memory")
    with home.run_dir("arena") as run:
        folder = home.arena_dir(run.path)
        assert folder is not None
        yield folder


def inodes(folder: Path) -> set[int]:
    return {entry.stat().st_ino for entry in folder.iterdir()}


def test_memory_that_nobody_reads_is_written_again(memory: Path) -> None:
    maker = Arena(memory, "maker")
    views = stored(maker, b"a" * 2 * MIB)
    first = inodes(memory)
    del views
    for size in (2 * MIB, MIB + 5, 2 * MIB):
        views = stored(maker, b"b" * size, b"", b"c" * 10)[:2] if size < 2 * MIB else stored(maker, b"b" * size)
        assert inodes(memory) == first
        assert bytes(views[0]) == b"b" * size
        assert views[0].readonly
        (taken,) = Arena(memory, "reader").take(maker.lend([views[0]]))
        assert bytes(taken) == b"b" * size
        del views, taken
    maker.trim(60)
    assert len(names(memory)) == 1
    maker.trim(0)
    assert names(memory) == []


def test_memory_that_somebody_reads_is_never_written(memory: Path) -> None:
    maker, reader, third = (Arena(memory, name) for name in ("maker", "reader", "third"))
    views = stored(maker, b"a" * MIB)
    own = np.frombuffer(views[0], np.uint8)[100:]
    lent = maker.lend(views)
    for _ in range(3):  # while a message is under way, and while this process has an array of it
        del views
        views = stored(maker, b"b" * MIB)
    taken = reader.take(lent)
    del lent
    assert bytes(stored(maker, b"c" * MIB)[0][:1]) == b"c"
    passed = third.take(reader.lend(taken))
    del taken, views
    for _ in range(3):
        stored(maker, b"d" * MIB)
    assert set(passed[0]) == {ord("a")}
    assert set(own.tolist()) == {ord("a")}


def test_who_was_told_an_old_name_finds_nothing(memory: Path) -> None:
    maker = Arena(memory, "maker")
    views = stored(maker, b"a" * MIB)
    (told,) = [Shared(part.index, part.name, part.offset, part.size) for part in maker.lend(views)]
    del views
    views = stored(maker, b"b" * MIB)
    assert bytes(views[0][:1]) == b"b"
    with pytest.raises(FileNotFoundError):
        Arena(memory, "reader").take([told])


@pytest.mark.parametrize("forks", ["maker", "reader"])
def test_what_a_forked_child_reads_is_never_written(memory: Path, forks: str) -> None:
    code = """
import os, sys
from pathlib import Path
from actors.arena import Arena
folder = Path(sys.argv[1])
maker, reader = Arena(folder, "maker"), Arena(folder, "reader")
views = maker.store([memoryview(b"a" * (1 << 20))])
if sys.argv[2] == "reader":
    views = reader.take(maker.lend(views))
ready, go = os.pipe()
child = os.fork()
if child == 0:
    os.read(ready, 1)
    os._exit(set(views[0]) != {ord("a")})
del views
for _ in range(3):
    maker.store([memoryview(b"b" * (1 << 20))])
os.write(go, b"x")
print(os.waitpid(child, 0)[1])
"""
    ran = subprocess.run(
        [sys.executable, "-c", code, memory, forks], capture_output=True, text=True, timeout=30, check=True
    )
    assert ran.stdout == "0\n"
    assert names(memory) == []


def test_what_is_kept_is_bounded(memory: Path) -> None:
    maker = Arena(memory, "maker")
    many = [stored(maker, b"x" * MIB) for _ in range(20)]
    assert len(names(memory)) == 20
    del many
    assert 1 <= len(names(memory)) <= 8
    del maker
    gc.collect()
    assert names(memory) == []


# -- read again ---------------------------------------------------------------------------------------------------


def address(view: memoryview) -> int:
    return int(np.frombuffer(view, np.uint8).__array_interface__["data"][0])


def test_memory_that_is_written_again_is_read_where_it_was(memory: Path) -> None:
    maker, reader = Arena(memory, "maker"), Arena(memory, "reader")
    places = set()
    for content in (b"a", b"b", b"c"):
        (view,) = stored(maker, content * 2 * MIB)
        (taken,) = reader.take(maker.lend([view]))
        (again,) = reader.take(maker.lend([view]))
        assert address(taken) == address(again)
        assert bytes(taken) == content * 2 * MIB
        assert taken.readonly
        places.add(address(taken))
        del view, taken, again
    assert len(places) == 1
    assert len(inodes(memory)) == 1
    gc.collect()
    reader.trim(60)
    assert reader.mapped == 1
    reader.trim(0)
    assert reader.mapped == 0


def test_what_is_kept_of_mappings_is_bounded(memory: Path) -> None:
    maker, reader = Arena(memory, "maker"), Arena(memory, "reader")
    views = [stored(maker, b"x" * MIB)[0] for _ in range(20)]
    taken = [reader.take(maker.lend([view])) for view in views]
    assert reader.mapped == 20
    del taken
    assert 1 <= reader.mapped <= 8
    del views


def test_what_its_maker_gives_back_takes_no_memory_though_a_reader_has_its_mapping(memory: Path) -> None:
    maker, reader = Arena(memory, "maker"), Arena(memory, "reader")
    (view,) = stored(maker, b"x" * MIB)
    taken = reader.take(maker.lend([view]))
    (number,) = inodes(memory)
    descriptor = os.open(memory / names(memory)[0], os.O_RDONLY)
    try:
        del view
        maker.trim(0)
        assert os.fstat(descriptor).st_size == MIB  # somebody reads it
        assert bytes(taken[0]) == b"x" * MIB
        (view,) = stored(maker, b"y" * MIB)
        taken = reader.take(maker.lend([view]))
        assert number not in inodes(memory)
        os.close(descriptor)
        descriptor = os.open(memory / names(memory)[0], os.O_RDONLY)
        del view, taken
        maker.trim(0)
        assert reader.mapped == 2
        assert os.fstat(descriptor).st_size == 0
    finally:
        os.close(descriptor)
    (view,) = stored(maker, b"z" * MIB)
    assert bytes(reader.take(maker.lend([view]))[0]) == b"z" * MIB


def test_what_a_process_that_has_left_still_reads_is_never_written(memory: Path) -> None:
    maker, reader = Arena(memory, "maker"), Arena(memory, "reader")
    (view,) = stored(maker, b"x" * MIB)
    taken = reader.take(maker.lend([view]))
    reader.clear()
    del view
    for _ in range(3):
        stored(maker, b"y" * MIB)
    maker.trim(0)
    assert bytes(taken[0]) == b"x" * MIB
    assert names(memory) == []


class Sharing(RuleBasedStateMachine):
    """Processes that write, read, pass on and forget, in any order: what is held never changes, and nothing is left."""

    def __init__(self) -> None:
        super().__init__()
        self.run = home.run_dir("arena")
        folder = home.arena_dir(self.run.path)
        assert folder is not None
        self.folder = folder
        self.arenas = [Arena(folder, name) for name in ("one", "two", "three")]
        self.held: list[tuple[int, memoryview, int]] = []  # whose, where, and which byte it is full of
        self.left: list[tuple[int, memoryview, int]] = []  # the same of processes that have left
        self.numbers = itertools.count(1)

    @rule(who=st.integers(0, 2), sizes=st.lists(st.sampled_from([1, 1000, MIB, MIB + 1]), min_size=1, max_size=3))
    def store(self, who: int, sizes: list[int]) -> None:
        values = [next(self.numbers) % 256 for _ in sizes]
        found = stored(self.arenas[who], *(bytes([value]) * size for value, size in zip(values, sizes, strict=True)))
        assert [len(view) for view in found] == sizes
        self.held += [(who, view, value) for view, value in zip(found, values, strict=True)]

    @precondition(lambda self: self.held)
    @rule(data=st.data(), who=st.integers(0, 2))
    def take(self, data: st.DataObject, who: int) -> None:
        owner, view, value = self.held[data.draw(st.integers(0, len(self.held) - 1))]
        (taken,) = self.arenas[who].take(self.arenas[owner].lend([view]))
        assert len(taken) == len(view)
        self.held.append((who, taken, value))

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def forget(self, data: st.DataObject) -> None:
        self.held.pop(data.draw(st.integers(0, len(self.held) - 1)))

    @rule(who=st.integers(0, 2), idle=st.sampled_from([0.0, 60.0]))
    def trim(self, who: int, idle: float) -> None:
        self.arenas[who].trim(idle)

    @rule(who=st.integers(0, 2))
    def leave(self, who: int) -> None:
        self.arenas[who].clear()
        self.left += [held for held in self.held if held[0] == who]
        self.held = [held for held in self.held if held[0] != who]
        self.arenas[who] = Arena(self.folder, f"next{next(self.numbers)}")

    @invariant()
    def nothing_changes(self) -> None:
        for _, view, value in (*self.held, *self.left):
            assert view.readonly
            assert view[0] == view[len(view) // 2] == view[-1] == value

    def teardown(self) -> None:
        self.held.clear()
        self.left.clear()
        gc.collect()
        for arena in self.arenas:
            arena.trim(0)
            assert arena.mapped == 0
        assert names(self.folder) == []
        self.run.close()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has files in memory")
def test_in_any_order_what_is_held_stays_and_what_is_not_goes() -> None:
    run_state_machine_as_test(Sharing, settings=settings(deadline=None, max_examples=15, stateful_step_count=30))


# -- clusters ---------------------------------------------------------------------------------------------------


@actors.remote
class Reader:
    def __init__(self, array: Any = None) -> None:
        self.kept = array

    def keep(self, array: Any) -> tuple[float, bool, bool]:
        self.kept = array
        return float(array.sum()), array.flags.writeable, lies_in_the_arena(array)

    def keep_all(self, *arrays: Any) -> list[bool]:
        self.kept = arrays
        return [lies_in_the_arena(array) for array in arrays]

    def echo(self, value: Any) -> Any:
        return value

    def make(self, size: int) -> Any:
        return np.arange(size, dtype=np.float64)

    def pair(self, size: int) -> Any:
        return np.zeros(size), np.ones(size)

    def items(self, size: int) -> Any:
        for number in range(3):
            yield np.full(size, number, np.float64)

    def large_pages(self, array: Any) -> int:
        self.kept = array + 1
        mx.eval(self.kept)
        mine = Path("/proc/self/smaps_rollup").read_text().splitlines()
        return 1024 * int(next(line for line in mine if line.startswith("AnonHugePages")).split()[1])

    def pid(self) -> int:
        return os.getpid()

    def forget(self) -> None:
        self.kept = None


def shared_folder() -> Path:
    folder = home.arena_dir(current().folder)
    assert folder is not None
    return folder


def is_empty() -> bool:
    gc.collect()
    return not names(shared_folder())


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells what a process shares")
def test_a_value_that_many_read_is_there_once(cluster: actors.Cluster) -> None:
    readers = [Reader.remote() for _ in range(3)]
    pids = [os.getpid(), *actors.get([reader.pid.remote() for reader in readers])]
    actors.get([reader.keep.remote(np.ones(10)) for reader in readers])

    def memory() -> int:
        return sum(psutil.Process(pid).memory_full_info().pss for pid in pids)

    array = np.ones(LARGE // 8)
    before = memory()
    ref = actors.put(array)
    assert actors.get([reader.keep.remote(ref) for reader in readers]) == [(LARGE / 8, False, True)] * 3
    again = actors.get(ref)
    assert lies_in_the_arena(again)
    assert memory() - before < 1.5 * LARGE
    del ref, again
    actors.get([reader.forget.remote() for reader in readers])
    eventually(is_empty, what=str(names(shared_folder())))
    eventually(lambda: memory() - before < 0.5 * LARGE)


def test_arguments_results_and_streams_are_right_and_read_only(cluster: actors.Cluster) -> None:
    reader = Reader.remote()
    array = np.arange(MIB, dtype=np.float64)
    back = actors.get(reader.echo.remote(array))
    array[0] = 7
    assert np.array_equal(back[1:], array[1:])
    assert back[0] == 0
    assert not back.flags.writeable
    assert lies_in_the_arena(back)
    made = actors.get(reader.make.remote(MIB))
    assert np.array_equal(made[1:], array[1:])
    assert lies_in_the_arena(made)
    both = actors.get(list(reader.pair.options(num_returns=2).remote(MIB)))
    assert [float(part.sum()) for part in both] == [0.0, MIB]
    stream = [actors.get(ref) for ref in reader.items.remote(MIB)]
    assert [float(part.mean()) for part in stream] == [0, 1, 2]
    mixed = {"numpy": array, "mlx": mx.arange(MIB), "text": "x" * (2 * MIB), "bytes": b"b" * (2 * MIB)}
    same = actors.get(reader.echo.remote(mixed))
    assert np.array_equal(same["numpy"], array)
    assert mx.array_equal(same["mlx"], mixed["mlx"])
    assert (same["text"], same["bytes"]) == (mixed["text"], mixed["bytes"])
    constructed = Reader.remote(array)
    assert np.array_equal(actors.get(constructed.echo.remote(reader.echo.remote(array))), array)
    del back, made, both, stream, same, constructed
    eventually(is_empty, what=str(names(shared_folder())))


@pytest.mark.skipif(
    not platform.libc_ver()[0] or not HUGE_PAGES.exists() or "[madvise]" not in HUGE_PAGES.read_text(),
    reason="the C library or the system has no large pages for who asks",
)
def test_mlx_arrays_of_a_worker_lie_in_large_pages(cluster: actors.Cluster) -> None:
    reader = Reader.remote()
    assert actors.get(reader.large_pages.remote(mx.zeros(LARGE // 4))) > LARGE // 2


def test_who_has_tuned_the_c_library_keeps_what_it_has_set() -> None:
    assert tuned({}) == {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}
    assert tuned({"GLIBC_TUNABLES": "glibc.malloc.check=0"})["GLIBC_TUNABLES"].split(":") == [
        "glibc.malloc.check=0",
        "glibc.malloc.hugetlb=1",
    ]
    assert tuned({"GLIBC_TUNABLES": "glibc.malloc.hugetlb=0"}) == {}


def test_small_and_large_calls_keep_their_order(cluster: actors.Cluster) -> None:
    reader = Reader.remote()
    sizes = [1, MIB, 10, 2 * MIB, 1000, MIB] * 3
    refs = [reader.echo.remote(np.full(size, number, np.float64)) for number, size in enumerate(sizes)]
    assert [float(actors.get(ref)[-1]) for ref in refs] == list(range(len(sizes)))
    assert actors.get(reader.keep_all.remote(*(np.ones(size) for size in sizes[:3]))) == [True] * 3


def test_what_was_received_outlives_its_maker(cluster: actors.Cluster) -> None:
    maker, other = Reader.remote(), Reader.remote()
    pid = actors.get(maker.pid.remote())
    array, own = actors.get([maker.make.remote(LARGE // 8), maker.keep.remote(maker.make.remote(MIB))])
    assert own[2]
    assert any(name.startswith("worker") for name in names(shared_folder()))
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: is_gone(pid))
    eventually(lambda: not [name for name in names(shared_folder()) if name.startswith("worker")])
    assert array[-1] == LARGE // 8 - 1
    assert actors.get(other.keep.remote(array)) == (float(array.sum()), False, True)
    actors.kill(other)
    del array
    eventually(is_empty, what=str(names(shared_folder())))


def test_through_the_door_values_travel_as_bytes(cluster: actors.Cluster) -> None:
    reader = Reader.options(node=actors.nodes()[1].name).remote()
    actors.get(reader.pid.remote())
    line = through_the_door(reader)
    array = np.arange(MIB, dtype=np.float64)
    back = actors.get(call(line, array))
    assert np.array_equal(back, array)
    assert not back.flags.writeable
    assert not lies_in_the_arena(back)


HOLDER = """
    import actors, numpy as np, os, time

    @actors.remote
    class Holder:
        def keep(self, array):
            self.kept = array
            self.made = actors.put(np.ones(1 << 20))
            return os.getpid()

    holders = [Holder.remote() for _ in range(2)]
    kept = actors.put(np.ones(1 << 20))
    actors.get([holder.keep.remote(kept) for holder in holders])
    print("ready", flush=True)
    time.sleep(60 if HOLD else 0)
    array = actors.get(kept)
    actors.shutdown()
    print("after the end of the cluster", array.sum())
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, None])
def test_however_a_driver_ends_no_memory_is_left(how: signal.Signals | None) -> None:
    with Program(HOLDER.replace("HOLD", str(how is not None))) as program:
        program.line("ready")
        if how is not None:
            if sys.platform == "linux":
                (folder,) = program.segments()
                assert len(names(folder)) >= 5
            program.process.send_signal(how)
        program.ends()
        program.leaves_nothing()
        assert how is not None or "after the end of the cluster 1048576.0" in program.printed


# -- the folder -------------------------------------------------------------------------------------------------


def test_the_arena_is_made_and_removed_with_the_run_folder() -> None:
    with home.run_dir("arena") as run:
        folder = home.arena_dir(run.path)
        assert folder is not None
        assert folder.stat().st_mode & 0o777 == 0o700
        (folder / "maker-1").touch()
    assert not folder.exists()
    assert home.arena_dir(run.path) is None


def test_without_a_place_in_memory_it_lies_in_the_run_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(home, "_SHARED_MEMORY", tmp_path / "there is none")
    with home.run_dir("arena") as run:
        folder = home.arena_dir(run.path)
        assert folder == run.path / "arena"
        maker = Arena(folder, "maker")
        views = stored(maker, b"x" * 100)
        assert bytes(Arena(folder, "reader").take(maker.lend(views))[0]) == b"x" * 100
    assert not folder.exists()


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere it is in the run folder")
def test_a_removal_that_was_cut_short_is_finished() -> None:
    run = home.run_dir("arena")
    folder = home.arena_dir(run.path)
    assert folder is not None
    (folder / "maker-1").touch()
    gone = folder.with_name(f"{folder.name}.gone")
    gone.mkdir()
    (gone / "maker-2").touch()
    run.abandon()
    assert home.sweep() == [run.path]
    assert not folder.exists()
    assert not gone.exists()


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere it is in the run folder")
def test_memory_of_a_dead_owner_is_removed_though_its_home_is_gone(
    tmp_path: Path,
) -> None:
    code = """
import os, signal
from actors import home
run = home.run_dir("lost")
(home.arena_dir(run.path) / "maker-1").write_bytes(bytes(1000))
print(home.arena_dir(run.path), flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    place = tmp_path / "home"
    ran = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "ACTORS_HOME": str(place)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == -signal.SIGKILL
    lost = Path(ran.stdout.strip())
    assert names(lost) == ["maker-1"]
    shutil.rmtree(place)
    with home.run_dir("arena") as run:
        living = home.arena_dir(run.path)
        assert living is not None
        home.sweep()
        assert not lost.exists()
        assert not lost.with_name(f"{lost.name}.gone").exists()
        assert living.exists()


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere it is in the run folder")
def test_a_folder_open_to_others_is_not_used() -> None:
    with home.run_dir("arena") as run:
        folder = home.arena_dir(run.path)
        assert folder is not None
        folder.chmod(0o777)
        assert home.arena_dir(run.path) is None
