"""A batch predictor: a pool of actors, each with the model loaded once, works through shards of data."""

import numpy as np

import actors as ray
from actors.util import ActorPool


def load_model():
    """Returns a model: a fixed random projection and a threshold."""
    projection = np.random.default_rng(7).normal(size=16)

    def model(batch):
        return batch @ projection > 0

    model.payload = np.zeros(4_000_000)  # a large model: it shall travel once
    return model


@ray.remote
class BatchPredictor:
    """Predicts with a model it was given once."""

    def __init__(self, model):
        self.model = model

    def predict(self, shard):
        """Returns how many rows of a shard were taken, and how many were accepted."""
        batch = np.random.default_rng(shard).normal(size=(5000, 16))
        return shard, len(batch), int(self.model(batch).sum())


ray.init(num_cpus=2)

model = ray.put(load_model())
pool = ActorPool([BatchPredictor.remote(model) for _ in range(3)])

rows = accepted = 0
order = []
for shard, size, taken in pool.map(lambda actor, shard: actor.predict.remote(shard), range(12)):
    order.append(shard)
    rows += size
    accepted += taken
print("shards in order:", order == list(range(12)))
print(f"{accepted} of {rows} accepted")

unordered = pool.map_unordered(lambda actor, shard: actor.predict.remote(shard), range(12))
print("again, as they come:", sum(taken for _, _, taken in unordered))

ray.shutdown()
