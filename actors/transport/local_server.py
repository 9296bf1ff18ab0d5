"""The Unix socket of a process, where others of its host come in without gRPC."""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING

from actors.transport.local_link import LocalLink

if TYPE_CHECKING:
    from actors.transport.reception import Reception

BACKLOG = 512  # connections that may wait to be accepted


class LocalServer:
    """Serves links on a Unix socket, in a folder that only this user may enter.

    Args:
        reception: takes the links that come in.
    """

    def __init__(self, reception: Reception) -> None:
        self._reception = reception
        self._server: asyncio.Server | None = None
        self._tasks: dict[asyncio.Task[None], LocalLink] = {}

    async def listen(self, path: str) -> None:
        """Listens at ``path``."""
        loop = asyncio.get_running_loop()
        own = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        own.bind(path)
        # asyncio accepts as many at once as the backlog it knows of, and where the first finds no descriptor left,
        # each of the others begins to try anew as well: the tries would double every second.
        self._server = await loop.create_unix_server(lambda: LocalLink(self._came), sock=own, backlog=1)
        own.listen(BACKLOG)

    def _came(self, link: LocalLink) -> None:
        task = asyncio.get_running_loop().create_task(self._serve(link))
        self._tasks[task] = link
        task.add_done_callback(lambda task: self._tasks.pop(task, None))

    async def _serve(self, link: LocalLink) -> None:
        try:
            await self._reception.greet(link)
        finally:
            await link.close()

    async def close(self) -> None:
        """Ends all links and stops listening."""
        if self._server is not None:
            self._server.close()
        tasks = list(self._tasks)
        for link in list(self._tasks.values()):
            await link.close()
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=0.2)  # what they have written last goes out
            for task in late:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
