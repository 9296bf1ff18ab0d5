"""Progress bars that actors may use, and that are shown in one place: by the driver."""

from __future__ import annotations

import secrets
import threading
import time
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar

from actors.progress import Progress, tell

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from types import TracebackType

T = TypeVar("T")

TELL_SECONDS = 0.2  # between two words about one bar


class tqdm(Generic[T]):  # noqa: N801 - the name that everybody knows
    """A progress bar in the manner of tqdm; works alike in an actor and in the driver.

    Args:
        iterable: what to go through; the bar counts, and closes at its end. None: `update` counts.
        desc: what the work is.
        total: how much there is; None asks ``len(iterable)``.
        position: taken for programs written for Ray; each bar has a line of its own here.

    Attributes:
        n: how much is done.
        total: how much there is, if that is known.
    """

    def __init__(
        self,
        iterable: Iterable[T] | None = None,
        desc: str | None = None,
        total: float | None = None,
        position: int | None = None,  # noqa: ARG002 - rows are chosen by the driver
    ) -> None:
        if total is None and iterable is not None:
            try:
                total = len(iterable)  # type: ignore[arg-type]
            except TypeError:
                total = None
        self.n: float = 0
        self.total = total
        self._iterable = iterable
        self._desc = desc or ""
        self._id = secrets.token_hex(8)
        self._told = float("-inf")
        self._closed = False
        self._lock = threading.Lock()

    def update(self, n: float = 1) -> None:
        """Counts ``n`` more."""
        with self._lock:
            self.n += n
            self._tell()

    def set_description(self, desc: str | None = None, refresh: bool = True) -> None:
        """Says anew what the work is; shown at once, or with the next count."""
        with self._lock:
            self._desc = desc or ""
            self._tell(now=refresh)

    def refresh(self) -> None:
        """Shows how far it is, at once."""
        with self._lock:
            self._tell(now=True)

    def close(self) -> None:
        """Ends the bar; may be called again."""
        with self._lock:
            if not self._closed:
                self._closed = True
                self._tell(now=True)

    def _tell(self, now: bool = False) -> None:
        clock = time.monotonic()
        if now or clock - self._told >= TELL_SECONDS:
            self._told = clock
            tell(Progress(self._id, self._desc, self.n, self.total, self._closed))

    def __iter__(self) -> Iterator[T]:
        if self._iterable is None:
            raise ValueError("this bar was given nothing to go through: tqdm(iterable)")
        try:
            for value in self._iterable:
                yield value
                self.update(1)
        finally:
            self.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        raise TypeError("a progress bar stays in the process that made it: make it where the work is done")
