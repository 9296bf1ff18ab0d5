"""References on Ray: each stands for one of Ray's own."""

from __future__ import annotations

from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

import ray
from ray import exceptions as rays

from actors.refs import ObjectRef
from actors.shortage import NoThreadError
from actors.stream import ObjectRefGenerator
from actors.threads import Threads

from .cancelling import cancel, forget_stream
from .errors import translated, translating

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator


_borrowed = Threads("ray-done")


class RayRef(ObjectRef[Any]):
    """A value of Ray's object store, or one on its way there.

    Args:
        raw: Ray's own reference.
        what: was called, for messages.
    """

    __slots__ = ("raw", "what")

    def __init__(self, raw: Any, what: str) -> None:
        self.raw, self.what = raw, what

    def result(self, timeout: float | None = None) -> Any:
        """See `ObjectRef`."""
        with translating(self.what):
            return ray.get(self.raw, timeout=timeout)

    @property
    def pending(self) -> Future[Any]:
        """See `ObjectRef`; on Ray a future of the value itself."""
        return self.future()

    def future(self) -> Future[Any]:
        """See `ObjectRef`."""
        future: Future[Any] = Future()
        future.set_running_or_notify_cancel()

        def settle(done: Future[Any]) -> None:
            error = done.exception()
            if error is not None:
                future.set_exception(translated(error, self.what))
            else:
                future.set_result(done.result())

        def aside(done: Future[Any]) -> None:
            # Not on the thread that calls this, which is Ray's own: what a callback asks of Ray would wait for it.
            try:
                _borrowed.start(settle, done)
            except NoThreadError:  # somebody may wait for it all the same
                settle(done)

        self.raw.future().add_done_callback(aside)
        return future

    def hex(self) -> str:
        """See `ObjectRef`."""
        word: str = self.raw.hex()
        return word

    def cancel(self, *, force: bool = False, recursive: bool = True) -> None:
        """See `ObjectRef`."""
        cancel(self.raw, force=force, recursive=recursive)

    def __await__(self) -> Generator[Any, None, Any]:
        return self._value_of().__await__()

    async def _value_of(self) -> Any:
        with translating(self.what):
            return await self.raw

    def __repr__(self) -> str:
        return f"<ObjectRef {self.what} on Ray>"

    def __hash__(self) -> int:
        return hash(self.raw)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RayRef) and bool(other.raw == self.raw)

    def __reduce__(self) -> tuple[Any, ...]:
        return (RayRef, (self.raw, self.what))


class RayStream(ObjectRefGenerator[Any]):
    """What a generator method gives: Ray's own stream of references."""

    def __init__(self, raw: Any, what: str) -> None:
        self.raw, self.what = raw, what
        self._over = False

    def __iter__(self) -> Iterator[RayRef]:
        return self

    def __next__(self) -> RayRef:
        try:
            return RayRef(next(self.raw), self.what)
        except StopIteration:
            self._over = True
            raise

    async def __anext__(self) -> RayRef:
        try:
            return RayRef(await self.raw.__anext__(), self.what)
        except StopAsyncIteration:
            self._over = True
            raise

    def close(self, *, force: bool = False, recursive: bool = True) -> None:
        """See `ObjectRefGenerator`."""
        self._over = True
        cancel(self.raw._generator_ref, force=force, recursive=recursive)  # noqa: SLF001 - as `ray.cancel` does

    def __del__(self) -> None:
        """The producer stops."""
        if not getattr(self, "_over", True):
            forget_stream(self.raw._generator_ref)  # noqa: SLF001

    def __hash__(self) -> int:
        return hash(self.raw)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RayStream) and other.raw is self.raw

    def __repr__(self) -> str:
        return f"<ObjectRefGenerator of {self.what} on Ray>"


RayStream.__name__ = ObjectRefGenerator.__name__  # in messages; it refuses to be pickled


def wrapped(given: Any, returns: object, what: str) -> Any:
    """Returns our own in place of what a call on Ray has given."""
    if returns in {"streaming", "dynamic"}:
        return RayStream(given, what)
    if isinstance(given, list):
        return [RayRef(raw, what) for raw in given]
    return None if given is None else RayRef(given, what)


def unwrapped(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[list[Any], dict[str, Any]]:
    """Returns arguments with Ray's own reference for each that is one; those inside others travel as they are."""
    plain = [value.raw if isinstance(value, RayRef) else value for value in args]
    return plain, {name: value.raw if isinstance(value, RayRef) else value for name, value in kwargs.items()}


def get_all(refs: Any, timeout: float | None) -> Any:
    """Returns the value of a reference, or the values of a list of them."""
    __tracebackhide__ = True
    if isinstance(refs, RayRef):
        return refs.result(timeout)
    with translating():
        return ray.get([ref.raw for ref in refs], timeout=timeout)


def is_timeout(error: BaseException) -> bool:
    """Whether Ray says that a value did not come in time."""
    return isinstance(error, rays.GetTimeoutError)
