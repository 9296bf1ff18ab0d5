"""A model's layers cut lengthwise: every rank has some heads, some of the MLP and some of the vocabulary.

As in Megatron-LM (https://arxiv.org/abs/1909.08053): projections into heads and into the MLP are split by their
outputs, those back by their inputs, and what the ranks give is added up.
"""

from __future__ import annotations

from copy import copy
from typing import TYPE_CHECKING, Any, Final

import mlx.core as mx
import numpy as np
from mlx import nn

from actors import collective
from actors.exceptions import ModelError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .sharing import Shape, Share

_NUMPY: Final = (mx.float32, mx.float16)  # types that numpy has as well


class Joining:
    """How what the ranks have is joined; all of them call it in the same order.

    Args:
        widths: words that each rank has.

    Attributes:
        silent: nobody wants logits in the step that runs now.
    """

    def __init__(self, widths: Sequence[int]) -> None:
        self._widths = widths
        self.silent = False

    def add(self, x: mx.array) -> mx.array:
        """The sum over all ranks."""
        if x.dtype not in _NUMPY:
            out: mx.array = collective.allreduce(x)
            return out
        mx.eval(x)  # lets other threads run meanwhile, which numpy's asking for it would not
        # What is small goes a shorter way as an array of numpy's, which lies on the same memory.
        return mx.array(collective.allreduce(np.asarray(x)))

    def gather(self, x: mx.array) -> mx.array:
        """The words of all ranks, side by side."""
        padded = mx.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, max(self._widths) - x.shape[-1])])
        parts = collective.allgather(padded)
        return mx.concatenate([part[..., :width] for part, width in zip(parts, self._widths, strict=True)], axis=-1)


def narrow(model: Any, share: Share, shape: Shape, joining: Joining) -> None:
    """Make a whole model, still lazy, that of one rank.

    Raises:
        ModelError: its layers are not those of the Llama family.
    """
    group = shape.heads // shape.kv_heads
    keys = _scaled(share.heads, shape.head_dim)
    queries = _scaled(share.heads, shape.head_dim * group)
    try:
        for layer in model.layers:
            attention, mlp = layer.self_attn, layer.mlp
            attention.n_heads, attention.n_kv_heads = len(share.heads) * group, len(share.heads)
            for name, rows in (("q_proj", queries), ("k_proj", keys), ("v_proj", keys)):
                _take_rows(attention[name], rows)
            for name in ("gate_proj", "up_proj"):
                _take_rows(mlp[name], share.inner)
            _take_columns(attention["o_proj"], queries, first=share.rank == 0)
            _take_columns(mlp["down_proj"], share.inner, first=share.rank == 0)
            mx.eval(layer.parameters())
            attention["o_proj"] = _Sum(attention["o_proj"], joining)
            mlp["down_proj"] = _Sum(mlp["down_proj"], joining)
        _narrow_head(model, share, joining)
    except (KeyError, AttributeError) as error:
        name = type(model).__module__.rpartition(".")[2]
        raise ModelError(f"strategy='tensor' is for the Llama family; {name!r} is not of it ({error})") from error


def _narrow_head(model: Any, share: Share, joining: Joining) -> None:
    if "lm_head" in model:
        _take_rows(model["lm_head"], share.words)
        model["lm_head"] = _Words(model["lm_head"], joining)
        return
    table = model.model.embed_tokens
    part = copy(table)
    _take_rows(part, share.words)
    model.model.embed_tokens = _Tied(table, part, joining)


def _take_rows(module: Any, rows: range) -> None:
    for name in ("weight", "scales", "biases", "bias"):
        if name in module:
            module[name] = module[name][rows.start : rows.stop]


def _take_columns(module: Any, columns: range, *, first: bool) -> None:
    if "scales" in module:
        groups = slice(columns.start // module.group_size, columns.stop // module.group_size)
        if columns.start % module.group_size or columns.stop % module.group_size:
            raise ModelError(
                f"numbers {columns.start} to {columns.stop} cannot be cut out of groups of {module.group_size} "
                "quantised ones; use strategy='pipeline'"
            )
        packed = slice(columns.start * module.bits // 32, columns.stop * module.bits // 32)
        module["weight"] = module["weight"][:, packed]
        module["scales"], module["biases"] = module["scales"][:, groups], module["biases"][:, groups]
    else:
        module["weight"] = module["weight"][:, columns.start : columns.stop]
    if "bias" in module and not first:  # it is added once
        del module["bias"]


def _scaled(numbers: range, size: int) -> range:
    return range(numbers.start * size, numbers.stop * size)


class _Sum(nn.Module):
    """A projection back, of which this rank has some inputs."""

    def __init__(self, inner: Any, joining: Joining) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.inner, self._joining = inner, joining

    def __call__(self, x: mx.array) -> mx.array:
        return self._joining.add(self.inner(x))


class _Words(nn.Module):
    """A head, of which this rank has some words."""

    def __init__(self, inner: Any, joining: Joining) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.inner, self._joining = inner, joining

    def __call__(self, x: mx.array) -> mx.array:
        return x if self._joining.silent else self._joining.gather(self.inner(x))


class _Tied(nn.Module):
    """An embedding that all ranks have, and of which each uses some rows as a head."""

    def __init__(self, table: Any, part: Any, joining: Joining) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.table, self.part, self._joining = table, part, joining

    def __call__(self, ids: mx.array) -> mx.array:
        out: mx.array = self.table(ids)
        return out

    def as_linear(self, x: mx.array) -> mx.array:
        return x if self._joining.silent else self._joining.gather(self.part.as_linear(x))
