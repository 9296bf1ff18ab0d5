from __future__ import annotations

import math
from itertools import combinations, pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.exceptions import ModelError
from actors.models import Device, ModelInfo, make_plan, partition

numbers = st.floats(0.0, 100.0)
speeds = st.floats(0.1, 10.0)


@st.composite
def problems(draw, most_layers=8, most_stages=5, memory=False):
    layers = draw(st.integers(1, most_layers))
    stages = draw(st.integers(1, min(layers, most_stages)))
    fields = {
        "costs": draw(st.lists(numbers, min_size=layers, max_size=layers)),
        "speeds": draw(st.lists(speeds, min_size=stages, max_size=stages)),
        "first_cost": draw(numbers),
        "last_cost": draw(numbers),
    }
    if memory:
        fields |= {
            "nbytes": draw(st.lists(st.integers(0, 50), min_size=layers, max_size=layers)),
            "first_nbytes": draw(st.integers(0, 50)),
            "last_nbytes": draw(st.integers(0, 50)),
            "capacities": draw(st.lists(st.integers(0, 200), min_size=stages, max_size=stages)),
        }
    return fields


def every_cut(layers, stages):
    for inner in combinations(range(1, layers), stages - 1):
        cuts = (0, *inner, layers)
        yield tuple(range(a, b) for a, b in pairwise(cuts))


def load_of(cut, values, first, last):
    sums = [sum(values[layer] for layer in layers) for layers in cut]
    sums[0] += first
    sums[-1] += last
    return sums


def slowest(cut, problem):
    work = load_of(cut, problem["costs"], problem["first_cost"], problem["last_cost"])
    return max(load / speed for load, speed in zip(work, problem["speeds"], strict=True))


def fits(cut, problem):
    if "nbytes" not in problem:
        return True
    loads = load_of(cut, problem["nbytes"], problem["first_nbytes"], problem["last_nbytes"])
    return all(load <= room for load, room in zip(loads, problem["capacities"], strict=True))


@given(problems(most_layers=40, most_stages=12))
@settings(deadline=None, max_examples=60)
def test_every_layer_is_given_out_exactly_once_and_no_stage_is_empty(problem):
    cut = partition(**problem)
    assert [layer for layers in cut for layer in layers] == list(range(len(problem["costs"])))
    assert len(cut) == len(problem["speeds"])
    assert all(len(layers) > 0 for layers in cut)


@given(problems())
@settings(deadline=None, max_examples=200)
def test_no_cut_has_a_faster_slowest_stage(problem):
    best = min(slowest(cut, problem) for cut in every_cut(len(problem["costs"]), len(problem["speeds"])))
    assert slowest(partition(**problem), problem) <= best * (1 + 1e-6)


@given(problems(memory=True))
@settings(deadline=None, max_examples=200)
def test_memory_is_never_exceeded_and_refused_only_where_nothing_fits(problem):
    possible = [cut for cut in every_cut(len(problem["costs"]), len(problem["speeds"])) if fits(cut, problem)]
    try:
        cut = partition(**problem)
    except ModelError:
        assert not possible
        return
    assert fits(cut, problem)
    assert slowest(cut, problem) <= min(slowest(each, problem) for each in possible) * (1 + 1e-6)


@pytest.mark.parametrize("stages", range(1, 31))
def test_equal_layers_are_spread_evenly(stages):
    sizes = [len(layers) for layers in partition([1.0] * 30, [1.0] * stages)]
    assert sum(sizes) == 30
    assert max(sizes) - min(sizes) <= 1


def test_the_head_counts_as_the_layers_it_costs():
    assert [len(layers) for layers in partition([1.0] * 30, [1.0] * 3, last_cost=7.0)] == [12, 12, 6]


def test_the_faster_stage_gets_more():
    assert [len(layers) for layers in partition([1.0] * 30, [2.0, 1.0])] == [20, 10]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (([1.0] * 2, [1.0] * 3), "3 stages for 2 layers"),
        (([], [1.0]), "0 layers"),
        (([1.0], []), "0 stages"),
        (([1.0, 1.0], [1.0, 0.0]), "speeds must be above 0"),
        (([1.0, math.nan], [1.0]), "costs and bytes"),
    ],
)
def test_nonsense_is_refused_in_words(arguments, said):
    with pytest.raises(ValueError, match=said):
        partition(*arguments)


def a_model(layers=30, memory=100 * 2**20):
    return ModelInfo(
        path="m.gguf",
        architecture="llama",
        layers=layers,
        hidden_size=576,
        vocab_size=49152,
        layer_nbytes=(memory,) * layers,
        layer_parameters=(3_540_096,) * layers,
        embedding_nbytes=2 * memory,
        head_nbytes=0,
        tied=True,
        quantised=True,
    )


def test_a_plan_reads_as_a_table():
    plan = make_plan(a_model(), [Device("anna"), Device("bob"), Device("carla")])
    assert [(each.node, each.first, each.last) for each in plan.stages] == [
        ("anna", 0, 11),
        ("bob", 12, 24),
        ("carla", 25, 29),
    ]
    text = str(plan)
    assert "30 layers of m.gguf in 3 stages" in text
    assert "stage 1  bob    layers  12 to  24" in text
    assert "5 layers + the head" in text


def test_a_plan_keeps_to_the_memory_there_is():
    tight = [Device("anna", memory=1000 * 2**20), Device("bob", memory=4000 * 2**20)]
    plan = make_plan(a_model(), tight)
    assert all(each.nbytes <= device.memory for each, device in zip(plan.stages, tight, strict=True))


def test_a_model_that_fits_nowhere_says_how_much_is_missing():
    with pytest.raises(ModelError, match=r"2,400 MiB are missing"):
        make_plan(a_model(), [Device("anna", memory=500 * 2**20), Device("bob", memory=500 * 2**20)])


def test_more_devices_than_layers_is_refused_with_both_numbers():
    with pytest.raises(ModelError, match="3 stages for 2 layers"):
        make_plan(a_model(layers=2), [Device(name) for name in "abc"])


def test_a_device_that_slowed_down_is_given_less():
    from actors.models.levelling import level

    plan = make_plan(a_model(), [Device("fast"), Device("slow")])
    even = [stage.work / 1e6 for stage in plan.stages]
    assert level(plan, even) is None
    better = level(plan, [even[0], 3 * even[1]])
    assert better is not None
    assert better.stages[1].work < plan.stages[1].work / 1.5
    assert better.tokens_per_s is not None
    assert level(plan, [1e-5, 3e-3]) is None  # no arithmetic to speak of
