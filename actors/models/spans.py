"""Which bytes of a model's files a stage needs."""

from __future__ import annotations

import json
import re
import struct
from typing import TYPE_CHECKING, Any, Final

from .checkpoint import open_checkpoint

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_PIECE: Final = 8 << 20  # bytes in one message
_SMALL: Final = 1 << 20  # bytes of a tensor outside of the layers that every stage gets
_NUMBER: Final = re.compile(r"\.(\d+)\.")
_PLAIN: Final = (".json", ".jinja", ".model", ".tiktoken", ".txt")


def is_plain(name: str) -> bool:
    """Whether a file of a model's is one that all need: configuration or tokenizer."""
    return name.endswith(_PLAIN)


def is_weights(name: str) -> bool:
    """Whether it has weights."""
    return name.startswith("model") and name.endswith(".safetensors")


def parts(start: int, size: int) -> Iterator[tuple[int, int]]:
    """A range of bytes (start, size) in pieces."""
    for begin in range(start, start + size, _PIECE):
        yield begin, min(_PIECE, start + size - begin)


def spans(path: Path, first: int | None, last: int | None) -> Iterator[tuple[str, list[tuple[int, int]]]]:
    """Files, each with the ranges of bytes (start, size) that a stage needs of it; the header first."""
    if first is None or last is None:
        yield from _header_spans(path)
        return
    if not path.is_dir():
        yield path.name, _of_gguf(path, first, last)
        return
    total = open_checkpoint(path).info().layers
    for file in sorted(path.iterdir()):
        if is_plain(file.name):
            yield file.name, [(0, file.stat().st_size)]
        elif is_weights(file.name):
            yield file.name, _of_safetensors(file, first, last, total)


def _header_spans(path: Path) -> Iterator[tuple[str, list[tuple[int, int]]]]:
    """All but the weights."""
    if not path.is_dir():
        yield path.name, _of_gguf(path, 0, -1)[:1]
        return
    for file in sorted(path.iterdir()):
        if is_weights(file.name):
            with file.open("rb") as opened:
                (length,) = struct.unpack("<Q", opened.read(8))
            yield file.name, [(0, 8 + length)]
        elif is_plain(file.name):
            yield file.name, [(0, file.stat().st_size)]


def _of_safetensors(path: Path, first: int, last: int, total: int) -> list[tuple[int, int]]:
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        entries: dict[str, Any] = json.loads(file.read(length))
    spans = [(0, 8 + length)]
    for name, entry in entries.items():
        if name != "__metadata__":
            begin, end = entry["data_offsets"]
            if _is_needed(name, end - begin, first, last, total):
                spans.append((8 + length + begin, end - begin))
    return spans


def _is_needed(name: str, nbytes: int, first: int, last: int, total: int) -> bool:
    number = _NUMBER.search(name)
    if number is not None:
        return first <= int(number[1]) <= last
    return nbytes < _SMALL or first == 0 or last == total - 1


def _of_gguf(path: Path, first: int, last: int) -> list[tuple[int, int]]:
    from .ggufmodel import GgufCheckpoint

    checkpoint = GgufCheckpoint.open(path)
    tensors = checkpoint.file.tensors
    header = min(entry.start for entry in tensors.values())
    needed = checkpoint.needed(first, last)
    wanted = [entry for name, entry in tensors.items() if name in needed or entry.nbytes < _SMALL]
    return [(0, header), *((entry.start, entry.nbytes) for entry in wanted)]
