"""What one check has found."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Finding:
    """One check's result, for a person.

    Attributes:
        check: its name, the same in every release: programs may look for it.
        ok: whether all is well there.
        what: what was found.
        do: what to do about it; empty where there is nothing to do.
    """

    check: str
    ok: bool
    what: str
    do: str = ""
