"""The way to another host: through a node's door, by mutual TLS, relayed to a process behind it."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import grpc
import numpy as np
import pytest

import actors
from actors import calls
from actors._wire import distributed_comm_pb2 as pb
from actors._wire import distributed_comm_pb2_grpc as pb_grpc
from actors.cluster import current
from actors.exceptions import NodeDiedError
from actors.handle import line_of
from actors.identity import Identity
from actors.line import Line
from actors.spec import Manner, describe
from actors.transport.credentials import channel_credentials


@actors.remote
class Echo:
    def echo(self, value):
        return value


@pytest.fixture(scope="module")
def cluster():
    with actors.init(local_nodes=2) as cluster:
        yield cluster


def through_the_door(handle):
    """A second line to the actor, which takes its host for another one."""
    process = current()
    near = process.portal.run(line_of(handle).located())
    node = process.directory[near.node]
    doors = tuple(info.address for info in actors.nodes() if info.id == near.node)
    far = replace(near, host="elsewhere", socket="", doors=doors)
    process.forget(near.process)  # else the peer that is there already would be used
    assert node.node == near.node

    async def locate(_):
        return far

    line = Line(process, line_of(handle).actor, "Echo through the door", Manner(), locate)
    line.find()
    return line


def call(line, *args):
    return calls.call(line, describe(Echo.cls).methods["echo"], args, {})


def test_calls_and_large_arrays_pass_through_the_door(cluster):
    echo = Echo.options(node=actors.nodes()[1].name).remote()
    assert actors.get(echo.echo.remote(1)) == 1
    line = through_the_door(echo)
    assert actors.get(call(line, "far")) == "far"
    array = np.arange(4 << 20, dtype=np.float64)
    assert np.array_equal(actors.get(call(line, array)), array)
    assert actors.get([call(line, n) for n in range(500)]) == list(range(500))


def test_a_node_that_ends_is_known_behind_its_door(cluster):
    with_node = actors.nodes()[1]
    echo = Echo.options(node=with_node.name).remote()
    actors.get(echo.echo.remote(1))
    line = through_the_door(echo)
    assert actors.get(call(line, "far")) == "far"
    import os
    import signal

    os.kill(with_node.pid, signal.SIGKILL)
    with pytest.raises(NodeDiedError, match="is gone"):
        actors.get(call(line, "far"), timeout=10)


def test_a_node_without_a_group_refuses_the_five_calls(cluster):
    process = current()
    node = actors.nodes()[0]

    async def ask():
        credentials, options = process.dialer.credentials_for(node.id)
        async with grpc.aio.secure_channel(node.address, credentials, options=options) as channel:
            stub = pb_grpc.DistributedCommStub(channel)
            await stub.Barrier(pb.BarrierRequest(rank=0), timeout=5)

    with pytest.raises(grpc.RpcError) as error:
        process.portal.run(ask())
    assert error.value.code() is grpc.StatusCode.FAILED_PRECONDITION


def test_a_stranger_reaches_nothing_behind_the_door(cluster):
    node = actors.nodes()[0]
    process = current()
    stranger = Identity.create()
    from actors.identity import TrustSet
    from actors.membership import TRUST

    certificate = TrustSet.load(process.folder / "key-0" / TRUST)[node.id]

    async def knock():
        credentials, options = channel_credentials(stranger, certificate)
        async with grpc.aio.secure_channel(node.address, credentials, options=options) as channel:
            call = channel.stream_stream("/distributed_comm.DistributedComm/Stream")()
            await call.write(pb.Frame(hello=pb.Hello(protocol=1, target=process.id)).SerializeToString())
            return await asyncio.wait_for(call.read(), 5)

    with pytest.raises(grpc.RpcError) as error:
        process.portal.run(knock())
    assert error.value.code() is grpc.StatusCode.UNAVAILABLE
