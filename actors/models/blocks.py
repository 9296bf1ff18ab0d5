"""How GGUF files store numbers: blocks of 32 or 256 of them with their scales, and what MLX can have of each.

Types whose scales are of 32 numbers each become MLX's own quantised matrices, number by number the same. Those whose
scales are of 16, which MLX does not have, become plain numbers.

Layouts: ggml-common.h of https://github.com/ggml-org/ggml
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Bytes = NDArray[np.uint8]
    Floats = NDArray[np.float32]

GROUP_SIZE: Final = 32  # numbers that share a scale, in every type that stays quantised
_TOGETHER: Final = 1 << 15  # blocks of 256 that are made plain at a time, so that what is between takes little memory


@dataclass(frozen=True, slots=True)
class TensorType:
    """A way of storing numbers: `block` of them in `nbytes` bytes; `bits` each when they stay quantised."""

    name: str
    block: int
    nbytes: int
    bits: int | None = None

    @property
    def quantised(self) -> bool:
        """Whether a number takes less than 16 bits in the file."""
        return 8 * self.nbytes < 16 * self.block


# Types that cannot be read are listed too, so that the refusal can call them by name.
TENSOR_TYPES: Final = {
    0: TensorType("F32", 1, 4),
    1: TensorType("F16", 1, 2),
    2: TensorType("Q4_0", 32, 18, 4),
    3: TensorType("Q4_1", 32, 20, 4),
    6: TensorType("Q5_0", 32, 22, 5),
    7: TensorType("Q5_1", 32, 24, 5),
    8: TensorType("Q8_0", 32, 34, 8),
    9: TensorType("Q8_1", 32, 36),
    10: TensorType("Q2_K", 256, 84),
    11: TensorType("Q3_K", 256, 110),
    12: TensorType("Q4_K", 256, 144, 4),
    13: TensorType("Q5_K", 256, 176, 5),
    14: TensorType("Q6_K", 256, 210),
    15: TensorType("Q8_K", 256, 292),
    16: TensorType("IQ2_XXS", 256, 66),
    17: TensorType("IQ2_XS", 256, 74),
    18: TensorType("IQ3_XXS", 256, 98),
    19: TensorType("IQ1_S", 256, 50),
    20: TensorType("IQ4_NL", 32, 18),
    21: TensorType("IQ3_S", 256, 110),
    22: TensorType("IQ2_S", 256, 82),
    23: TensorType("IQ4_XS", 256, 136),
    24: TensorType("I8", 1, 1),
    25: TensorType("I16", 1, 2),
    26: TensorType("I32", 1, 4),
    27: TensorType("I64", 1, 8),
    28: TensorType("F64", 1, 8),
    29: TensorType("IQ1_M", 256, 56),
    30: TensorType("BF16", 1, 2),
    34: TensorType("TQ1_0", 256, 54),
    35: TensorType("TQ2_0", 256, 66),
    39: TensorType("MXFP4", 32, 17),
}


@dataclass(frozen=True, slots=True)
class Affine:
    """A quantised matrix as MLX keeps it: number = scale * q + bias, one scale and bias for 32 numbers of a row.

    `weight` is uint32 (rows, columns * bits / 32); `scales` and `biases` are float32 (rows, columns / 32).
    """

    weight: NDArray[np.uint32]
    scales: Floats
    biases: Floats
    bits: int


def decode(kind: TensorType, raw: Bytes, shape: tuple[int, ...]) -> NDArray[Any] | Affine:
    """The numbers of a tensor: a plain array (bfloat16 as its raw uint16 bits), or a quantised matrix.

    Args:
        kind: one of `READABLE`.
        raw: its bytes in the file.
        shape: row-major.
    """
    if kind.name in _PLAIN:
        return np.array(raw).view(_PLAIN[kind.name]).reshape(shape)
    blocks = raw.reshape(-1, kind.nbytes)
    if kind.name in _FINE:
        numbers = np.empty((len(blocks), kind.block), np.float32)
        for start in range(0, len(blocks), _TOGETHER):
            part = slice(start, start + _TOGETHER)
            numbers[part] = _FINE[kind.name](blocks[part])
        return numbers.reshape(shape)
    assert kind.bits is not None
    scales, biases, quants = _AFFINE[kind.name](blocks)
    weight = _packed(quants, kind.bits).reshape(*shape[:-1], -1).view("<u4")
    groups = (*shape[:-1], shape[-1] // GROUP_SIZE)
    return Affine(weight, scales.reshape(groups), biases.reshape(groups), kind.bits)


def _half(blocks: Bytes, at: int) -> Floats:
    """The float16 at this byte of each block, (blocks, 1)."""
    return np.ascontiguousarray(blocks[:, at : at + 2]).view("<f2").astype(np.float32)


def _spread(packed: Bytes, width: int, bits: int) -> Bytes:
    """Numbers of a few bits, `width` bytes of which hold first their low bits, then the next ones: (blocks, …)."""
    shifts = np.arange(0, 8, bits, dtype=np.uint8)[:, None]
    parts: Bytes = (packed.reshape(len(packed), -1, 1, width) >> shifts) & np.uint8((1 << bits) - 1)
    return parts.reshape(len(packed), -1)


def _packed(quants: Bytes, bits: int) -> Bytes:
    """Numbers of so many bits one after the other, the low bits first, as MLX wants them."""
    if bits == 8:
        return quants
    if bits == 4:
        return quants[:, 0::2] | quants[:, 1::2] << np.uint8(4)
    a, b, c, d, e, f, g, h = (quants[:, place::8] for place in range(8))
    bytes_ = (a | b << 5, b >> 3 | c << 2 | d << 7, d >> 1 | e << 4, e >> 4 | f << 1 | g << 6, g >> 2 | h << 3)
    return np.stack(bytes_, axis=-1)


# -- scales of 32 numbers: (scales, biases, quants), each (blocks, …) ------------------------------------------------


def _q4_0(blocks: Bytes) -> tuple[Floats, Floats, Bytes]:
    scale = _half(blocks, 0)
    return scale, scale * np.float32(-8), _spread(blocks[:, 2:], 16, 4)


def _q4_1(blocks: Bytes) -> tuple[Floats, Floats, Bytes]:
    return _half(blocks, 0), _half(blocks, 2), _spread(blocks[:, 4:], 16, 4)


def _q5_0(blocks: Bytes) -> tuple[Floats, Floats, Bytes]:
    scale = _half(blocks, 0)
    return scale, scale * np.float32(-16), _spread(blocks[:, 6:], 16, 4) | _fifth(blocks[:, 2:6])


def _q5_1(blocks: Bytes) -> tuple[Floats, Floats, Bytes]:
    return _half(blocks, 0), _half(blocks, 2), _spread(blocks[:, 8:], 16, 4) | _fifth(blocks[:, 4:8])


def _q8_0(blocks: Bytes) -> tuple[Floats, Floats, Bytes]:
    scale = _half(blocks, 0)
    return scale, scale * np.float32(-128), np.ascontiguousarray(blocks[:, 2:]) ^ np.uint8(0x80)  # signed to unsigned


def _q4_k(blocks: Bytes) -> tuple[Floats, Floats, Bytes]:
    return *_scales_and_minima(blocks), _spread(blocks[:, 16:], 32, 4)


def _q5_k(blocks: Bytes) -> tuple[Floats, Floats, Bytes]:
    quants = _spread(blocks[:, 48:], 32, 4) | _spread(blocks[:, 16:48], 32, 1) << np.uint8(4)
    return *_scales_and_minima(blocks), quants


def _fifth(bits: Bytes) -> Bytes:
    """The highest bits of 32 numbers, in their place."""
    return np.unpackbits(bits, axis=1, bitorder="little") << np.uint8(4)


def _scales_and_minima(blocks: Bytes) -> tuple[Floats, Floats]:
    """Of eight groups, 6 bits each: four whole ones, four minima, and the other ones' halves."""
    low, minima, halves = (blocks[:, at : at + 4] for at in (4, 8, 12))
    scales = np.concatenate([low & 0x3F, (halves & 0x0F) | ((low >> 2) & 0x30)], axis=1)
    offsets = np.concatenate([minima & 0x3F, (halves >> 4) | ((minima >> 2) & 0x30)], axis=1)
    return _half(blocks, 0) * scales, -_half(blocks, 2) * offsets


# -- scales of 16 numbers: plain numbers, (blocks, 256) -------------------------------------------------------------


def _q2_k(blocks: Bytes) -> Floats:
    scales, offsets = _half(blocks, 80) * (blocks[:, :16] & 0x0F), _half(blocks, 82) * (blocks[:, :16] >> 4)
    numbers: Floats = _sixteens(_spread(blocks[:, 16:80], 32, 2), scales) - np.repeat(offsets, 16, axis=1)
    return numbers


def _q3_k(blocks: Bytes) -> Floats:
    low, high = _spread(blocks[:, 96:104], 8, 4), _spread(blocks[:, 104:108], 4, 2)
    scales = _half(blocks, 108) * ((low | high << 4).astype(np.int8) - 32)
    missing = 1 - _spread(blocks[:, :32], 32, 1).astype(np.int8)
    return _sixteens(_spread(blocks[:, 32:96], 32, 2).astype(np.int8) - 4 * missing, scales)


def _q6_k(blocks: Bytes) -> Floats:
    quants = _spread(blocks[:, :128], 64, 4) | _spread(blocks[:, 128:192], 32, 2) << 4
    scales = _half(blocks, 208) * np.ascontiguousarray(blocks[:, 192:208]).view(np.int8)
    return _sixteens(quants.astype(np.int8) - 32, scales)


def _sixteens(numbers: NDArray[Any], scales: Floats) -> Floats:
    scaled: Floats = numbers.reshape(len(numbers), 16, 16) * scales[:, :, None]
    return scaled.reshape(len(numbers), 256)


_PLAIN: Final = {"F32": "<f4", "F16": "<f2", "BF16": "<u2"}
_AFFINE: Final[dict[str, Callable[[Bytes], tuple[Floats, Floats, Bytes]]]] = {
    "Q4_0": _q4_0, "Q4_1": _q4_1, "Q5_0": _q5_0, "Q5_1": _q5_1, "Q8_0": _q8_0, "Q4_K": _q4_k, "Q5_K": _q5_k,
}  # fmt: skip
_FINE: Final[dict[str, Callable[[Bytes], Floats]]] = {"Q2_K": _q2_k, "Q3_K": _q3_k, "Q6_K": _q6_k}
READABLE: Final = (*_PLAIN, *_AFFINE, *_FINE)
