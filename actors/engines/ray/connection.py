"""Joining a Ray cluster, for `actors.init`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import ray
from ray._private import client_mode_hook
from ray.util import client

from actors import engine
from actors.exceptions import ActorsError, ClusterTimeoutError, NoClusterError, VersionMismatchError
from actors.version import __version__

from .address import reach
from .runtime import Ray
from .translation import refuse

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

ATTEMPTS = 2  # to come in by Ray's client

_connection: Connection | None = None


class Connection:
    """A Ray cluster that this program is in. Leaving the ``with`` block, or `actors.shutdown`, leaves it."""

    def __init__(self, request: Mapping[str, Any]) -> None:
        self.request = dict(request)

    def shutdown(self) -> None:
        """Leaves the cluster; same as `actors.shutdown`."""
        if _connection is self and (other := engine.other()) is not None:
            other.shutdown()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.shutdown()

    def __repr__(self) -> str:
        return f"<Ray cluster at {self.request['address'] or 'this machine'}>"


def connect(request: Mapping[str, Any]) -> Connection:
    """Joins the Ray cluster that ``request``, the arguments of `actors.init`, names.

    Raises:
        NotImplementedError: an argument that Ray does not have.
        NoClusterError: no cluster is there.
        VersionMismatchError: it has another version of Ray, or its nodes another of this package, than this program.
    """
    global _connection  # noqa: PLW0603 - one cluster a process
    if engine.other() is not None and _connection is not None:
        if _connection.request == dict(request) or request["ignore_reinit_error"]:
            return _connection
        raise ActorsError("it has joined a Ray cluster by other arguments: leave that by shutdown()")
    if request["local_nodes"] != 1:
        refuse("local_nodes=", "start the cluster by `ray start`")
    if request["expect_nodes"] is not None:
        refuse("expect_nodes=", "Ray places actors when their nodes come")
    names = ("address", "num_cpus", "num_gpus", "resources", "labels", "runtime_env")
    given = {name: request[name] for name in names if request[name] is not None}
    reach(request["address"], request["timeout"])
    try:
        _join(namespace=request["namespace"], log_to_driver=request["log_to_driver"], **given)
    except (ConnectionError, ValueError, RuntimeError) as error:
        _forget_attempt()
        if isinstance(error, RuntimeError) and "ersion mismatch" in str(error):  # of Python's, too
            words = " ".join(str(error).split())
            raise VersionMismatchError(f"the Ray cluster at {request['address']!r}: {words}") from None
        if not isinstance(error, ConnectionError) and "address" not in given:
            raise
        raise NoClusterError(f"no Ray cluster can be joined at {request['address']!r}: {error}") from error
    try:
        _check_version(request["timeout"])
    except BaseException:
        ray.shutdown()
        raise
    engine.use(Ray())
    _connection = Connection(request)
    return _connection


def _join(**arguments: Any) -> None:
    for left in reversed(range(ATTEMPTS)):
        try:
            ray.init(**arguments)
        except ConnectionError as error:
            # Ray's proxy forks while threads of it are in gRPC, and the process that it makes then may hang.
            if not left or "Starting Ray client server failed" not in str(error):
                raise
        else:
            return


def _forget_attempt() -> None:
    """Else Ray would go on by the client that has failed, whatever is joined later."""
    if client.ray.is_connected():
        client.ray.disconnect()
    client_mode_hook._explicitly_disable_client_mode()  # noqa: SLF001 - which Ray does where it disconnects alone


def _check_version(seconds: float) -> None:
    ask = ray.remote(num_cpus=0)(_version)
    try:
        there = ray.get(ask.remote(), timeout=seconds)
    except ray.exceptions.GetTimeoutError:
        raise ClusterTimeoutError(f"the Ray cluster ran nothing within {seconds:g} s") from None
    if there != __version__:
        found = "no mlx-actors" if there is None else f"mlx-actors {there}"
        raise VersionMismatchError(
            f"the nodes of the Ray cluster have {found}, not {__version__}: install "
            f"mlx-actors=={__version__} there, or give runtime_env={{'pip': ['mlx-actors=={__version__}']}}"
        )


def _version() -> str | None:
    from importlib import import_module

    try:
        return str(import_module("actors.version").__version__)
    except ImportError:
        return None
