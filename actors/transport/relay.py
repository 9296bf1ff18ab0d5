"""The relay: passes the frames of a link that came through the door on to a process of this host, and back."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from actors.refusals import refused
from actors.transport.codec import MalformedMessageError
from actors.transport.link import as_quick
from actors.transport.together import Together

if TYPE_CHECKING:
    from collections.abc import Callable

    from actors.transport.landing import Landing
    from actors.transport.link import RawLink

    Sink = RawLink | Together


async def relay(outer: RawLink, inner: RawLink, age: Callable[[], int], landing: Landing | None) -> None:
    """Passes frames on both ways until either link ends.

    Args:
        outer: to another host.
        inner: to the process here.
        age: see `actors.transport.standstill`; what comes from before one is not passed on.
        landing: takes the bytes of chunks out of the frames; None passes all on unread.
    """
    inward = landing.land if landing is not None else _as_it_is
    outward = landing.lift if landing is not None else _as_it_is
    quick, begun = as_quick(inner), age()
    together = None
    if landing is not None and quick is not None:
        together = Together(quick, lambda: landing.unfinished, lambda: age() == begun)
    ways = {
        asyncio.create_task(_pump(outer, together or inner, inward, age)),
        asyncio.create_task(_pump(inner, outer, outward)),
    }
    try:
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for way in ways:
            way.cancel()
        await asyncio.gather(*ways, return_exceptions=True)
        if together is not None:
            together.drop()
        if landing is not None:
            landing.close()


def _as_it_is(data: bytes) -> bytes:
    return data


async def _pump(
    source: RawLink, sink: Sink, turn: Callable[[bytes], bytes], age: Callable[[], int] = lambda: 0
) -> None:
    begun = age()
    try:
        while (data := await source.read_bytes()) is not None and age() == begun:
            await sink.write_bytes(turn(data))
    except MalformedMessageError as error:
        refused("a chunk at the door that is none", error)
