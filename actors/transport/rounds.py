"""The five calls of a job's ranks: who stores messages, who waits for all ranks, who reduces.

Every rank serves `Send` and `Receive` on its own mailbox; rank 0 serves `Broadcast`, `AllReduce` and `Barrier` in
rounds. The servers are ``grpc.aio``'s: a call that waits is a suspended coroutine. On the synchronous server it
would hold a thread, and as many waiting calls as there are threads would keep out the very calls they wait for.
"""

from __future__ import annotations

import asyncio
import errno
import hmac
import os
import socket
from collections import defaultdict, deque
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")  # else every `!command` in a notebook prints a warning
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")

import grpc
from grpc import StatusCode

from actors import arrays
from actors._wire import distributed_comm_pb2 as pb
from actors._wire import distributed_comm_pb2_grpc as pb_grpc

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

T = TypeVar("T")

MAX_PAYLOAD = 1 << 30
SLACK_SECONDS = 0.5  # a server answers this much before its client's deadline, so that its explanation arrives

_NO_JOB = (
    "this process serves no job: start one rank of it with actors.communicator.GRPCCommunicator and call that "
    "rank's port (50100 + rank by default), or use the Stream call to reach actors"
)
_OPTIONS = (
    ("grpc.max_send_message_length", MAX_PAYLOAD + (1 << 20)),
    ("grpc.max_receive_message_length", MAX_PAYLOAD + (1 << 20)),
    ("grpc.enable_http_proxy", 0),
)
_CHANNEL_OPTIONS = (
    *_OPTIONS,
    # Ranks start in any order: the first call should not wait long for the next try.
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 1000),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_retries", 0),  # a message sent twice would be received twice
)
_LEAVE_SECONDS = 2.0


class Refused(Exception):  # noqa: N818 - an answer, not a fault of this process
    """A call that is answered with a status other than OK."""

    def __init__(self, code: StatusCode, message: str) -> None:
        super().__init__(message)
        self.code = code
        # It travels percent-encoded in an HTTP/2 trailer, of which 8 KiB are sure to pass.
        self.message = message[:600]


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of what one rank's server keeps.

    Attributes:
        messages: messages sent and not yet received.
        stored: bytes of them.
        rounds: rounds of one kind that some ranks have joined and others have not.
        held: bytes that ranks have brought to unfinished rounds of one kind.
    """

    messages: int = 10_000
    stored: int = 4 << 30
    rounds: int = 1_000
    held: int = 8 << 30


@dataclass(frozen=True, slots=True)
class Member:
    """Who a server is in its job.

    Attributes:
        rank: this rank, from 0.
        world_size: number of ranks.
        secret: the job's secret, which pickles must be proved with.
        timeout: seconds that a call waits at most for what other ranks have to do.
        limits: bounds of what is kept.
    """

    rank: int
    world_size: int
    secret: bytes
    timeout: float = 30.0
    limits: Limits = field(default_factory=Limits)


def prove(secret: bytes, context: str, data: pb.CommData) -> str:
    """Returns what ``metadata["proof"]`` of pickled data must be: HMAC-SHA256 of context, pickle and buffers.

    A proof instead of the secret itself: whoever took a rank's port first would else be told the secret.
    """
    mac = hmac.new(secret, digestmod="sha256")
    for part in (context.encode(), data.pickle_data, *data.buffers):
        mac.update(len(part).to_bytes(8, "little"))
        mac.update(part)
    return mac.hexdigest()


def check_proof(secret: bytes, context: str, data: pb.CommData) -> None:
    """Checks that pickled data come from one who knows the job's secret.

    Raises:
        Refused: PERMISSION_DENIED.
    """
    shown = data.metadata.get("proof", "").encode()
    if not hmac.compare_digest(shown, prove(secret, context, data).encode()):
        raise Refused(
            StatusCode.PERMISSION_DENIED,
            "pickle_data is taken only with a proof that its sender knows the job's secret: give all ranks the same "
            "ACTORS_JOB_SECRET (or run them as one user on one machine), or send tensor_data or numpy_data",
        )


@dataclass(frozen=True, slots=True)
class Message:
    """A message in a mailbox.

    Attributes:
        source: rank that sent it.
        tag: what it is told apart by.
        data: what was sent.
        size: bytes that it is counted as, since protobuf finds out by writing it all.
    """

    source: int
    tag: str
    data: pb.CommData
    size: int


class Mailbox:
    """Messages sent to this rank and not yet received, in the order in which they came."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._messages: defaultdict[tuple[int, str], deque[Message]] = defaultdict(deque)
        self._count = 0
        self._bytes = 0
        self._changed = asyncio.Event()
        self._closed = ""

    def put(self, message: Message) -> None:
        """Stores a message.

        Raises:
            Refused: RESOURCE_EXHAUSTED, the mailbox is full.
        """
        limits = self._limits
        if self._count >= limits.messages or self._bytes + message.size > limits.stored:
            raise Refused(
                StatusCode.RESOURCE_EXHAUSTED,
                f"the mailbox is full: {self._count} messages of {self._bytes} bytes wait to be received, the limits "
                f"are {limits.messages} messages and {limits.stored} bytes: receive some first",
            )
        self._messages[message.source, message.tag].append(message)
        self._added(message)

    def restore(self, message: Message) -> None:
        """Puts back, as the first, a message that was taken and could not be handed over."""
        self._messages[message.source, message.tag].appendleft(message)
        self._added(message)

    async def take(self, source: int, tag: str, comm_type: str, patience: float) -> Message:
        """Waits for a message and removes it.

        Raises:
            Refused: DEADLINE_EXCEEDED, none came in time; UNAVAILABLE, the mailbox was closed.
        """
        found = self.take_now(source, tag, comm_type)
        with suppress(TimeoutError):
            async with asyncio.timeout(patience):
                # Nothing is awaited after a message is found, so that no cancel can lose it.
                while found is None and not self._closed:
                    await self._changed.wait()
                    found = self.take_now(source, tag, comm_type)
        if found is not None:
            return found
        if self._closed:
            raise Refused(StatusCode.UNAVAILABLE, self._closed)
        wanted = f"rank {source} with tag {tag!r}" + (f" and type {comm_type!r}" if comm_type else "")
        raise Refused(StatusCode.DEADLINE_EXCEEDED, f"no message from {wanted} came within {patience:.3g} s")

    def take_now(self, source: int, tag: str, comm_type: str = "") -> Message | None:
        """Removes and returns the first message that matches, if there is one."""
        queue = self._messages.get((source, tag), ())
        for index, message in enumerate(queue):
            if comm_type in ("", message.data.comm_type):
                del self._messages[source, tag][index]
                if not queue:
                    del self._messages[source, tag]
                self._count -= 1
                self._bytes -= message.size
                return message
        return None

    def close(self, reason: str) -> None:
        """Ends every wait."""
        self._closed = reason
        self._wake()

    def _added(self, message: Message) -> None:
        self._count += 1
        self._bytes += message.size
        self._wake()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


@dataclass(slots=True)
class _Round:
    number: int
    outcome: asyncio.Future[Any]
    parts: dict[int, Any] = field(default_factory=dict)
    claim: tuple[int, str] | None = None
    held: int = 0
    served: int = 0


class Rounds:
    """All rounds of one kind of call: a rank's n-th call belongs to round n, which ends when all ranks are in it.

    A round that fails does so for all its ranks, those that come later included; the next round is not touched.

    Args:
        name: the call, for messages.
        member: this server.
        finish: makes the answer from the ranks' requests, in rank order; run on another thread.
    """

    def __init__(self, name: str, member: Member, finish: Callable[[list[Any]], Any]) -> None:
        self._name = name
        self._member = member
        self._finish = finish
        self._next: defaultdict[int, int] = defaultdict(lambda: 1)
        self._open: dict[int, _Round] = {}
        self._held = 0

    async def join(self, rank: int, request: Any, read: Callable[[], tuple[str, int]], patience: float) -> Any:
        """Brings a rank's request to its next round and waits for the answer.

        Args:
            rank: whose request.
            request: what it brings.
            read: checks the request; says in words what must be equal on all ranks, and how many bytes it holds. A
                `Refused` or `ValueError` of it fails the round.
            patience: seconds to wait for the other ranks.

        Raises:
            Refused: the round failed.
        """
        current = self._enter(rank)
        try:
            self._bring(current, rank, request, read)
            await self._settle(current, patience)
        except BaseException:  # cancelled, as a rule: its process ended, or its deadline came
            self._fail(current, StatusCode.ABORTED, f"rank {rank} gave up waiting")
            raise
        finally:
            self._leave(current)
        outcome = current.outcome.result()
        if isinstance(outcome, Refused):
            raise outcome
        return outcome

    def close(self, reason: str) -> None:
        """Fails every open round."""
        for current in self._open.values():
            self._fail(current, StatusCode.UNAVAILABLE, reason)

    def _enter(self, rank: int) -> _Round:
        number = self._next[rank]
        if number not in self._open:
            if len(self._open) >= self._member.limits.rounds:
                lead = f"rank {rank} is {len(self._open)} rounds of {self._name} ahead of another rank"
                raise Refused(StatusCode.RESOURCE_EXHAUSTED, f"{lead}, which is the limit")
            self._open[number] = _Round(number, asyncio.get_running_loop().create_future())
        self._next[rank] += 1
        return self._open[number]

    def _bring(self, current: _Round, rank: int, request: Any, read: Callable[[], tuple[str, int]]) -> None:
        if current.outcome.done():
            return
        try:
            claim, size = read()
        except Refused as refusal:
            self._fail(current, refusal.code, f"rank {rank}: {refusal.message}")
            return
        except ValueError as error:
            self._fail(current, StatusCode.INVALID_ARGUMENT, f"rank {rank}: {error}")
            return
        first, agreed = current.claim = current.claim or (rank, claim)
        if claim != agreed:
            sides = f"rank {first} has {agreed}, rank {rank} has {claim}"
            self._fail(current, StatusCode.INVALID_ARGUMENT, f"the ranks do not agree: {sides}")
            return
        current.parts[rank] = request
        current.held += size
        self._held += size
        if self._held > (limit := self._member.limits.held):
            self._fail(current, StatusCode.RESOURCE_EXHAUSTED, f"{self._held} bytes came, the limit is {limit}")

    async def _settle(self, current: _Round, patience: float) -> None:
        everyone = range(self._member.world_size)
        if current.outcome.done():
            return
        if len(current.parts) < len(everyone):
            await asyncio.wait({current.outcome}, timeout=patience)
            missing = [rank for rank in everyone if rank not in current.parts]
            self._fail(current, StatusCode.DEADLINE_EXCEEDED, f"ranks {missing} did not come within {patience:.3g} s")
            return
        try:
            # Large reductions take seconds, in which the loop has other calls to answer.
            answer = await asyncio.to_thread(self._finish, [current.parts[rank] for rank in everyone])
        except Exception as error:  # MemoryError, most likely; the other ranks must not wait for an answer
            self._fail(current, StatusCode.INTERNAL, f"rank {self._member.rank} could not finish it: {error!r}")
            return
        if not current.outcome.done():
            current.outcome.set_result(answer)

    def _fail(self, current: _Round, code: StatusCode, why: str) -> None:
        if not current.outcome.done():
            current.outcome.set_result(Refused(code, f"round {current.number} of {self._name} failed: {why}"))

    def _leave(self, current: _Round) -> None:
        self._held -= current.held
        current.held = 0
        current.parts.clear()
        current.served += 1
        if current.served == self._member.world_size:
            del self._open[current.number]


class Job:
    """One rank's part of a job: its mailbox and, on rank 0, the rounds."""

    def __init__(self, member: Member) -> None:
        self.member = member
        self.mailbox = Mailbox(member.limits)
        self._broadcasts = Rounds("broadcast", member, _finish_broadcast)
        self._reductions = Rounds("allreduce", member, _finish_allreduce)
        self._barriers = Rounds("barrier", member, _finish_barrier)

    async def send(self, request: pb.SendRequest) -> pb.SendResponse:
        """Stores a message for this rank."""
        self._check_rank("source_rank", request.source_rank)
        self._check_rank("dest_rank", request.dest_rank)
        self._check_mine("dest_rank", request.dest_rank)
        size = self._check_data(request.data, f"send {request.source_rank} {request.dest_rank} {request.tag}")
        size += len(request.tag)
        self.mailbox.put(Message(request.source_rank, request.tag, request.data, size))
        return pb.SendResponse(success=True, message="stored")

    async def receive(
        self, request: pb.ReceiveRequest, patience: float, write: Callable[[pb.ReceiveResponse], Awaitable[None]]
    ) -> None:
        """Waits for a message that matches, then hands over all that do, in order, and ends."""
        source, tag = request.source_rank, request.tag
        self._check_rank("source_rank", source)
        self._check_rank("receiver_rank", request.receiver_rank)
        self._check_mine("receiver_rank", request.receiver_rank)
        message: Message | None = await self.mailbox.take(source, tag, request.comm_type, patience)
        while message is not None:
            try:
                await write(pb.ReceiveResponse(data=message.data, source_rank=source, tag=tag))
            except BaseException:
                self.mailbox.restore(message)
                raise
            message = self.mailbox.take_now(source, tag, request.comm_type)

    async def broadcast(self, request: pb.BroadcastRequest, patience: float) -> pb.BroadcastResponse:
        """Gives every rank the root's data."""
        rank, root = request.sender_rank, request.root_rank

        def read() -> tuple[str, int]:
            self._check_rank("root_rank", root)
            if rank == root:
                return f"root {root}", self._check_data(request.data, f"broadcast {root}")
            request.ClearField("data")
            return f"root {root}", 0

        self._check_serves("Broadcast", "sender_rank", rank)
        answer: pb.BroadcastResponse = await self._broadcasts.join(rank, request, read, patience)
        return answer

    async def allreduce(self, request: pb.AllReduceRequest, patience: float) -> pb.AllReduceResponse:
        """Gives every rank the reduction of all tensors."""
        tensor, op = request.tensor, request.operation

        def read() -> tuple[str, int]:
            size = _check_tensor(tensor, tensor_kind(tensor))
            arrays.check_reduction(op, tensor.dtype)
            return f"op {op} on shape {list(tensor.shape)} of {tensor.dtype}", size

        self._check_serves("AllReduce", "rank", request.rank)
        answer: pb.AllReduceResponse = await self._reductions.join(request.rank, request, read, patience)
        return answer

    async def barrier(self, request: pb.BarrierRequest, patience: float) -> pb.BarrierResponse:
        """Waits until every rank is here."""
        self._check_serves("Barrier", "rank", request.rank)
        read = (f"barrier_id {request.barrier_id!r}", len(request.barrier_id))
        answer: pb.BarrierResponse = await self._barriers.join(request.rank, request, lambda: read, patience)
        return answer

    def close(self) -> None:
        """Fails whatever waits."""
        reason = f"rank {self.member.rank} has left the job"
        for rounds in (self._broadcasts, self._reductions, self._barriers):
            rounds.close(reason)
        self.mailbox.close(reason)

    def _check_serves(self, call: str, field_name: str, rank: int) -> None:
        if self.member.rank != 0:
            raise Refused(
                StatusCode.FAILED_PRECONDITION,
                f"this is rank {self.member.rank}, and rank 0 serves {call}: call its port instead",
            )
        self._check_rank(field_name, rank)

    def _check_rank(self, field_name: str, rank: int) -> None:
        size = self.member.world_size
        if not 0 <= rank < size:
            raise ValueError(f"{field_name} is {rank}, but this job's {size} ranks are 0 to {size - 1}")

    def _check_mine(self, field_name: str, rank: int) -> None:
        if rank != self.member.rank:
            raise ValueError(
                f"{field_name} is {rank}, but this is the server of rank {self.member.rank}: call rank {rank}'s"
            )

    def _check_data(self, data: pb.CommData, context: str) -> int:
        """Checks a message and returns how many bytes it holds, without what none of the five calls uses."""
        data.DiscardUnknownFields()
        data.ClearField("header")
        size = len(data.comm_type) + sum(len(key) + len(value) for key, value in data.metadata.items())
        match data.WhichOneof("data"):
            case "tensor_data":
                data.ClearField("buffers")
                return size + _check_tensor(data.tensor_data, data.metadata.get("kind", tensor_kind(data.tensor_data)))
            case "numpy_data":
                data.ClearField("buffers")
                content = data.numpy_data
                arrays.from_npy(content)
                return size + len(content)
            case "pickle_data":
                check_proof(self.member.secret, context, data)
                return size + len(data.pickle_data) + sum(map(len, data.buffers))
            case _:
                raise ValueError("no data: set tensor_data, numpy_data or pickle_data")


class FiveCalls(pb_grpc.DistributedCommServicer):
    """Serves Send, Receive, Broadcast, AllReduce and Barrier.

    Args:
        job: the rank to serve; without one, each call answers FAILED_PRECONDITION and says where to go.
    """

    def __init__(self, job: Job | None = None) -> None:
        self._job = job

    async def Send(self, request: pb.SendRequest, context: Any) -> pb.SendResponse:  # noqa: N802, D102
        return await self._answer(context, lambda job, _: job.send(request))

    async def Receive(self, request: pb.ReceiveRequest, context: Any) -> None:  # noqa: N802, D102
        await self._answer(context, lambda job, patience: job.receive(request, patience, context.write))

    async def Broadcast(self, request: pb.BroadcastRequest, context: Any) -> pb.BroadcastResponse:  # noqa: N802, D102
        return await self._answer(context, lambda job, patience: job.broadcast(request, patience))

    async def AllReduce(self, request: pb.AllReduceRequest, context: Any) -> pb.AllReduceResponse:  # noqa: N802, D102
        return await self._answer(context, lambda job, patience: job.allreduce(request, patience))

    async def Barrier(self, request: pb.BarrierRequest, context: Any) -> pb.BarrierResponse:  # noqa: N802, D102
        return await self._answer(context, lambda job, patience: job.barrier(request, patience))

    async def _answer(self, context: Any, work: Callable[[Job, float], Awaitable[T]]) -> T:
        try:
            if self._job is None:
                raise Refused(StatusCode.FAILED_PRECONDITION, _NO_JOB)
            return await work(self._job, _patience(self._job.member.timeout, context.time_remaining()))
        except Refused as refusal:
            answer = refusal
        except ValueError as error:
            answer = Refused(StatusCode.INVALID_ARGUMENT, str(error))
        await context.abort(answer.code, answer.message)
        raise answer  # never reached: abort raises


def fill_tensor(tensor: pb.TensorData, data: bytes, shape: Sequence[int], dtype: str) -> None:
    """Sets a tensor in its place: protobuf copies a message that is put into another, three times over."""
    tensor.data = data
    tensor.shape.extend(shape)
    tensor.dtype = dtype


def tensor_kind(tensor: pb.TensorData) -> arrays.Kind:
    """Says which library's array a tensor becomes where its sender did not say."""
    return "mlx" if tensor.dtype == "bfloat16" else "numpy"


def _check_tensor(tensor: pb.TensorData, kind: str) -> int:
    size = len(tensor.data)
    arrays.check_tensor(size, tensor.shape, tensor.dtype, kind)
    return size


def _patience(timeout: float, remaining: float | None) -> float:
    if remaining is None:
        return timeout
    return max(0.0, min(timeout, remaining - min(SLACK_SECONDS, remaining / 10)))


def _finish_broadcast(requests: list[pb.BroadcastRequest]) -> pb.BroadcastResponse:
    return pb.BroadcastResponse(success=True, data=requests[requests[0].root_rank].data)


def _finish_allreduce(requests: list[pb.AllReduceRequest]) -> pb.AllReduceResponse:
    tensor = requests[0].tensor
    data = arrays.reduce_tensors(requests[0].operation, [request.tensor.data for request in requests], tensor.dtype)
    answer = pb.AllReduceResponse(success=True)
    fill_tensor(answer.result, bytes(data), tensor.shape, tensor.dtype)
    return answer


def _finish_barrier(requests: list[pb.BarrierRequest]) -> pb.BarrierResponse:
    return pb.BarrierResponse(success=True, participants=len(requests))


class Endpoint:
    """A rank on the network: its server, and a channel to every rank. All its methods run on one event loop."""

    def __init__(self, member: Member, addresses: Sequence[str]) -> None:
        self.member = member
        self._addresses = addresses
        self._job = Job(member)
        # Without so_reuseport=0 two servers would share a port without a word.
        self._server = grpc.aio.server(options=(*_OPTIONS, ("grpc.so_reuseport", 0)))
        self._channels = [grpc.aio.insecure_channel(address, options=_CHANNEL_OPTIONS) for address in addresses]
        self._met: set[int] = set()

    @classmethod
    async def start(cls, member: Member, addresses: Sequence[str]) -> Endpoint:
        """Listens.

        Raises:
            OSError: it cannot, on that port.
        """
        _try_port(member.rank, addresses[member.rank])
        self = cls(member, addresses)
        pb_grpc.add_DistributedCommServicer_to_server(FiveCalls(self._job), self._server)  # type: ignore[no-untyped-call]
        try:
            self._server.add_insecure_port(addresses[member.rank])
            await self._server.start()
        except BaseException:
            await self.leave()
            raise
        return self

    async def take(self, source: int, tag: str) -> pb.CommData:
        """Takes a message out of this rank's own mailbox."""
        return (await self._job.mailbox.take(source, tag, "", self.member.timeout)).data

    async def call(self, name: str, rank: int, request: Any) -> Any:
        """Calls a rank's server.

        Raises:
            Refused: it was not reached, or did not answer OK.
        """
        deadline = asyncio.get_running_loop().time() + self.member.timeout
        await self._meet(rank)
        left = deadline - asyncio.get_running_loop().time()
        stub = pb_grpc.DistributedCommStub(self._channels[rank])  # type: ignore[no-untyped-call]
        try:
            return await getattr(stub, name)(request, timeout=left + SLACK_SECONDS)
        except grpc.aio.AioRpcError as error:
            where = f"{name} at rank {rank} ({self._addresses[rank]})"
            raise Refused(error.code(), f"{where}: {error.details()}") from None

    async def _meet(self, rank: int) -> None:
        """Waits for a rank that has not been started yet; one that was there and is gone is not waited for."""
        if rank in self._met:
            return
        seconds = self.member.timeout
        try:
            async with asyncio.timeout(seconds):
                await self._channels[rank].channel_ready()
        except TimeoutError:
            where = f"rank {rank} was not reached at {self._addresses[rank]} within {seconds:.3g} s"
            advice = "start it, and give all ranks the same base_port, host and addresses"
            raise Refused(StatusCode.DEADLINE_EXCEEDED, f"{where}: {advice}") from None
        self._met.add(rank)

    async def leave(self) -> None:
        """Fails what waits here, lets answers under way arrive, and closes everything."""
        self._job.close()
        await self._server.stop(_LEAVE_SECONDS)
        for channel in self._channels:
            await channel.close(None)


def _try_port(rank: int, address: str) -> None:
    """Binds and lets go of a port, since gRPC does not say why it cannot.

    Raises:
        OSError: the message names the port and says what to do.
    """
    host, _, port = address.rpartition(":")
    family = socket.AF_INET6 if host.startswith("[") else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        # As gRPC does: the connections of a job that has just ended are no obstacle.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host.strip("[]"), int(port)))
        except OSError as error:
            what = "is taken" if error.errno == errno.EADDRINUSE else f"cannot be used ({error.strerror})"
            raise OSError(
                error.errno, f"port {port} on {host}, where rank {rank} would listen, {what}: choose another base_port"
            ) from error
