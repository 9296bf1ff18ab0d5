"""A parameter server: workers compute gradients, one actor holds the weights.

The model is a linear one, fitted to numbers made from known weights, so that the end can be checked. First the rounds
are synchronous: the server averages one gradient of each worker. Then asynchronous: it applies each as it comes.
"""

import numpy as np

import actors as ray

WORKERS = 3
ROUNDS = 60
TRUE_WEIGHTS = np.arange(1.0, 6.0)


@ray.remote
class ParameterServer:
    """Holds the weights."""

    def __init__(self, size, rate):
        self.weights = np.zeros(size)
        self.rate = rate

    def apply_gradients(self, *gradients):
        """Takes a step along the mean of the gradients; returns the new weights."""
        self.weights = self.weights - self.rate * np.mean(gradients, axis=0)
        return self.weights

    def get_weights(self):
        """Returns the weights."""
        return self.weights


@ray.remote
class DataWorker:
    """Has its share of the data."""

    def __init__(self, seed):
        random = np.random.default_rng(seed)
        self.inputs = random.normal(size=(200, len(TRUE_WEIGHTS)))
        self.targets = self.inputs @ TRUE_WEIGHTS

    def compute_gradients(self, weights):
        """Returns the gradient of the mean squared error at these weights."""
        errors = self.inputs @ weights - self.targets
        return 2 * self.inputs.T @ errors / len(errors)


ray.init(num_cpus=2)

server = ParameterServer.remote(len(TRUE_WEIGHTS), rate=0.1)
workers = [DataWorker.remote(seed) for seed in range(WORKERS)]

weights = server.get_weights.remote()
for _ in range(ROUNDS):
    # References are passed on: no weights and no gradients come through this program.
    weights = server.apply_gradients.remote(*[worker.compute_gradients.remote(weights) for worker in workers])
print("synchronous:", np.round(ray.get(weights), 2).tolist())

server = ParameterServer.remote(len(TRUE_WEIGHTS), rate=0.1)
weights = server.get_weights.remote()
at_work = {worker.compute_gradients.remote(weights): worker for worker in workers}
for _ in range(WORKERS * ROUNDS):
    [gradient], _ = ray.wait(list(at_work))
    worker = at_work.pop(gradient)
    weights = server.apply_gradients.remote(gradient)
    at_work[worker.compute_gradients.remote(weights)] = worker
print("asynchronous:", np.round(ray.get(weights), 1).tolist())

ray.shutdown()
