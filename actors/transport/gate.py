"""A gate before a socket: whether the I/O loop hears that there is something to read. Any thread may move it."""

from __future__ import annotations

import select
import sys

if sys.platform == "linux":

    class Gate:
        """A file of its own for the loop to watch: readable while the socket is, and the gate is open.

        Taking a socket out of an event loop's own selector is for the loop's thread alone; this is one system call.

        Args:
            fd: of the socket, which must stay open as long as the gate does.
        """

        def __init__(self, fd: int) -> None:
            self._fd = fd
            self._poll = select.epoll(1)
            self._poll.register(fd, select.EPOLLIN)

        def fileno(self) -> int:
            """Returns what the loop watches."""
            return self._poll.fileno()

        def open(self) -> None:
            """Lets the loop hear of the socket."""
            self._poll.modify(self._fd, select.EPOLLIN)

        def shut(self) -> None:
            """Lets it hear no more."""
            self._poll.modify(self._fd, 0)

        def close(self) -> None:
            """Gives its file back."""
            self._poll.close()

else:

    class Gate:
        """See above; macOS and BSD have kqueue instead."""

        def __init__(self, fd: int) -> None:
            self._fd = fd
            self._queue = select.kqueue()
            self._move(select.KQ_EV_ADD)

        def _move(self, flags: int) -> None:
            self._queue.control([select.kevent(self._fd, select.KQ_FILTER_READ, flags)], 0, 0)

        def fileno(self) -> int:
            """Returns what the loop watches."""
            return self._queue.fileno()

        def open(self) -> None:
            """Lets the loop hear of the socket."""
            self._move(select.KQ_EV_ENABLE)

        def shut(self) -> None:
            """Lets it hear no more."""
            self._move(select.KQ_EV_DISABLE)

        def close(self) -> None:
            """Gives its file back."""
            self._queue.close()
