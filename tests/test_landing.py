"""What a node relays lands in memory: it is whole at the process, whatever comes between, and no file is left."""

from __future__ import annotations

import asyncio
import gc
import sys
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from actors import home
from actors._wire import distributed_comm_pb2 as pb
from actors.arena import LEAST_BYTES, Arena
from actors.messages import Chunk, Payload, Shared
from actors.transport import landing, pieces
from actors.transport.bulk import CHUNK_BYTES, Assembly, chunks
from actors.transport.codec import MalformedMessageError, encode
from actors.transport.landing import Landing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

BIG = bytes(range(256)) * (LEAST_BYTES // 256) + b"more"
PAYLOAD = Payload(b"pickle", (BIG, b"", b"small", BIG[::-1]))


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    if sys.platform != "linux":
        pytest.skip("only Linux has files in memory")
    monkeypatch.setattr(landing, "HELD_SECONDS", 0.0)
    with home.run_dir("landing") as run:
        folder = home.arena_dir(run.path)
        assert folder is not None
        yield folder


def frames(payload: Payload, together: int = 1) -> list[bytes]:
    """A payload's frames, of so many chunks each."""
    numbered = enumerate(chunks(3, payload), 1)
    found = [pieces.write(0, some) for some in iter(lambda: list(islice(numbered, together)), [])]
    assert all(found)
    return [data for data in found if data is not None]


def chunks_of(data: bytes) -> list[tuple[int, Chunk]]:
    found = pieces.read(data)
    assert found is not None
    return found[1]


def chunk_of(data: bytes) -> Chunk:
    ((_, chunk),) = chunks_of(data)
    return chunk


def landed(payload: Payload, memory: Path, turn: Callable[[Landing, int, bytes], bytes], together: int = 1) -> Payload:
    """The payload as the process has it, each frame passed on by ``turn``."""

    async def work() -> Payload:
        node, reader = Landing(Arena(memory, "node")), Arena(memory, "reader")
        assembly, came = None, 0
        for data in frames(payload, together):
            for _, chunk in chunks_of(turn(node, came + 1, data)):
                assembly = assembly or Assembly(chunk.sizes, reader)
                assembly.add(chunk)
                came += 1
        node.lift(pieces.write(came, []) or b"")
        node.close()
        await asyncio.sleep(0.01)  # what is held for a while
        assert assembly is not None
        assert assembly.complete
        return assembly.payload()

    return asyncio.run(work())


def read(folder: Path) -> set[int]:
    """The files that the node and the process have."""
    return {path.stat().st_ino for path in folder.iterdir() if path.stat().st_nlink == 2}


def same(one: Payload, other: Payload) -> bool:
    return one.pickle == other.pickle and list(map(bytes, one.buffers)) == list(map(bytes, other.buffers))


def test_large_parts_lie_in_memory_and_small_ones_come_along(memory: Path) -> None:
    where: list[type] = []

    def turn(node: Landing, _: int, data: bytes) -> bytes:
        data = node.land(data)
        where.append(Shared if isinstance(chunk_of(data).data, Shared) else bytes)
        return data

    found = landed(PAYLOAD, memory, turn)
    assert same(found, PAYLOAD)
    pieces_of_big = len(where) // 2 - 1
    assert where == [bytes, *[Shared] * pieces_of_big, bytes, *[Shared] * pieces_of_big]
    assert len({path.stat().st_ino for path in memory.iterdir()}) == 2
    del found
    gc.collect()
    assert not [path for path in memory.iterdir() if path.name.startswith("reader")]


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sets(st.integers(1, 20)), st.integers(1, 20), st.integers(1, 3))
def test_it_is_whole_whatever_goes_as_it_is_and_whenever_another_link_begins(
    memory: Path, inline: set[int], cut: int, together: int
) -> None:
    later: list[Landing] = []

    def turn(node: Landing, number: int, data: bytes) -> bytes:
        if number >= cut and not later:  # the link ends, and another relay goes on
            node.close()
            later.append(Landing(Arena(memory, "node-again")))
        node = later[0] if later else node
        return data if number in inline else node.land(data)

    assert same(landed(PAYLOAD, memory, turn, together), PAYLOAD)


def test_a_file_is_written_again_only_when_the_process_has_let_go(memory: Path) -> None:
    async def work() -> None:
        node, reader = Landing(Arena(memory, "node")), Arena(memory, "reader")
        inodes = []
        kept: Payload | None = None
        for _ in range(3):
            payload = Payload(b"p", (BIG,))
            data = [node.land(frame) for frame in frames(payload)]
            assembly = Assembly(chunk_of(data[0]).sizes, reader)
            for frame in data:
                assembly.add(chunk_of(frame))
            node.lift(pieces.write(len(data), []) or b"")
            inodes.append(read(memory))
            kept = assembly.payload() if kept is None else kept
            assert bytes(kept.buffers[0]) == BIG
            del assembly
        assert len(inodes[0]) == 1
        assert inodes[1] > inodes[0]  # kept, and one more
        assert inodes[2] == inodes[1]  # the second was written again
        node.close()

    asyncio.run(work())


def test_what_the_process_has_in_memory_is_read_there(memory: Path) -> None:
    async def work() -> None:
        worker = Arena(memory, "worker")
        views = worker.store([memoryview(BIG)])
        assert views is not None
        payload = Payload(b"pickle", tuple(views))
        sent = list(chunks(1, payload, worker))
        assert [isinstance(chunk.data, Shared) for chunk in sent] == [False] + [True] * (len(sent) - 1)
        node, assembly = Landing(Arena(memory, "node")), None
        for number, chunk in enumerate(sent, 1):
            lifted = chunk_of(node.lift(pieces.write(0, [(number, chunk)]) or b""))
            assembly = assembly or Assembly(lifted.sizes)
            assembly.add(lifted)
        assert assembly is not None
        assert same(assembly.payload(), payload)
        node.close()

    asyncio.run(work())


def test_what_lands_is_unfinished_until_its_part_is_whole(memory: Path) -> None:
    async def work() -> None:
        node = Landing(Arena(memory, "node"))
        told = [bool(node.land(data)) and node.unfinished for data in frames(PAYLOAD)]
        node.land(pieces.write(1, []) or b"")
        assert not node.unfinished
        of_big = -(-len(BIG) // CHUNK_BYTES)
        assert told == 2 * [False, *[True] * (of_big - 1), False]
        node.close()

    asyncio.run(work())


@pytest.mark.parametrize("alone", [True, False])
def test_nobody_outside_names_memory_of_this_host(memory: Path, alone: bool) -> None:
    arena = Arena(memory, "node")
    views = arena.store([memoryview(BIG)])
    assert views is not None
    chunk = Chunk(1, 0, (len(BIG),), replace(arena.lend(views)[0]))
    data = pieces.write(0, [(1, chunk)])
    if not alone:
        frame = pb.Frame()
        for number in (1, 2):
            encode(chunk, frame.envelopes.add(seq=number).data)
        data = frame.SerializeToString()
    assert data is not None
    with pytest.raises(MalformedMessageError, match="memory that it cannot know"):
        Landing(arena).land(data)
    with pytest.raises(MalformedMessageError, match="none in common"):
        Assembly((len(BIG),)).add(chunk)


@pytest.mark.parametrize("name", ["../secret", "not-there"])
def test_what_is_not_there_is_an_error(memory: Path, name: str) -> None:
    chunk = Chunk(1, 0, (100,), Shared(0, name, 0, 100))
    with pytest.raises(MalformedMessageError, match="cannot be had"):
        Assembly((100,), Arena(memory, "reader")).add(chunk)
    with pytest.raises(MalformedMessageError, match="cannot be had"):
        Landing(Arena(memory, "node")).lift(pieces.write(0, [(1, chunk)]) or b"")
