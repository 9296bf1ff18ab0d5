"""The routes, and what each does with a request."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any, Final, TypeVar

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from .chat import chat_order
from .completion import completion_order
from .errors import ApiError, error_of
from .events import EventStream, until_gone
from .fields import Body, ChatBody, CompletionBody, read
from .guard import Guard
from .metrics import CONTENT_TYPE, Metrics
from .responses import ResponseReply, ResponsesBody, chat_body

if TYPE_CHECKING:
    from starlette.requests import Request

    from .answer import Answer, Delta
    from .engine import Engine
    from .reply import Reply

MAX_BODY: Final = 4 << 20
"""Bytes of a request's body at most; the longest prompt that a model takes is far below."""
_SLOW: Final = 30.0  # seconds that a body may take to arrive
_GONE: Final = 499  # nobody reads it; nginx' word for a client that left

BodyT = TypeVar("BodyT", bound=Body)


class Service:
    """OpenAI's API over one model.

    Args:
        names: that the model is known by; the first is its own.
    """

    def __init__(self, engine: Engine, names: tuple[str, ...]) -> None:
        self._engine = engine
        self._names = names
        self._created = int(time.time())
        self._metrics = Metrics(names[0], engine.status)

    # -- what there is ------------------------------------------------------------------------------------------

    async def health(self, request: Request) -> Response:
        """200 where requests are answered, 503 until then."""
        del request
        state = await self._engine.state()
        return JSONResponse({"status": state}, 200 if state == "ready" else 503)

    async def metrics(self, request: Request) -> Response:
        """What is counted."""
        del request
        return Response(await asyncio.to_thread(self._metrics.text), media_type=CONTENT_TYPE)

    async def models(self, request: Request) -> Response:
        """The one model."""
        del request
        return JSONResponse({"object": "list", "data": [self._card(self._names[0])]})

    async def model(self, request: Request) -> Response:
        """The model by its name."""
        name = request.path_params["name"]
        self._check_name(name)
        return JSONResponse(self._card(name))

    # -- what it does -------------------------------------------------------------------------------------------

    async def chat(self, request: Request) -> Response:
        """The next message of a conversation."""
        return await self._answered(request, "chat", ChatBody)

    async def completion(self, request: Request) -> Response:
        """Text that goes on."""
        return await self._answered(request, "completions", CompletionBody)

    async def response(self, request: Request) -> Response:
        """The next items of a conversation, in OpenAI's newer form."""
        return await self._answered(request, "responses", ResponsesBody)

    async def _answered(
        self, request: Request, endpoint: str, kind: type[ChatBody | CompletionBody | ResponsesBody]
    ) -> Response:
        began = time.monotonic()
        try:
            body = read(kind, await _body(request))
            self._check_name(body.model)
            _ = self._engine.model  # loading, or stopping: before anything is looked at more closely
            reply: Reply | ResponseReply
            if isinstance(body, ResponsesBody):
                order, _ = await chat_order(chat_body(body), self._engine)
                reply = ResponseReply(body.model)
            elif isinstance(body, ChatBody):
                order, reply = await chat_order(body, self._engine)
            else:
                order, reply = await completion_order(body, self._engine)
            answer = await self._engine.ask(order)
        except ApiError as fault:
            self._metrics.ended(endpoint, fault.code or str(fault.status), began)
            raise
        heard = _Listener(self, endpoint, answer, began)
        if body.stream:
            return EventStream(answer, reply, heard.delta, heard.end)
        return await self._whole(request, answer, reply, heard)

    async def _whole(
        self, request: Request, answer: Answer, reply: Reply | ResponseReply, heard: _Listener
    ) -> Response:
        """The answer when it is complete, unless the client goes before."""
        outcome = "gone"
        try:
            async with answer:
                writing = asyncio.create_task(_all(answer, heard))
                going = asyncio.create_task(until_gone(request.receive))
                try:
                    await asyncio.wait({writing, going}, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    going.cancel()
                    writing.cancel()
                    await asyncio.gather(going, writing, return_exceptions=True)
                if writing.cancelled():
                    return Response(status_code=_GONE)
                deltas = writing.result()
                outcome = "ok"
                return JSONResponse(reply.whole(deltas, answer))
        except ApiError as fault:
            outcome = fault.code or "error"
            raise
        finally:
            heard.end(outcome)

    def done(self, endpoint: str, answer: Answer, began: float, outcome: str) -> None:
        """Counts an answer that has ended."""
        self._engine.ended(answer)
        self._metrics.prompt_tokens.inc(answer.prompt_tokens)
        self._metrics.tokens.inc(answer.completion_tokens)
        self._metrics.ended(endpoint, outcome, began)

    def first_token(self, began: float) -> None:
        """Counts how long the first piece of an answer took."""
        self._metrics.first_token(began)

    def _check_name(self, name: str) -> None:
        if name not in self._names:
            raise ApiError(
                404, f"no model is called {name!r} here; there is {self._names[0]!r}", "model", "model_not_found"
            )

    def _card(self, name: str) -> dict[str, Any]:
        return {"id": name, "object": "model", "created": self._created, "owned_by": "mlx-actors"}


class _Listener:
    """Counts one answer as it is written."""

    def __init__(self, service: Service, endpoint: str, answer: Answer, began: float) -> None:
        self._service = service
        self._endpoint = endpoint
        self._answer = answer
        self._began = began
        self._heard = False

    def delta(self, delta: Delta) -> None:
        del delta
        if not self._heard:
            self._heard = True
            self._service.first_token(self._began)

    def end(self, outcome: str) -> None:
        self._service.done(self._endpoint, self._answer, self._began, outcome)


def make_app(engine: Engine, names: tuple[str, ...], *, key: str | None, local: bool) -> Starlette:
    """The server as an ASGI application; see `Service` and `Guard` for the arguments."""
    service = Service(engine, names)
    routes = [
        Route("/health", service.health),
        Route("/metrics", service.metrics),
        Route("/v1/models", service.models),
        Route("/v1/models/{name:path}", service.model),
        Route("/v1/chat/completions", service.chat, methods=["POST"]),
        Route("/v1/responses", service.response, methods=["POST"]),
        Route("/v1/completions", service.completion, methods=["POST"]),
    ]
    return Starlette(
        routes=routes,
        middleware=[Middleware(Guard, key=key, local=local)],
        exception_handlers={ApiError: _refused, ClientDisconnect: _left, HTTPException: _misrouted, Exception: _failed},
    )


async def _all(answer: Answer, heard: _Listener) -> list[Delta]:
    deltas = []
    while (delta := await answer.next()) is not None:
        heard.delta(delta)
        deltas.append(delta)
    return deltas


async def _body(request: Request) -> bytes:
    """The body of a request, if it is small enough and comes in time."""
    raw = bytearray()
    try:
        async with asyncio.timeout(_SLOW):
            async for piece in request.stream():
                raw += piece
                if len(raw) > MAX_BODY:
                    raise ApiError(413, f"the body is larger than {MAX_BODY >> 20} MiB", code="request_too_large")
    except TimeoutError:
        raise ApiError(408, f"the body did not arrive within {_SLOW:g} s", code="timeout") from None
    return bytes(raw)


async def _refused(request: Request, error: Exception) -> Response:
    del request
    fault = error_of(error)
    return JSONResponse(fault.body, fault.status, fault.headers)


async def _misrouted(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    said = {404: f"there is no {request.url.path} here", 405: f"{request.method} is not for {request.url.path}"}
    fault = ApiError(error.status_code, said.get(error.status_code, error.detail), code="not_found")
    return JSONResponse(fault.body, fault.status, dict(error.headers or {}))


async def _left(request: Request, error: Exception) -> Response:
    del request, error
    return Response(status_code=_GONE)


async def _failed(request: Request, error: Exception) -> Response:
    return await _refused(request, error)
