from __future__ import annotations

import functools
import re
import socket
import stat
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.communicator import (
    CommunicationBackend,
    CommunicatorArgumentError,
    CommunicatorTimeoutError,
    GRPCCommunicator,
)
from actors.exceptions import AuthenticationError, CollectiveError, SerializationError
from actors.home import state_dir
from actors.transport.endpoint import Endpoint
from actors.transport.fivecalls import FiveCalls
from actors.transport.letterbox import Limits, Member
from actors.transport.portal import Portal

import grpc  # isort: skip

from actors._wire import distributed_comm_pb2 as pb
from actors._wire import distributed_comm_pb2_grpc as pb_grpc

mx = pytest.importorskip("mlx.core")

STEPS = {"sum": np.add, "product": np.multiply, "min": np.minimum, "max": np.maximum, "mean": np.add}


def free_addresses(count):
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [f"127.0.0.1:{one.getsockname()[1]}" for one in sockets]


def free_base_port(count):
    """A port from which on ``count`` are free."""
    while True:
        base = int(free_addresses(1)[0].rpartition(":")[2])
        try:
            with ExitStack() as stack:
                for port in range(base, base + count):
                    stack.enter_context(socket.socket()).bind(("127.0.0.1", port))
        except (OSError, OverflowError):
            continue
        return base


class Ranks:
    """The ranks of a job, each called from a thread of its own."""

    def __init__(self, size, **options):
        self.addresses = free_addresses(size)
        self.comms = [GRPCCommunicator() for _ in range(size)]
        self._pool = ThreadPoolExecutor(size)
        self.each(lambda comm, rank: comm.init(rank, size, addresses=self.addresses, **options))

    def each(self, work, ranks=None):
        """Results of ``work(comm, rank)`` in rank order; where it raised, the exception."""

        def attempt(rank):
            try:
                return work(self.comms[rank], rank)
            except Exception as error:
                return error

        return list(self._pool.map(attempt, range(len(self.comms)) if ranks is None else ranks))

    def close(self):
        self.each(lambda comm, _: comm.finalize())
        self._pool.shutdown()


@contextmanager
def job(size, **options):
    ranks = Ranks(size, **{"timeout": 10.0} | options)
    try:
        yield ranks
    finally:
        ranks.close()


def until(condition):
    """Waits for what another thread is about to do."""
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


@contextmanager
def stub_for(address):
    with grpc.insecure_channel(address) as channel:
        grpc.channel_ready_future(channel).result(10)
        yield pb_grpc.DistributedCommStub(channel)


@pytest.fixture(scope="module")
def pair():
    with job(2) as ranks:
        yield ranks


@pytest.fixture(scope="module")
def jobs():
    with ExitStack() as stack:
        yield {size: stack.enter_context(job(size)) for size in (1, 2, 3, 4)}


def test_two_ranks_answer_each_other_at_the_default_kind_of_ports():
    base = free_base_port(2)

    def first():
        with GRPCCommunicator() as comm:
            comm.init(rank=0, world_size=2, base_port=base)
            comm.send({"message": "hello"}, dest=1)
            return comm.receive(source=1)

    def second():
        with GRPCCommunicator() as comm:
            comm.init(rank=1, world_size=2, base_port=base)
            comm.send({"reply": comm.receive(source=0)}, dest=0)

    with ThreadPoolExecutor(2) as pool:
        answer = pool.submit(first)
        pool.submit(second).result(20)
        assert answer.result(20) == {"reply": {"message": "hello"}}


def test_eight_ranks():
    with job(8) as ranks:

        def work(comm, rank):
            comm.send(rank, (rank + 1) % 8)
            left = comm.receive((rank - 1) % 8)
            comm.barrier()
            return left, comm.allreduce(np.arange(3) + rank).tolist(), comm.broadcast(f"from {rank}", root=5)

        assert ranks.each(work) == [((rank - 1) % 8, [28, 36, 44], "from 5") for rank in range(8)]


PROCESS = """
import sys
import numpy as np
from actors.communicator import GRPCCommunicator

class Note:
    def __init__(self, text):
        self.text = text

rank, base = int(sys.argv[1]), int(sys.argv[2])
comm = GRPCCommunicator()
comm.init(rank, 3, base_port=base)
comm.send(Note(f"from {rank}"), (rank + 1) % 3, tag="ring")
note = comm.receive((rank - 1) % 3, tag="ring")
total = comm.allreduce(np.full(4, rank, np.float32))
word = comm.broadcast("word" if rank == 2 else None, root=2)
comm.barrier()
print(type(note).__name__, note.text, total.tolist(), word)
"""


def test_three_processes_with_classes_of_main_and_no_finalize():
    base = str(free_base_port(3))
    command = [sys.executable, "-W", "error", "-c", PROCESS]
    processes = [
        subprocess.Popen([*command, str(rank), base], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for rank in (2, 1, 0)
    ]
    outputs = [process.communicate(timeout=60) for process in processes]
    assert [error for _, error in outputs] == ["", "", ""]
    assert [process.returncode for process in processes] == [0, 0, 0]
    assert [out for out, _ in outputs] == [
        f"Note from {(rank - 1) % 3} [3.0, 3.0, 3.0, 3.0] word\n" for rank in (2, 1, 0)
    ]


VALUES = [
    None,
    {"nested": [1, (2, {3})]},
    b"bytes",
    np.float32(2.5),
    np.arange(12, dtype=">i4").reshape(3, 4).T,
    np.array(3.5),
    np.zeros((0, 2), bool),
    np.array(["text", "of", "words"]),
    np.array([(1, 2.0)], "i4,f8"),
    np.array([None, {"a": 1}], dtype=object),
    np.ma.masked_array([1, 2], [True, False]),
    mx.array([1.5, -2], dtype=mx.bfloat16),
    mx.array(7),
    mx.zeros((2, 0), dtype=mx.complex64),
]


@pytest.mark.parametrize("value", VALUES, ids=lambda value: f"{type(value).__name__}-{str(value)[:20]}")
def test_values_arrive_as_what_they_were(pair, value):
    for path in ("send", "broadcast"):
        if path == "send":
            pair.comms[0].send(value, 1)
            got = pair.comms[1].receive(0)
        else:
            _, got = pair.each(lambda comm, rank: comm.broadcast(value if rank == 0 else "ignored"))
        assert type(got) is type(value)
        if isinstance(value, np.ndarray):
            assert got.dtype == value.dtype.newbyteorder("=")
            np.testing.assert_array_equal(got, value)
        elif isinstance(value, mx.array):
            assert (got.dtype, got.shape) == (value.dtype, value.shape)
            assert mx.array_equal(got, value)
        else:
            assert got == value


def test_arrays_inside_objects(pair):
    pair.comms[0].send({"w": [np.arange(1000), mx.arange(4)]}, 1)
    got = pair.comms[1].receive(0)["w"]
    np.testing.assert_array_equal(got[0], np.arange(1000))
    assert got[1].tolist() == [0, 1, 2, 3]


def test_order_is_kept_and_tags_are_kept_apart(pair):
    one, other = pair.comms
    for number in range(50):
        one.send(number, 1, tag="a" if number % 2 else "b")
    one.send("none", 1)
    other.send("self", 1, tag="a")
    assert [other.receive(0, "b") for _ in range(25)] == list(range(0, 50, 2))
    assert other.receive(1, "a") == "self"
    assert [other.receive(0, "a") for _ in range(25)] == list(range(1, 50, 2))
    assert other.receive(0) == "none"


def test_arrays_of_many_megabytes(pair):
    array = np.arange(6 << 20, dtype=np.float32)  # 24 MiB, gRPC's default limit is 4
    pair.comms[0].send(array, 1)
    np.testing.assert_array_equal(pair.comms[1].receive(0), array)
    for result in pair.each(lambda comm, _: comm.allreduce(array)):
        np.testing.assert_array_equal(result, array * 2)
    _, got = pair.each(lambda comm, _: comm.broadcast(array))
    np.testing.assert_array_equal(got, array)


def test_more_than_the_limit_is_refused_at_once(pair, monkeypatch):
    monkeypatch.setattr("actors.communicator.MAX_PAYLOAD", 1000)
    for value in (np.zeros(1001, np.int8), np.array(["x" * 1001]), b"x" * 1001):
        with pytest.raises(ValueError, match=r"\d+ bytes are too many for one message; the limit is 1000"):
            pair.comms[0].send(value, 1)
    with pytest.raises(ValueError, match="1001 bytes are too many"):
        pair.comms[0].allreduce(np.zeros(1001, np.int8))


@given(
    st.sampled_from(["bool", "int8", "int32", "int64", "uint16", "float16", "float32", "float64", "complex64"]),
    st.sampled_from(sorted(STEPS)),
    st.sampled_from([(), (0,), (5,), (2, 3), (3, 1, 2)]),
    st.integers(1, 4),
    st.integers(0, 2**32),
)
@settings(max_examples=80, deadline=None)
def test_allreduce_is_numpys(jobs, dtype, op, shape, size, seed):
    parts = (np.random.default_rng(seed).standard_normal((size, *shape)) * 50).astype(dtype)
    results = jobs[size].each(lambda comm, rank: comm.allreduce(parts[rank], op))
    if op == "mean" and np.dtype(dtype).kind in "biu":
        assert {type(result) for result in results} == {CommunicatorArgumentError}
        assert f"the mean of {dtype} is not a {dtype}" in str(results[-1])
        return
    work = np.float32 if dtype == "float16" else np.dtype(dtype).type
    with np.errstate(all="ignore"):
        expected = functools.reduce(STEPS[op], [part.astype(work) for part in parts])
        expected = (expected / work(size) if op == "mean" else expected).astype(dtype)
    for result in results:
        assert (result.dtype, result.shape) == (np.dtype(dtype), shape)
        np.testing.assert_array_equal(result, expected)


@pytest.mark.parametrize("dtype", [mx.bfloat16, mx.float16, mx.float32, mx.int32])
@pytest.mark.parametrize("size", [1, 3])
def test_allreduce_of_mlx_arrays(jobs, dtype, size):
    results = jobs[size].each(lambda comm, rank: comm.allreduce(mx.array([[1, 2.5], [rank, -1]]).astype(dtype), "sum"))
    whole = sum(np.array([[1, 2.5], [rank, -1]]).astype("i4" if dtype == mx.int32 else "f4") for rank in range(size))
    for result in results:
        assert isinstance(result, mx.array)
        assert result.dtype == dtype
        assert result.tolist() == whole.tolist()


def test_a_plain_client_speaks_all_five_calls():
    """Rank 2 is nothing but the generated stubs."""
    addresses = free_addresses(3)
    ranks = [GRPCCommunicator() for _ in range(2)]
    with ThreadPoolExecutor(2) as pool, ExitStack() as stack:
        for rank, comm in enumerate(ranks):
            stack.callback(comm.finalize)
            comm.init(rank, 3, addresses=addresses, timeout=10)
        root, second = (stack.enter_context(stub_for(address)) for address in addresses[:2])

        array = np.arange(4, dtype="<f4")
        tensor = pb.TensorData(data=array.tobytes(), shape=[2, 2], dtype="float32")
        request = pb.SendRequest(source_rank=2, dest_rank=0, data=pb.CommData(tensor_data=tensor), tag="t")
        assert root.Send(request, timeout=10).success
        np.testing.assert_array_equal(ranks[0].receive(2, "t"), array.reshape(2, 2))
        request.data.numpy_data = b"\x93NUMPY\x01\x00v\x00" + (
            b"{'descr': '<i8', 'fortran_order': False, 'shape': (2,), }".ljust(117) + b"\n" + bytes(16)
        )
        assert root.Send(request).success
        np.testing.assert_array_equal(ranks[0].receive(2, "t"), np.zeros(2, np.int64))

        for number in range(3):
            ranks[0].send(np.full(2, number, np.int16), 1, "stream")
        ranks[0].send("other tag", 1)
        wanted = pb.ReceiveRequest(receiver_rank=1, source_rank=0, tag="stream")
        answers = list(second.Receive(wanted, timeout=10))
        assert [np.frombuffer(answer.data.tensor_data.data, "<i2").tolist() for answer in answers] == [
            [0, 0],
            [1, 1],
            [2, 2],
        ]
        assert {(answer.source_rank, answer.tag, answer.data.comm_type) for answer in answers} == {
            (0, "stream", "tensor")
        }
        assert ranks[1].receive(0) == "other tag"

        others = [pool.submit(comm.broadcast, None, 2) for comm in ranks]
        answer = root.Broadcast(
            pb.BroadcastRequest(sender_rank=2, root_rank=2, data=pb.CommData(tensor_data=tensor)), timeout=10
        )
        assert answer.success
        assert answer.data.tensor_data == tensor
        for other in others:
            np.testing.assert_array_equal(other.result(10), array.reshape(2, 2))

        others = [pool.submit(comm.broadcast, array, 0) for comm in ranks]
        answer = root.Broadcast(pb.BroadcastRequest(sender_rank=2, root_rank=0), timeout=10)
        assert answer.data.tensor_data.data == array.tobytes()

        others = [pool.submit(comm.allreduce, array.reshape(2, 2), "max") for comm in ranks]
        bigger = pb.TensorData(data=(array * 2).tobytes(), shape=[2, 2], dtype="float32")
        answer = root.AllReduce(pb.AllReduceRequest(rank=2, tensor=bigger, operation="max"), timeout=10)
        assert answer.success
        assert answer.result == bigger
        np.testing.assert_array_equal(others[1].result(10), array.reshape(2, 2) * 2)

        others = [pool.submit(comm.barrier) for comm in ranks]
        assert root.Barrier(pb.BarrierRequest(rank=2), timeout=10) == pb.BarrierResponse(success=True, participants=3)
        assert [other.result(10) for other in others] == [None, None]


@pytest.mark.parametrize("order", ["theirs, ours", "ours, theirs"])
def test_a_program_may_have_stubs_of_its_own_of_the_same_schema(order):
    program = """
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

def theirs():
    file = descriptor_pb2.FileDescriptorProto(name="distributed_comm.proto", package="distributed_comm")
    file.message_type.add(name="TensorData").field.add(name="data", number=1, type=12, label=1)
    pool = descriptor_pool.Default()
    pool.Add(file)
    kind = message_factory.GetMessageClass(pool.FindMessageTypeByName("distributed_comm.TensorData"))
    assert kind(data=b"x").SerializeToString() == b"\\n\\x01x"

def ours():
    from actors._wire import distributed_comm_pb2 as pb
    assert pb.TensorData(data=b"x").SerializeToString() == b"\\n\\x01x"

for step in (ORDER):
    step()
"""
    program = program.replace("ORDER", order)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


def refused(call, request, **options):
    with pytest.raises(grpc.RpcError) as caught:
        answer = call(request, **{"timeout": 10} | options)
        if hasattr(answer, "__next__"):
            next(answer)
    return caught.value.code(), caught.value.details()


@pytest.fixture(scope="module")
def root(pair):
    with stub_for(pair.addresses[0]) as stub:
        yield stub


def good_tensor(**changes):
    return pb.TensorData(**{"data": bytes(8), "shape": [2], "dtype": "float32"} | changes)


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (
            pb.SendRequest(source_rank=7, data=pb.CommData(tensor_data=good_tensor())),
            "source_rank is 7.*2 ranks.*0 to 1",
        ),
        (pb.SendRequest(source_rank=-1), "source_rank is -1"),
        (pb.SendRequest(dest_rank=1), "dest_rank is 1, but this is the server of rank 0: call rank 1's"),
        (pb.SendRequest(), "no data: set tensor_data, numpy_data or pickle_data"),
        (pb.SendRequest(data=pb.CommData(tensor_data=good_tensor(shape=[3]))), r"shape \[3\].*12 bytes, but 8 came"),
        (pb.SendRequest(data=pb.CommData(tensor_data=good_tensor(shape=[-2]))), "impossible shape"),
        (pb.SendRequest(data=pb.CommData(tensor_data=good_tensor(dtype="O"))), "unknown dtype 'O'; known"),
        (
            pb.SendRequest(data=pb.CommData(tensor_data=good_tensor(), metadata={"kind": "torch"})),
            "unknown kind of array 'torch'",
        ),
        (pb.SendRequest(data=pb.CommData(numpy_data=b"junk")), r"not an array as numpy\.save"),
        (pb.ReceiveRequest(source_rank=2), "source_rank is 2"),
        (pb.ReceiveRequest(receiver_rank=1), "this is the server of rank 0"),
        (pb.BroadcastRequest(sender_rank=2), "sender_rank is 2"),
        (pb.AllReduceRequest(rank=2**31 - 1), "rank is 2147483647"),
        (pb.BarrierRequest(rank=-5), "rank is -5"),
    ],
)
def test_bad_requests_are_named(root, pair, request_, message):
    call = getattr(root, type(request_).__name__.removesuffix("Request"))
    code, details = refused(call, request_)
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    with pytest.raises(AssertionError, match=message):
        raise AssertionError(details)
    assert pair.each(lambda comm, _: comm.barrier()) == [None, None]


def test_whatever_comes_to_a_ranks_port_it_serves_on():
    """Bytes that are no HTTP/2, requests that are no messages, and messages whose fields hold anything."""
    anything = st.builds(
        pb.CommData, comm_type=st.text(max_size=5), pickle_data=st.none() | st.binary(max_size=9),
        tensor_data=st.none() | st.builds(
            pb.TensorData, data=st.binary(max_size=9), shape=st.lists(st.integers(-(2**31), 2**31 - 1), max_size=3),
            dtype=st.sampled_from(["float32", "bfloat16", "O", ""]),
        ),
        metadata=st.dictionaries(st.sampled_from(["kind", "proof"]), st.text(max_size=5)),
    )  # fmt: skip
    ranks = st.integers(-(2**31), 2**31 - 1)
    sends = st.builds(pb.SendRequest, source_rank=ranks | st.integers(0, 1), dest_rank=st.integers(0, 1), data=anything)
    with job(2, timeout=10.0) as ranks_there:
        host, _, port = ranks_there.addresses[0].rpartition(":")
        with grpc.insecure_channel(ranks_there.addresses[0]) as channel:
            plain = {
                name: getattr(channel, how)(f"/distributed_comm.DistributedComm/{name}")
                for name, how in [("Send", "unary_unary"), ("Receive", "unary_stream"), ("Broadcast", "unary_unary"),
                                  ("AllReduce", "unary_unary"), ("Barrier", "unary_unary"), ("Call", "unary_unary")]
            }  # fmt: skip

            @settings(max_examples=60, deadline=None)
            @given(
                st.one_of(
                    st.tuples(st.sampled_from(sorted(plain)), st.binary(max_size=40)),
                    st.tuples(st.just("Send"), sends.map(pb.SendRequest.SerializeToString)),
                )
            )
            def fuzz(asked):
                name, data = asked
                with suppress(grpc.RpcError):
                    answer = plain[name](data, timeout=0.2)
                    list(answer) if name == "Receive" else answer

            @settings(max_examples=20, deadline=None)
            @given(st.binary(max_size=60), st.booleans())
            def noise(data, greets):
                with socket.create_connection((host, int(port)), timeout=10) as stranger:
                    stranger.sendall((b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" if greets else b"") + data)

            fuzz()
            noise()
        ranks_there.comms[1].send("still here", 0, "after")
        assert ranks_there.comms[0].receive(1, "after") == "still here"


def test_a_pickle_needs_a_proof(root, pair):
    bomb = b"cos\nabort\n(tR."
    for metadata in ({}, {"proof": ""}, {"proof": "0" * 64}, {"proof": "ü"}):
        data = pb.CommData(pickle_data=bomb, metadata=metadata)
        code, details = refused(root.Send, pb.SendRequest(source_rank=1, data=data))
        assert code is grpc.StatusCode.PERMISSION_DENIED
        assert "ACTORS_JOB_SECRET" in details
    with ThreadPoolExecutor(1) as pool:
        other = pool.submit(pair.comms[0].broadcast, None, 1)
        code, _ = refused(root.Broadcast, pb.BroadcastRequest(sender_rank=1, root_rank=1, data=data))
        assert code is grpc.StatusCode.PERMISSION_DENIED
        with pytest.raises(AuthenticationError, match="rank 1: pickle_data is taken only with a proof"):
            other.result(10)
    assert pair.each(lambda comm, _: comm.broadcast("in step")) == ["in step"] * 2


def test_a_proof_holds_for_one_message_only():
    with job(2) as ranks, stub_for(ranks.addresses[1]) as stub:
        ranks.comms[0].send({"a": 1}, 1, "here")
        wanted = pb.ReceiveRequest(receiver_rank=1, source_rank=0, tag="here", comm_type="pickle")
        (answer,) = stub.Receive(wanted, timeout=10)
        for source, tag in ((0, "there"), (1, "here")):
            moved = pb.SendRequest(source_rank=source, dest_rank=1, tag=tag, data=answer.data)
            assert refused(stub.Send, moved)[0] is grpc.StatusCode.PERMISSION_DENIED
        again = pb.SendRequest(source_rank=0, dest_rank=1, tag="here", data=answer.data)
        assert stub.Send(again, timeout=10).success
        assert ranks.comms[1].receive(0, "here") == {"a": 1}
        again.data.pickle_data += b"x"
        assert refused(stub.Send, again)[0] is grpc.StatusCode.PERMISSION_DENIED


def test_ranks_with_different_secrets(monkeypatch):
    addresses = free_addresses(2)
    with GRPCCommunicator() as one, GRPCCommunicator() as other:
        monkeypatch.setenv("ACTORS_JOB_SECRET", "ours")
        one.init(0, 2, addresses=addresses, timeout=5)
        monkeypatch.setenv("ACTORS_JOB_SECRET", "theirs")
        other.init(1, 2, addresses=addresses, timeout=5)
        with pytest.raises(AuthenticationError, match="same ACTORS_JOB_SECRET"):
            one.send("object", 1)
        one.send(np.ones(2), 1)
        assert other.receive(0).tolist() == [1, 1]


def test_the_secret_is_a_private_file(pair):
    file = state_dir() / "job-secret"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert len(file.read_bytes()) == 64
    file.chmod(0o644)
    try:
        with pytest.raises(AuthenticationError, match=r"others can read the job's secret .*: delete it"):
            GRPCCommunicator().init(0, 1, addresses=free_addresses(1))
    finally:
        file.chmod(0o600)


@pytest.mark.parametrize(
    ("parts", "ops", "sides"),
    [
        (
            [np.ones(2), np.ones(3)],
            ["sum", "sum"],
            [r"rank 0 has op sum on shape \[2\] of float64", r"rank 1 has op sum on shape \[3\]"],
        ),
        ([np.ones(2), np.ones(2, "f4")], ["sum", "sum"], ["rank 0 has .* of float64", "rank 1 has .* of float32"]),
        ([np.ones(2), np.ones(2)], ["sum", "max"], ["rank 0 has op sum", "rank 1 has op max"]),
        ([np.ones(2), np.ones(2)], ["sum", "median"], ["rank 1: unknown op 'median'; known: sum"]),
        ([np.ones(2), np.ones(2, int)], ["mean", "mean"], ["rank 1: the mean of int64"]),
    ],
)
def test_ranks_that_do_not_agree_all_hear_it(pair, parts, ops, sides):
    results = pair.each(lambda comm, rank: comm.allreduce(parts[rank], ops[rank]))
    for result in results:
        assert isinstance(result, CommunicatorArgumentError)
        assert isinstance(result, CollectiveError)
        assert isinstance(result, ValueError)
        text = str(result)
        assert all(re.search(side, text) for side in sides), text
    assert str(results[0]) == str(results[1])
    assert [result.tolist() for result in pair.each(lambda comm, _: comm.allreduce(np.ones(1)))] == [[2], [2]]


def test_roots_and_barriers_that_do_not_agree(pair, root):
    for result in pair.each(lambda comm, rank: comm.broadcast("x", root=rank)):
        with pytest.raises(CommunicatorArgumentError, match=r"round .* of broadcast failed.*rank . has root ., rank"):
            raise result
    with ThreadPoolExecutor(1) as pool:
        other = pool.submit(pair.comms[0].barrier)
        code, details = refused(root.Barrier, pb.BarrierRequest(rank=1, barrier_id="mine"))
        assert code is grpc.StatusCode.INVALID_ARGUMENT
        assert "'mine'" in details
        assert isinstance(other.exception(10), CommunicatorArgumentError)
        other = pool.submit(pair.comms[0].barrier)
        code, details = refused(root.Barrier, pb.BarrierRequest(rank=1, barrier_id="\N{GRINNING FACE}" * 100_000))
        assert code is grpc.StatusCode.INVALID_ARGUMENT
        assert len(details) < 1000
        assert isinstance(other.exception(10), CommunicatorArgumentError)


def test_a_round_fails_on_all_its_ranks_and_the_next_one_works():
    with job(3, timeout=0.5) as ranks:
        for result in ranks.each(lambda comm, _: comm.barrier(), [0, 2]):
            with pytest.raises(CommunicatorTimeoutError, match=r"round 1 of barrier failed: ranks \[1\] did not come"):
                raise result
        started = time.monotonic()
        with pytest.raises(CommunicatorTimeoutError, match="round 1 of barrier failed"):
            ranks.comms[1].barrier()
        assert time.monotonic() - started < 0.4
        assert ranks.each(lambda comm, _: comm.barrier()) == [None] * 3


def test_a_call_with_a_deadline_of_its_own_hears_who_is_missing(root, pair):
    code, details = refused(root.Barrier, pb.BarrierRequest(rank=1), timeout=0.5)
    assert code is grpc.StatusCode.DEADLINE_EXCEEDED
    assert "ranks [0] did not come within 0.4" in details
    with pytest.raises(CommunicatorTimeoutError):
        pair.comms[0].barrier()
    code, details = refused(root.Receive, pb.ReceiveRequest(source_rank=1, tag="none"), timeout=0.5)
    assert code is grpc.StatusCode.DEADLINE_EXCEEDED
    assert "no message from rank 1 with tag 'none' came within" in details


def test_a_rank_that_gives_up_fails_the_round_at_once():
    with job(2, timeout=20) as ranks, stub_for(ranks.addresses[0]) as stub, ThreadPoolExecutor(1) as pool:
        barriers = ranks.comms[0]._rank._job._barriers
        call = stub.Barrier.future(pb.BarrierRequest(rank=1), timeout=20)
        until(lambda: barriers._open)
        call.cancel()
        until(lambda: barriers._open[1].served)
        other = pool.submit(ranks.comms[0].barrier)
        with pytest.raises(CollectiveError, match="round 1 of barrier failed: rank 1 gave up waiting"):
            other.result(5)


def test_what_never_comes_ends_in_a_timeout(monkeypatch):
    addresses = free_addresses(2)
    with GRPCCommunicator() as comm:
        comm.init(0, 2, addresses=addresses, timeout=0.4)
        with pytest.raises(CommunicatorTimeoutError, match=rf"rank 1 was not reached at {addresses[1]} within 0\.4 s"):
            comm.send(1, 1)
        with pytest.raises(CommunicatorTimeoutError, match=r"no message from rank 1 with tag 'x' came within 0\.4 s"):
            comm.receive(1, "x")
        with pytest.raises(TimeoutError, match=r"ranks \[1\] did not come within 0\.4 s"):
            comm.allreduce(np.ones(2))


def test_a_rank_that_is_gone_is_not_waited_for():
    with job(2, timeout=20) as ranks:
        ranks.comms[0].send(1, 1)
        assert ranks.comms[1].receive(0) == 1
        ranks.comms[1].finalize()
        started = time.monotonic()
        with pytest.raises(CollectiveError, match=f"Send at rank 1 .{ranks.addresses[1]}"):
            ranks.comms[0].send(2, 1)
        assert time.monotonic() - started < 5


def test_leaving_fails_those_who_wait():
    with job(2, timeout=20) as ranks, ThreadPoolExecutor(3) as pool, stub_for(ranks.addresses[0]) as stub:
        rounds_of_root = ranks.comms[0]._rank._job._barriers
        wanted = pb.ReceiveRequest(source_rank=1, tag="never", receiver_rank=0)
        waiting = [
            pool.submit(ranks.comms[1].barrier),
            pool.submit(ranks.comms[0].receive, 1, "never"),
            pool.submit(next, stub.Receive(wanted, timeout=20)),
        ]
        until(lambda: rounds_of_root._open)
        ranks.comms[0].finalize()
        # The receives may have come before the end or after it: neither is left waiting.
        for call in waiting:
            assert isinstance(call.exception(5), (CollectiveError, RuntimeError, grpc.RpcError))
        with pytest.raises(CollectiveError, match="rank 0 has left the job"):
            waiting[0].result()


def test_many_who_wait_keep_nobody_out():
    base, size = free_base_port(1), 64
    with GRPCCommunicator() as comm, ExitStack() as stack:
        comm.init(0, size, base_port=base, timeout=20)
        stub = stack.enter_context(stub_for(f"127.0.0.1:{base}"))
        calls = [stub.Barrier.future(pb.BarrierRequest(rank=rank), timeout=20) for rank in range(1, size)]
        data = pb.CommData(tensor_data=good_tensor())
        assert stub.Send(pb.SendRequest(source_rank=5, data=data), timeout=5).success
        assert comm.receive(5).tolist() == [0, 0]
        comm.barrier()
        assert {call.result().participants for call in calls} == {size}


@contextmanager
def served(member):
    """A server alone, with bounds of the test's own."""
    portal = Portal()
    (address,) = free_addresses(1)
    try:
        endpoint = portal.run(Endpoint.start(member, [address] * member.world_size))
        with stub_for(address) as stub:
            yield stub
        portal.run(endpoint.leave())
    finally:
        portal.close()


def test_stores_are_bounded():
    limits = Limits(messages=3, stored=1000, rounds=2, held=1000)
    with served(Member(0, 2, b"secret", 5, limits)) as stub:

        def send(size, tag=""):
            tensor = good_tensor(data=bytes(size), shape=[size], dtype="int8")
            return pb.SendRequest(source_rank=1, tag=tag, data=pb.CommData(tensor_data=tensor))

        for _ in range(3):
            assert stub.Send(send(10)).success
        code, details = refused(stub.Send, send(1))
        assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "3 messages" in details
        assert "the limits are 3 messages and 1000 bytes: receive some first" in details
        assert len(list(stub.Receive(pb.ReceiveRequest(source_rank=1), timeout=5))) == 3
        assert stub.Send(send(900)).success
        assert refused(stub.Send, send(200))[0] is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert len(list(stub.Receive(pb.ReceiveRequest(source_rank=1), timeout=5))) == 1

        calls = [stub.Barrier.future(pb.BarrierRequest(rank=1), timeout=1) for _ in range(3)]
        ahead = [call for call in calls if call.exception(10).code() is grpc.StatusCode.RESOURCE_EXHAUSTED]
        assert len(ahead) == 1
        assert "2 rounds of barrier ahead of another rank, which is the limit" in ahead[0].details()

        big = pb.AllReduceRequest(rank=1, operation="sum", tensor=send(2000).data.tensor_data)
        code, details = refused(stub.AllReduce, big)
        assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "the limit is 1000" in details


def test_a_message_nobody_took_stays():
    with served(Member(0, 2, b"secret", 5)) as stub:
        wanted = pb.ReceiveRequest(source_rank=1, comm_type="later")
        stream = stub.Receive(wanted, timeout=30)
        stream.cancel()
        data = pb.CommData(comm_type="first", tensor_data=good_tensor())
        assert stub.Send(pb.SendRequest(source_rank=1, data=data)).success
        data.comm_type = "later"
        assert stub.Send(pb.SendRequest(source_rank=1, data=data)).success
        assert [answer.data.comm_type for answer in stub.Receive(wanted, timeout=5)] == ["later"]
        wanted.comm_type = ""
        assert [answer.data.comm_type for answer in stub.Receive(wanted, timeout=5)] == ["first"]


def test_only_rank_0_serves_rounds(pair):
    with stub_for(pair.addresses[1]) as stub:
        for call, request in (
            (stub.Broadcast, pb.BroadcastRequest()),
            (stub.AllReduce, pb.AllReduceRequest()),
            (stub.Barrier, pb.BarrierRequest()),
        ):
            code, details = refused(call, request)
            assert code is grpc.StatusCode.FAILED_PRECONDITION
            assert "this is rank 1, and rank 0 serves" in details


def test_a_server_without_a_job_says_what_to_do():
    portal = Portal()

    async def start():
        server = grpc.aio.server()
        pb_grpc.add_DistributedCommServicer_to_server(FiveCalls(), server)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        return server, port

    server, port = portal.run(start())
    try:
        with stub_for(f"127.0.0.1:{port}") as stub:
            for name in ("Send", "Receive", "Broadcast", "AllReduce", "Barrier"):
                code, details = refused(getattr(stub, name), getattr(pb, f"{name}Request")())
                assert code is grpc.StatusCode.FAILED_PRECONDITION
                assert "this process serves no job: start one rank of it with" in details
    finally:
        portal.run(server.stop(None))
        portal.close()


def test_a_taken_port_is_named():
    with job(1) as ranks:
        port = ranks.addresses[0].rpartition(":")[2]
        comm = GRPCCommunicator()
        with pytest.raises(OSError, match=f"port {port} on 127.0.0.1, where rank 0 would listen, is taken: choose"):
            comm.init(0, 1, base_port=int(port))
        comm.init(0, 1, addresses=free_addresses(1))
        comm.finalize()


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((2, 2), {}, "rank is 2, but the ranks of a job of 2 are 0 to 1"),
        ((-1, 2), {}, "rank is -1"),
        ((0, 0), {}, "a job has at least 1 rank"),
        ((0, 1), {"timeout": 0}, "timeout is 0"),
        ((0, 1), {"timeout": float("inf")}, "timeout is inf"),
        ((0, 2), {"base_port": 65535}, "'127.0.0.1:65536' is not an address"),
        ((0, 1), {"addresses": ["127.0.0.1"]}, "'127.0.0.1' is not an address: give 'host:port'"),
        ((0, 2), {"addresses": ["127.0.0.1:5000"]}, "1 addresses were given for 2 ranks"),
        ((0, 2), {"addresses": ["127.0.0.1:5000", "localhost:5000"]}, "two ranks have the same address"),
        ((0, 1), {"host": "0.0.0.0"}, "'0.0.0.0' is not a loopback address: .* mutual TLS"),
        ((0, 2), {"addresses": ["127.0.0.1:5000", "192.168.1.2:5000"]}, "'192.168.1.2' is not a loopback address"),
        ((0, 1), {"host": "example.org"}, "'example.org' is not a loopback address"),
    ],
)
def test_impossible_jobs(arguments, options, message):
    comm = GRPCCommunicator()
    with pytest.raises(ValueError, match=message):
        comm.init(*arguments, **options)
    comm.finalize()


def test_numbers_of_another_kind_are_named():
    comm = GRPCCommunicator()
    for arguments, name in (((0, "two"), "world_size is 'two', a str"), ((1.5, 2), "rank is 1.5"), ((0, True), "True")):
        with pytest.raises(TypeError, match=f"{name}.*: give a whole number"):
            comm.init(*arguments)
    with pytest.raises(TypeError, match="base_port is '50100', a str: give the number of rank 0's port"):
        comm.init(0, 1, base_port="50100")


def test_wrong_arguments(pair):
    comm = pair.comms[0]
    assert (comm.rank, comm.world_size, comm.backend) == (0, 2, CommunicationBackend.GRPC)
    for call in (lambda: comm.send(1, 2), lambda: comm.receive(-1), lambda: comm.broadcast(1, root=9)):
        with pytest.raises(ValueError, match=r"rank is -?\d, but the ranks of a job of 2 are 0 to 1"):
            call()
    for call in (lambda: comm.send(1, 1, tag=3), lambda: comm.receive(1, tag=None)):
        with pytest.raises(TypeError, match=r"tag is .*: give a str"):
            call()
    with pytest.raises(TypeError, match="a list is not a numpy or MLX array"):
        comm.allreduce([1, 2])
    with pytest.raises(SerializationError, match="cannot be pickled"):
        comm.send({"lock": threading.Lock()}, 1)
    with pytest.raises(RuntimeError, match="is rank 0 already: call finalize"):
        comm.init(0, 2)


class Unwelcome:
    def __reduce__(self):
        return (int, ("no number",))


def test_a_value_that_cannot_be_made_here(pair):
    pair.comms[0].send(Unwelcome(), 1)
    with pytest.raises(SerializationError, match="cannot be unpickled here: ValueError"):
        pair.comms[1].receive(0)


def test_life():
    addresses = free_addresses(1)
    before = threading.active_count()
    comm = GRPCCommunicator()
    for call in (comm.barrier, lambda: comm.send(1, 0), lambda: comm.receive(0), lambda: comm.rank):
        with pytest.raises(RuntimeError, match="call init"):
            call()
    for _ in range(3):
        comm.init(0, 1, addresses=addresses)
        comm.barrier()
        comm.send(mx.array(1), 0)
        assert comm.receive(0).item() == 1
        comm.finalize()
        comm.finalize()
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(("127.0.0.1", int(addresses[0].rpartition(":")[2])))
    assert threading.active_count() <= before + 1  # gRPC's poller outlives its servers


@pytest.mark.slow
def test_ranks_of_one_name_find_each_other(tmp_path, monkeypatch):
    """On this machine, since its device is paired with none; pickles pass too, and a rank that is missing is named."""
    monkeypatch.setenv("ACTORS_HOME", str(tmp_path))
    name = f"job of {tmp_path}"

    def work(rank):
        with GRPCCommunicator() as comm:
            comm.init(rank, 3, job=name, timeout=60)
            comm.send({"from": rank}, (rank + 1) % 3)
            got = comm.receive((rank - 1) % 3)["from"], comm.allreduce(np.ones(2))[0]
            comm.barrier()
            return got

    with ThreadPoolExecutor(3) as pool:
        assert list(pool.map(work, range(3))) == [(2, 3.0), (0, 3.0), (1, 3.0)]
    comm = GRPCCommunicator()
    with pytest.raises(CommunicatorTimeoutError, match=r"rank 1, 2 of 3 was not found on this machine"):
        comm.init(0, 3, job=name, timeout=0.5)
    with pytest.raises(ValueError, match="by one of them"):
        comm.init(0, 3, job=name, base_port=50100)
    comm.init(0, 1, addresses=free_addresses(1))  # and it can be used
    comm.finalize()


def test_a_rank_that_two_claim_is_told_to_both(tmp_path, monkeypatch):
    monkeypatch.setenv("ACTORS_HOME", str(tmp_path))

    def work(_):
        with pytest.raises(ValueError, match="two processes are rank 0 of 2: this one, at ") as caught:
            GRPCCommunicator().init(0, 2, job=f"twins of {tmp_path}", timeout=60)
        return re.findall(r"127\.0\.0\.1:\d+", str(caught.value))

    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(work, range(2))
    assert first == second[::-1]


def test_ipv6_loopback():
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
            port = probe.getsockname()[1]
    except OSError:
        pytest.skip("no IPv6 here")
    with GRPCCommunicator() as comm:
        comm.init(0, 1, host="::1", base_port=port)
        assert comm.allreduce(np.ones(2)).tolist() == [1, 1]
