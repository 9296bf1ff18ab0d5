"""One rank's part of a job.

Every rank serves `Send` and `Receive` on its own letterbox; rank 0 serves `Broadcast`, `AllReduce` and `Barrier` in
rounds. The servers are ``grpc.aio``'s: a call that waits is a suspended coroutine. On the synchronous server it
would hold a thread, and as many waiting calls as there are threads would keep out the very calls they wait for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from grpc import StatusCode

from actors import arrays
from actors._wire import distributed_comm_pb2 as pb
from actors.reduction import check_reduction, reduce_tensors
from actors.transport.fivecalls import fill_tensor
from actors.transport.letterbox import Letter, Letterbox, Refused
from actors.transport.proof import check_proof
from actors.transport.rounds import Rounds

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from actors.transport.letterbox import Member


class Job:
    """One rank's part of a job: its letterbox and, on rank 0, the rounds."""

    def __init__(self, member: Member) -> None:
        self.member = member
        self.letterbox = Letterbox(member.limits)
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
        self.letterbox.put(Letter(request.source_rank, request.tag, request.data, size))
        return pb.SendResponse(success=True, message="stored")

    async def receive(
        self, request: pb.ReceiveRequest, patience: float, write: Callable[[pb.ReceiveResponse], Awaitable[None]]
    ) -> None:
        """Waits for a message that matches, then hands over all that do, in order, and ends."""
        source, tag = request.source_rank, request.tag
        self._check_rank("source_rank", source)
        self._check_rank("receiver_rank", request.receiver_rank)
        self._check_mine("receiver_rank", request.receiver_rank)
        message: Letter | None = await self.letterbox.take(source, tag, request.comm_type, patience)
        while message is not None:
            try:
                await write(pb.ReceiveResponse(data=message.data, source_rank=source, tag=tag))
            except BaseException:
                self.letterbox.restore(message)
                raise
            message = self.letterbox.take_now(source, tag, request.comm_type)

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
            check_reduction(op, tensor.dtype)
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
        self.letterbox.close(reason)

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


def tensor_kind(tensor: pb.TensorData) -> arrays.Kind:
    """Says which library's array a tensor becomes where its sender did not say."""
    return "mlx" if tensor.dtype == "bfloat16" else "numpy"


def _check_tensor(tensor: pb.TensorData, kind: str) -> int:
    size = len(tensor.data)
    arrays.check_tensor(size, tensor.shape, tensor.dtype, kind)
    return size


def _finish_broadcast(requests: list[pb.BroadcastRequest]) -> pb.BroadcastResponse:
    return pb.BroadcastResponse(success=True, data=requests[requests[0].root_rank].data)


def _finish_allreduce(requests: list[pb.AllReduceRequest]) -> pb.AllReduceResponse:
    tensor = requests[0].tensor
    data = reduce_tensors(requests[0].operation, [request.tensor.data for request in requests], tensor.dtype)
    answer = pb.AllReduceResponse(success=True)
    fill_tensor(answer.result, bytes(data), tensor.shape, tensor.dtype)
    return answer


def _finish_barrier(requests: list[pb.BarrierRequest]) -> pb.BarrierResponse:
    return pb.BarrierResponse(success=True, participants=len(requests))
