"""Data-parallel training: four actors have the same model and a quarter of each batch; gradients are averaged.

The loss after each step equals that of one process with the whole batch, to within the rounding of float32.
"""

import mlx.core as mx
import mlx.optimizers as optim
import numpy as np
from mlx import nn

import actors

RANKS = 4
STEPS = 20
BATCH = 64


def make_batch(step):
    """Returns the inputs and targets of a step, the same wherever it is called."""
    random = np.random.default_rng(step)
    inputs = random.normal(size=(BATCH, 8)).astype(np.float32)
    return inputs, np.tanh(inputs.mean(axis=1, keepdims=True))


def train(rank, ranks, average):
    """Trains on one part of each batch; ``average`` makes the mean over all parts of a dict or list of arrays."""
    mx.random.seed(0)  # the same weights everywhere
    model = nn.Sequential(nn.Linear(8, 32), nn.Tanh(), nn.Linear(32, 1))
    optimizer = optim.SGD(learning_rate=0.1)
    loss_and_gradients = nn.value_and_grad(model, lambda model, x, y: nn.losses.mse_loss(model(x), y))
    losses = []
    for step in range(STEPS):
        inputs, targets = (mx.array(np.split(whole, ranks)[rank]) for whole in make_batch(step))
        loss, gradients = loss_and_gradients(model, inputs, targets)
        averaged = average({"loss": loss, "gradients": gradients})
        optimizer.update(model, averaged["gradients"])
        mx.eval(model.parameters())
        losses.append(averaged["loss"].item())
    return losses


@actors.remote
class Trainer:
    """Trains on its part."""

    def train(self):
        """Returns the losses over the whole batches, which all ranks know."""
        rank, ranks = actors.collective.get_rank(), actors.collective.get_world_size()
        return train(rank, ranks, actors.collective.average_gradients)


actors.init(num_cpus=RANKS)

parallel = actors.get(Trainer.group(RANKS).train.remote())
alone = train(0, 1, lambda tree: tree)
print("all ranks say the same:", all(losses == parallel[0] for losses in parallel))
rounding = 32 * np.finfo(np.float32).eps  # of 20 steps, each a little more
print("and the same as one process:", np.allclose(parallel[0], alone, rtol=rounding, atol=0))
print("the loss has fallen to a fifth:", alone[-1] < alone[0] / 5)

actors.shutdown()
