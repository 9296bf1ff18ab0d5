"""Whether a Ray cluster is where an address says: Ray itself would try for minutes, and end the program then."""

from __future__ import annotations

import grpc
import ray
from ray._private.grpc_utils import init_grpc_channel
from ray.core.generated.gcs_service_pb2 import CheckAliveRequest
from ray.core.generated.gcs_service_pb2_grpc import NodeInfoGcsServiceStub

from actors.exceptions import NoClusterError, VersionMismatchError

CLIENT = "ray://"
CLIENT_PORT = "10001"  # where Ray's clients come in unless it is told otherwise
SEARCHED = frozenset({"auto", "local"})


def reach(address: str | None, seconds: float) -> None:
    """Raises where no cluster answers at an address within so many seconds.

    Raises:
        ValueError: it is no address.
        NoClusterError: nothing is there, or something else.
        VersionMismatchError: the cluster has another version of Ray.
    """
    if address is None or address in SEARCHED:
        return
    if not isinstance(address, str) or not address:
        raise ValueError(f"address must be 'ray://HOST:PORT', 'HOST:PORT' or 'auto', not {address!r}")
    target = _target(address)
    channel, by_client = init_grpc_channel(target), address.startswith(CLIENT)
    try:
        found = NodeInfoGcsServiceStub(channel).CheckAlive(CheckAliveRequest(), timeout=seconds).ray_version
    except grpc.RpcError as error:
        if by_client and error.code() is grpc.StatusCode.UNIMPLEMENTED:
            return  # as it is where Ray's clients come in; these compare their versions themselves
        raise NoClusterError(f"{_none(address)}: {_words(error, seconds)}") from None
    finally:
        channel.close()
    if by_client:
        raise NoClusterError(f"{_none(address)}: the head itself listens there, for {target!r} with engine='ray'")
    if found != ray.__version__:
        raise VersionMismatchError(
            f"the Ray cluster at {address!r} runs Ray {found}, and this program has {ray.__version__}: both must have "
            f"the same one, such as by pip install ray=={found}"
        )


def _target(address: str) -> str:
    by_client = address.startswith(CLIENT)
    target = address.removeprefix(CLIENT)
    host, colon, port = target.rpartition(":")
    if by_client and target and not colon:
        return f"{target}:{CLIENT_PORT}"
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise NoClusterError(f"{_none(address)}: that is no HOST:PORT")
    return target


def _none(address: str) -> str:
    return f"no Ray cluster can be joined at {address!r}"


def _words(error: grpc.RpcError, seconds: float) -> str:
    code, details = error.code(), error.details()
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return f"nothing there answered within {seconds:g} s"
    if code is grpc.StatusCode.UNIMPLEMENTED:
        return "what listens there is no head of a Ray cluster; by Ray's client it is 'ray://HOST:PORT'"
    return f"{details} ({code.name})"
