"""Public calls: what any gRPC client with a member's certificate may call at a node's door, and what it may not."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import numpy as np
import pytest

import actors
from actors import cluster as clusters
from actors._wire import distributed_comm_pb2 as pb
from actors._wire import distributed_comm_pb2_grpc as pb_grpc
from actors.communicator import GRPCCommunicator
from actors.identity import Identity, TrustSet
from actors.membership import load
from actors.transport.credentials import channel_credentials

if TYPE_CHECKING:
    from collections.abc import Iterator

EXAMPLE = Path(__file__).parents[1] / "examples" / "node"
PATIENCE = 30.0

sys.path.insert(0, str(EXAMPLE))
from server import Open  # noqa: E402 - it lies beside the client


@actors.remote
class Desk:
    """What may be called, and what may not."""

    def __init__(self) -> None:
        self.called = 0

    @actors.method(public=True)
    def total(self, *numbers: float) -> float:
        self.called += 1
        return sum(numbers)

    @actors.method(public=True)
    async def later(self, array: np.ndarray) -> np.ndarray:
        return array[::-1]

    @actors.method(public=True)
    def fail(self) -> None:
        raise KeyError("no such drawer")

    @actors.method(public=True)
    def thing(self) -> object:
        return object()

    @actors.method(public=True)
    def words(self) -> np.ndarray:
        return np.array(["a", "bc"])

    def hidden(self) -> int:
        return self.called

    def __actor_save__(self) -> int:
        return self.called

    def __actor_load__(self, called: int) -> None:
        self.called = called


@pytest.fixture(scope="module")
def lan() -> Iterator[list[actors.NodeInfo]]:
    with actors.init(local_nodes=2):
        yield actors.nodes()


def identity_folder() -> Path:
    """Returns the folder of the certificate that this driver shows."""
    assert clusters._cluster is not None
    folder = clusters._cluster._local.identity
    assert folder is not None
    return folder


def stub(node: actors.NodeInfo, identity: Identity, trust: TrustSet) -> tuple[Any, grpc.Channel]:
    credentials, options = channel_credentials(identity, trust[node.id])
    channel = grpc.secure_channel(node.address, credentials, options)
    return pb_grpc.DistributedCommStub(channel), channel


@pytest.fixture(scope="module")
def call(lan: list[actors.NodeInfo]) -> Iterator[Any]:
    """Calls a method at the second node's door, whichever node hosts the actor."""
    desk = Desk.options(name="desk", node=lan[0].name).remote()
    door, channel = stub(lan[1], *load(identity_folder()))

    def call(method: str, *arguments: pb.CommData, actor: str = "desk") -> pb.CommData:
        request = pb.PublicCall(actor=actor, method=method, arguments=arguments)
        return door.Call(request, timeout=PATIENCE).value

    with channel:
        yield call
    actors.kill(desk)


def as_json(value: object) -> pb.CommData:
    return pb.CommData(json_data=json.dumps(value))


def as_tensor(array: np.ndarray) -> pb.CommData:
    return pb.CommData(tensor_data=pb.TensorData(data=array.tobytes(), shape=list(array.shape), dtype=array.dtype.name))


def refused(call: Any, *what: Any, **more: Any) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.RpcError) as info:
        call(*what, **more)
    error: Any = info.value
    return error.code(), error.details()


def test_arrays_and_json_go_there_and_back(call: Any) -> None:
    assert json.loads(call("total", as_json(1), as_json(2.5)).json_data) == 3.5
    answer = call("later", as_tensor(np.arange(6, dtype=np.int16).reshape(3, 2))).tensor_data
    assert (answer.dtype, list(answer.shape)) == ("int16", [3, 2])
    assert np.frombuffer(answer.data, np.int16).tolist() == [4, 5, 2, 3, 0, 1]
    words = call("words")
    assert words.WhichOneof("data") == "numpy_data"
    assert call("later", pb.CommData(numpy_data=words.numpy_data)).numpy_data


def test_what_is_not_public_or_not_data_is_refused_by_name(call: Any) -> None:
    code = grpc.StatusCode
    status, text = refused(call, "hidden")
    assert (status, "no public method 'hidden'" in text) == (code.PERMISSION_DENIED, True)
    assert refused(call, "__init__")[0] is code.PERMISSION_DENIED
    assert refused(call, "total", actor="nobody") == (
        code.NOT_FOUND, "no actor is named 'nobody' in namespace 'default'",
    )  # fmt: skip
    status, text = refused(call, "total", pb.CommData(pickle_data=b"cos\nsystem\n(S'touch /tmp/owned'\ntR."))
    assert (status, "a pickle is not taken" in text) == (code.INVALID_ARGUMENT, True)
    for bad in (
        pb.CommData(), pb.CommData(json_data="{"), pb.CommData(json_data="[" * 100_000), pb.CommData(numpy_data=b"no"),
        pb.CommData(tensor_data=pb.TensorData(data=b"123", shape=[1], dtype="float64")),
    ):  # fmt: skip
        assert refused(call, "later", bad)[0] is code.INVALID_ARGUMENT
    status, text = refused(call, "later")
    assert (status, "missing a required argument" in text) == (code.INVALID_ARGUMENT, True)
    status, text = refused(call, "fail")
    assert (status, "KeyError" in text) == (code.UNKNOWN, True)
    status, text = refused(call, "thing")
    assert (status, "no array and no JSON" in text) == (code.FAILED_PRECONDITION, True)
    with pytest.raises(TypeError, match="belongs to the method"):
        actors.get_actor("desk").hidden.options(public=True)


def test_one_that_has_moved_is_followed_and_a_stranger_is_not_heard(call: Any, lan: list[actors.NodeInfo]) -> None:
    before = json.loads(call("total").json_data)
    actors.move(actors.get_actor("desk"), lan[1])
    assert json.loads(call("total").json_data) == before
    assert actors.get(actors.get_actor("desk").hidden.remote()) >= 2
    _, trust = load(identity_folder())
    door, channel = stub(lan[1], Identity.create(), trust)
    with channel:
        status = refused(lambda: door.Call(pb.PublicCall(actor="desk", method="total"), timeout=5.0))[0]
    assert status in {grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.UNAVAILABLE}


@pytest.mark.slow
def test_a_node_js_client_calls_an_actor_and_takes_part_in_an_allreduce(
    lan: list[actors.NodeInfo], tmp_path: Path
) -> None:
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        pytest.skip("Node.js and npm are not installed")
    project = tmp_path / "examples" / "node"
    shutil.copytree(EXAMPLE, project, ignore=shutil.ignore_patterns("node_modules"))
    shutil.copytree(EXAMPLE.parents[1] / "proto", tmp_path / "proto")
    install = [npm, "ci", "--no-audit", "--no-fund", "--ignore-scripts"]
    installed = subprocess.run(install, cwd=project, capture_output=True, text=True, timeout=120, check=False)
    if installed.returncode:
        pytest.skip(f"npm could not fetch @grpc/grpc-js: {installed.stderr[-300:]}")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    opened = Open.options(name="open").remote()
    job = GRPCCommunicator()
    job.init(0, 2, base_port=port)
    sums: list[np.ndarray] = []
    reducer = threading.Thread(target=lambda: sums.append(job.allreduce(np.array([10.0, 20.0, 30.0]))))
    reducer.start()
    identity = str(identity_folder() / "identity.pem")
    command = [node, "client.js", lan[1].address, lan[1].id, identity, "open", str(port)]
    done = subprocess.run(command, cwd=project, capture_output=True, text=True, timeout=60, check=False)
    reducer.join(PATIENCE)
    job.finalize()
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[:3] == ['json {"hello":"Node.js","sum":6}', "tensor [2,4,6,8] [2,2]", "numpy true"]
    assert lines[3].startswith("refused 7 Open has no public method 'secret'")
    assert lines[4] == "allreduce [11,22,33]"
    assert sums[0].tolist() == [11.0, 22.0, 33.0]
    stranger = subprocess.run(
        [node, "client.js", lan[1].address, "a" * 52, identity, "open"],
        cwd=project, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (stranger.returncode, "is another device" in stranger.stderr) == (1, True)
    actors.kill(opened)
