"""Refusals: how often this process has turned away what came from outside and was not as it should be."""

from __future__ import annotations

import logging
from collections import Counter

log = logging.getLogger(__name__)

_counts: Counter[str] = Counter()


def refused(what: str, why: object = "") -> None:
    """Counts what has been turned away; nothing else has come of it.

    Args:
        what: one of a few fixed phrases, so that nobody outside can fill the memory with others.
        why: for the log, which tells of the first of a kind only.
    """
    _counts[what] += 1
    if _counts[what] == 1:
        log.info("refused: %s (%s); the next ones are only counted", what, why)


def counts() -> dict[str, int]:
    """Returns how often each has been."""
    return dict(_counts)
