"""The guard: who may see the page. Every route and method is behind it."""

from __future__ import annotations

import secrets
from http.cookies import SimpleCookie
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    Scope = dict[str, Any]
    Receive = Callable[[], Awaitable[dict[str, Any]]]
    Send = Callable[[dict[str, Any]], Awaitable[None]]
    App = Callable[[Scope, Receive, Send], Awaitable[None]]

NAMES = ("127.0.0.1", "localhost", "[::1]")
OURS = "x-actors"  # a header that no page of another origin can send without being asked first
POLICY = (
    b"default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; base-uri 'none'; "
    b"form-action 'none'; frame-ancestors 'none'"
)
HEADERS = (
    (b"content-security-policy", POLICY),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cache-control", b"no-store"),
)  # fmt: skip


class Guard:
    """Lets requests through that come from the page itself, by who was given the link; others get a reason.

    Args:
        app: what is guarded.
        port: where it is served.
        token: the secret in the link; one that asks with it gets a cookie in its place.
    """

    def __init__(self, app: App, port: int, token: str) -> None:
        self._app = app
        self._hosts = {f"{name}:{port}" for name in NAMES}
        self._origins = {f"http://{host}" for host in self._hosts}
        self._token = token
        self._session = secrets.token_urlsafe(32)
        self._cookie = f"actors_dashboard_{port}"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles one request; see ASGI."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            return
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        if (refusal := self._refuse(scope, headers)) is not None:
            await _answer(send, *refusal)
        elif self._shows_token(scope):
            cookie = f"{self._cookie}={self._session}; HttpOnly; SameSite=Strict; Path=/"
            await _answer(send, 303, "", (b"location", b"/"), (b"set-cookie", cookie.encode()))
        elif not self._is_known(headers):
            await _answer(
                send, 401, "Open the link that `actors dashboard` has printed: it holds the key to this page."
            )
        else:
            await self._app(scope, receive, _with_headers(send))

    def _refuse(self, scope: Scope, headers: dict[str, str]) -> tuple[int, str] | None:
        if headers.get("host", "").lower() not in self._hosts:
            return 421, "This page is served to this machine alone, under its loopback names."
        if headers.get("origin", "null") != "null" and headers["origin"].lower() not in self._origins:
            return 403, "This page answers no other page."
        if headers.get("origin") == "null" or headers.get("sec-fetch-site", "none") not in {"none", "same-origin"}:
            return 403, "This page answers no other page."
        if scope["method"] not in {"GET", "HEAD"} and headers.get(OURS) != "1":
            return 403, f"What changes something needs the header {OURS}."
        return None

    def _shows_token(self, scope: Scope) -> bool:
        from urllib.parse import parse_qs

        shown = parse_qs(scope["query_string"].decode("latin-1")).get("token", [""])[0]
        return scope["method"] == "GET" and secrets.compare_digest(shown.encode(), self._token.encode())

    def _is_known(self, headers: dict[str, str]) -> bool:
        kind, _, shown = headers.get("authorization", "").partition(" ")
        if kind.lower() == "bearer" and secrets.compare_digest(shown.strip().encode(), self._token.encode()):
            return True
        try:
            found = SimpleCookie(headers.get("cookie", "")).get(self._cookie)
        except Exception:  # a cookie that is none
            return False
        return found is not None and secrets.compare_digest(found.value.encode(), self._session.encode())


def _with_headers(send: Send) -> Send:
    async def sent(message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message.get("headers", ()), *HEADERS]
        await send(message)

    return sent


async def _answer(send: Send, status: int, text: str, *headers: tuple[bytes, bytes]) -> None:
    body = text.encode()
    plain = (b"content-type", b"text/plain; charset=utf-8")
    length = (b"content-length", str(len(body)).encode())
    await send({"type": "http.response.start", "status": status, "headers": [plain, length, *headers, *HEADERS]})
    await send({"type": "http.response.body", "body": body})
