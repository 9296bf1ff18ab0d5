"""What goes from stage to stage, in as few bytes as can be: steps as a line of text, small hidden states as bytes.

Both are values that a call carries without a pickler's machinery. Whatever is large or of another kind goes as it is:
large arrays are better off in shared memory, or in chunks.
"""

from __future__ import annotations

import json
import struct
from typing import Any, Final

from .stage import Row, Step

_LARGE: Final = 60 << 10  # bytes
_DTYPES: Final = ("float32", "float16", "bfloat16")
_HEAD: Final = "<BHHI"  # dtype, rows, tokens, hidden size
_LENGTH: Final = struct.Struct("<I")
_WRITE: Final = json.JSONEncoder(separators=(",", ":")).encode
_USUAL: Final[tuple[Any, ...]] = ([], (), (), (), (), (), False, False)  # fields of a step that says nothing


def step_text(step: Step) -> str:
    """A step as JSON: its fields in their order, without those at the end that say nothing."""
    rows = [[row.key, *row.ids] for row in step.rows]
    fields: list[Any] = [rows, step.forget, step.keep, step.fork, step.drop, step.trim, step.silent, step.batched]
    while fields and fields[-1] == _USUAL[len(fields) - 1]:
        fields.pop()
    return _WRITE(fields)


def read_step(text: str) -> Step:
    """The step that `step_text` was given."""
    fields = json.loads(text)
    rows = tuple(Row(key, tuple(ids)) for key, *ids in (fields[0] if fields else ()))
    return Step(rows, *map(_tuples, fields[1:]))


def piece(text: str, hidden: Any) -> Any:
    """What one stage sends the next: a step, and what came of it here; as bytes, where that is bytes or None."""
    if hidden is not None and type(hidden) is not bytes:
        return text, hidden
    step = text.encode()
    return b"".join([_LENGTH.pack(len(step)), step, hidden or b""])


def read_piece(value: Any) -> tuple[str, Any]:
    """The step and what came of it, which `piece` was given."""
    if type(value) is not bytes:
        text, hidden = value
        return text, hidden
    start = _LENGTH.size + _LENGTH.unpack_from(value)[0]
    return value[_LENGTH.size : start].decode(), value[start:] or None


def packed(hidden: Any) -> Any:
    """Computes hidden states; small ones become bytes. On the thread of MLX."""
    import mlx.core as mx
    import numpy as np

    from .stage import computed

    hidden = computed(hidden)
    if not isinstance(hidden, mx.array) or hidden.ndim != 3 or hidden.nbytes > _LARGE:
        return hidden
    name = str(hidden.dtype).rpartition(".")[2]
    if name not in _DTYPES:
        return hidden
    # numpy has no bfloat16; what it has it sees as it lies there, without a step of MLX's.
    plain = hidden.view(mx.uint16) if name == "bfloat16" else hidden
    return struct.pack(_HEAD, _DTYPES.index(name), *hidden.shape) + np.asarray(plain).tobytes()


def unpacked(value: Any) -> Any:
    """The hidden states that `packed` was given. On the thread of MLX."""
    if not isinstance(value, bytes):
        return value
    import mlx.core as mx
    import numpy as np

    kind, *shape = struct.unpack_from(_HEAD, value)
    name = _DTYPES[kind]
    plain = np.frombuffer(value, "uint16" if name == "bfloat16" else name, offset=struct.calcsize(_HEAD))
    hidden = mx.array(plain.reshape(shape))
    return hidden.view(mx.bfloat16) if name == "bfloat16" else hidden


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value
