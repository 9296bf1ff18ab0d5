"""The simulation of large clusters comes to an end in which all know all."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

from membership_simulation import bits, simulate
from mesh_simulation import meet


@pytest.mark.parametrize("multicast", [False, True])
@pytest.mark.parametrize("nodes", [2, 32, 100])
def test_all_know_all(nodes, multicast):
    outcome = simulate(nodes, multicast=multicast)
    assert 0 <= outcome.seconds < 2
    assert outcome == simulate(nodes, multicast=multicast)


def test_bits():
    assert bits(0b101001) == [0, 3, 5]


def test_the_model_costs_what_the_runtimes_own_code_costs() -> None:
    model, own = simulate(12), meet(12)
    assert own.links == 2 * 11
    assert own.seconds < 1
    assert model.kilobytes / 1.5 < own.kilobytes < model.kilobytes * 1.5
    assert model.messages < own.frames < model.messages * 2  # hellos and acknowledgements are frames too
    assert own.idle_frames < 11  # a node does not speak with every other each second
