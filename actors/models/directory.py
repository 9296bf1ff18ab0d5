"""A directory as mlx-lm and Hugging Face keep models: `config.json` beside `model*.safetensors`."""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final

from actors.exceptions import ModelError

from .checkpoint import ModelInfo
from .extra import on_cpu, require_mlx_lm

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from mlx import nn

_HEADER_LIMIT: Final = 100_000_000  # bytes, by the format's own definition
_TOLD: Final = 300  # characters of what mlx-lm says


@dataclass(frozen=True, slots=True)
class DirectoryCheckpoint:
    """The directory's configuration, the headers of its weight files checked. See `checkpoint.Checkpoint`."""

    path: Path
    config: Mapping[str, Any]

    @classmethod
    def open(cls, path: Path) -> DirectoryCheckpoint:
        """Read and check the headers; see `checkpoint.open_checkpoint` for the errors."""
        config = _read_json(path / "config.json")
        _check_architecture(path, config.get("model_type"))
        _check_weights(path)
        return cls(path, config)

    @property
    def quantised(self) -> bool:
        """Whether some weights have fewer than 16 bits."""
        return "quantization" in self.config or "quantization_config" in self.config

    def info(self) -> ModelInfo:
        """What the model is; nothing is loaded."""
        from .cut import Anatomy, layer_arrays, layer_work

        anatomy = Anatomy.of(self.load())
        active = _active_experts(self.config)
        return ModelInfo(
            path=str(self.path),
            architecture=self.config["model_type"],
            layers=len(anatomy.layers),
            hidden_size=anatomy.width,
            vocab_size=anatomy.vocabulary,
            layer_nbytes=tuple(sum(array.nbytes for array in layer_arrays(layer)) for layer in anatomy.layers),
            layer_parameters=tuple(layer_work(layer, active) for layer in anatomy.layers),
            embedding_nbytes=sum(array.nbytes for array in anatomy.embedding),
            head_nbytes=sum(array.nbytes for array in anatomy.head),
            tied=anatomy.tied,
            quantised=self.quantised,
            together=anatomy.together if anatomy.together < len(anatomy.layers) else None,
            context=_context(self.config),
        )

    def load(self, first: int = 0, last: int | None = None) -> nn.Module:  # noqa: ARG002 - what is not used stays on disk
        """See `checkpoint.Checkpoint.load`."""
        require_mlx_lm()
        import mlx.core as mx
        from mlx_lm.utils import load_model

        try:
            model: nn.Module = load_model(self.path, lazy=True)[0]
        except Exception as error:  # mlx-lm checks little itself: any exception may mean a directory that is not right
            told = str(error)[:_TOLD]
            raise ModelError(f"mlx-lm cannot load the model in {self.path}: {told}") from error
        except SystemExit:  # of olmo's module
            kind = self.config["model_type"]
            raise ModelError(
                f"mlx-lm cannot load the model in {self.path}: a package that {kind!r} needs is not installed; what "
                f"mlx-lm has printed above says which"
            ) from None
        if self.quantised and on_cpu():
            model.set_dtype(mx.float32)
        return model


def _check_architecture(path: Path, model_type: object) -> None:
    require_mlx_lm()
    import mlx_lm
    from mlx_lm.utils import MODEL_REMAPPING

    name = MODEL_REMAPPING.get(model_type) or model_type if isinstance(model_type, str) else None
    if not name or find_spec(f"mlx_lm.models.{name}") is None:
        raise ModelError(f"{path}: mlx-lm {mlx_lm.__version__} knows no architecture {model_type!r}")


def _active_experts(config: Mapping[str, Any]) -> int | None:
    """How many experts of a mixture each token goes to."""
    for settings in _settings(config):
        for key in ("num_experts_per_tok", "num_experts_per_token", "moe_topk", "moe_top_k", "top_k_experts"):
            if isinstance(settings.get(key), int):
                return int(settings[key])
    return None


def _settings(config: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """What is said of the model as a whole, then of its text alone, where it takes other things too."""
    yield config
    if isinstance(text := config.get("text_config"), dict):
        yield text


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


def _check_weights(path: Path) -> None:
    files = sorted(path.glob("model*.safetensors"))
    index = path / "model.safetensors.index.json"
    wanted = set(_read_json(index).get("weight_map", {}).values()) if index.exists() else set()
    missing = wanted - {file.name for file in files}
    if missing:
        raise ModelError(f"{path} is incomplete: {min(missing)} is missing ({len(missing)} of {len(wanted)} files)")
    if not files:
        raise ModelError(f"{path} holds no weights: there is no model*.safetensors in it")
    for file in files:
        _check_header(file)


def _check_header(path: Path) -> None:
    """See that all tensors that a file lists are in it.

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
        for name, entry in entries.items():
            if name != "__metadata__":
                begin, end = entry["data_offsets"]
                if not 0 <= begin <= end <= size - 8 - length:
                    raise ModelError(
                        f"{path} is truncated: {name!r} ends at byte {8 + length + end}, the file has {size}. "
                        "Fetch it again"
                    )
    except OSError as error:
        raise ModelError(f"the model file {path} cannot be read: {error.strerror or error}") from error
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ModelError(f"{path} is damaged: its header makes no sense ({error}). Fetch it again") from error


def _context(config: Mapping[str, Any]) -> int | None:
    """Positions that a model was made for, by the names that its families have for it."""
    names = ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length")
    found = (settings.get(name) for settings in _settings(config) for name in names)
    return next((value for value in found if isinstance(value, int) and value > 0), None)
