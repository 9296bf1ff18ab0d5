"""Elastic groups: training goes on from the last step after a lost device, and takes in one that comes."""

from __future__ import annotations

import os
import signal

import numpy as np
import pytest
from clusters import eventually

import actors
from actors.elastic import ElasticGroup, MemberLostError
from actors.exceptions import ActorsError

STEPS = 30


@actors.remote
class Trainer:
    """Fits a line, each rank by examples of its own."""

    def __init__(self) -> None:
        self.weights = np.zeros(3)
        self.done = 0

    def step(self) -> tuple[int, float]:
        rank, size = actors.collective.get_rank(), actors.collective.get_world_size()
        chance = np.random.default_rng(rank + 10 * size)
        inputs = chance.normal(size=(64, 3))
        error = inputs @ (self.weights - np.array([1.0, -2.0, 3.0]))
        gradient = actors.collective.allreduce(inputs.T @ error / len(error), "mean")
        self.weights = self.weights - 0.3 * gradient
        self.done += 1
        loss = actors.collective.allreduce(np.array([float(error @ error)]), "mean")
        return self.done, float(loss[0])

    def state(self) -> tuple[int, list[float]]:
        return self.done, self.weights.tolist()

    def __actor_save__(self) -> tuple[int, np.ndarray]:
        return self.done, self.weights

    def __actor_load__(self, state: tuple[int, np.ndarray]) -> None:
        self.done, self.weights = state[0], state[1].copy()


@actors.remote
class Stateless:
    """Has no hooks."""


def test_training_goes_on_from_the_last_step_after_a_lost_device() -> None:
    with actors.init(local_nodes=3), ElasticGroup(Trainer, fewest=2) as team:
        assert len(team) == 3
        losses: dict[int, float] = {}
        lost: list[str] = []
        while max(losses, default=0) < STEPS:
            if max(losses, default=0) == 10 and not lost:
                victim = next(node for node in actors.nodes() if node.id == team.nodes[1])
                os.kill(victim.pid, signal.SIGKILL)
            try:
                answers = team.run("step")
            except MemberLostError as error:
                lost.append(str(error))
                done = {state[0] for state in actors.get([member.state.remote() for member in team.members])}
                assert len(done) == 1  # of one state
                assert done <= {max(losses), max(losses) + 1}  # the step that was cut short may be done on one
                continue
            assert len(set(answers)) == 1  # all of one mind
            losses[answers[0][0]] = answers[0][1]
        assert len(lost) == 1
        assert "1 of 3 members were lost during step; 2 go on" in lost[0]
        assert len(team) == 2
        assert set(range(1, 11)) <= set(losses)
        assert max(losses) == STEPS
        assert losses[STEPS] < losses[10] / 10 < losses[1] / 10  # it went on, and did not begin again
        states = actors.get([member.state.remote() for member in team.members])
        assert states[0] == states[1]
        assert not team.adapt()
        lose = next(node for node in actors.nodes() if node.id == team.nodes[-1])
        os.kill(lose.pid, signal.SIGKILL)
        eventually(lambda: not next(node for node in actors.nodes() if node.id == lose.id).alive)
        with pytest.raises(ActorsError, match="which needs 2"):
            team.adapt()


def test_one_that_comes_has_the_state_of_the_others() -> None:
    with actors.init(local_nodes=2), ElasticGroup(Trainer) as team:
        for _ in range(3):
            team.run("step")
        actors.kill(team.members[0])
        with pytest.raises(MemberLostError):
            team.run("step")
        assert len(team) == 1
        team.run("step")
        assert team.adapt()  # its node is still there
        assert len(team) == 2
        states = actors.get([member.state.remote() for member in team.members])
        assert states[0] == states[1]
        assert len(set(team.run("step"))) == 1
        with pytest.raises(TypeError, match="__actor_save__"):
            ElasticGroup(Stateless)
