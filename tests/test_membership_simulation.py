"""The simulation of large clusters comes to an end in which all know all."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

from membership_simulation import bits, simulate


@pytest.mark.parametrize("multicast", [False, True])
@pytest.mark.parametrize("nodes", [2, 32, 100])
def test_all_know_all(nodes, multicast):
    outcome = simulate(nodes, multicast=multicast)
    assert 0 <= outcome.seconds < 2
    assert outcome == simulate(nodes, multicast=multicast)


def test_bits():
    assert bits(0b101001) == [0, 3, 5]
