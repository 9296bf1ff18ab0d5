"""What goes wrong with a request, in the form that OpenAI's clients read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from actors.exceptions import ActorError, ActorsError, ModelError, NodeDiedError, PendingCallsLimitExceeded, TaskError

RETRY_SECONDS: Final = 2
"""What a client is asked to wait before it tries again, where that can help."""

_KINDS: Final = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "invalid_request_error",
    405: "invalid_request_error",
    408: "invalid_request_error",
    413: "invalid_request_error",
    429: "rate_limit_error",
}


@dataclass(eq=False)
class ApiError(Exception):
    """A request that cannot be answered.

    Attributes:
        status: of HTTP.
        message: what was wrong, and what to do.
        param: the field at fault.
        code: a word for programs.
    """

    status: int
    message: str
    param: str | None = None
    code: str | None = None

    def __str__(self) -> str:
        return self.message

    @property
    def body(self) -> dict[str, Any]:
        """The answer's body."""
        kind = _KINDS.get(self.status, "server_error")
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}

    @property
    def headers(self) -> dict[str, str]:
        """Headers that go with it."""
        if self.status == 401:
            return {"WWW-Authenticate": "Bearer"}
        return {"Retry-After": str(RETRY_SECONDS)} if self.status in {429, 503} else {}


def wrong(param: str | None, message: str, code: str | None = None) -> ApiError:
    """A value that cannot be honoured."""
    return ApiError(400, message, param, code)


def error_of(error: BaseException) -> ApiError:
    """What a client is told of an error of the model."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, PendingCallsLimitExceeded):
        return ApiError(429, "too many requests wait for the model already; try again soon", code="queue_full")
    if isinstance(error, ValueError):
        return wrong(None, str(error))
    cause = error.cause if isinstance(error, TaskError) else error
    if isinstance(cause, ActorError | NodeDiedError):
        return ApiError(503, f"a device that holds a part of the model was lost: {error}", code="device_lost")
    if isinstance(cause, ModelError):
        return ApiError(503, str(error), code="model_unavailable")
    if isinstance(error, ActorsError):
        return ApiError(500, str(error), code="internal_error")
    return ApiError(500, f"the server failed at this request: {type(error).__name__}: {error}", code="internal_error")
