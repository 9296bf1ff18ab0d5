"""Lanes and conversations over links that break: everything arrives once, in order, and nothing is kept."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import threading
import weakref
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from memory_links import MemoryLink, link_pair

from actors._wire import distributed_comm_pb2 as pb
from actors.messages import Call, Cancel, Chunk, Credit, Item, Message, Outcome, Payload, Reply, Tensor, Transfer
from actors.transport import bulk, conversation, lane
from actors.transport.codec import decode, encode
from actors.transport.conversation import Conversation
from actors.transport.lane import Lane
from actors.transport.manner import CONTROL
from actors.transport.session import Session

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterator

T = TypeVar("T")

INLINE = 100  # bytes that ride with a message in these tests
LARGE = b"x" * 350
SMALL = replace(CONTROL, messages=8, ack_after=8)


@pytest.fixture(scope="module", autouse=True)
def _small_chunks() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(conversation, "INLINE_BYTES", INLINE)
        patch.setattr(conversation, "WINDOW_BYTES", 200)
        patch.setattr(bulk, "CHUNK_BYTES", 64)
        patch.setattr(lane, "ACK_DELAY", 0.001)
        yield


def run(work: Coroutine[Any, Any, T], seconds: float = 20) -> T:
    async def bounded() -> T:
        async with asyncio.timeout(seconds):
            result = await work
        left = asyncio.all_tasks() - {asyncio.current_task()}
        assert not left, f"still running: {left}"
        return result

    return asyncio.run(bounded(), debug=False)


def call(number: int, data: bytes = b"") -> Call:
    return Call(number, "actor", "method", Payload(data))


def reply(number: int, data: bytes = b"") -> Reply:
    return Reply(number, Outcome.VALUE, Payload(data))


async def carry(left: Lane, right: Lane, budgets: list[int]) -> None:
    """Links two lanes again and again; the last link lasts."""
    for budget in [*budgets, -1]:
        one, other = link_pair(budget)
        received = left.session.received
        await asyncio.gather(left.run(one, right.session.received), right.run(other, received))


@contextlib.asynccontextmanager
async def carried(*pairs: tuple[Lane, Lane], budgets: tuple[list[int], ...] = ()) -> Any:
    tasks = [asyncio.create_task(carry(*pair, budgets[index] if budgets else [])) for index, pair in enumerate(pairs)]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        for pair in pairs:
            for end in pair:
                end.close()
        assert all(isinstance(outcome, asyncio.CancelledError) for outcome in outcomes), outcomes


def lanes() -> tuple[Lane, Lane, list[Message], list[Message]]:
    loop = asyncio.get_running_loop()
    at_left: list[Message] = []
    at_right: list[Message] = []
    return Lane(loop, at_left.append, manner=SMALL), Lane(loop, at_right.append, manner=SMALL), at_left, at_right


def conversations() -> tuple[Conversation, Conversation, list[Message], list[Message]]:
    loop = asyncio.get_running_loop()
    at_left: list[Message] = []
    at_right: list[Message] = []
    left = Conversation(loop, at_left.append, lambda: None)
    return left, Conversation(loop, at_right.append, lambda: None), at_left, at_right


async def until(condition: Any) -> None:
    while not condition():  # noqa: ASYNC110 - a bound is around it
        await asyncio.sleep(0.001)


# -- lanes ------------------------------------------------------------------------------------------------------


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.integers(0, 12), max_size=10),
    st.lists(st.tuples(st.booleans(), st.integers(1, 20)), max_size=10),
)
def test_all_arrives_once_and_in_order_over_links_that_break(budgets: list[int], posts: list[tuple[bool, int]]) -> None:
    async def work() -> None:
        left, right, at_left, at_right = lanes()
        sent: tuple[list[Message], list[Message]] = ([], [])
        async with carried((left, right), budgets=(budgets,)):
            for to_right, count in posts:
                for _ in range(count):
                    message = Cancel(len(sent[to_right]))
                    sent[to_right].append(message)
                    (left if to_right else right).post(message)
                await asyncio.sleep(0)
            await left.drained()
            await right.drained()
            assert at_right == sent[True]
            assert at_left == sent[False]
            assert left.session.pending_bytes == right.session.pending_bytes == 0

    run(work())


def test_what_is_posted_before_the_first_link_waits_for_it() -> None:
    async def work() -> None:
        left, right, _, at_right = lanes()
        left.post(Cancel(1))
        assert not left.linked
        async with carried((left, right)):
            await left.drained()
        assert at_right == [Cancel(1)]

    run(work())


def test_a_frame_that_a_thread_takes_in_while_another_link_brings_it_again_arrives_once() -> None:
    taken: list[Message] = []
    half, go_on = threading.Event(), threading.Event()

    def deliver(message: Message) -> None:
        taken.append(message)
        if len(taken) == 1:
            half.set()
            assert go_on.wait(20)

    async def work() -> None:
        loop = asyncio.get_running_loop()
        lane = Lane(loop, deliver, lambda _: True, manner=SMALL)
        old, new = link_pair()
        frame = pb.Frame()
        for number in (1, 2, 3):
            one = frame.envelopes.add()
            one.seq = number
            encode(Cancel(number), one.data)
        data = frame.SerializeToString()
        lane._link = old
        leading = asyncio.create_task(asyncio.to_thread(lane._take_here, old, data))
        await asyncio.to_thread(half.wait, 20)
        lane._link = new
        loop.call_later(0.2, go_on.set)  # were it not waited for, all would be delivered meanwhile
        await asyncio.to_thread(lane._take_bytes, new, data)
        assert await leading
        assert taken == [Cancel(number) for number in (1, 2, 3)]
        lane.close()

    run(work())


def test_what_an_objects_end_posts_while_another_message_is_pushed_is_sent_once_and_loses_none() -> None:
    class Ending(Session[Message]):
        def push(self, message: Message, size: int = 0) -> None:
            super().push(message, size)
            if message == Cancel(1):
                lane.post(Cancel(2))

    class Written:
        def __init__(self) -> None:
            self.frames: list[bytes] = []

        def send(self, data: bytes) -> bool:
            self.frames.append(data)
            return True

        send_here = send

    async def work() -> None:
        lane._session = Ending()
        lane.post(Cancel(1))
        link: Any = Written()
        lane._link = lane._idle = link
        assert lane.session.has_unsent
        lane._flush()
        sent = [envelope for data in link.frames for envelope in pb.Frame.FromString(data).envelopes]
        assert [(each.seq, decode(each.data)) for each in sent] == [(1, Cancel(1)), (2, Cancel(2))]
        lane.close()

    loop = asyncio.new_event_loop()
    lane = Lane(loop, lambda _: None)
    loop.run_until_complete(work())
    loop.close()


def test_posts_of_many_threads_all_arrive() -> None:
    async def work() -> None:
        left, right, _, at_right = lanes()

        def post(first: int) -> None:
            for number in range(first, first + 200):
                left.post(Cancel(number))

        async with carried((left, right), budgets=([3, 5, 8],)):
            await asyncio.gather(*(asyncio.to_thread(post, 1000 * index) for index in range(4)))
            await left.drained()
        numbers = [message.number for message in at_right if isinstance(message, Cancel)]
        for index in range(4):  # each thread's in its own order
            assert [n for n in numbers if n // 1000 == index] == list(range(1000 * index, 1000 * index + 200))

    run(work())


def test_a_lone_acknowledgement_goes_out_soon_and_once_for_many() -> None:
    async def work() -> None:
        left, right, _, _ = lanes()
        one, other = link_pair()
        running = asyncio.gather(left.run(one, 0), right.run(other, 0))
        for number in range(5):
            left.post(Cancel(number))
        await left.drained()
        assert [(frame.ack, len(frame.envelopes)) for frame in other.written] == [(5, 0)]
        left.post(Cancel(5))
        await left.drained()
        assert [frame.ack for frame in other.written] == [5, 6]
        assert all(frame.envelopes for frame in one.written)  # an acknowledgement is not acknowledged
        await one.close()
        await running
        assert not left.linked

    run(work())


def test_an_acknowledgement_rides_on_a_message() -> None:
    async def work() -> None:
        left, right, at_left, _ = lanes()
        right._deliver = right.post  # an echo
        one, other = link_pair()
        running = asyncio.gather(left.run(one, 0), right.run(other, 0))
        for number in range(50):
            left.post(Cancel(number))
            await until(lambda number=number: len(at_left) > number)
        await left.drained()
        assert len([frame for frame in other.written if not frame.envelopes]) <= 5  # the slow machine's allowance
        await one.close()
        await running
        left.close()
        right.close()

    run(work())


def test_messages_that_wait_go_out_as_one_frame_up_to_the_limit() -> None:
    async def work() -> None:
        left, right, _, _ = lanes()
        for number in range(20):
            left.post(Cancel(number))
        one, other = link_pair()
        running = asyncio.gather(left.run(one, 0), right.run(other, 0))
        await left.drained()
        assert [len(frame.envelopes) for frame in one.written if frame.envelopes] == [8, 8, 4]
        await one.close()
        await running

    run(work())


def test_a_new_link_takes_over_from_one_that_seems_to_live() -> None:
    async def work() -> None:
        left, right, _, at_right = lanes()
        first_one, first_other = link_pair()
        first = [asyncio.create_task(left.run(first_one, 0)), asyncio.create_task(right.run(first_other, 0))]
        left.post(Cancel(1))
        await left.drained()
        second_one, second_other = link_pair()
        left.post(Cancel(2))
        second = [
            asyncio.create_task(right.run(second_other, left.session.received)),
            asyncio.create_task(left.run(second_one, right.session.received)),
        ]
        await left.drained()
        await asyncio.wait(first)
        assert left.linked
        left.post(Cancel(3))
        await left.drained()
        assert at_right == [Cancel(1), Cancel(2), Cancel(3)]
        await second_one.close()
        await asyncio.wait(second)

    run(work())


def test_a_takeover_does_not_lose_the_wake_up() -> None:
    """The writer of the old link, if it is the one that wakes, must not leave the new link's writer asleep."""

    class Deaf(MemoryLink):
        async def close(self) -> None:
            """Leaves its reader and writer where they are, as a link does whose other side is cut off."""

    async def work() -> None:
        left, right, _, at_right = lanes()
        one, other = link_pair()
        one.__class__ = Deaf
        old = asyncio.create_task(left.run(one, 0))
        await asyncio.sleep(0.01)
        left.post(Cancel(1))
        left.post(Cancel(2))
        new_one, new_other = link_pair()
        both = [asyncio.create_task(right.run(new_other, 0)), asyncio.create_task(left.run(new_one, 0))]
        await left.drained()
        assert at_right == [Cancel(1), Cancel(2)]
        other.cut()
        await new_one.close()
        await asyncio.wait([*both, old])

    run(work())


def test_room_is_made_by_acknowledgements() -> None:
    async def work() -> None:
        left, right, _, at_right = lanes()
        for number in range(10):
            left.post(call(number), 10)
        await asyncio.sleep(0)
        waiting = asyncio.create_task(left.room(50))
        await asyncio.sleep(0)
        assert not waiting.done()
        async with carried((left, right)):
            await waiting
        assert len(at_right) > 5

    run(work())


def test_goodbye_ends_the_run_and_is_kept() -> None:
    async def work() -> None:
        left, right, _, at_right = lanes()
        one, other = link_pair()
        running = asyncio.gather(left.run(one, 0), right.run(other, 0))
        left.post(Cancel(1))
        await left.drained()
        await left.farewell("the notebook was closed", 0)
        await running
        assert right.goodbye is not None
        assert right.goodbye.reason == "the notebook was closed"
        assert left.goodbye is None
        assert at_right == [Cancel(1)]

    run(work())


def bad_envelope(seq: int, kind: str) -> bytes:
    frame = pb.Frame()
    envelope = frame.envelopes.add()
    envelope.seq = seq
    envelope.data.comm_type = kind
    return frame.SerializeToString()


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (bad_envelope(1, "gossip"), "'gossip' is no kind of message"),
        (bad_envelope(3, "cancel"), "message 3 came after 0"),
        (pb.Frame(ack=7).SerializeToString(), "7 was acknowledged, but only 0 were written"),
        (b"\xff\xff\xff garbage", "rror"),
    ],
    ids=["unknown kind", "gap", "acknowledged too much", "garbage"],
)
def test_a_frame_against_the_rules_ends_the_session_at_both_ends(data: bytes, reason: str) -> None:
    async def work() -> None:
        left, right, at_left, at_right = lanes()
        one, other = link_pair()
        running = asyncio.gather(left.run(one, 0), right.run(other, 0))
        await one.write_bytes(data)
        await running
        for end in (left, right):
            assert not end.linked
            assert end.goodbye is not None
            assert end.goodbye.code == 4
            assert reason in end.goodbye.reason
            end.close()
        assert at_left == at_right == []

    run(work())


def test_a_receiver_that_fails_ends_the_session_at_both_ends(caplog: pytest.LogCaptureFixture) -> None:
    async def work() -> None:
        left, right, _, _ = lanes()

        def fail(_: Message) -> None:
            raise RuntimeError("no more")

        right._deliver = fail
        one, other = link_pair()
        running = asyncio.gather(left.run(one, 0), right.run(other, 0))
        left.post(Cancel(1))
        await running
        for end in (left, right):
            assert end.goodbye is not None
            assert "RuntimeError: no more" in end.goodbye.reason
            end.close()

    with caplog.at_level(logging.ERROR):
        run(work())
    assert "could not be taken in" in caplog.text


def test_a_receiver_that_fails_on_a_thread_that_reads_leaves_the_frame_to_the_loop() -> None:
    def fail(message: Message) -> None:
        if message == Cancel(2):
            raise RuntimeError("no more")

    async def work() -> None:
        lane = Lane(asyncio.get_running_loop(), fail, lambda _: True)
        lane._link, _ = link_pair()
        frame = pb.Frame()
        for number in (1, 2):
            one = frame.envelopes.add()
            one.seq = number
            encode(Cancel(number), one.data)
        data = frame.SerializeToString()
        assert await asyncio.to_thread(lane._take_here, lane._link, data) is False
        assert lane.session.received == 1
        with pytest.raises(RuntimeError, match="no more"):
            lane._take_bytes(lane._link, data)
        lane.close()

    run(work())


def test_a_message_that_cannot_be_written_ends_the_session_at_both_ends(caplog: pytest.LogCaptureFixture) -> None:
    async def work() -> None:
        left, right, _, _ = lanes()
        one, other = link_pair()
        running = asyncio.gather(left.run(one, 0), right.run(other, 0))
        left.post(Tensor("group", 0, "\ud800", Payload(b"")))
        await running
        for end in (left, right):
            assert end.goodbye is not None
            assert "cannot be written" in end.goodbye.reason
            end.close()

    with caplog.at_level(logging.ERROR):
        run(work())


def test_an_impossible_hello_is_answered_with_a_goodbye() -> None:
    async def work() -> None:
        dialled, accepted, _, _ = lanes()
        one, other = link_pair()
        await accepted.run(other, 5, pb.Frame(hello=pb.Hello()))
        frame = await one.read()
        assert frame is not None
        assert "says it has received 5" in frame.goodbye.reason
        assert not accepted.linked
        assert accepted.goodbye is None  # an old hello that came late must not end a healthy session
        one, other = link_pair()
        await dialled.run(one, 5)
        assert dialled.goodbye is not None  # the answer to an own hello is never old

    run(work())


# -- conversations ----------------------------------------------------------------------------------------------


def whole(messages: list[Message]) -> list[tuple[str, int, bytes]]:
    found = []
    for message in messages:
        assert isinstance(message, Call | Reply | Item)
        assert isinstance(message.payload, Payload)
        data = message.payload.pickle + b"".join(map(bytes, message.payload.buffers))
        found.append((type(message).__name__, message.number, data))
    return found


payloads = st.builds(
    lambda head, rest: Payload(head, tuple(rest)),
    st.binary(max_size=30),
    st.lists(st.binary(min_size=0, max_size=300), max_size=3),
)
traffic = st.lists(
    st.one_of(
        payloads.map(lambda payload: Call(0, "a", "m", payload)),
        st.builds(lambda n, payload: Reply(n, Outcome.VALUE, payload), st.integers(1, 3), payloads),
        st.builds(lambda n, payload: Item(n, 0, payload), st.integers(1, 3), payloads),
    ),
    max_size=12,
)


@settings(max_examples=200, deadline=None)
@given(traffic, st.lists(st.integers(0, 15), max_size=6), st.lists(st.integers(0, 15), max_size=6))
def test_payloads_of_all_sizes_arrive_whole_and_in_their_orders(
    messages: list[Message], control: list[int], large: list[int]
) -> None:
    async def work() -> None:
        left, right, _, at_right = conversations()
        async with carried((left.control, right.control), (left.bulk, right.bulk), budgets=(control, large)):
            for message in messages:
                left.post(message)
            await left.drained()
            assert len(at_right) == len(messages)
            for order in ("Call", *((kind, n) for kind in ("answer",) for n in (1, 2, 3))):
                assert whole(_of(order, at_right)) == whole(_of(order, messages))
            assert not right._held
            assert not right._whole
            assert not right._awaited
            assert not right._assemblies
        left.close()
        right.close()

    run(work())


def _of(order: Any, messages: list[Message]) -> list[Message]:
    if order == "Call":
        return [m for m in messages if isinstance(m, Call)]
    return [m for m in messages if isinstance(m, Reply | Item) and m.number == order[1]]


def test_calls_wait_behind_a_large_one_and_the_rest_passes_by() -> None:
    async def work() -> None:
        left, right, _, at_right = conversations()
        left.post(call(1, LARGE))
        left.post(call(2))
        left.post(Cancel(2))
        left.post(Cancel(1))
        left.post(Cancel(9))
        left.post(reply(7))
        left.post(Credit(8, 3))
        async with carried((left.control, right.control)):  # the bulk lane has no link yet
            await left.control.drained()
            assert at_right == [Cancel(9), reply(7), Credit(8, 3)]
            async with carried((left.bulk, right.bulk)):
                await left.drained()
        # A cancellation that came before its call would be lost.
        assert at_right[3:] == [call(1, LARGE), call(2), Cancel(2), Cancel(1)]
        left.close()
        right.close()

    run(work())


def test_the_end_of_a_stream_waits_for_its_large_items() -> None:
    async def work() -> None:
        left, right, _, at_right = conversations()
        stream: list[Message] = [
            Item(1, 0, Payload(b"small")),
            Item(1, 1, Payload(LARGE)),
            Item(1, 2, Payload(b"small")),
            reply(1),
        ]
        for message in stream:
            left.post(message)
        left.post(reply(2))
        async with carried((left.control, right.control)):
            await left.control.drained()
            assert at_right == [stream[0], reply(2)]
            async with carried((left.bulk, right.bulk)):
                await left.drained()
        assert at_right == [stream[0], reply(2), *stream[1:]]
        left.close()
        right.close()

    run(work())


def test_the_bulk_lane_is_asked_for_only_when_needed() -> None:
    async def work() -> None:
        loop = asyncio.get_running_loop()
        asked: list[str] = []
        left = Conversation(loop, lambda _: None, lambda: asked.append("sender"))
        right = Conversation(loop, lambda _: None, lambda: asked.append("receiver"))
        async with carried((left.control, right.control), (left.bulk, right.bulk)):
            left.post(call(1, b"x" * INLINE))
            await left.drained()
            assert asked == []
            left.post(call(2, b"x" * (INLINE + 1)))
            await left.drained()
            assert "sender" in asked
        left.close()
        right.close()

    run(work())


def test_drained_covers_what_was_posted_just_before() -> None:
    async def work() -> None:
        left, right, _, at_right = conversations()
        async with carried((left.control, right.control), (left.bulk, right.bulk)):
            for number in range(5):
                left.post(reply(number, LARGE * 3))
                await left.drained()
                assert len(at_right) == number + 1
        left.close()
        right.close()

    run(work())


class Block(bytearray):
    """Memory that can be watched."""


def test_nothing_is_kept_of_what_was_acknowledged() -> None:
    async def work() -> None:
        left, right, _, at_right = conversations()
        watched: list[weakref.ref[Block]] = []

        def post(size: int) -> None:
            block = Block(size)
            watched.append(weakref.ref(block))
            left.post(Reply(len(watched), Outcome.VALUE, Payload(b"", (block,))))

        async with carried((left.control, right.control), (left.bulk, right.bulk)):
            for size in (10, 1000, 20, 5000, 30):
                post(size)
            await left.drained()
            assert len(at_right) == 5
            gc.collect()
            assert [ref() for ref in watched] == [None] * 5
        left.close()
        right.close()

    run(work())


def test_a_closed_conversation_takes_nothing_over() -> None:
    async def work() -> None:
        left, right, _, at_right = conversations()
        left.post(call(1, LARGE))
        left.close()
        left.post(call(2))
        left.post(call(3, LARGE))
        await asyncio.sleep(0.01)
        async with carried((left.control, right.control), (left.bulk, right.bulk)):
            await left.control.drained()
        assert at_right == []
        right.close()

    run(work())


@pytest.mark.parametrize(
    ("which", "message", "reason"),
    [
        ("bulk", Cancel(1), "a cancel came on the bulk lane"),
        ("control", Chunk(1, 0, (3,), b"abc"), "a chunk came on the control lane"),
        ("bulk", Chunk(1, 1, (), b"abc"), "does not say how large it is"),
        ("bulk", Chunk(1, 1, (9,), b"abc"), "chunk 1 came where 0 was due"),
        ("bulk", Chunk(1, 0, (2**60,), b"abc"), "no room"),
    ],
)
def test_what_does_not_belong_on_a_lane_ends_it(which: str, message: Message, reason: str) -> None:
    async def work() -> None:
        left, right, _, at_right = conversations()
        sender, receiver = getattr(left, which), getattr(right, which)
        one, other = link_pair()
        running = asyncio.gather(sender.run(one, 0), receiver.run(other, 0))
        sender.post(message)
        await running
        assert sender.goodbye is not None
        assert reason in sender.goodbye.reason
        assert at_right == []
        left.close()
        right.close()

    run(work())


def test_a_transfer_that_nobody_sends_holds_up_only_its_own_order() -> None:
    async def work() -> None:
        left, right, _, at_right = conversations()
        async with carried((left.control, right.control), (left.bulk, right.bulk)):
            left.control.post(Reply(1, Outcome.VALUE, Transfer(77)))
            left.post(reply(2, LARGE))
            await left.drained()
            assert at_right == [reply(2, LARGE)]
        left.close()
        right.close()

    run(work())
