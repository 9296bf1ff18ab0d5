"""A directory as mlx-lm and Hugging Face keep models: `config.json` beside `model*.safetensors`."""

from __future__ import annotations

import json
import re
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from actors.exceptions import ModelError

from .checkpoint import ModelInfo
from .extra import on_cpu, require_mlx_lm

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from mlx import nn

# mlx-lm's model types whose cut is tested. Others may run wrong without an error, so they are refused by name.
MODEL_TYPES: Final = ("llama", "mistral", "qwen2", "qwen3")
_FLOATS: Final = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}
_LAYER: Final = re.compile(r"(?:^|\.)layers\.(\d+)\.")
_HEADER_LIMIT: Final = 100_000_000  # bytes, by the format's own definition


@dataclass(frozen=True, slots=True)
class DirectoryCheckpoint:
    """The directory's configuration and the headers of its weight files, checked. See `checkpoint.Checkpoint`."""

    path: Path
    config: Mapping[str, Any]
    tensors: Mapping[str, tuple[str, int]]  # name -> type, bytes in the file

    @classmethod
    def open(cls, path: Path) -> DirectoryCheckpoint:
        """Read and check the headers; see `checkpoint.open_checkpoint` for the errors."""
        config = _read_json(path / "config.json")
        model_type = config.get("model_type")
        if model_type not in MODEL_TYPES:
            raise ModelError(
                f"{path}: the architecture {model_type!r} is not supported; what is supported: {', '.join(MODEL_TYPES)}"
            )
        for key in ("num_hidden_layers", "hidden_size", "vocab_size"):
            value = config.get(key)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ModelError(f"{path / 'config.json'}: {key} is {value!r}, a positive number is needed")
        return cls(path, config, _tensors(path))

    @property
    def quantised(self) -> bool:
        """Whether some weights have fewer than 16 bits."""
        return "quantization" in self.config or "quantization_config" in self.config

    def info(self) -> ModelInfo:
        """What the model is; nothing is loaded."""
        layers = [0] * self.config["num_hidden_layers"]
        parameters = [0] * len(layers)
        embedding = head = 0
        tied = bool(self.config.get("tie_word_embeddings", True))  # mlx-lm's default
        for name, (kind, size) in self.tensors.items():
            nbytes = self._loaded_nbytes(kind, size)
            match = _LAYER.search(name)
            if match is not None:
                layer = int(match[1])
                if layer < len(layers):
                    layers[layer] += nbytes
                    parameters[layer] += self._parameters(name, kind, size)
            elif "embed_tokens" in name:
                embedding += nbytes
            elif not (tied and name.startswith("lm_head.")):
                head += nbytes
        if 0 in layers:
            raise ModelError(f"{self.path} is incomplete: there are no weights for layer {layers.index(0)}")
        return ModelInfo(
            path=str(self.path),
            architecture=self.config["model_type"],
            layers=len(layers),
            hidden_size=self.config["hidden_size"],
            vocab_size=self.config["vocab_size"],
            layer_nbytes=tuple(layers),
            layer_parameters=tuple(parameters),
            embedding_nbytes=embedding,
            head_nbytes=head,
            tied=tied,
            quantised=self.quantised,
            context=_context(self.config),
        )

    def load(self, first: int, last: int) -> nn.Module:  # noqa: ARG002 - all is lazy: what is not used stays on disk
        """See `checkpoint.Checkpoint.load`."""
        require_mlx_lm()
        import mlx.core as mx
        from mlx_lm.utils import load_model

        try:
            model: nn.Module = load_model(self.path, lazy=True)[0]
        except Exception as error:  # mlx-lm checks little itself: any exception may mean a directory that is not right
            raise ModelError(f"mlx-lm cannot load the model in {self.path}: {error}") from error
        if self.quantised and on_cpu():
            model.set_dtype(mx.float32)
        return model

    def _loaded_nbytes(self, kind: str, size: int) -> int:
        if kind in _FLOATS and self.quantised and on_cpu():
            return size * 4 // _FLOATS[kind]
        return size

    def _parameters(self, name: str, kind: str, size: int) -> int:
        """Weights in a tensor; those of quantised ones are packed, with scales and biases beside them."""
        if kind in _FLOATS:
            return 0 if name.endswith((".scales", ".biases")) else size // _FLOATS[kind]
        settings = self.config.get("quantization") or self.config.get("quantization_config") or {}
        bits = settings.get("bits", 4) if isinstance(settings, dict) else 4
        return size * 8 // bits


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise ModelError(f"{path.parent} holds no model: there is no {path.name} in it")
    try:
        value = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} cannot be read: {error}") from error
    if not isinstance(value, dict):
        raise ModelError(f"{path} should hold a JSON object")
    return value


def _tensors(path: Path) -> dict[str, tuple[str, int]]:
    files = sorted(path.glob("model*.safetensors"))
    index = path / "model.safetensors.index.json"
    wanted = set(_read_json(index).get("weight_map", {}).values()) if index.exists() else set()
    missing = wanted - {file.name for file in files}
    if missing:
        raise ModelError(f"{path} is incomplete: {min(missing)} is missing ({len(missing)} of {len(wanted)} files)")
    if not files:
        raise ModelError(f"{path} holds no weights: there is no model*.safetensors in it")
    tensors: dict[str, tuple[str, int]] = {}
    for file in files:
        tensors |= _safetensors_header(file)
    return tensors


def _safetensors_header(path: Path) -> dict[str, tuple[str, int]]:
    """Names, types and sizes, checked against the length of the file.

    Format: https://github.com/huggingface/safetensors#format
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            start = file.read(8)
            length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
            if not 2 <= length <= min(size - 8, _HEADER_LIMIT):
                raise ModelError(f"{path} is truncated or no safetensors file: its header does not fit. Fetch it again")
            entries = json.loads(file.read(length))
        tensors = {}
        for name, entry in entries.items():
            if name != "__metadata__":
                begin, end = entry["data_offsets"]
                if not 0 <= begin <= end <= size - 8 - length:
                    raise ModelError(
                        f"{path} is truncated: {name!r} ends at byte {8 + length + end}, the file has {size}. "
                        "Fetch it again"
                    )
                tensors[name] = (str(entry["dtype"]), int(end - begin))
    except OSError as error:
        raise ModelError(f"the model file {path} cannot be read: {error.strerror or error}") from error
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ModelError(f"{path} is damaged: its header makes no sense ({error}). Fetch it again") from error
    return tensors


def _context(config: Mapping[str, Any]) -> int | None:
    """Positions that a model was made for, by the names that its families have for it."""
    found = (config.get(name) for name in ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length"))
    return next((value for value in found if isinstance(value, int) and value > 0), None)
