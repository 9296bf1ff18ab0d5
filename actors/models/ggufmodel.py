"""A `.gguf` file of the Llama family as a model of mlx-lm's."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from . import gguf, llama
from .blocks import GROUP_SIZE, Affine
from .checkpoint import ModelInfo
from .extra import on_cpu, require_mlx_lm

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import mlx.core as mx
    from mlx import nn


@dataclass(frozen=True, slots=True)
class GgufCheckpoint:
    """The file's header, checked. See `checkpoint.Checkpoint`."""

    path: Path
    file: gguf.GgufFile
    config: Mapping[str, Any]

    @classmethod
    def open(cls, path: Path) -> GgufCheckpoint:
        """Read and check the header; see `checkpoint.open_checkpoint` for the errors."""
        file = gguf.read_header(path)
        return cls(path, file, llama.config(file))

    @property
    def quantised(self) -> bool:
        """Whether some weights have fewer than 16 bits."""
        return any(entry.kind.quantised for entry in self.file.tensors.values())

    def info(self) -> ModelInfo:
        """What the model is; nothing is loaded."""
        layers = [0] * self.config["num_hidden_layers"]
        parameters = [0] * len(layers)
        embedding = head = 0
        width = _width(self._dtype_name())
        for entry in self.file.tensors.values():
            known = llama.parameter(entry.name)
            if known is None:
                continue
            layer, name = known
            if layer is not None:
                layers[layer] += _nbytes(entry, width)
                parameters[layer] += math.prod(entry.shape)
            elif "embed_tokens" in name:
                embedding += _nbytes(entry, width)
            else:
                head += _nbytes(entry, width)
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
            tied=self.config["tie_word_embeddings"],
            quantised=self.quantised,
            context=self.config["max_position_embeddings"],
        )

    def load(self, first: int, last: int) -> nn.Module:
        """See `checkpoint.Checkpoint.load`; only the tensors that are needed are read."""
        require_mlx_lm()
        import mlx.core as mx
        from mlx import nn
        from mlx_lm.utils import _get_classes

        model_class, arguments = _get_classes(dict(self.config))
        model: nn.Module = model_class(arguments.from_dict(dict(self.config)))
        dtype = getattr(mx, self._dtype_name())
        weights: list[tuple[str, mx.array]] = []
        bits: dict[str, int] = {}
        for entry, name in self.needed(first, last).items():
            value = llama.unpermute(self.file, entry, self.file.read(entry))
            if isinstance(value, Affine):
                module = name.removesuffix(".weight")
                bits[module] = value.bits
                weights += [
                    (name, mx.array(value.weight)),
                    (f"{module}.scales", mx.array(value.scales).astype(dtype)),
                    (f"{module}.biases", mx.array(value.biases).astype(dtype)),
                ]
            else:
                plain = mx.array(value)
                brain = self.file.tensors[entry].kind.name == "BF16"
                weights.append((name, (plain.view(mx.bfloat16) if brain else plain).astype(dtype)))
            mx.eval([array for _, array in weights[-3:]])  # one tensor at a time, so that no copies pile up
        settings = {module: {"group_size": GROUP_SIZE, "bits": each} for module, each in bits.items()}
        nn.quantize(model, class_predicate=lambda module, _: settings.get(module, False))
        model.eval()
        model.load_weights(weights, strict=False)
        return model

    def needed(self, first: int, last: int) -> dict[str, str]:
        """GGUF names with mlx-lm's, of the tensors that a stage of these layers uses."""
        ends = {"model.embed_tokens"} if first == 0 else set()
        if last == self.config["num_hidden_layers"] - 1:
            ends |= {"model.norm", "model.embed_tokens" if self.config["tie_word_embeddings"] else "lm_head"}
        needed = {}
        for entry in self.file.tensors:
            known = llama.parameter(entry)
            if known is None:
                continue
            layer, name = known
            if (first <= layer <= last) if layer is not None else name.rpartition(".")[0] in ends:
                needed[entry] = name
        return needed

    def _dtype_name(self) -> str:
        """The type of everything that is not quantised, and of activations.

        Unquantised files keep their own. GGUF's scales are float16, but MLX's quantised product on the CPU is right
        and fast with float32 only.
        """
        if self.quantised:
            return "float32" if on_cpu() else "float16"
        names = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}
        return names.get(self.file.tensors["token_embd.weight"].kind.name, "float32")


def _width(dtype_name: str) -> int:
    return 4 if dtype_name == "float32" else 2


def _nbytes(entry: gguf.TensorEntry, width: int) -> int:
    count = math.prod(entry.shape)
    if entry.kind.bits is None:
        return count * width
    return count * entry.kind.bits // 8 + 2 * width * count // GROUP_SIZE
