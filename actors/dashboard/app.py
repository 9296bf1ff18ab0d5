"""The dashboard's web application: its files, its feed, and what can be asked about one actor."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from starlette.applications import Starlette
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, StreamingResponse
from starlette.routing import Route

from actors.dashboard.feed import Feed
from actors.dashboard.guard import Guard
from actors.exceptions import ActorsError
from actors.observer import find

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from starlette.requests import Request
    from starlette.responses import Response

    from actors.observer import Observer

PAGE = Path(__file__).parent / "page"
FILES = {"/": "index.html", "/dashboard.js": "dashboard.js", "/dashboard.css": "dashboard.css", "/icon.svg": "icon.svg"}


def application(find_observer: Callable[[], Observer], port: int, token: str) -> Guard:
    """Returns the application as ASGI has it.

    Args:
        find_observer: returns the observer of the cluster to show; asked again where that has ended.
        port: where it is served.
        token: the secret in the link.
    """
    feed = Feed(find_observer)

    async def file(request: Request) -> Response:
        return FileResponse(PAGE / FILES[request.url.path])

    async def live(_: Request) -> Response:
        return StreamingResponse(feed.page(), media_type="text/event-stream")

    async def stack(request: Request) -> Response:
        from actors.cli.stack import look

        view, observer = await feed.view(), await feed.observer()
        try:
            _, actor = find(request.query_params.get("actor", ""), [(observer, view)])
            answered, stacks = await asyncio.to_thread(observer.stack, actor)
        except (LookupError, ActorsError) as error:
            return JSONResponse({"error": str(error)}, 404)
        return JSONResponse(look(actor, view, answered, stacks))

    async def kill(request: Request) -> Response:
        view, observer = await feed.view(), await feed.observer()
        try:
            asked = await request.json()
            _, actor = find(str(asked["actor"]), [(observer, view)])
            await asyncio.to_thread(observer.end, actor)
        except (LookupError, TypeError, ValueError, ActorsError) as error:
            return JSONResponse({"error": str(error)}, 400)
        return JSONResponse({"ended": actor.id})

    async def metrics(_: Request) -> Response:
        from actors.dashboard.metrics import CONTENT_TYPE, exposition

        return PlainTextResponse(exposition(await feed.view()), media_type=CONTENT_TYPE)

    async def failed(_: Request, error: Exception) -> Response:
        return JSONResponse({"error": str(error)}, 503)

    @contextlib.asynccontextmanager
    async def lifespan(_: Any) -> AsyncIterator[None]:
        yield
        await feed.close()

    routes = [
        *(Route(path, file, methods=["GET"]) for path in FILES),
        Route("/live", live, methods=["GET"]),
        Route("/stack", stack, methods=["GET"]),
        Route("/kill", kill, methods=["POST"]),
        Route("/metrics", metrics, methods=["GET"]),
    ]
    return Guard(Starlette(routes=routes, exception_handlers={ActorsError: failed}, lifespan=lifespan), port, token)  # type: ignore[arg-type]
