"""Public calls: methods called at a node's door by any gRPC client that shows a member's certificate."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from grpc import StatusCode

from actors._wire import distributed_comm_pb2 as pb
from actors.exceptions import ActorDiedError, ActorsError, ArgumentError, SerializationError
from actors.public import NoActorError, NotPublicError, Part
from actors.transport.fivecalls import SLACK_SECONDS, fill_tensor

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

MOST_CHARACTERS = 600  # of what a status says: headers are bounded
PATIENCE_SECONDS = 600.0  # where the client has set no deadline


class PublicCalls:
    """Serves `Call`.

    Args:
        call: calls a method of a named actor: namespace, name, method, arguments and seconds.
        member: says which member of the cluster a caller is; None for a stranger.
    """

    def __init__(
        self,
        call: Callable[[str, str, str, Sequence[Part], float], Awaitable[Part]],
        member: Callable[[Any], str | None],
    ) -> None:
        self._call = call
        self._member = member

    async def serve(self, request: pb.PublicCall, context: Any) -> pb.PublicReply:
        """Answers one call; what goes wrong is a status."""
        if self._member(context) is None:
            await context.abort(StatusCode.UNAUTHENTICATED, "this device is not a member of the cluster")
        left = context.time_remaining()
        patience = PATIENCE_SECONDS if left is None else max(0.0, left - min(SLACK_SECONDS, left / 10))
        try:
            parts = [_part(data) for data in request.arguments]
            value = await self._call(request.namespace or "default", request.actor, request.method, parts, patience)
            return pb.PublicReply(value=_data(value))
        except Exception as error:
            said = str(error) if isinstance(error, ActorsError) else f"{type(error).__name__}: {error}"
            await context.abort(_status(error), said[:MOST_CHARACTERS])
            raise  # never reached: abort raises


def _status(error: Exception) -> StatusCode:
    for kind, status in (
        (NotPublicError, StatusCode.PERMISSION_DENIED),
        (SerializationError, StatusCode.FAILED_PRECONDITION),
        (ArgumentError, StatusCode.INVALID_ARGUMENT),
        (ActorDiedError, StatusCode.UNAVAILABLE),
        (TimeoutError, StatusCode.DEADLINE_EXCEEDED),
        (NoActorError, StatusCode.NOT_FOUND),
    ):
        if isinstance(error, kind):
            return status
    return StatusCode.UNKNOWN


def _part(data: pb.CommData) -> Part:
    match data.WhichOneof("data"):
        case "tensor_data":
            tensor = data.tensor_data
            library = data.metadata.get("kind") or ("mlx" if tensor.dtype == "bfloat16" else "numpy")
            return Part("tensor", tensor.data, tuple(tensor.shape), tensor.dtype, library)
        case "numpy_data":
            return Part("numpy", data.numpy_data)
        case "json_data":
            return Part("json", data.json_data.encode())
        case "pickle_data":
            raise ArgumentError("a pickle is not taken in a public call: use tensor_data, numpy_data or json_data")
        case _:
            raise ArgumentError("an argument has no data: set tensor_data, numpy_data or json_data")


def _data(part: Part) -> pb.CommData:
    data = pb.CommData(comm_type=part.kind)
    if part.kind == "tensor":
        data.metadata["kind"] = part.library
        fill_tensor(data.tensor_data, part.data, part.shape, part.dtype)
    elif part.kind == "numpy":
        data.numpy_data = part.data
    else:
        data.json_data = part.data.decode()
    return data
