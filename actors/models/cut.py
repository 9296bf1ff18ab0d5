"""A slice of one of mlx-lm's models, made without writing any of its layers again.

The model's own forward pass runs over all its layers, but those of other stages are ghosts: they pass on what they
are given and push zeros, one number wide, into their own caches, so that every offset, mask and position comes out
as in the whole model. The ghost just before the slice answers with the hidden state that came from upstream, and
the output of the slice's last layer is caught on its way. MLX is lazy: what nobody asks for, such as the embedding
in the middle or the head at the beginning, is never computed and its weights are never brought into memory.
"""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Self

import mlx.core as mx
from mlx import nn
from mlx.utils import tree_unflatten
from mlx_lm.models.cache import ArraysCache, CacheList, KVCache, _BaseCache, make_prompt_cache

from actors.exceptions import ModelError

from .extra import on_cpu

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator

_TOGETHER: Final = 4  # layers of which the first begins to compute before the next four are put together


class Slice:
    """Layers `first` to `last`, both inclusive, of `model`, which belongs to the slice from now on.

    Args:
        model: one of mlx-lm's models, its weights still lazy.
        first: number of the first layer kept.
        last: number of the last one.

    Attributes:
        own: places, in the list of caches, of the layers kept; empty until it was called.
        beside: given the number of a layer that was tapped and the hidden state after it (rows, tokens, hidden size),
            returns the one to go on with; None changes nothing.

    Raises:
        ModelError: the model cannot be cut, or not there.
    """

    def __init__(self, model: nn.Module, first: int, last: int) -> None:
        anatomy = Anatomy.of(model)
        layers = anatomy.layers
        self.first, self.last, self.total = first, last, len(layers)
        anatomy.check_cut(first)
        anatomy.check_cut(last + 1)
        self.own: tuple[int, ...] = ()
        self.beside: Callable[[int, mx.array], mx.array] | None = None
        self._model, self._name, self._layers = model, anatomy.name, layers
        self._seam = _Seam(anatomy.name, anatomy.keep)
        # Held here, since the wrappers that take the layers' places are no modules and so hide them from MLX.
        self._arrays = anatomy.needed(first, last)
        if not (self.is_first and self.is_last):
            _check_caches(self._name, self.make_cache())
        layers[:] = [self._wrap(number, layer) for number, layer in enumerate(layers)]

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

    def load(self) -> None:
        """Bring the slice's weights into memory, and no others."""
        mx.eval(self._arrays)

    def make_cache(self) -> list[Any]:
        """A fresh cache for one sequence: mlx-lm's own, for all layers, those of ghosts being nearly empty."""
        return list(make_prompt_cache(self._model))

    def __call__(self, ids: mx.array, cache: list[Any], hidden: Any) -> Any:
        """One forward pass, lazy.

        Args:
            ids: token ids (rows, tokens); every stage gets them.
            cache: from `make_cache`; it grows by these tokens.
            hidden: what the slice before gave; None in the first slice.

        Returns:
            Logits (rows, tokens, vocabulary) where `last` is the model's last layer. Else what that layer gives: the
            hidden state (rows, tokens, hidden size) or, in some architectures, a tuple that begins with it.
        """
        self._seam.enter(ids.shape, hidden)
        try:
            logits = self._model(ids, cache=cache)
            out = logits if self.is_last else self._seam.outward
        except (KeyError, AttributeError) as error:  # of weights that a ghost no longer has
            raise ModelError(f"{self._name} cannot be cut: it looks into its layers as it runs ({error})") from error
        finally:
            self._seam.leave()
        if not self.own:
            self.own = tuple(place for place, each in enumerate(cache) if id(each) not in self._seam.counted)
        if out is None:
            raise ModelError(f"layer {self.last} was never called: this architecture cannot be cut here")
        return out

    def lend(self, model: nn.Module, first: int, last: int) -> None:
        """Put what a slice of these layers, both inclusive, needs and this one has into a model that lacks it.

        Args:
            model: of the same kind, and not cut yet.
            first: number of the other slice's first layer.
            last: number of its last one.
        """
        layers = Anatomy.of(model).layers
        for number in range(max(first, self.first), min(last, self.last) + 1):
            layers[number] = _unwrapped(self._layers[number])
        if (self.is_first and first == 0) or (self.is_last and last == self.total - 1):
            outer = {id(module) for layer in layers for _, module in layer.named_modules()}
            inner = {id(module) for place in self._layers for _, module in _unwrapped(place).named_modules()}
            known = {id(array) for array in self._arrays}
            own = {name: module for name, module in self._model.named_modules() if id(module) not in inner}
            for name, module in model.named_modules():
                if name in own and id(module) not in outer and _is_leaf(own[name], known):
                    model.update_modules(tree_unflatten([(name, own[name])]))

    def tap(self, number: int) -> None:
        """Have `beside` asked after layer `number`, which is one of the slice's."""
        place = self._layers[number]
        if isinstance(place, _Exit):
            place.tap(self._pass_by)
        elif not isinstance(place, _Tap):
            self._layers[number] = _Tap(number, place, self._seam, self._pass_by)

    def _pass_by(self, number: int, out: Any) -> Any:
        if self.beside is None:
            return out
        if isinstance(out, tuple | list):
            return type(out)([self.beside(number, out[0]), *out[1:]])
        return self.beside(number, out)

    def _wrap(self, number: int, layer: nn.Module) -> Any:
        if not self.first <= number <= self.last:
            _strip(layer)
            return _Ghost(number, layer, self._seam, before=number < self.first)
        if number == self.last:
            return layer if self.is_last else _Exit(number, layer, self._seam)
        early = on_cpu() and not (self.is_first and self.is_last) and (number - self.first) % _TOGETHER == 0
        return _Early(number, layer, self._seam) if early else layer


@dataclass(frozen=True, slots=True)
class Anatomy:
    """Where a model's weights sit.

    Attributes:
        name: the model type.
        layers: the list that its forward pass runs over, itself.
        embedding: weights of the token embedding.
        vocabulary: how many token ids it has.
        width: how many numbers it gives for one.
        head: all other weights outside of the layers.
        tied: the head is the embedding, used backwards.
        together: layers from this number on share keys and values, so that no cut may fall among them.
        keep: what of a layer's output the layers of another stage need.
    """

    name: str
    layers: list[Any]
    embedding: list[mx.array]
    vocabulary: int
    width: int
    head: list[mx.array]
    tied: bool
    together: int
    keep: Callable[[Any], Any]

    @classmethod
    def of(cls, model: nn.Module) -> Self:
        """Look for the parts of one of mlx-lm's models.

        Raises:
            ModelError: its layers cannot be found.
        """
        name = type(model).__module__.rpartition(".")[2]
        holder, layers = _layer_list(model, name)
        inner = {id(module) for layer in layers for _, module in layer.named_modules()}
        embedding: list[mx.array] = []
        head: list[mx.array] = []
        table = (0, 0)
        words = getattr(getattr(model, "args", None), "vocab_size", None)  # some have larger tables of other things
        for _, module in model.named_modules():
            if id(module) in inner:
                continue
            found = [value for key, value in module.items() if isinstance(value, mx.array) and key[0] != "_"]
            if "Embedding" in type(module).__name__ and found:
                embedding += found
                table = max(table, _table(module), key=lambda each: (each[0] == words, each))
            else:
                head += found
        tied = not any(array.ndim > 1 and array.shape[0] == table[0] for array in head)
        return cls(name, layers, embedding, *table, head, tied, _together(holder, len(layers)), _KEEP.get(name, _all))

    def needed(self, first: int, last: int) -> list[mx.array]:
        """Weights of these layers, both inclusive, and of the ends that they touch."""
        is_last = last == len(self.layers) - 1
        ends = [*self.embedding] if first == 0 or (is_last and self.tied) else []
        ends += self.head if is_last else []
        return [*(array for layer in self.layers[first : last + 1] for array in layer_arrays(layer)), *ends]

    def check_cut(self, number: int) -> None:
        """See whether a stage may begin with layer `number`.

        Raises:
            ModelError: it may not.
        """
        if self.together < number < len(self.layers):
            raise ModelError(
                f"{self.name} cannot be cut before layer {number}: its layers {self.together} to "
                f"{len(self.layers) - 1} share keys and values and must stay together"
            )


def needed_nbytes(model: nn.Module, first: int, last: int) -> int:
    """Bytes that a slice of these layers, both inclusive, takes."""
    return sum(array.nbytes for array in Anatomy.of(model).needed(first, last))


def _table(embedding: nn.Module) -> tuple[int, int]:
    """Rows and columns of an embedding, quantised in whatever way or not."""
    weight = embedding.weight
    packed = weight.dtype == mx.uint32
    return weight.shape[0], weight.shape[-1] * 32 // embedding.bits if packed else weight.shape[-1]


def _unwrapped(place: Any) -> Any:
    while isinstance(place, _Wrapper):
        place = place.wrapped
    return place


def _is_leaf(module: nn.Module, known: Collection[int]) -> bool:
    """Whether it has weights, all of them known by their `id`, and no parts that have some of their own."""
    children: Any = module.children()
    arrays = [id(value) for value in module.values() if isinstance(value, mx.array)]
    return not children and bool(arrays) and all(each in known for each in arrays)


def _all(out: Any) -> Any:
    return out


# Gemma 4's layers hand out their keys and values as well; only those that stay together use each other's.
_KEEP: Final = {"gemma4_text": lambda out: (out[0], None, out[2])}


def _together(holder: nn.Module, layers: int) -> int:
    """The first of the layers whose keys and values others use (as gemma3n and gemma4 say), else how many there are."""
    sources = getattr(holder, "previous_kvs", None) or getattr(holder, "layer_idx_to_cache_idx", None) or ()
    return min((source for layer, source in enumerate(sources) if source != layer), default=layers)


class _Seam:
    """Where a forward pass meets the neighbours: what came from upstream, what goes downstream."""

    __slots__ = ("_keep", "_name", "_visited", "counted", "inward", "outward", "shape")

    def __init__(self, name: str, keep: Callable[[Any], Any]) -> None:
        self._name, self._keep = name, keep
        self.leave()

    def enter(self, shape: tuple[int, ...], inward: Any) -> None:
        self.shape, self.inward, self.outward = shape, inward, None
        self.counted: set[int] = set()  # caches that ghosts counted in

    def visit(self, number: int) -> None:
        if number in self._visited:
            raise ModelError(f"{self._name} cannot be cut: it passes through its layers more than once")
        self._visited.add(number)

    def catch(self, out: Any) -> None:
        self.outward = self._keep(out)

    def leave(self) -> None:
        self.shape, self.inward, self.outward = (), None, None
        self._visited: set[int] = set()


class _Wrapper:
    """Stands in a layer's place; the model sees the layer's attributes."""

    def __init__(self, number: int, layer: Any, seam: _Seam) -> None:
        self._number, self._layer, self._seam = number, layer, seam

    @property
    def wrapped(self) -> Any:
        """The layer, or what stands in its place by another wrapper."""
        return self._layer

    def __getattr__(self, name: str) -> Any:
        return getattr(self._layer, name)


class _Ghost(_Wrapper):
    """A layer of another stage: it only keeps count."""

    def __init__(self, number: int, layer: nn.Module, seam: _Seam, *, before: bool) -> None:
        super().__init__(number, layer, seam)
        self._before = before

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self._seam.visit(self._number)
        rows, tokens = self._seam.shape
        for value in (*args, *kwargs.values()):
            if isinstance(value, _BaseCache):
                self._seam.counted.add(id(value))
            _count(value, rows, tokens)
        return self._seam.inward if self._before else self._seam.outward


class _Early(_Wrapper):
    """A layer that begins to compute at once, on MLX's own thread, while those behind it are put together in Python.

    To put a token's layers together takes a thirtieth of the time that it takes to compute them, all of which an answer
    that is alone would wait for.
    """

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        out = self._layer(*args, **kwargs)
        first = out[0] if isinstance(out, tuple | list) else out
        if isinstance(first, mx.array):
            mx.async_eval(first)
        return out


class _Tap(_Wrapper):
    """A layer that something stands beside."""

    def __init__(self, number: int, layer: Any, seam: _Seam, pass_by: Callable[[int, Any], Any]) -> None:
        super().__init__(number, layer, seam)
        self._pass_by = pass_by

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._pass_by(self._number, self._layer(*args, **kwargs))


class _Exit(_Wrapper):
    """The slice's last layer."""

    def tap(self, pass_by: Callable[[int, Any], Any]) -> None:
        """Have something stand beside it."""
        if not isinstance(self._layer, _Tap):
            self._layer = _Tap(self._number, self._layer, self._seam, pass_by)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self._seam.visit(self._number)
        out = self._layer(*args, **kwargs)
        self._seam.catch(out)
        return out


def _check_caches(name: str, caches: Iterable[Any]) -> None:
    odd = next((each for each in caches if each is not None and not isinstance(each, _BaseCache)), None)
    if odd is not None:
        raise ModelError(f"{name} cannot be cut: its layers keep a {type(odd).__name__} of their own and share state")


def _count(cache: Any, rows: int, tokens: int) -> None:
    """Have a ghost's cache grow as its layer's would, by zeros that take hardly any room."""
    if isinstance(cache, CacheList):
        for each in cache.caches:
            _count(each, rows, tokens)
    elif isinstance(cache, ArraysCache):
        for number, state in enumerate(cache.cache):
            cache[number] = mx.zeros((rows, 1)) if state is None else state
        cache.advance(tokens)
    elif type(cache) is KVCache and cache.keys is not None and cache.offset + tokens <= cache.keys.shape[2]:
        cache.offset += tokens  # there are zeros already
    elif hasattr(cache, "update_and_fetch"):
        zeros = mx.zeros((rows, 1, tokens, 1))
        cache.update_and_fetch(zeros, zeros)


def _layer_list(model: nn.Module, name: str) -> tuple[nn.Module, list[Any]]:
    """The module that holds the list of layers, and the list itself."""
    layers = list(model.layers)  # some models answer with a copy of the list that they run over
    for _, module in model.named_modules():
        for value in module.values():
            if isinstance(value, list) and len(value) == len(layers) and all(map(operator.is_, value, layers)):
                return module, value
    raise ModelError(f"the architecture {name!r} cannot be cut: its layers are not in one list")


def layer_arrays(layer: nn.Module) -> Iterator[mx.array]:
    """Weights of a layer, and what is no weight but computed once, such as frequencies."""
    for _, module in layer.named_modules():
        yield from (value for value in module.values() if isinstance(value, mx.array))


def layer_work(layer: nn.Module, active: int | None) -> int:
    """Multiplications that a layer needs for one token; `active` is how many experts of a mixture it goes to."""
    total = 0
    for _, module in layer.named_modules():
        weight = module.get("weight")
        if not isinstance(weight, mx.array) or weight.ndim < 2:
            continue
        size = weight.size * 32 // module.bits if weight.dtype == mx.uint32 else weight.size
        experts = weight.shape[0] if weight.ndim == 3 and active is not None else 1
        total += size * min(active or 1, experts) // experts
    return total


def _strip(layer: nn.Module) -> None:
    """Let go of a ghost's weights: lazy as they are, they would hold their files open."""
    for _, module in layer.named_modules():
        for name in [name for name, value in module.items() if isinstance(value, mx.array)]:
            del module[name]
