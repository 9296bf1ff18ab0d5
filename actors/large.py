"""Memory for large values that this process keeps for itself."""

from __future__ import annotations

import contextlib
import mmap
import sys

LEAST_BYTES = 1 << 20


def room(size: int) -> bytearray | mmap.mmap | memoryview:
    """Returns memory to be written. Large memory is cleared by the system as it is touched, and not here at once."""
    if size < LEAST_BYTES:
        return bytearray(size)
    if "numpy" in sys.modules and size <= sys.maxsize:  # whoever takes arrays has loaded it
        with contextlib.suppress(OSError):  # no file can be opened any more, not even a module's
            from actors import pages

            return pages.empty(size, pages.BYTE).data
    if sys.platform != "linux":
        return mmap.mmap(-1, size)
    found = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    # In pages of 2 MiB: the first touch of small ones costs several times the copy.
    with contextlib.suppress(OSError):  # a system without them
        found.madvise(mmap.MADV_HUGEPAGE)
    return found


def copied(view: memoryview) -> bytes | memoryview:
    """Returns a copy of bytes, read-only."""
    if len(view) < LEAST_BYTES:
        return bytes(view)
    copy = room(len(view))
    copy[:] = view
    return memoryview(copy).toreadonly()
