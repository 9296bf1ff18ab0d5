"""Every fault at random, for a while: no call is lost, none runs twice. `make soak` has the form of an hour."""

from __future__ import annotations

import random

import pytest
from soak import soak

TWO_MINUTES = pytest.param(120, marks=[pytest.mark.slow, pytest.mark.timeout(900)])


@pytest.mark.parametrize("seconds", [5, TWO_MINUTES])
def test_faults_at_random_lose_nothing_and_repeat_nothing(seconds: int) -> None:
    seed = random.randrange(1_000_000)
    ledger = soak(seconds, seed)
    print(f"seed {seed}, {seconds} s\n{ledger}")
    assert ledger.clean, (seed, str(ledger))
    assert ledger.counts["replied"] > 100
