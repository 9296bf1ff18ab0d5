"""Stages in a line hand each other what they have, in order, and say what goes wrong; without a model's arithmetic."""

from __future__ import annotations

import asyncio
import os

import pytest

pytest.importorskip("mlx.core")
pytest.importorskip("mlx_lm")

from clusters import SOON, slow

import actors
from actors.exceptions import ActorDiedError, TaskError
from actors.models.stage import Apart, Row, Step
from actors.models.stageactor import StageActor, connect
from actors.models.turns import Turns

WIDTH = 16
BAD, DEADLY = 100, 900  # tokens: the stage of that many more raises, or ends its process
LARGE, SEVERAL = 7, 8  # tokens: what goes on is large, or more than an array


class Adding:
    """Stands where a stage's layers are: adds one to what comes in."""

    def __init__(self, number: int) -> None:
        self._number = number

    def run(self, step: Step, hidden: object, finish: object) -> object:
        import mlx.core as mx

        if not step.rows:
            return None
        token = step.rows[0].ids[0]
        if token == BAD + self._number:
            raise ValueError(f"token {token} is not liked by stage {self._number}")
        if token == DEADLY + self._number:
            os._exit(3)
        if isinstance(hidden, Apart):
            out: object = Apart(tuple(row + 1 for row in hidden.rows))
        elif hidden is not None:
            out = hidden + 1
        elif token == SEVERAL:
            out = Apart((mx.zeros((1, 1, WIDTH)), mx.zeros((1, 1, WIDTH))))
        else:
            out = mx.zeros((1, 2000 if token == LARGE else 1, WIDTH))
        return finish(out)


@actors.remote
class Stage(StageActor):
    def __init__(self, number: int) -> None:
        self._turns = Turns()
        self._line, self._others = None, []
        self._model = Adding(number)

    async def pass_(self, tokens: list[int]) -> list[object]:
        """What comes of each step, all of them begun at once."""
        steps = [self.begin(Step((Row(f"key {token}", (token,)),)), _shown) for token in tokens]
        return list(await asyncio.gather(*steps, return_exceptions=True))

    async def arrange(self) -> object:
        return await self.begin(Step(forget=("a",)), None)


def _shown(out: object) -> tuple[int, float]:
    """How many arrays there are, and the sum of their first numbers."""
    rows = out.rows if isinstance(out, Apart) else (out,)
    return len(rows), sum(float(row[0, -1, -1]) for row in rows)


def line(number=3):
    stages = [
        Stage.options(node=node.name).remote(each)
        for each, node in enumerate(sorted(actors.nodes(), key=lambda node: node.name)[:number])
    ]
    connect(stages)
    return stages


def passed(stages, *tokens):
    return actors.get(stages[-1].pass_.remote(list(tokens)), timeout=SOON * 4)


@pytest.fixture(scope="module")
def three(cluster):
    stages = line()
    yield stages
    for stage in stages:
        actors.kill(stage)


def test_steps_pass_in_order_whatever_they_carry(three):
    assert passed(three, *range(5)) == 5 * [(1, 2.0)]
    tokens = [0, LARGE, 1, SEVERAL, 2, LARGE, LARGE, 3, SEVERAL, 4]
    assert passed(three, *tokens) == [(2, 4.0) if token == SEVERAL else (1, 2.0) for token in tokens]
    assert actors.get(three[-1].arrange.remote(), timeout=SOON) is None


@pytest.mark.parametrize("stage", [0, 1, 2])
def test_what_goes_wrong_in_one_is_told_and_others_pass(three, stage):
    found = passed(three, 0, BAD + stage, 1, LARGE, BAD + stage)
    assert [found[0], *found[2:4]] == 3 * [(1, 2.0)]
    for error in (found[1], found[4]):
        assert isinstance(error, ValueError)
        assert f"not liked by stage {stage}" in str(error)
        assert isinstance(error, TaskError) == (stage < 2)


def test_a_line_can_be_made_anew_of_the_same_stages(three):
    for _ in range(2):
        connect(three)
        assert passed(three, 0, 1) == 2 * [(1, 2.0)]
    connect(three[1:])
    assert passed(three, 0, 1) == 2 * [(1, 1.0)]
    connect(three)
    assert passed(three, 0) == [(1, 2.0)]


@pytest.mark.parametrize("stage", [0, *slow(1)])
def test_one_that_dies_ends_what_is_under_way(cluster, stage):
    stages = line()
    assert passed(stages, 0) == [(1, 2.0)]
    found = passed(stages, 1, DEADLY + stage, 2)
    assert isinstance(found[1], ActorDiedError)
    assert isinstance(passed(stages, 3)[0], ActorDiedError)
    for other in stages:
        if other is not stages[stage]:
            actors.kill(other)
