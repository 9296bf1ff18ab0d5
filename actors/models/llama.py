"""The families of Llama and Qwen as GGUF spells them, in mlx-lm's terms: configuration, tensor names, order of rows."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from actors.exceptions import ModelError

from .blocks import Affine
from .gguf import ArrayEntry

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .gguf import GgufFile, TensorEntry

ARCHITECTURES: Final = ("llama", "qwen2", "qwen3")
_OUTER: Final = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
_INNER: Final = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_NAME: Final = re.compile(r"(?:blk\.(?P<layer>\d+)\.)?(?P<stem>\w+)\.(?P<part>weight|bias)")
_ROPE_FACTORS: Final = "rope_freqs.weight"


def config(file: GgufFile) -> dict[str, Any]:
    """The file's metadata as mlx-lm's configuration.

    Raises:
        ModelError: another architecture, or a variant of this one that cannot be run.
    """
    architecture = file.metadata.get("general.architecture")
    if architecture not in ARCHITECTURES:
        raise ModelError(
            f"{file.path}: the architecture {architecture!r} is not supported in GGUF files; what is supported: "
            f"{', '.join(ARCHITECTURES)}"
        )
    if file.metadata.get(f"{architecture}.expert_count"):
        raise ModelError(f"{file.path}: a mixture of experts; only dense models are supported in GGUF files")
    heads = _number(file, "attention.head_count")
    hidden = _number(file, "embedding_length")
    kv_heads = _number(file, "attention.head_count_kv", heads)
    if heads % kv_heads:
        raise ModelError(f"{file.path} is damaged: {heads} heads cannot share {kv_heads} heads of keys and values")
    head_dim = _number(file, "attention.key_length", hidden // max(heads, 1))
    if head_dim % 2 or _number(file, "rope.dimension_count", head_dim) != head_dim:
        raise ModelError(f"{file.path}: rotary position on only a part of each head is not supported")
    if "token_embd.weight" not in file.tensors:
        raise ModelError(f"{file.path} holds no model: the tensor token_embd.weight is missing")
    found = {
        "model_type": architecture,
        "hidden_size": hidden,
        "num_hidden_layers": _number(file, "block_count"),
        "intermediate_size": _number(file, "feed_forward_length"),
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "head_dim": head_dim,
        "rms_norm_eps": _real(file, "attention.layer_norm_rms_epsilon", 1e-5),
        "vocab_size": file.tensors["token_embd.weight"].shape[0],
        "max_position_embeddings": _number(file, "context_length", 2048),
        "rope_theta": _real(file, "rope.freq_base", 10000.0),
        "rope_scaling": _rope_scaling(file),
        "attention_bias": "blk.0.attn_q.bias" in file.tensors,
        "tie_word_embeddings": "output.weight" not in file.tensors,
    }
    _check_tensors(file, found)
    return found


def parameter(name: str) -> tuple[int | None, str] | None:
    """mlx-lm's name of a GGUF tensor with the number of its layer; None for tensors that are no parameters."""
    match = _NAME.fullmatch(name)
    if match is None:
        return None
    layer, stem, part = match["layer"], match["stem"], match["part"]
    if layer is None:
        return (None, f"{_OUTER[stem]}.{part}") if stem in _OUTER else None
    return (int(layer), f"model.layers.{int(layer)}.{_INNER[stem]}.{part}") if stem in _INNER else None


def unpermute(file: GgufFile, name: str, value: NDArray[Any] | Affine) -> NDArray[Any] | Affine:
    """Undo llama.cpp's reordering of the rows of queries and keys (it pairs neighbours, mlx-lm pairs halves).

    It does so in Llama's own architecture alone.
    """
    stem = name.split(".")[-2]
    if stem not in {"attn_q", "attn_k"} or file.metadata["general.architecture"] != "llama":
        return value
    heads = _number(file, "attention.head_count")
    if stem == "attn_k":
        heads = _number(file, "attention.head_count_kv", heads)
    if isinstance(value, Affine):
        return Affine(
            _halves(value.weight, heads), _halves(value.scales, heads), _halves(value.biases, heads), value.bits
        )
    return _halves(value, heads)


def _halves(rows: NDArray[Any], heads: int) -> NDArray[Any]:
    pairs = rows.reshape(heads, -1, 2, *rows.shape[1:])
    return np.ascontiguousarray(pairs.swapaxes(1, 2)).reshape(rows.shape)


def _check_tensors(file: GgufFile, config: dict[str, Any]) -> None:
    """Every parameter there in its right shape, and nothing that would be left out."""
    found = {_parameter_name(file, name): entry for name, entry in file.tensors.items() if name != _ROPE_FACTORS}
    for layer in range(config["num_hidden_layers"]):
        _check_shapes(file, found, _layer_shapes(config, f"model.layers.{layer}"))
    _check_shapes(file, found, _outer_shapes(config))
    if found:
        extra = next(iter(found.values())).name
        raise ModelError(f"{file.path}: the tensor {extra!r} is of a variant of the architecture that is not supported")


def _check_shapes(file: GgufFile, found: dict[str, TensorEntry], shapes: dict[str, tuple[int, ...]]) -> None:
    for name, shape in shapes.items():
        entry = found.pop(name, None)
        if entry is None:
            raise ModelError(f"{file.path} is incomplete: it has no tensor for {name}. Fetch it again")
        file.check_readable(entry)
        if entry.shape != shape:
            raise ModelError(
                f"{file.path} is damaged: tensor {entry.name!r} has the shape {entry.shape}, its metadata says {shape}"
            )


def _parameter_name(file: GgufFile, name: str) -> str:
    known = parameter(name)
    if known is None:
        raise ModelError(f"{file.path}: the tensor {name!r} is of a variant of the architecture that is not supported")
    return known[1]


def _layer_shapes(config: dict[str, Any], prefix: str) -> dict[str, tuple[int, ...]]:
    hidden, inner, size = config["hidden_size"], config["intermediate_size"], config["head_dim"]
    queries, keys = config["num_attention_heads"] * size, config["num_key_value_heads"] * size
    matrices = {
        "self_attn.q_proj": (queries, hidden),
        "self_attn.k_proj": (keys, hidden),
        "self_attn.v_proj": (keys, hidden),
        "self_attn.o_proj": (hidden, queries),
        "mlp.gate_proj": (inner, hidden),
        "mlp.up_proj": (inner, hidden),
        "mlp.down_proj": (hidden, inner),
    }
    shapes: dict[str, tuple[int, ...]] = {f"{prefix}.{name}.weight": shape for name, shape in matrices.items()}
    shapes |= {f"{prefix}.{name}.weight": (hidden,) for name in ("input_layernorm", "post_attention_layernorm")}
    if config["model_type"] == "qwen3":
        shapes |= {f"{prefix}.self_attn.{name}_norm.weight": (size,) for name in "qk"}
    if config["attention_bias"]:
        biased = [name for name in matrices if "attn" in name and not _is_unbiased(config, name)]
        shapes |= {f"{prefix}.{name}.bias": matrices[name][:1] for name in biased}
    return shapes


def _is_unbiased(config: dict[str, Any], name: str) -> bool:
    return config["model_type"] == "qwen2" and name.endswith("o_proj")


def _outer_shapes(config: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    table = (config["vocab_size"], config["hidden_size"])
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": table, "model.norm.weight": table[1:]}
    return shapes if config["tie_word_embeddings"] else shapes | {"lm_head.weight": table}


def _rope_scaling(file: GgufFile) -> dict[str, Any] | None:
    kind = file.metadata.get(_key(file, "rope.scaling.type"), "none")
    factor = _real(file, "rope.scaling.factor", 1.0)
    if kind == "linear":
        return {"type": "linear", "factor": factor}
    if kind != "none":
        raise ModelError(f"{file.path}: rotary position scaling of type {kind!r} is not supported, only linear")
    if _ROPE_FACTORS in file.tensors:
        return _llama3_scaling(file)
    return None


def _llama3_scaling(file: GgufFile) -> dict[str, Any]:
    """Llama 3.1 and later: the file keeps the divisors of the frequencies, mlx-lm wants what they come from."""
    divisors = file.read(_ROPE_FACTORS)
    assert not isinstance(divisors, Affine)
    factor = float(divisors.max())
    scaling = {
        "rope_type": "llama3",
        "factor": factor,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }
    base, dims = _real(file, "rope.freq_base", 10000.0), 2 * divisors.size
    waves = 2 * np.pi * base ** (np.arange(0, dims, 2) / dims)
    smooth = np.clip((8192 / waves - 1.0) / 3.0, 0.0, 1.0)
    if not np.allclose(divisors, 1 / ((1 - smooth) / factor + smooth), rtol=1e-3):
        raise ModelError(f"{file.path}: its rotary frequencies are scaled in a way that is not supported")
    return scaling


def _number(file: GgufFile, key: str, default: int | None = None) -> int:
    name = _key(file, key)
    value = file.metadata.get(name, default)
    if isinstance(value, ArrayEntry):
        raise ModelError(f"{file.path}: layers that differ in {name} are not supported")
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ModelError(f"{file.path}: the metadata {name} is {value!r}, a positive number is needed")
    return value


def _real(file: GgufFile, key: str, default: float) -> float:
    name = _key(file, key)
    value = file.metadata.get(name, default)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not value > 0:
        raise ModelError(f"{file.path}: the metadata {name} is {value!r}, a positive number is needed")
    return float(value)


def _key(file: GgufFile, key: str) -> str:
    """Keys begin with the architecture's name."""
    return f"{file.metadata['general.architecture']}.{key}"
