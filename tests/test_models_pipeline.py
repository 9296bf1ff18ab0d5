"""A module of a user's own, cut into stages on three nodes, gives what it gives in one process."""

from __future__ import annotations

from itertools import pairwise

import pytest

mx = pytest.importorskip("mlx.core")

from mlx import nn  # noqa: E402

import actors  # noqa: E402
from actors.exceptions import ModelError, PlacementError, TaskError  # noqa: E402
from actors.models import Pipeline, Stage  # noqa: E402


def perceptron(sizes=(8, 32, 32, 16, 4)):
    mx.random.seed(3)
    layers = []
    for width, height in pairwise(sizes):
        layers += [nn.Linear(width, height), nn.relu]
    return nn.Sequential(*layers[:-1])


def inputs(count):
    return [mx.random.normal((2, 8), key=mx.random.key(number)) for number in range(count)]


def test_it_gives_what_the_whole_gives_in_order(cluster):
    whole = perceptron()
    expected = [whole(x) for x in inputs(9)]
    with Pipeline(whole) as pipeline:
        places = actors.get([stage.where.remote() for stage in pipeline.stages])
        assert len({place["node"] for place in places}) == 3
        assert [number for numbers in pipeline.ranges for number in numbers] == list(range(len(whole.layers)))
        assert mx.allclose(pipeline(inputs(1)[0]), expected[0])
        for got, wanted in zip(pipeline.map(inputs(9)), expected, strict=True):
            assert mx.allclose(got, wanted)


def test_a_stage_can_be_used_by_itself(cluster):
    first = actors.remote(Stage).remote([nn.ReLU()])
    second = actors.remote(Stage).remote([lambda x: x + 1], first)
    assert actors.get(second.forward.remote(mx.array([-1.0, 2.0]))).tolist() == [1.0, 3.0]


def test_what_makes_no_sense_says_why(cluster):
    with pytest.raises(ModelError, match="needs layers"):
        Pipeline([])
    with pytest.raises(ModelError, match="needs layers"):
        Pipeline([3])
    with pytest.raises(ValueError, match="2 costs for 1 layers"):
        Pipeline([nn.relu], costs=[1, 2])
    with pytest.raises(PlacementError, match="no node is called 'nowhere'"):
        Pipeline([nn.relu], nodes=["nowhere"])


def test_an_error_in_a_layer_is_told_and_harms_nothing(cluster):
    def picky(x):
        if x.shape[0] != 2:
            raise ValueError("two rows, please")
        return x

    with Pipeline([nn.relu, picky, nn.relu]) as pipeline:
        with pytest.raises(TaskError, match="two rows, please"):
            pipeline(mx.zeros((3,)))
        assert pipeline(mx.ones((2,))).tolist() == [1.0, 1.0]
    with pytest.raises(ModelError, match="this pipeline was closed"):
        pipeline(mx.ones((2,)))
