"""A gate before a socket: whether the I/O loop hears that there is something to read. Any thread may move it."""

from __future__ import annotations

import select
import sys
from functools import partial

if sys.platform == "linux":

    class Gate:
        """A file of its own for the loop to watch: readable while the socket is, and the gate is open.

        Taking a socket out of an event loop's own selector is for the loop's thread alone; this is one system call.

        Attributes:
            open: lets the loop hear of the socket. No Ctrl-C comes between this being called and its being done.
            shut: lets it hear no more; likewise.

        Args:
            fd: of the socket, which must stay open as long as the gate does.
        """

        def __init__(self, fd: int) -> None:
            self._poll = select.epoll(1)
            self._poll.register(fd, select.EPOLLIN)
            self.open = partial(self._poll.modify, fd, select.EPOLLIN)  # nothing of it is run by the interpreter
            self.shut = partial(self._poll.modify, fd, 0)

        def fileno(self) -> int:
            """Returns what the loop watches."""
            return self._poll.fileno()

        def close(self) -> None:
            """Gives its file back."""
            self._poll.close()

else:

    class Gate:
        """See above; macOS and BSD have kqueue instead."""

        def __init__(self, fd: int) -> None:
            self._queue = select.kqueue()
            self._move(fd, select.KQ_EV_ADD)()
            self.open = self._move(fd, select.KQ_EV_ENABLE)
            self.shut = self._move(fd, select.KQ_EV_DISABLE)

        def _move(self, fd: int, flags: int) -> partial[object]:
            return partial(self._queue.control, [select.kevent(fd, select.KQ_FILTER_READ, flags)], 0, 0)

        def fileno(self) -> int:
            """Returns what the loop watches."""
            return self._queue.fileno()

        def close(self) -> None:
            """Gives its file back."""
            self._queue.close()
