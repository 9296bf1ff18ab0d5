"""Who may ask: a key, and no web page that somebody has open."""

from __future__ import annotations

import hmac
import ipaddress
from typing import TYPE_CHECKING

from starlette.datastructures import Headers
from starlette.responses import JSONResponse

from .errors import ApiError

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

_OPEN = "/health"


def is_loopback(host: str) -> bool:
    """Whether nobody but this machine can reach a host of this name or address."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


class Guard:
    """Stands before all routes.

    Args:
        key: what has to be shown as a bearer token; None lets everybody in who is on this machine.
        local: the server listens on this machine alone. Then a request must name it so: a web page whose name leads
            here by a trick of its name server (DNS rebinding) does not.
    """

    def __init__(self, app: ASGIApp, *, key: str | None, local: bool) -> None:
        self._app = app
        self._key = key
        self._local = local

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Lets a request through, or answers it, as ASGI has it."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":  # uvicorn answers a WebSocket that is not taken with 403
            return
        fault = self._fault(scope["path"], Headers(scope=scope))
        if fault is None:
            await self._app(scope, receive, send)
        else:
            await JSONResponse(fault.body, fault.status, fault.headers)(scope, receive, send)

    def _fault(self, path: str, headers: Headers) -> ApiError | None:
        if self._local and not is_loopback(_host(headers.get("host", ""))):
            return ApiError(
                403, "this server answers on this machine alone, under names such as localhost", code="host"
            )
        if headers.get("sec-fetch-site") == "cross-site":
            return ApiError(403, "web pages of other sites may not ask this server", code="cross_site")
        if self._key is not None and path != _OPEN and not self._shown(headers):
            said = "that key is not this server's" if "authorization" in headers else "you did not provide a key"
            return ApiError(401, f"{said}: send it as 'Authorization: Bearer KEY'", code="invalid_api_key")
        return None

    def _shown(self, headers: Headers) -> bool:
        assert self._key is not None
        scheme, _, token = headers.get("authorization", "").partition(" ")
        return scheme.lower() == "bearer" and hmac.compare_digest(token.strip().encode(), self._key.encode())


def _host(header: str) -> str:
    """The name in a Host header, without its port."""
    if header.startswith("["):
        return header.partition("]")[0].strip("[")
    return header.partition(":")[0].lower()
