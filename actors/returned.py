"""What a method has returned, where that stands for several values: they are taken out of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Generator, Iterable
from itertools import islice
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, AsyncIterator, Iterator

    from actors.failure import Place


def iterator(result: Any, place: Place) -> Iterator[Any]:
    """Returns the values of a method that was called as a stream."""
    if not isinstance(result, Iterable) and not hasattr(result, "__getitem__"):
        raise TypeError(f"{place} was called as a stream and returned a {type(result).__name__}, which is no iterable")
    return iter(result)


def several(result: Any, count: int, place: Place) -> tuple[Any, ...] | None:
    """Returns the values of a method that gives ``count`` of them, which is not 1."""
    if count == 0:
        return None
    values = _iterable(result, count, place)
    found = tuple(islice(values, count + 1))  # it may be one without end
    if isinstance(values, Generator):
        values.close()
    if len(found) == count:
        return found
    try:
        got = str(len(result))
    except TypeError:
        got = str(len(found)) if len(found) < count else f"at least {count + 1}"
    raise ValueError(f"{place}: expected {count} returned values, got {got}; num_returns= says how many there are")


def _iterable(result: Any, count: int, place: Place) -> Iterator[Any]:
    try:
        return iter(result)
    except TypeError:
        what = type(result).__name__
        raise TypeError(f"{place}: expected {count} returned values, got one {what}, which is no iterable") from None


async def first(values: AsyncIterable[Any], count: int) -> list[Any]:
    """Returns the first so many values, and ends what gives them."""
    found: list[Any] = []
    iterator = aiter(values)
    try:
        async for value in iterator:
            found.append(value)
            if len(found) == count:
                break
    finally:
        if isinstance(iterator, AsyncGenerator):
            await iterator.aclose()
    return found


async def on_the_loop(values: Iterator[Any]) -> AsyncIterator[Any]:
    """Runs a plain iterator of an actor with async methods, whose other methods have their turn between its values."""
    try:
        for value in values:
            yield value
            await asyncio.sleep(0)
    finally:
        if isinstance(values, Generator):
            values.close()
