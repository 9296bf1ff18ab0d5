"""Large payloads in chunks: whole again at the other side, and no chunk out of place gets in."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors import pages
from actors.messages import Chunk, Payload
from actors.transport import bulk
from actors.transport.bulk import Assembly, chunks
from actors.transport.codec import MalformedMessageError

SMALL = 7  # bytes of a chunk in these tests

parts = st.lists(st.binary(max_size=40), min_size=1, max_size=6)


def cut(payload: Payload) -> list[Chunk]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bulk, "CHUNK_BYTES", SMALL)
        return list(chunks(5, payload))


def put_together(pieces: list[Chunk]) -> Payload:
    assembly = Assembly(pieces[0].sizes)
    for piece in pieces:
        assert not assembly.complete
        assembly.add(piece)
    assert assembly.complete
    return assembly.payload()


@given(parts.filter(any))
def test_parts_of_any_sizes_are_whole_again(blocks: list[bytes]) -> None:
    pieces = cut(Payload(blocks[0], tuple(blocks[1:])))
    assert [piece.index for piece in pieces] == list(range(len(pieces)))
    assert {piece.transfer for piece in pieces} == {5}
    assert pieces[0].sizes == tuple(map(len, blocks))
    assert not any(piece.sizes for piece in pieces[1:])
    assert all(1 <= len(piece.data) <= SMALL for piece in pieces)
    payload = put_together(pieces)
    assert payload.pickle == blocks[0]
    assert [bytes(buffer) for buffer in payload.buffers] == blocks[1:]
    assert all(isinstance(buffer, memoryview) and buffer.readonly for buffer in payload.buffers)


def test_a_payload_larger_than_a_chunk_as_it_is_sent() -> None:
    blocks = (b"p" * (bulk.CHUNK_BYTES + 1), b"", b"q" * bulk.CHUNK_BYTES)
    pieces = list(chunks(1, Payload(blocks[0], blocks[1:])))
    assert [len(piece.data) for piece in pieces] == [bulk.CHUNK_BYTES, 1, bulk.CHUNK_BYTES]
    payload = put_together(pieces)
    assert (payload.pickle, *map(bytes, payload.buffers)) == blocks


def test_memory_of_a_value_that_is_gone_takes_the_next_one() -> None:
    """It is never that of one that somebody still has."""
    pages.trim(0)
    places, first = [], put_together(list(chunks(1, Payload(b"", (b"a" * (3 << 20),)))))
    kept = put_together(list(chunks(2, Payload(b"", (b"b" * (3 << 20),)))))
    places.append(np.frombuffer(first.buffers[0], np.uint8).ctypes.data)
    del first
    again = put_together(list(chunks(3, Payload(b"", (b"c" * (3 << 20),)))))
    places.append(np.frombuffer(again.buffers[0], np.uint8).ctypes.data)
    assert (bytes(kept.buffers[0]), bytes(again.buffers[0])) == (b"b" * (3 << 20), b"c" * (3 << 20))
    assert again.buffers[0].readonly
    assert places[0] == places[1]
    del kept, again
    pages.trim(60)
    assert pages._kept
    pages.trim(0)
    assert not pages._kept


def test_a_process_without_numpy_takes_large_values_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "numpy")
    payload = put_together(list(chunks(1, Payload(b"", (b"a" * (3 << 20),)))))
    assert bytes(payload.buffers[0]) == b"a" * (3 << 20)


def test_chunks_are_views_and_not_copies() -> None:
    block = bytearray(b"x" * 20)
    first = cut(Payload(b"", (block,)))[0]
    block[0] = 0
    assert first.data[0] == 0


@pytest.mark.parametrize(
    "sizes",
    [pytest.param((), id="none"), pytest.param((2**62,), id="no room"), pytest.param((1, 2**63), id="no number")],
)
def test_impossible_sizes_are_refused(sizes: tuple[int, ...]) -> None:
    with pytest.raises(MalformedMessageError, match=r"how large it is|no room"):
        Assembly(sizes)


def test_a_chunk_out_of_turn_is_refused() -> None:
    pieces = cut(Payload(b"a" * 30))
    for wrong in (pieces[1], pieces[3]):
        with pytest.raises(MalformedMessageError, match=f"chunk {wrong.index} came where 0 was due"):
            Assembly((30,)).add(wrong)
    assembly = Assembly((30,))
    assembly.add(pieces[0])
    with pytest.raises(MalformedMessageError, match="chunk 0 came where 1 was due"):
        assembly.add(pieces[0])


def test_a_chunk_across_the_end_of_its_part_is_refused() -> None:
    with pytest.raises(MalformedMessageError, match="chunk 0 is 2 bytes too long"):
        Assembly((3, 4)).add(Chunk(1, 0, (3, 4), b"abcde"))


def test_a_chunk_after_the_last_is_refused() -> None:
    assembly = Assembly((3, 0))
    assembly.add(Chunk(1, 0, (3, 0), b"abc"))
    with pytest.raises(MalformedMessageError, match="chunk 1"):
        assembly.add(Chunk(1, 1, (), b""))


@given(
    st.lists(st.integers(0, 20), max_size=4),
    st.lists(st.tuples(st.integers(0, 4), st.binary(max_size=12)), max_size=8),
)
def test_any_chunks_are_taken_or_refused_and_nothing_else(sizes: list[int], stream: list[tuple[int, bytes]]) -> None:
    taken = b""
    try:
        assembly = Assembly(tuple(sizes))
        for index, data in stream:
            assembly.add(Chunk(1, index, (), data))
            taken += data
    except MalformedMessageError:
        return
    if assembly.complete:
        payload = assembly.payload()
        assert payload.pickle + b"".join(map(bytes, payload.buffers)) == taken
    else:
        assert len(taken) < sum(sizes)
