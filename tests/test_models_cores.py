"""Ranks of one host keep to a core each, where nobody else has chosen."""

from __future__ import annotations

import os
import threading

import pytest

from actors.models.cores import keep_to_core

pytestmark = pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system lets no thread choose")


def kept(place: int, places: int, before: set[int] | None = None) -> tuple[bool, set[int], set[int]]:
    """What it says in a thread, the cores of that thread, and of one that this one starts."""
    found: list[tuple[bool, set[int], set[int]]] = []

    def run() -> None:
        if before is not None:
            os.sched_setaffinity(0, before)
        said = keep_to_core(place, places)
        inner: list[set[int]] = []
        thread = threading.Thread(target=lambda: inner.append(os.sched_getaffinity(0)))
        thread.start()
        thread.join()
        found.append((said, os.sched_getaffinity(0), inner[0]))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    return found[0]


@pytest.fixture
def cores() -> set[int]:
    """Those of this process, which are all that there are."""
    allowed = os.sched_getaffinity(0)
    if len(allowed) != os.cpu_count() or len(allowed) < 2:
        pytest.skip("this process may not use every core, or there is one")
    return allowed


def test_each_place_has_a_core_of_its_own(cores):
    first, second = kept(0, 1), kept(1, 2)
    assert first[0]
    assert len(first[1]) == 1
    assert first[2] == first[1]
    if second[0]:  # two real cores
        assert len(second[1]) == 1
        assert second[1] != first[1]
    assert os.sched_getaffinity(0) == cores


def test_what_somebody_chose_stays(cores):
    chosen = {max(cores)}
    assert kept(0, 1, chosen) == (False, chosen, chosen)


def test_more_places_than_cores_are_left_alone(cores):
    assert kept(0, len(cores) + 1) == (False, cores, cores)
