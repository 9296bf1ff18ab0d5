"""Ranks that talk to each other: send, receive, broadcast, allreduce and barrier over five gRPC calls.

Each rank is a process (or a thread) with a communicator of its own; no cluster is needed. ``docs/wire.md`` says what
goes over the wire, for clients in other languages.
"""

from __future__ import annotations

import atexit
import math
import operator
import os
import secrets
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, Self

from actors import arrays, launched, serialize
from actors._wire import distributed_comm_pb2 as pb
from actors.exceptions import AuthenticationError, CollectiveError, SerializationError
from actors.home import locked, state_dir, write_private
from actors.messages import Payload
from actors.muster import bracket, check_address, is_loopback, mustered
from actors.transport.endpoint import MAX_PAYLOAD, Endpoint, Trusted
from actors.transport.fivecalls import fill_tensor
from actors.transport.job import tensor_kind
from actors.transport.letterbox import Member, Refused
from actors.transport.portal import Portal
from actors.transport.proof import check_proof, prove

if TYPE_CHECKING:
    from collections.abc import Coroutine, Sequence
    from types import TracebackType
    from typing import TypeVar

    T = TypeVar("T")


BASE_PORT = 50100
LOCALHOST = "127.0.0.1"


class CommunicationBackend(Enum):
    """What carries the bytes."""

    GRPC = "grpc"


class CommunicationType(Enum):
    """What a message holds: the value of ``comm_type`` in ``CommData``."""

    TENSOR = "tensor"  # tensor_data: a numpy or MLX array of a numeric dtype
    NUMPY = "numpy"  # numpy_data: any other numpy array without Python objects
    PICKLE = "pickle"  # pickle_data: any other Python object


class CommunicatorTimeoutError(CollectiveError, TimeoutError):
    """Another rank did not come, or did not answer, in time; the message names it."""


class CommunicatorArgumentError(CollectiveError, ValueError):
    """A server refused an argument, or the ranks of a round do not agree; the message names both sides."""


class NotPairedError(AuthenticationError, ValueError):
    """An address is outside this machine, and this device is paired with none."""


class GRPCCommunicator:
    """One rank of a job.

    The methods block; each waits at most the ``timeout`` given to `init`. Calls of one communicator may come from
    several threads, but rounds are counted by call: let one thread make a rank's collective calls.

    All raise RuntimeError before `init` and after `finalize`; TypeError or ValueError for arguments that are wrong
    in themselves; CommunicatorTimeoutError where another rank does not come in time; CommunicatorArgumentError where
    the ranks do not agree; CollectiveError where a rank is gone or a store is full.
    """

    backend = CommunicationBackend.GRPC

    def __init__(self) -> None:
        self._rank: Endpoint | None = None
        self._portal: Portal | None = None

    def init(
        self,
        rank: int | None = None,
        world_size: int | None = None,
        *,
        base_port: int | None = None,
        host: str = LOCALHOST,
        addresses: Sequence[str] | None = None,
        job: str | None = None,
        timeout: float = 30.0,
    ) -> None:
        """Starts this rank's server. The other ranks may start before or after.

        Args:
            rank: this rank, from 0; None: what ``RANK`` says, which `actors launch` sets, as others do.
            world_size: number of ranks, the same on all; None: what ``WORLD_SIZE`` says.
            base_port: rank r listens on port ``base_port + r``; None: 50100 or, where the rank comes from
                `actors launch`, the ports that it has found to be free.
            host: loopback address that all ranks listen on.
            addresses: ``"host:port"`` of each rank, in place of host and base_port. Where they are not of this
                machine, all ranks are on paired devices, and their connections mutual TLS.
            job: a name, in place of base_port and addresses: the ranks of this name find each other by zeroconf, on
                paired devices or, where this one is not paired, on this machine. Returns when all have met. Then
                ``host``, where given, is the address at which the others reach this rank.
            timeout: seconds that any call waits at most.

        Raises:
            ValueError: a rank, port or timeout that cannot be; or another process of the job is this rank, and both are
                told.
            NotPairedError: an address outside this machine, and this device is not paired.
            OSError: the port is taken or may not be used.
            CommunicatorTimeoutError: ranks of the job were not found; the message names them.
            RuntimeError: already initialised.
        """
        if self._portal is not None:
            raise RuntimeError(f"this communicator is rank {self.rank} already: call finalize() first")
        chosen = base_port is not None or addresses is not None
        if job is not None and chosen:
            raise ValueError("job is given beside base_port or addresses: the ranks meet by one of them")
        launch = launched.here() if not chosen and job is None and rank is None else None
        rank, world_size = _check_rank(_given("RANK", "rank", rank), _given("WORLD_SIZE", "world_size", world_size))
        if not (math.isfinite(timeout) and timeout > 0):
            raise ValueError(f"timeout is {timeout!r}: give a number of seconds above 0")
        if job is not None:
            self._muster(job, rank, world_size, host if host != LOCALHOST else None, timeout)
            return
        if launch is not None and launch.size == world_size:
            addresses = launch.addresses
        elif addresses is None:
            first = BASE_PORT if base_port is None else base_port
            if not isinstance(first, int):
                raise TypeError(f"base_port is {first!r}, a {type(first).__name__}: give the number of rank 0's port")
            addresses = [f"{bracket(host)}:{first + other}" for other in range(world_size)]
        if len(addresses) != world_size:
            raise ValueError(f"{len(addresses)} addresses were given for {world_size} ranks: give one for each")
        self._start(rank, addresses, timeout, launch)

    def _muster(self, job: str, rank: int, world_size: int, host: str | None, timeout: float) -> None:
        """Finds the other ranks, and waits until they have found this one."""
        try:
            with mustered(job, rank, world_size, host, timeout, self.finalize) as addresses:
                self._start(rank, addresses, timeout, None)
                try:
                    self.barrier()
                except BaseException:
                    self.finalize()
                    raise
        except TimeoutError as error:
            raise CommunicatorTimeoutError(str(error)) from None

    def _start(self, rank: int, addresses: Sequence[str], timeout: float, launch: launched.Launched | None) -> None:
        world_size = len(addresses)
        checked = [check_address(address) for address in addresses]
        trusted = _trusted(checked, launch)
        if len(set(checked)) < world_size:
            raise ValueError(f"two ranks have the same address: {', '.join(checked)}")
        member = Member(rank, world_size, _job_secret(), timeout)
        portal = Portal()
        try:
            self._rank = portal.run(Endpoint.start(member, checked, trusted))
        except BaseException:
            portal.close()
            raise
        self._portal = portal
        # A loop that still runs gRPC when the interpreter ends makes the end noisy.
        atexit.register(self.finalize)

    @property
    def rank(self) -> int:
        """This rank, from 0."""
        return self._joined().member.rank

    @property
    def world_size(self) -> int:
        """Number of ranks."""
        return self._joined().member.world_size

    def send(self, data: Any, dest: int, tag: str = "") -> None:
        """Puts a value into the mailbox of rank ``dest``; returns when it is there.

        Values sent to one rank with one tag are received in the order in which they were sent.

        Args:
            data: a numpy or MLX array, or anything that can be pickled; at most 1 GiB.
            dest: the rank to send to; may be this one.
            tag: told apart by the receiver.

        Raises:
            SerializationError: the value cannot be pickled.
        """
        joined = self._joined()
        dest = _check_other(dest, joined.member)
        _check_tag(tag)
        request = pb.SendRequest(source_rank=self.rank, dest_rank=dest, tag=tag)
        _encode(data, request.data, joined.member.secret, f"send {self.rank} {dest} {tag}")
        self._run(joined.call("Send", dest, request))

    def receive(self, source: int, tag: str = "") -> Any:
        """Waits for a value from rank ``source`` with this tag, and returns it.

        Arrays come back as the kind they were sent as; numpy arrays are read-only.

        Raises:
            SerializationError: the value cannot be unpickled here.
        """
        joined = self._joined()
        source = _check_other(source, joined.member)
        _check_tag(tag)
        message = self._run(joined.take(source, tag))
        return _decode(message, joined.member.secret, f"send {source} {self.rank} {tag}")

    def broadcast(self, data: Any, root: int = 0) -> Any:
        """Gives every rank the value of rank ``root``.

        Args:
            data: the value on the root; ignored on the others.
            root: rank whose value it is.

        Returns:
            The value; on the root ``data`` itself.

        Raises:
            SerializationError: the value cannot be pickled, or not be unpickled here.
        """
        joined = self._joined()
        root = _check_other(root, joined.member)
        secret, context = joined.member.secret, f"broadcast {root}"
        request = pb.BroadcastRequest(sender_rank=self.rank, root_rank=root)
        if root == self.rank:
            _encode(data, request.data, secret, context)
        answer = self._run(joined.call("Broadcast", 0, request))
        return data if root == self.rank else _decode(answer.data, secret, context)

    def allreduce(self, x: Any, op: str = "sum") -> Any:
        """Reduces an array over all ranks, element by element and in rank order; every rank gets the result.

        Integers wrap around. float16 and bfloat16 are added up in float32 and rounded once.

        Args:
            x: a numpy or MLX array, or a numpy scalar, of the same shape and dtype on all ranks.
            op: ``"sum"``, ``"product"``, ``"min"``, ``"max"``, or ``"mean"`` (not of integers).

        Returns:
            A new array of the kind, shape and dtype of ``x``.
        """
        joined = self._joined()
        data, shape, dtype = arrays.to_tensor(x)
        _check_size(data.nbytes)
        request = pb.AllReduceRequest(rank=self.rank, operation=op)
        fill_tensor(request.tensor, bytes(data), shape, dtype)
        result = self._run(joined.call("AllReduce", 0, request)).result
        return arrays.from_tensor(result.data, result.shape, result.dtype, arrays.kind_of(x) or "numpy")

    def barrier(self) -> None:
        """Waits until every rank has called it."""
        self._run(self._joined().call("Barrier", 0, pb.BarrierRequest(rank=self.rank)))

    def finalize(self) -> None:
        """Leaves the job: stops the server, fails what waits for this rank. May be called again; `init` may follow."""
        rank, portal = self._rank, self._portal
        self._rank = self._portal = None
        atexit.unregister(self.finalize)
        if rank is not None and portal is not None:
            try:
                portal.run(rank.leave())
            finally:
                portal.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.finalize()

    def _joined(self) -> Endpoint:
        if self._rank is None:
            raise RuntimeError("this communicator is in no job: call init(rank, world_size) first")
        return self._rank

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        portal = self._portal
        if portal is None:
            work.close()
            raise RuntimeError("this communicator has left its job: call init(rank, world_size) again")
        try:
            return portal.run(work)
        except Refused as refusal:
            _raise(refusal)


def _encode(value: Any, message: pb.CommData, secret: bytes, context: str) -> None:
    """Puts a value into a message, in the form that most receivers can read."""
    kind = arrays.kind_of(value)
    if kind == "mlx" or (kind == "numpy" and arrays.is_tensor(value)):
        data, shape, dtype = arrays.to_tensor(value)
        _check_size(data.nbytes)
        message.comm_type = CommunicationType.TENSOR.value
        message.metadata["kind"] = kind
        fill_tensor(message.tensor_data, bytes(data), shape, dtype)
    elif kind == "numpy" and not value.dtype.hasobject:
        content = arrays.to_npy(value)
        _check_size(len(content))
        message.comm_type = CommunicationType.NUMPY.value
        message.numpy_data = content
    else:
        payload = serialize.dumps(value)
        _check_size(payload.nbytes)
        message.comm_type = CommunicationType.PICKLE.value
        message.pickle_data = payload.pickle
        message.buffers.extend(bytes(buffer) for buffer in payload.buffers)
        message.metadata["proof"] = prove(secret, context, message)


def _decode(message: pb.CommData, secret: bytes, context: str) -> Any:
    """Makes the value of a message; a pickle is proved here once more, since a broadcast comes from a server."""
    match message.WhichOneof("data"):
        case "tensor_data":
            tensor = message.tensor_data
            kind: Any = message.metadata.get("kind", tensor_kind(tensor))
            return arrays.from_tensor(tensor.data, tensor.shape, tensor.dtype, kind)
        case "numpy_data":
            return arrays.from_npy(message.numpy_data)
        case "pickle_data":
            try:
                check_proof(secret, context, message)
            except Refused as refusal:
                _raise(refusal)
            try:
                return serialize.loads(Payload(message.pickle_data, tuple(message.buffers)))
            except Exception as error:
                raise SerializationError(f"a value arrived that cannot be unpickled here: {error!r}") from error
        case _:
            raise CollectiveError("a message without data arrived")


def _raise(refusal: Refused) -> NoReturn:
    kinds: dict[str, type[Exception]] = {
        "DEADLINE_EXCEEDED": CommunicatorTimeoutError,
        "INVALID_ARGUMENT": CommunicatorArgumentError,
        "PERMISSION_DENIED": AuthenticationError,
    }
    raise kinds.get(refusal.code.name, CollectiveError)(refusal.message) from None


def _job_secret() -> bytes:
    """The secret that proves pickles: ``ACTORS_JOB_SECRET``, else a file of this user's, made on first use."""
    given = os.environ.get("ACTORS_JOB_SECRET")
    if given:
        return given.encode()
    path = state_dir() / "job-secret"
    with locked(path.with_suffix(".lock")):
        if not path.exists():
            write_private(path, secrets.token_hex(32).encode())
        if path.stat().st_mode & 0o077:
            raise AuthenticationError(f"others can read the job's secret {path}: delete it, a new one will be made")
        return path.read_bytes()


def _check_size(nbytes: int) -> None:
    if nbytes > MAX_PAYLOAD:
        raise ValueError(f"{nbytes} bytes are too many for one message; the limit is {MAX_PAYLOAD}: split them")


def _given(variable: str, name: str, value: int | None) -> int:
    """Returns an argument, or what the environment says in its place."""
    if value is not None:
        return value
    text = os.environ.get(variable)
    if text is None:
        raise ValueError(f"{name} is not given, and {variable} is not set: give it, or start with `actors launch`")
    try:
        return int(text)
    except ValueError:
        raise ValueError(f"{variable} is {text!r}: it must be a number") from None


def _check_rank(rank: int, world_size: int) -> tuple[int, int]:
    for name, value in (("rank", rank), ("world_size", world_size)):
        if isinstance(value, bool) or not hasattr(value, "__index__"):
            raise TypeError(f"{name} is {value!r}, a {type(value).__name__}: give a whole number")
    rank, world_size = operator.index(rank), operator.index(world_size)
    if world_size < 1:
        raise ValueError(f"world_size is {world_size}: a job has at least 1 rank")
    if not 0 <= rank < world_size:
        raise ValueError(f"rank is {rank}, but the ranks of a job of {world_size} are 0 to {world_size - 1}")
    return rank, world_size


def _check_other(rank: int, member: Member) -> int:
    return _check_rank(rank, member.world_size)[0]


def _check_tag(tag: str) -> None:
    if not isinstance(tag, str):
        raise TypeError(f"tag is {tag!r}, a {type(tag).__name__}: give a str")


def _trusted(addresses: Sequence[str], launch: launched.Launched | None) -> Trusted | None:
    """Returns what connections to other devices need; None where all ranks are on this machine.

    Raises:
        NotPairedError: this device is not paired.
        ValueError: some ranks have a loopback address, which the others would not reach.
    """
    here = [is_loopback(address) for address in addresses]
    if all(here):
        return None
    from actors import device
    from actors.identity import TrustSet
    from actors.membership import load

    if not device.is_paired():
        host = addresses[here.index(False)].rpartition(":")[0]
        raise NotPairedError(
            f"{host!r} is not a loopback address: between machines the ranks need mutual TLS, for which their devices "
            "are paired, and this one is not: run `actors invite` on one of them and `actors join CODE` on the others, "
            "or use 127.0.0.1"
        )
    if any(here):
        raise ValueError(
            f"{addresses[here.index(True)]} is a loopback address, which ranks elsewhere do not reach: give an address "
            "of that device in the network, or loopback addresses alone"
        )
    folder = Path(launch.identity) if launch is not None and launch.identity is not None else device.folder()
    identity, trust = load(folder)
    return Trusted(identity, TrustSet([*trust.values(), identity.certificate]))
