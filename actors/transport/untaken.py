"""Payloads that came and could not be taken in: who opens one is told why, and everything else goes on."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING

from actors.exceptions import ObjectLostError
from actors.messages import VALUE, Calls, Payload, Replies, Reply
from actors.serialize import raising

if TYPE_CHECKING:
    from actors.messages import Carrying


def untaken(message: Carrying, nbytes: int, error: MemoryError | OSError) -> Carrying:
    """Returns a message in the place of one whose payload this process has no room for.

    Args:
        message: whose payload, or whatever stands for it, is dropped.
        nbytes: how large that would have been.
        error: what went wrong: no memory, no room for one more file, no descriptor.
    """
    what = f"the {nbytes:,} bytes of a value that was sent to it"
    told = raising(
        MemoryError(f"process {os.getpid()} had no room for {what}: free some memory there, or send it in parts")
        if isinstance(error, MemoryError)
        else ObjectLostError(f"process {os.getpid()} could not take in {what}: {error}")
    )
    holds = message.payload.holds
    if isinstance(message, Calls | Replies):  # of which each has a pickle of its own
        return replace(message, payload=Payload(b"", (told,) * len(message.numbers), holds))
    if isinstance(message, Reply):  # it raises as it is opened, whatever it was
        return replace(message, outcome=VALUE, payload=Payload(told, (), holds))
    return replace(message, payload=Payload(told, (), holds))
