"""The Unix socket of a process where all goes by gRPC: it takes the `Stream` calls that come in."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

from actors.transport.core_call import ServedCall, cygrpc
from actors.transport.core_link import CoreLink

if TYPE_CHECKING:
    from collections.abc import Callable

    from actors.transport.options import Options

_STOP = "stop"
STOP_SECONDS = 2.0
STEP_SECONDS = 0.002


class CoreServer:
    """Listens, on a thread of its own.

    Args:
        path: of the socket.
        method: path of the method that is served; whoever calls another is refused.
        options: of the server.
        came: takes each link, on the loop.

    Raises:
        OSError: it cannot listen there.
    """

    def __init__(self, path: str, method: str, options: Options, came: Callable[[CoreLink], None]) -> None:
        self._method = method.encode()
        self._came = came
        self._loop = asyncio.get_running_loop()
        self._queue = cygrpc.CompletionQueue()
        self._server = cygrpc.Server(options, False)
        self._server.register_completion_queue(self._queue)
        try:
            bound = self._server.add_http2_port(f"unix:{path}".encode())
        except RuntimeError as error:
            raise OSError(f"gRPC cannot listen at {path}") from error
        if not bound:
            raise OSError(f"gRPC cannot listen at {path}")
        self._server.start()
        self._cancelled = threading.Event()
        self._thread = threading.Thread(target=self._run, name="actors-grpc-server", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        self._request()
        asked, stopping = True, False
        while asked or not stopping:
            event = self._queue.poll(None)
            if event.tag == _STOP:
                stopping = True
                continue
            asked = event.success and not stopping
            if asked:
                self._request()
            if event.success:
                self._serve(event)
        self._cancelled.wait()  # a server that has been destroyed must not be asked for anything
        self._server.destroy()

    def _request(self) -> None:
        own = cygrpc.CompletionQueue()
        self._server.request_call(own, self._queue, own)

    def _serve(self, event: Any) -> None:
        if event.call_details.method != self._method:
            event.call.cancel(cygrpc.StatusCode.unimplemented, "Method not found!")
            return
        call = ServedCall(event.call, event.tag)
        try:
            self._loop.call_soon_threadsafe(lambda: self._came(CoreLink(call, self._loop)))
        except RuntimeError:  # the loop is closed
            call.cancel()

    async def close(self) -> None:
        """Listens no more, and ends what is left of the calls."""
        self._server.shutdown(self._queue, _STOP)
        self._server.cancel_all_calls()
        self._cancelled.set()
        until = self._loop.time() + STOP_SECONDS
        while self._thread.is_alive() and self._loop.time() < until:  # noqa: ASYNC110 - a thread's end tells nobody
            await asyncio.sleep(STEP_SECONDS)
