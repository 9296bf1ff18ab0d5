"""Untimely ends: what a call is told that nobody waits for any more."""

from __future__ import annotations

from typing import TYPE_CHECKING

from actors.exceptions import GetTimeoutError, TaskCancelledError, Verdict

if TYPE_CHECKING:
    from actors.failure import Place
    from actors.job import Job


def too_late(job: Job, place: Place, *, started: bool) -> GetTimeoutError:
    """Returns the error of a call whose deadline has passed."""
    ran = "it was stopped" if started else "it had not started, and will not"
    return GetTimeoutError(f"{place} was to be answered within {job.call.terms.remaining:.6g} s: {ran}")


def cancelled(job: Job, place: Place, *, started: bool) -> TaskCancelledError:
    """Returns the error of a call that its caller no longer wants."""
    return TaskCancelledError(
        f"{place} was cancelled {'while it ran' if started else 'before it started'}",
        node=place.node,
        actor=place.actor,
        method=job.method,
        verdict=Verdict.MAY_HAVE_RUN if started else Verdict.NEVER_STARTED,
    )
