"""Who is to blame when a rank waits in vain: the one at the end of the chain of waiting."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from .channel import Channel, SilentRankError

if TYPE_CHECKING:
    from collections.abc import Sequence


def suspects(channel: Channel, silence: SilentRankError, until: float) -> Sequence[int]:
    """Returns the ranks one of which keeps all others waiting; one alone, wherever that can be known.

    A rank that waited in vain tells all others whom it waited for. Their deadlines are about the same, so the
    reports of all that still live come together, and who is waited for and does not report is the culprit. Others may
    be in the call before this one: the culprit has answered this rank there, and not them.

    Args:
        channel: the call that failed.
        silence: whom this rank waited for.
        until: when to stop listening for reports, on the clock of ``time.monotonic``.

    Raises:
        CollectiveError: a rank has died, or another rank has found the culprit and aborted the group.
    """
    others = [rank for rank in range(channel.size) if rank != channel.rank]
    for other in others:
        channel.send(other, "waits", silence.rank)
    listening = Channel(channel.fabric, channel.call, until)
    waits = {channel.rank: silence.rank}
    # Along the chain first: it is as long as it must be, and a rank off it may never report.
    rank = silence.rank
    while rank not in waits:
        said = _report(listening, rank)
        if said is None:
            if rank not in silence.unheard:
                return [rank]
            # It may itself wait for another unheard one, with more time left; who has reported is no suspect.
            return [other for other in silence.unheard if other not in waits and _report(listening, other) is None]
        waits[rank] = rank = said
    return [silence.rank]


def _report(listening: Channel, rank: int) -> int | None:
    """Returns whom a rank has waited for in vain; None if it has not said so by the time to stop listening."""
    before = Channel(listening.fabric, listening.call - 1, listening.deadline)
    for channel in (listening, before):
        with suppress(SilentRankError):
            said: int = channel.recv(rank, "waits")
            return said
    return None
