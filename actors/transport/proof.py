"""Proof that pickled data come from one who knows the job's secret."""

from __future__ import annotations

import hmac
from typing import TYPE_CHECKING

from grpc import StatusCode

from actors.transport.letterbox import Refused

if TYPE_CHECKING:
    from actors._wire import distributed_comm_pb2 as pb


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
