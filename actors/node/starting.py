"""Starting: worker processes that have begun to load, and wait for their orders."""

from __future__ import annotations

import asyncio
import os
from asyncio.subprocess import PIPE, Process, SubprocessStreamProtocol
from dataclasses import dataclass
from typing import TYPE_CHECKING

from actors.node.tuning import tuned
from actors.shortage import no_thread

if TYPE_CHECKING:
    from collections.abc import Mapping

LINE_BYTES = 1 << 20  # a longer line is left out


class _Protocol(SubprocessStreamProtocol):
    """Knows of the process's own end; `Process.wait` waits for its pipes too, which a grandchild may hold open."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(limit=LINE_BYTES, loop=loop)
        self.exited = loop.create_future()
        self.connected: asyncio.Future[asyncio.BaseTransport] = loop.create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.SubprocessProtocol`."""
        super().connection_made(transport)
        self.connected.set_result(transport)

    def process_exited(self) -> None:
        """See `asyncio.SubprocessProtocol`."""
        super().process_exited()
        if not self.exited.done():
            self.exited.set_result(None)


@dataclass(frozen=True, slots=True, eq=False)
class Started:
    """A process that has begun.

    Attributes:
        subprocess: itself, with its pipes.
        transport: of these.
        exited: done when it has ended.
    """

    subprocess: Process
    transport: asyncio.SubprocessTransport
    exited: asyncio.Future[None]


async def start(python: str, variables: Mapping[str, str] | None = None, folder: str | None = None) -> Started:
    """Starts a worker's process, which then wants its orders on standard input.

    Args:
        python: the interpreter.
        variables: of its environment, beside the node's own.
        folder: it works in; None for the node's own.

    Raises:
        OSError: it cannot be started, or no thread to wait for its end.
    """
    loop = asyncio.get_running_loop()
    protocol = _Protocol(loop)
    try:
        transport, _ = await loop.subprocess_exec(
            lambda: protocol,
            # -P: a queue.py in the current folder is not meant for this program
            python, "-P", "-m", "actors.worker",
            stdin=PIPE, stdout=PIPE, stderr=PIPE, start_new_session=True,
            env={**os.environ, **tuned(os.environ), "PYTHONUNBUFFERED": "1", **(variables or {})}, cwd=folder,
        )  # fmt: skip
    except RuntimeError as error:  # it runs, and asyncio has no thread to wait for its end
        (await protocol.connected).close()
        raise no_thread(error) from error
    return Started(Process(transport, protocol, loop), transport, protocol.exited)
