"""The session alone: whatever links do, every message arrives exactly once and in order."""

from __future__ import annotations

from collections import deque

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from actors.transport.session import ProtocolError, Session


class End:
    """One end of a session, and what is on its way to the other end."""

    def __init__(self) -> None:
        self.session: Session[int] = Session()
        self.pushed: list[int] = []
        self.delivered: list[int] = []
        self.wire: deque[tuple[int, list[tuple[int, int]]]] = deque()  # frames: an acknowledgement and a batch
        self.ever_written = 0

    def write(self, limit: int, limit_bytes: int) -> None:
        batch = self.session.take(limit, limit_bytes)
        self.ever_written = max([self.ever_written, *(number for number, _ in batch)])
        self.wire.append((self.session.received, batch))


class TwoEnds(RuleBasedStateMachine):
    """Two sessions over links that break with any number of frames on the way, and after any hello."""

    def __init__(self) -> None:
        super().__init__()
        self.ends = (End(), End())
        self.linked = False

    side = st.integers(0, 1)

    @rule(side=side, count=st.integers(1, 5), size=st.integers(0, 10))
    def push(self, side: int, count: int, size: int) -> None:
        end = self.ends[side]
        for _ in range(count):
            end.session.push(len(end.pushed), size)
            end.pushed.append(len(end.pushed))

    @precondition(lambda self: self.linked)
    @rule(side=side, limit=st.integers(1, 4), limit_bytes=st.integers(0, 20))
    def write(self, side: int, limit: int, limit_bytes: int) -> None:
        self.ends[side].write(limit, limit_bytes)

    @precondition(lambda self: self.linked)
    @rule(side=side)
    def read(self, side: int) -> None:
        self._read(side)

    def _read(self, side: int) -> bool:
        sender, reader = self.ends[1 - side], self.ends[side]
        if not sender.wire:
            return False
        ack, batch = sender.wire.popleft()
        reader.session.acknowledged(ack)
        for number, message in batch:
            if reader.session.accept(number):
                reader.delivered.append(message)
        return True

    @precondition(lambda self: self.linked)
    @rule()
    def cut(self) -> None:
        self.linked = False
        for end in self.ends:
            end.wire.clear()

    @rule(only_one_side_hears=st.sampled_from([None, 0, 1]))
    def connect(self, only_one_side_hears: int | None) -> None:
        """Links the ends anew; frames on the old link are lost. The new one may break between the two hellos."""
        for end in self.ends:
            end.wire.clear()
        received = [end.session.received for end in self.ends]
        self.linked = only_one_side_hears is None
        for side, end in enumerate(self.ends):
            if only_one_side_hears in (None, side):
                end.session.connected(received[1 - side])

    @invariant()
    def delivered_once_and_in_order(self) -> None:
        for side in (0, 1):
            sender, reader = self.ends[1 - side], self.ends[side]
            assert reader.delivered == sender.pushed[: len(reader.delivered)]

    @invariant()
    def never_written_is_what_no_link_carried(self) -> None:
        for end in self.ends:
            assert end.session.never_written() == end.pushed[end.ever_written :]

    def teardown(self) -> None:
        """A link that lasts brings everything over."""
        self.connect(None)
        for end in self.ends:
            while end.session.has_unsent:
                end.write(3, 10)
        while self._read(0) or self._read(1):
            pass
        for end in self.ends:
            end.write(3, 10)  # the last acknowledgement
        while self._read(0) or self._read(1):
            pass
        for side in (0, 1):
            assert self.ends[side].delivered == self.ends[1 - side].pushed
            assert self.ends[side].session.idle
            assert self.ends[side].session.pending_bytes == 0


TwoEnds.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
test_two_ends = TwoEnds.TestCase


@given(st.lists(st.integers(0, 30), max_size=30), st.integers(1, 5), st.integers(0, 40))
def test_a_batch_keeps_to_the_limits_and_always_moves_on(sizes: list[int], limit: int, limit_bytes: int) -> None:
    session: Session[int] = Session()
    for index, size in enumerate(sizes):
        session.push(index, size)
    taken: list[int] = []
    while session.has_unsent:
        batch = session.take(limit, limit_bytes)
        assert 1 <= len(batch) <= limit
        assert len(batch) == 1 or sum(sizes[number - 1] for number, _ in batch) <= limit_bytes
        taken += [message for _, message in batch]
    assert taken == list(range(len(sizes)))
    assert session.pending_bytes == sum(sizes)
    assert session.take(limit, limit_bytes) == []


def written(count: int) -> Session[str]:
    session: Session[str] = Session()
    for number in range(1, count + 1):
        session.push(f"m{number}", 10)
    session.take(count, 1000)
    return session


def test_an_acknowledgement_of_what_was_never_written_is_refused() -> None:
    session = written(2)
    session.push("m3")
    with pytest.raises(ProtocolError, match="3 was acknowledged, but only 2 were written"):
        session.acknowledged(3)


def test_an_old_acknowledgement_changes_nothing() -> None:
    session = written(3)
    session.acknowledged(2)
    session.acknowledged(1)
    session.acknowledged(2)
    assert session.pending_bytes == 10
    session.acknowledged(3)
    assert session.idle


def test_a_gap_is_refused_and_a_repetition_dropped() -> None:
    session: Session[str] = Session()
    assert session.accept(1)
    assert not session.accept(1)
    with pytest.raises(ProtocolError, match="message 3 came after 1"):
        session.accept(3)
    assert session.accept(2)
    assert session.received == 2


@pytest.mark.parametrize("claim", [0, 3])
def test_a_hello_that_cannot_be_true_is_refused(claim: int) -> None:
    session = written(2)
    session.acknowledged(1)
    with pytest.raises(ProtocolError, match=f"says it has received {claim}, but 1 were acknowledged and 2 written"):
        session.connected(claim)


def test_after_a_reconnect_what_is_missing_is_written_again_with_its_number() -> None:
    session = written(3)
    session.push("m4")
    session.connected(1)
    assert session.take(10, 1000) == [(2, "m2"), (3, "m3"), (4, "m4")]


def test_what_is_acknowledged_late_is_not_written_again() -> None:
    session = written(3)
    session.connected(0)
    session.acknowledged(2)  # of the link before: it had arrived after all
    assert session.take(10, 1000) == [(3, "m3")]
    session.acknowledged(3)
    assert session.idle


def test_never_written_leaves_out_what_waits_to_be_written_again() -> None:
    session = written(2)
    session.push("m3")
    assert session.never_written() == ["m3"]
    session.connected(1)
    assert session.never_written() == ["m3"]
    session.take(1, 0)
    assert session.never_written() == ["m3"]
    session.take(1, 0)
    assert session.never_written() == []


def test_what_is_dropped_is_neither_sent_nor_waited_for() -> None:
    session: Session[str] = Session()
    for word in ("sent", "sent too", "unsent"):
        session.push(word, 5)
    assert [word for _, word in session.take(2, 100)] == ["sent", "sent too"]
    session.drop()
    assert session.idle
    assert session.pending_bytes == 0
    assert session.never_written() == []
    session.acknowledged(2)  # on its way when it was dropped
    assert not session.has_unsent
