"""Modules of your own over several nodes: a perceptron and a small vision encoder, each cut into stages."""

import mlx.core as mx
from mlx import nn

import actors
from actors.models import Pipeline


class Patches(nn.Module):
    """Cuts pictures (count, 32, 32, 3) into patches of 8 by 8, each a vector."""

    def __init__(self, width):
        super().__init__()
        self.cut = nn.Conv2d(3, width, kernel_size=8, stride=8)

    def __call__(self, pictures):  # noqa: D102
        return self.cut(pictures).flatten(1, 2)


class Encode(nn.TransformerEncoderLayer):
    """A layer of the encoder that needs no mask."""

    def __call__(self, patches):  # noqa: D102
        return super().__call__(patches, None)


def mean(patches):
    """One vector for a picture: the mean of those of its patches."""
    return patches.mean(axis=1)


perceptron = nn.Sequential(nn.Linear(64, 256), nn.relu, nn.Linear(256, 256), nn.relu, nn.Linear(256, 10))
encoder = nn.Sequential(Patches(64), *(Encode(64, 4, activation=nn.GELU()) for _ in range(4)), mean, nn.Linear(64, 10))

with actors.init(local_nodes=2):
    for module, inputs in [
        (perceptron, [mx.random.normal((16, 64)) for _ in range(8)]),
        (encoder, [mx.random.normal((4, 32, 32, 3)) for _ in range(3)]),
    ]:
        with Pipeline(module) as pipeline:
            pairs = zip(pipeline.map(inputs), inputs, strict=True)
            same = all(mx.allclose(got, module(x), atol=1e-5).item() for got, x in pairs)
            print(pipeline, "gives what the whole gives:", same)
