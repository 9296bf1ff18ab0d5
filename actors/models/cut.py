"""A slice of one of mlx-lm's models, made without writing any of its layers again.

The model's own forward pass runs over all its layers, but those of other stages are ghosts: they pass on what they
are given and push zeros, one number wide, into their own caches, so that every offset, mask and position comes out
as in the whole model. The ghost just before the slice answers with the hidden state that came from upstream, and
the output of the slice's last layer is caught on its way. MLX is lazy: what nobody asks for, such as the embedding
in the middle or the head at the beginning, is never computed and its weights are never brought into memory.
"""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Any

import mlx.core as mx
from mlx import nn
from mlx.utils import tree_flatten
from mlx_lm.models.cache import make_prompt_cache

from actors.exceptions import ModelError

if TYPE_CHECKING:
    from collections.abc import Iterator


class Slice:
    """Layers `first` to `last`, both inclusive, of `model`, which belongs to the slice from now on.

    Args:
        model: one of mlx-lm's models, its weights still lazy.
        first: number of the first layer kept.
        last: number of the last one.
    """

    def __init__(self, model: nn.Module, first: int, last: int) -> None:
        holder, name, layers = _layer_list(model)
        self.first, self.last, self.total = first, last, len(layers)
        self._model = model
        self._seam = _Seam()
        # Held here, since the wrappers that take the layers' places are no modules and so hide them from MLX.
        self._arrays = [*_all_arrays(layers[first : last + 1]), *self._ends(model)]
        holder[name] = [self._wrap(number, layer) for number, layer in enumerate(layers)]

    @property
    def is_first(self) -> bool:
        """Whether token ids come in, rather than hidden states."""
        return self.first == 0

    @property
    def is_last(self) -> bool:
        """Whether logits go out, rather than hidden states."""
        return self.last == self.total - 1

    @property
    def nbytes(self) -> int:
        """Bytes of the weights that this slice uses."""
        return sum(array.nbytes for array in self._arrays)

    @property
    def dtype(self) -> mx.Dtype:
        """Type of the numbers in hidden states, as far as the weights tell."""
        floats = (array.dtype for array in self._arrays if mx.issubdtype(array.dtype, mx.floating))
        return next(floats, mx.float32)

    def load(self) -> None:
        """Bring the slice's weights into memory, and no others."""
        mx.eval(self._arrays)

    def make_cache(self) -> list[Any]:
        """A fresh cache for one sequence: mlx-lm's own, for all layers, those of ghosts being nearly empty."""
        return list(make_prompt_cache(self._model))

    def __call__(self, ids: mx.array, cache: list[Any], hidden: mx.array | None) -> mx.array:
        """One forward pass, lazy.

        Args:
            ids: token ids (1, tokens); every stage gets them.
            cache: from `make_cache`; it grows by these tokens.
            hidden: (1, tokens, hidden size) from upstream; None in the first slice.

        Returns:
            The hidden state (1, tokens, hidden size) after `last`, or logits (1, tokens, vocabulary) if that is the
            model's last layer.
        """
        self._seam.inward, self._seam.outward = hidden, None
        try:
            logits: mx.array = self._model(ids, cache=cache)
            out = logits if self.is_last else self._seam.outward
        finally:
            self._seam.inward = self._seam.outward = None
        if out is None:
            raise ModelError(f"layer {self.last} was never called: this architecture cannot be cut here")
        return out

    def _wrap(self, number: int, layer: nn.Module) -> object:
        if not self.first <= number <= self.last:
            _strip(layer)
            return _Ghost(layer, self._seam, entrance=number == self.first - 1)
        return _Exit(layer, self._seam) if number == self.last and not self.is_last else layer

    def _ends(self, model: nn.Module) -> Iterator[mx.array]:
        """Weights outside the layers that this slice uses: the embedding first, norm and head last."""
        outer = {name: array for name, array in _named(model) if ".layers." not in f".{name}"}
        tied = not any("lm_head" in name for name in outer)
        for name, array in outer.items():
            embedding = "embed_tokens" in name
            if (embedding and self.is_first) or (self.is_last and (tied or not embedding)):
                yield array


class _Seam:
    """Where a forward pass meets the neighbours: what came from upstream, what goes downstream."""

    __slots__ = ("inward", "outward")

    def __init__(self) -> None:
        self.inward: mx.array | None = None
        self.outward: mx.array | None = None


class _Wrapper:
    """Stands in a layer's place; the model sees the layer's attributes."""

    def __init__(self, layer: nn.Module, seam: _Seam) -> None:
        self._layer, self._seam = layer, seam

    def __getattr__(self, name: str) -> Any:
        return getattr(self._layer, name)


class _Ghost(_Wrapper):
    """A layer of another stage: it only keeps count."""

    def __init__(self, layer: nn.Module, seam: _Seam, *, entrance: bool) -> None:
        super().__init__(layer, seam)
        self._entrance = entrance

    def __call__(self, x: mx.array, *args: Any, **kwargs: Any) -> mx.array:
        zeros = mx.zeros((x.shape[0], 1, x.shape[1], 1))
        for value in (*args, *kwargs.values()):
            if hasattr(value, "update_and_fetch"):
                value.update_and_fetch(zeros, zeros)
        if self._entrance:
            assert self._seam.inward is not None
            return self._seam.inward
        return x


class _Exit(_Wrapper):
    """The slice's last layer."""

    def __call__(self, *args: Any, **kwargs: Any) -> mx.array:
        out: mx.array = self._layer(*args, **kwargs)
        self._seam.outward = out
        return out


def _layer_list(model: nn.Module) -> tuple[nn.Module, str, list[nn.Module]]:
    """The module that holds the list of layers, the list's name there, and the list."""
    layers = list(model.layers)  # some models answer with a copy of the list that they run over
    for _, module in model.named_modules():
        for name, value in module.items():
            if isinstance(value, list) and len(value) == len(layers) and all(map(operator.is_, value, layers)):
                return module, name, value
    raise ModelError(f"the layers of {type(model).__module__} cannot be found: this architecture cannot be cut")


def _named(model: nn.Module) -> list[tuple[str, mx.array]]:
    found = tree_flatten(model.parameters())
    assert isinstance(found, list)
    return found


def _all_arrays(layers: list[nn.Module]) -> Iterator[mx.array]:
    """Weights, and what is no weight but computed once, such as frequencies."""
    for layer in layers:
        for _, module in layer.named_modules():
            yield from (value for value in module.values() if isinstance(value, mx.array))


def _strip(layer: nn.Module) -> None:
    """Let go of a ghost's weights: lazy as they are, they would hold their files open."""
    for _, module in layer.named_modules():
        for name in [name for name, value in module.items() if isinstance(value, mx.array)]:
            del module[name]
