"""What differs on the engine of Ray: tests of the black-box suite that do not hold there, and why.

The page `docs/ray-engine.md` says the same in words.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterable


@dataclass(frozen=True)
class Difference:
    """Why a test does not hold on Ray, and whether it can be run there without harm to those after it."""

    why: str
    run: bool = True


_SILENT_REF = "a reference of Ray's does not know of which call it is, nor whether its value is there"
_AHEAD = "Ray's producers do not wait for their readers"
_GOES_ON = "the producer of a stream that is dropped goes on; close() ends it"

DIFFERS: dict[str, dict[str, str]] = {
    "actors_basic": {
        "test_get_gives_up_in_time_and_the_call_goes_on": _SILENT_REF,
        "test_a_reference_says_what_it_is": _SILENT_REF,
        "test_a_producer_waits_for_its_reader": _AHEAD,
        "test_closing_or_dropping_a_stream_stops_the_producer[drop": _GOES_ON,
    },
    "actors_methods": {},
    "actors_errors": {},
    "actors_faults": {},
    "groups": {},
    "references": {},
    "tasks": {},
    "map": {},
    "ray_ways": {},
    "ray_names": {},
    "restarts": {},
    "cycles": {},
    "deadlines": {},
    "util_queue": {},
    "util_pool": {},
    "util_misc": {},
    "util_completion": {},
    "collective_groups": {},
    "bounds": {},
    "runtime_env": {},
    "travelling_code": {},
    "supervision": {},
}
"""By module: tests, by the beginning of their names, and the reason."""


def mark(items: Iterable[pytest.Item]) -> None:
    """Marks what differs: it must fail, so that what is no difference any more does not stay in the list.

    What does not meet the cluster is skipped: it is the same with any engine.
    """
    for item in items:
        module = item.path.stem.removeprefix("test_")
        if module in DIFFERS and "cluster" not in item.fixturenames:
            item.add_marker(pytest.mark.skip(reason="meets no cluster"))
        elif (found := why(module, item.name)) is not None:
            item.add_marker(pytest.mark.xfail(reason=f"differs on Ray: {found.why}", strict=True, run=found.run))


def why(module: str, test: str) -> Difference | None:
    """Returns why a test does not hold on Ray; None where it does."""
    for beginning, reason in DIFFERS.get(module, {}).items():
        if test.startswith(beginning):
            return reason if isinstance(reason, Difference) else Difference(reason)
    return None
