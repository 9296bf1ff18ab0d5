"""The server's life: it listens at once, answers when the model is loaded, and ends soon when it is told to."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final

import uvicorn

from actors.exceptions import ActorsError

from .app import make_app
from .engine import Engine
from .errors import ApiError
from .guard import is_loopback

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from actors.models import ShardedModel

GRACE: Final = 2.5
"""Seconds in which answers may come to their end when the server has to stop."""
_CUT: Final = 2  # further seconds for their last words to be sent
_BACKLOG: Final = 512


def listen(host: str, port: int) -> socket.socket:
    """Opens the server's door.

    Raises:
        ActorsError: it cannot be opened; the message says why.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE | socket.AI_NUMERICSERV
        )[0]
        return socket.create_server(address[:2], family=family, backlog=_BACKLOG)
    except OSError as error:
        number = 0 if isinstance(error, socket.gaierror) else error.errno  # its numbers mean other things than errno's
        told = os.strerror(number) if number else error.strerror or error
        raise ActorsError(f"cannot listen at {host}, port {port}: {told}") from error


class Server:
    """Serves one model at one door until SIGTERM or Ctrl-C.

    Args:
        load: makes the model; called in a thread while the door is open already.
        names: that clients may call the model by.
        door: where it listens; see `listen`.
        key: what clients have to show; None lets everybody in.
        on_ready: told when the model is loaded.
    """

    def __init__(
        self, load: Callable[[], ShardedModel], names: tuple[str, ...], door: socket.socket, *, key: str | None,
        on_ready: Callable[[], None],
    ) -> None:  # fmt: skip
        self._engine = Engine(load)
        self._door = door
        self._on_ready = on_ready
        self._stopped_by: int | None = None
        local = is_loopback(door.getsockname()[0])
        config = uvicorn.Config(
            make_app(self._engine, names, key=key, local=local), lifespan="off", ws="none", log_level="error",
            access_log=False, server_header=False, proxy_headers=False, timeout_graceful_shutdown=int(GRACE) + _CUT,
        )  # fmt: skip
        self._uvicorn = _Uvicorn(config)

    def run(self) -> int | None:
        """Serves; returns the number of the signal that ended it.

        Raises:
            ActorsError: the model could not be loaded.
        """
        asyncio.run(self._run())
        return self._stopped_by

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        for sign in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(sign, self._stop, sign)
        loading = asyncio.create_task(self._load())
        watching = asyncio.create_task(self._engine.watch())
        serving = asyncio.create_task(self._uvicorn.serve([self._door]))
        try:
            await asyncio.wait({loading, serving}, return_when=asyncio.FIRST_COMPLETED)
            if loading.done() and loading.exception() is not None:
                self._uvicorn.should_exit = True
            await serving
            if loading.done():
                loading.result()
        finally:
            loading.cancel()
            watching.cancel()
            self._engine.close()

    async def _load(self) -> None:
        await self._engine.start()
        self._on_ready()

    def _stop(self, sign: int) -> None:
        first = self._stopped_by is None
        self._stopped_by = self._stopped_by or sign
        self._engine.stopping = True
        self._uvicorn.should_exit = True
        self._ending = asyncio.create_task(self._drain(GRACE if first else 0.0))

    async def _drain(self, grace: float) -> None:
        """Lets answers end, and then ends them."""
        with suppress(TimeoutError):
            async with asyncio.timeout(grace):
                await self._engine.idle.wait()
        for answer in self._engine.answers:
            answer.fail(ApiError(503, "the server was stopped before the answer was complete", code="stopping"))


class _Uvicorn(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leaves signals to `Server`: uvicorn would raise them once more, and nothing could be closed then."""
        yield
