"""Ids of traces and spans, drawn from the system many at a time: to draw one takes longer than all else about a span.

They are as random as those of OpenTelemetry's SDK, which looks for the 0 that comes once in 2**64 times. Those of a
trace that begins with a call are not drawn at all: both ends make them of what they know of the call, when they like.
"""

from __future__ import annotations

import os

AT_ONCE = 64
ROOT_FLAGS = "-03"
"""Of such a trace: it is in the sample, and its id is random."""

_traces: list[str] = []  # that nobody has yet
_spans: list[str] = []


def of_call(roots: str, number: int) -> tuple[str, str]:
    """Returns the ``traceparent`` s of a call that begins a trace: of its part at its caller, and of that at its actor.

    Args:
        roots: the caller's process and the session, both of which are random.
        number: the call's in that.
    """
    from hashlib import blake2b  # which a process that has no traces need not load

    drawn = blake2b(f"{roots} {number}".encode(), digest_size=32).hexdigest()
    trace = f"00-{drawn[:32]}"
    return f"{trace}-{drawn[32:48]}{ROOT_FLAGS}", f"{trace}-{drawn[48:]}{ROOT_FLAGS}"


def new_trace() -> str:
    """Returns a ``traceparent`` without its flags, of a trace and its first span."""
    try:
        return _traces.pop()
    except IndexError:
        drawn = os.urandom(24 * AT_ONCE).hex()
        _traces.extend([f"00-{drawn[at : at + 32]}-{drawn[at + 32 : at + 48]}" for at in range(48, len(drawn), 48)])
        return f"00-{drawn[:32]}-{drawn[32:48]}"


def new_span() -> str:
    """Returns the id of a span."""
    try:
        return _spans.pop()
    except IndexError:
        drawn = os.urandom(8 * AT_ONCE).hex()
        _spans.extend([drawn[at : at + 16] for at in range(16, len(drawn), 16)])
        return drawn[:16]


def _forked() -> None:
    _traces.clear()
    _spans.clear()


os.register_at_fork(after_in_child=_forked)  # else both would draw the same
