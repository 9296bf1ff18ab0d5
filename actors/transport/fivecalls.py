"""The schema's five calls of a job: `Send`, `Receive`, `Broadcast`, `AllReduce` and `Barrier`.

Any server of ours answers them, and loads no numpy for it; only where a rank is served they reach a `Job`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from grpc import StatusCode

from actors._wire import distributed_comm_pb2_grpc as pb_grpc
from actors.transport.letterbox import Refused

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from actors._wire import distributed_comm_pb2 as pb
    from actors.transport.job import Job

T = TypeVar("T")

SLACK_SECONDS = 0.5  # a server answers this much before its client's deadline, so that its explanation arrives

_NO_JOB = (
    "this process serves no job: start one rank of it with actors.communicator.GRPCCommunicator and call that "
    "rank's port (50100 + rank by default), or use the Stream call to reach actors"
)


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


def _patience(timeout: float, remaining: float | None) -> float:
    if remaining is None:
        return timeout
    return max(0.0, min(timeout, remaining - min(SLACK_SECONDS, remaining / 10)))
