"""Overdue answers: what is said, once, of a call whose answer a program has waited for for long: where it stands."""

from __future__ import annotations

import asyncio
import logging
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from actors import face, runtime
from actors.exceptions import ActorsError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from actors.address import Address
    from actors.keeper import Value
    from actors.process import Process

log = logging.getLogger(__name__)

SECONDS = "ACTORS_SLOW_SECONDS"
"""Environment variable: after how long something is said; ``0`` for never."""

USUAL_SECONDS = 30.0
ASK_SECONDS = 3.0
MOST_SAID = 1_000  # methods that are remembered

_said: set[str] = set()


def patience() -> float:
    """Returns the seconds after which something is said, 0 for never; what is no number is as if it were not there."""
    try:
        return max(0.0, float(os.environ.get(SECONDS, USUAL_SECONDS)))
    except ValueError:
        return USUAL_SECONDS


@contextmanager
def watched(process: Process, values: Sequence[tuple[Value, Address]]) -> Iterator[None]:
    """Held by a program while it waits for values without end; those of an actor's own calls are its own affair."""
    seconds = patience()
    if not seconds or runtime.myself() is not None:
        yield
        return
    notice = process.portal.start(_notice(process, values, seconds, face.current.origin()))
    try:
        yield
    finally:
        notice.cancel()


async def _notice(process: Process, values: Sequence[tuple[Value, Address]], seconds: float, origin: str) -> None:
    await asyncio.sleep(seconds)
    late = next((each for each in values if not each[0].future.done()), None)
    if late is None:
        return
    what, where = await _told(process, *late)
    if what in _said or late[0].future.done():
        return  # once a method: a program that makes the same call again knows how long it takes
    if len(_said) < MOST_SAID:
        _said.add(what)
    text = f"{what} has not answered for {seconds:g} s: {where}"
    if log.hasHandlers():
        log.warning("%s", text)
    else:
        face.current.write(origin, "stderr", f"actors: {text}\n")


async def _told(process: Process, value: Value, owner: Address) -> tuple[str, str]:
    """Returns which call will give a value, and where that stands, as far as can be told."""
    call = value.call
    if call is None:
        return f"the call that gives {value.id}", f"process {owner.process} on node {owner.node_name} made it"
    what = f"{call.line.label}.{call.method}"
    needs = [need for need in getattr(call, "needs", ()) if not need.done()]
    if needs:
        return what, f"it waits for {len(needs)} of its arguments, which are values of calls that go on"
    number, peer = call.number, call.peer
    if number is None or peer is None:
        return what, await _placing(process, call.line.label)
    try:
        where = await process.ask(peer.address, "inspection", "standing", number, timeout=ASK_SECONDS)
    except (ActorsError, TimeoutError):
        where = await _silence(process, peer.address)
    return what, where or "its answer is on the way"


async def _placing(process: Process, label: str) -> str:
    """Returns why a call has not been sent: its actor has no place, or is being made."""
    try:
        waiting: list[dict[str, Any]] = await process.ask_home("pending", timeout=ASK_SECONDS)
    except (ActorsError, TimeoutError):
        return "it has not been sent, and the node of this program does not answer"
    for one in waiting:
        if one["label"] == label:
            return f"its actor waits for room: it needs {one['demand']}, but {one['why']}"
    return "it has not been sent: its actor is being made, made anew, or full; `actors list actors` says which"


async def _silence(process: Process, address: Address) -> str:
    """Returns what is to be said of an actor's process that does not answer."""
    try:
        node = await process.node_address(address.node)
        if node is not None:
            await process.ask(node, "events", "now", timeout=ASK_SECONDS)
            return f"its process on node {address.node_name} is in one step of C code, or stopped: see `actors stack`"
    except (ActorsError, TimeoutError):
        pass
    return f"node {address.node_name} is silent; `actors status` and `actors doctor` say more"
