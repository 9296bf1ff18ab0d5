"""Tuning: what a worker's C library is told when the worker starts."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

TUNABLES = "GLIBC_TUNABLES"
_PAGES = "glibc.malloc.hugetlb"


def tuned(environ: Mapping[str, str]) -> dict[str, str]:
    """Returns the variables that have glibc ask for pages of 2 MiB for whatever is larger than one.

    The system clears a page when it is first written to, and for small ones that takes several times as long as to
    write: of what an MLX array of 64 MiB takes to be made on a CPU, four fifths. numpy asks for them by itself. Other C
    libraries do not look at this, and a choice that is there already stays.
    """
    given = environ.get(TUNABLES, "")
    if _PAGES in given:
        return {}
    return {TUNABLES: ":".join(filter(None, (given, f"{_PAGES}=1")))}
