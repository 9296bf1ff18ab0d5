"""`actors bench` and the model that it fits: the quicker way is the one that is said, and all sizes have one."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest
from devices import Device
from hypothesis import given
from hypothesis import strategies as st

from actors.bench.measuring import SIZES, fitted
from actors.collective.estimates import DOUBLING, MIXED, RING, SHARED, SHOWN, estimates
from actors.collective.explaining import explained
from actors.collective.terrain import Terrain, scattered
from actors.costs import Costs

if TYPE_CHECKING:
    from pathlib import Path

rates = st.floats(1e6, 1e11)
latencies = st.floats(1e-7, 1.0)
costs = st.builds(Costs, latencies, rates, latencies, rates, rates)


@given(ranks=st.integers(2, 64), nbytes=st.integers(70_000, 1 << 33), costs=costs)
def test_every_size_has_a_way_and_the_quickest_is_first(ranks: int, nbytes: int, costs: Costs) -> None:
    far = estimates(nbytes, scattered(ranks, costs, "far apart"))
    assert set(far) == {RING, DOUBLING}
    islands = tuple(tuple(range(start, min(start + 3, ranks))) for start in range(0, ranks, 3))
    mixed = estimates(nbytes, Terrain(islands, costs, "on hosts of three"))
    assert (MIXED in mixed) == (len(islands) > 1)
    for found in (far, mixed):
        assert list(found.values()) == sorted(found.values())
        assert all(seconds > 0 for seconds in found.values())


def test_small_arrays_double_and_large_ones_go_round() -> None:
    terrain = scattered(16, Costs(), "far apart")
    assert next(iter(estimates(100_000, terrain))) == DOUBLING
    assert next(iter(estimates(100 << 20, terrain))) == RING
    assert "recursive doubling:" in explained(100_000, terrain)
    assert "ring would take about" in explained(100_000, terrain)


def test_what_was_measured_is_what_the_model_says() -> None:
    large = SIZES[-1]
    near = {("barrier", 0): 20e-6, ("allreduce", large): 8e-3}
    far = {("barrier", 0): 300e-6, ("broadcast", large): 20e-3}
    found = fitted(near, far, 9e9)
    assert (found.near_latency, found.far_latency, found.reduce_rate) == (20e-6, 300e-6, 9e9)
    assert found.far_rate == pytest.approx(large / (20e-3 - 300e-6))
    window: object = object()
    shared = estimates(large, Terrain(((0, 1),), found, "here", window))  # type: ignore[arg-type]  # that there is one
    assert shared[SHARED] == pytest.approx(8e-3, rel=0.1)


@pytest.mark.skipif(os.uname().machine not in {"x86_64", "amd64"}, reason="elsewhere no array is shown")
def test_what_is_shown_before_the_ranks_agree_is_estimated_and_said() -> None:
    """Up to 2 MiB to read of the others: they meet once, so that it takes less than the way by blocks."""
    there: object = object()
    terrain = Terrain(((0, 1),), Costs(), "here", there, there)  # type: ignore[arg-type]  # that they are there
    without = Terrain(((0, 1),), Costs(), "here", there)  # type: ignore[arg-type]
    assert set(estimates(2 << 20, terrain)) == {SHOWN}
    assert set(estimates((2 << 20) + 4, terrain)) == {SHARED}
    assert estimates(1 << 20, terrain)[SHOWN] < estimates(1 << 20, without)[SHARED]
    assert "shared memory at one look: each rank shows its array" in explained(1 << 20, terrain)
    assert "in blocks of" in explained(64 << 20, terrain)


@pytest.mark.parametrize("wrong", [0, -1.0, float("inf"), float("nan"), "1"])
def test_costs_are_positive_numbers(wrong: object) -> None:
    with pytest.raises(ValueError, match="near_rate"):
        Costs(near_rate=wrong)  # type: ignore[arg-type]


@pytest.mark.slow
def test_the_command_measures_and_keeps_what_it_has_fitted(tmp_path: Path) -> None:
    device = Device(tmp_path / "home")
    done = device.run("bench", "--json")
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert {"call", "barrier", "allreduce", "broadcast"} <= {figure["what"] for figure in said["figures"]}
    assert all(figure["seconds"] > 0 for figure in said["figures"])
    kept = json.loads((tmp_path / "home" / "costs.json").read_text())
    assert Costs(**kept) == Costs(**said["costs"])
