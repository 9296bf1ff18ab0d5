"""A model on disk: what it is, told without loading it, and its weights, only those that a stage needs.

Two kinds are read: a `.gguf` file of the Llama family, and a directory as mlx-lm and Hugging Face keep them
(`config.json` beside `*.safetensors`, quantised or not), of any architecture of mlx-lm's.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from actors.exceptions import ModelError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mlx import nn


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """What a model is, from its headers alone. Bytes are those it takes in memory once loaded on this device.

    Attributes:
        path: file or directory.
        architecture: the model type, in mlx-lm's words.
        layers: number of transformer layers.
        hidden_size: numbers in the hidden state of one token.
        vocab_size: number of token ids.
        layer_nbytes: bytes of each layer.
        layer_parameters: weights of each layer, as many as a token needs multiplications there.
        embedding_nbytes: bytes of the token embedding; the first stage holds it, and the last one too if it is tied.
        head_nbytes: bytes of what only the last stage holds: final norm and untied head.
        tied: the head is the embedding, used backwards.
        quantised: some weights have fewer than 16 bits.
        context: positions that the model was made for; None where it does not say.
        together: layers from this number on share keys and values and cannot be cut; None where there are none.
    """

    path: str
    architecture: str
    layers: int
    hidden_size: int
    vocab_size: int
    layer_nbytes: tuple[int, ...]
    layer_parameters: tuple[int, ...]
    embedding_nbytes: int
    head_nbytes: int
    tied: bool
    quantised: bool
    context: int | None = None
    together: int | None = None

    @property
    def pieces(self) -> int:
        """Into how many stages it can be cut at most."""
        return self.layers if self.together is None else self.together + 1

    @property
    def nbytes(self) -> int:
        """Bytes of the whole model in one process."""
        return sum(self.layer_nbytes) + self.embedding_nbytes + self.head_nbytes


class Checkpoint(Protocol):
    """A model on disk, its headers read and checked."""

    @property
    def path(self) -> Path:
        """File or directory."""
        ...

    @property
    def config(self) -> Mapping[str, Any]:
        """The configuration in mlx-lm's words."""
        ...

    def info(self) -> ModelInfo:
        """What the model is; nothing is loaded."""
        ...

    def load(self, first: int, last: int) -> nn.Module:
        """mlx-lm's own model, right in layers `first` to `last` and in the ends that they touch.

        Whatever else it holds is lazy and must not be evaluated: weights of no meaning, or still on disk.
        """
        ...


def open_checkpoint(path: str | Path) -> Checkpoint:
    """Read and check the headers of the model at `path`.

    Raises:
        ModelError: nothing there, no model, a truncated or damaged file, or an architecture that is not supported.
    """
    from .directory import DirectoryCheckpoint
    from .ggufmodel import GgufCheckpoint

    path = Path(path).expanduser()
    if path.is_dir():
        return DirectoryCheckpoint.open(path)
    if not path.exists():
        raise ModelError(f"there is no model at {path}: no such file or directory")
    if path.suffix == ".safetensors":
        raise ModelError(f"{path} holds weights alone; give the directory that has config.json beside them")
    return GgufCheckpoint.open(path)


def describe(path: str | Path) -> ModelInfo:
    """Say what the model at `path` is, by reading headers only; errors as in `open_checkpoint`."""
    return open_checkpoint(path).info()
