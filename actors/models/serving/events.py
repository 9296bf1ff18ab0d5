"""An answer as it is written: server-sent events, for as long as the client listens."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any, Final

from starlette.responses import Response

from .errors import ApiError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from starlette.types import Receive, Scope, Send

    from .answer import Answer, Delta
    from .reply import Reply
    from .responses import ResponseReply

KEEP_ALIVE: Final = 10.0
"""Seconds of silence after which a comment says that the answer is still being worked on."""
_STUCK: Final = 60.0  # seconds that a client may take nothing before it counts as gone
_HEADERS: Final = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),  # proxies hold answers back otherwise
]


def event(data: dict[str, Any], name: str | None = None) -> bytes:
    """One event."""
    head = "" if name is None else f"event: {name}\n"
    return f"{head}data: {json.dumps(data, ensure_ascii=False, separators=(',', ':'))}\n\n".encode()


async def until_gone(receive: Receive) -> None:
    """Returns when the client has gone."""
    while (await receive())["type"] != "http.disconnect":
        pass


class EventStream(Response):
    """The response that streams an answer, and ends the work when the client goes.

    Args:
        on_end: told whether it came to its end, and what kept it from that.
    """

    def __init__(
        self,
        answer: Answer,
        reply: Reply | ResponseReply,
        on_delta: Callable[[Delta], None],
        on_end: Callable[[str], None],
    ) -> None:
        super().__init__()
        self._answer = answer
        self._reply = reply
        self._on_delta = on_delta
        self._on_end = on_end

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Streams, as ASGI has it."""
        del scope
        outcome = "gone"
        try:
            async with self._answer:
                telling = asyncio.create_task(self._tell(send))
                going = asyncio.create_task(until_gone(receive))
                try:
                    await asyncio.wait({telling, going}, return_when=asyncio.FIRST_COMPLETED)
                    if telling.done():
                        outcome = telling.result()
                finally:
                    telling.cancel()
                    going.cancel()
                    await asyncio.gather(telling, going, return_exceptions=True)
        finally:
            self._on_end(outcome)

    async def _tell(self, send: Send) -> str:
        try:
            async with asyncio.timeout(_STUCK):
                await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
            return await self._tell_answer(lambda body: _written(send, body))
        except TimeoutError:
            return "gone"

    async def _tell_answer(self, write: Callable[[bytes], Awaitable[None]]) -> str:
        outcome, last = "ok", self._reply.done
        try:
            for data in self._reply.opening(len(self._answer.choices)):
                await write(event(data, data.get("type")))
            while (delta := await self._next(write)) is not None:
                self._on_delta(delta)
                for data in self._reply.chunk(delta):
                    await write(event(data, data.get("type")))
            for data in self._reply.closing(self._answer):
                await write(event(data, data.get("type")))
        except ApiError as fault:
            outcome, last = fault.code or "error", event(self._reply.failing(fault), "error")
        if last:
            await write(last)
        await write(b"")
        return outcome

    async def _next(self, write: Callable[[bytes], Awaitable[None]]) -> Delta | None:
        while True:
            try:
                return await self._answer.next(KEEP_ALIVE)
            except TimeoutError:
                await write(b": still at work\n\n")


async def _written(send: Send, body: bytes) -> None:
    async with asyncio.timeout(_STUCK):
        await send({"type": "http.response.body", "body": body, "more_body": bool(body)})
