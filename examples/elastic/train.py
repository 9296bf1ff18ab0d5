"""Training on every device of a LAN, one of which is lost at step 10: it goes on from there, on the others."""

from __future__ import annotations

import os
import signal
import time

import numpy as np

import actors
from actors.elastic import ElasticGroup, MemberLostError

STEPS = 24
TRUE = np.array([1.0, -2.0, 3.0, 0.5])


@actors.remote
class Trainer:
    """Fits a linear model by gradients that all ranks average."""

    def __init__(self) -> None:
        self.weights = np.zeros(4)
        self.done = 0

    def step(self) -> tuple[int, float]:
        """Makes one step; returns how many were made, and the loss."""
        inputs = np.random.default_rng().normal(size=(256, 4))
        error = inputs @ (self.weights - TRUE)
        sums = np.concatenate([inputs.T @ error / len(error), [float(error @ error) / len(error)]])
        *gradient, loss = actors.collective.allreduce(sums, "mean")
        self.weights = self.weights - 0.15 * np.array(gradient)
        self.done += 1
        return self.done, float(loss)

    def __actor_save__(self) -> tuple[int, np.ndarray]:
        """Returns what one that comes later needs."""
        return self.done, self.weights

    def __actor_load__(self, state: tuple[int, np.ndarray]) -> None:
        """Takes it up."""
        self.done, self.weights = state[0], state[1].copy()


def main() -> None:
    """Prints the loss curve."""
    with actors.init(local_nodes=3), ElasticGroup(Trainer) as team:
        step = 0
        while step < STEPS:
            if step == 10 and len(team) == 3:
                victim = next(node for node in actors.nodes() if node.id == team.nodes[-1])
                os.kill(victim.pid, signal.SIGKILL)
                while next(node for node in actors.nodes() if node.id == victim.id).alive:
                    time.sleep(0.01)
            try:
                step, loss = team.run("step")[0]
            except MemberLostError as error:
                print(f"          {error}")
                continue
            print(f"step {step:3}  loss {loss:7.4f}  {'#' * round(4 * loss)}", flush=True)


if __name__ == "__main__":
    main()
