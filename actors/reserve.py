"""The reserve: a file descriptor for when no other is left."""

from __future__ import annotations

import contextlib
import errno
import os
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Reserve:
    """A descriptor that is kept back, so that what others have lent can be read where no other is left."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept = _nothing()

    @contextlib.contextmanager
    def open(self, path: Path) -> Iterator[int]:
        """Opens a file to be read, if need be in the place of the descriptor kept back."""
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        try:
            descriptor = os.open(path, flags)
        except OSError as error:
            if error.errno not in {errno.EMFILE, errno.ENFILE}:
                raise
        else:
            try:
                yield descriptor
            finally:
                os.close(descriptor)
            return
        with self._lock:
            if self._kept is not None:
                os.close(self._kept)
                self._kept = None
            try:
                descriptor = os.open(path, flags)
                try:
                    yield descriptor
                finally:
                    os.close(descriptor)
            finally:
                self._kept = _nothing()

    def __del__(self) -> None:
        if self._kept is not None:
            os.close(self._kept)


def _nothing() -> int | None:
    try:
        return os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
