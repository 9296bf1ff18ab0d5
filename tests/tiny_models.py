"""Small models with random weights, made on the spot, and the same weights run whole by mlx-lm."""

from __future__ import annotations

import json
import struct
from typing import TYPE_CHECKING, Any

import mlx.core as mx
import numpy as np
from mlx import nn
from mlx.utils import tree_flatten, tree_map
from mlx_lm.generate import generate_step
from mlx_lm.models import llama
from mlx_lm.utils import _get_classes, load_model

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

BASE = {
    "model_type": "llama",
    "hidden_size": 64,
    "num_hidden_layers": 5,
    "intermediate_size": 96,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "rms_norm_eps": 1e-5,
    "vocab_size": 160,
    "max_position_embeddings": 512,
    "rope_theta": 10000.0,
    "tie_word_embeddings": False,
}
GGUF_NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def make_directory(path: Path, *, bits: int | None = None, dtype: mx.Dtype = mx.float32, **changes: Any) -> Path:
    """An mlx-lm directory. Weights are large enough that wrong positions or masks change the tokens."""
    config = {**BASE, **changes}
    mx.random.seed(7)
    model_class, arguments = _get_classes(config)
    model = model_class(arguments.from_dict(config))
    for layer in model.layers:  # what layers add outweighs the embedding, else a tied head repeats the last token
        layer.update(tree_map(lambda weight: weight * 4 if weight.ndim == 2 else weight, layer.parameters()))
    if bits is not None:
        nn.quantize(model, group_size=32, bits=bits)
        config["quantization"] = {"group_size": 32, "bits": bits}
    weights = {name: value.astype(dtype) if mx.issubdtype(value.dtype, mx.floating) else value
               for name, value in tree_flatten(model.parameters())}  # fmt: skip
    path.mkdir(parents=True, exist_ok=True)
    mx.save_safetensors(str(path / "model.safetensors"), weights, {"format": "mlx"})
    (path / "config.json").write_text(json.dumps(config))
    return path


def whole_directory(path: Path) -> nn.Module:
    return load_model(path)[0]


def whole_tokens(model: nn.Module, prompt: Sequence[int], count: int, **options: Any) -> list[int]:
    steps = generate_step(mx.array(list(prompt)), model, max_tokens=count, **options)
    return [int(token) for token, _ in steps]


def whole_logits(model: nn.Module, chunks: Iterable[Sequence[int]]) -> list[mx.array]:
    cache = model.make_cache() if hasattr(model, "make_cache") else None
    if cache is None:
        from mlx_lm.models.cache import make_prompt_cache

        cache = make_prompt_cache(model)
    out = []
    for chunk in chunks:
        out.append(model(mx.array([list(chunk)]), cache=cache))
        mx.eval(out[-1], [each.state for each in cache])
    return out


def whole_gguf(path: Path) -> nn.Module:
    """The file as mlx.core itself reads it, made float32, in mlx-lm's model: shares no code with the package."""
    tensors, metadata = mx.load(str(path), return_metadata=True)
    number = {key.removeprefix("llama."): value.item() for key, value in metadata.items()
              if key.startswith("llama.") and isinstance(value, mx.array)}  # fmt: skip
    heads, kv_heads = number["attention.head_count"], number["attention.head_count_kv"]
    back = {short: long for long, short in GGUF_NAMES.items()}
    weights = {}
    for name, value in tensors.items():
        plain = value if value.dtype == mx.uint32 else value.astype(mx.float32)
        *block, stem, part = name.split(".")
        if stem in {"attn_q", "attn_k"}:
            count = heads if stem == "attn_q" else kv_heads
            plain = plain.reshape(count, -1, 2, *plain.shape[1:]).swapaxes(1, 2).reshape(plain.shape)
        prefix = f"model.layers.{block[1]}." if block else ""
        weights[f"{prefix}{back[stem]}.{part}"] = plain
    embedding = weights["model.embed_tokens.weight"]
    arguments = llama.ModelArgs(
        model_type="llama",
        hidden_size=number["embedding_length"],
        num_hidden_layers=number["block_count"],
        intermediate_size=number["feed_forward_length"],
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        rms_norm_eps=number["attention.layer_norm_rms_epsilon"],
        vocab_size=embedding.shape[0],
        rope_theta=number["rope.freq_base"],
        tie_word_embeddings="lm_head.weight" not in weights,
    )
    model = llama.Model(arguments)

    def settings(name: str, module: nn.Module) -> bool | dict[str, int]:
        if f"{name}.scales" not in weights:
            return False
        return {"group_size": 32, "bits": weights[f"{name}.weight"].shape[-1] * 32 // module.weight.shape[-1]}

    nn.quantize(model, class_predicate=settings)
    model.load_weights(list(weights.items()))
    mx.eval(model.parameters())
    return model


def llama_metadata(config: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "general.architecture": "llama",
        "llama.block_count": config["num_hidden_layers"],
        "llama.embedding_length": config["hidden_size"],
        "llama.feed_forward_length": config["intermediate_size"],
        "llama.attention.head_count": config["num_attention_heads"],
        "llama.attention.head_count_kv": config["num_key_value_heads"],
        "llama.attention.layer_norm_rms_epsilon": config["rms_norm_eps"],
        "llama.rope.freq_base": config["rope_theta"],
        "llama.context_length": config["max_position_embeddings"],
    }


def make_gguf(path: Path, source: Path, kinds: Mapping[str, str] | None = None, **metadata: Any) -> Path:
    """The unquantised directory `source` as llama.cpp would write it; `kinds` gives types by GGUF stem."""
    config = json.loads((source / "config.json").read_text())
    tensors = []
    for name, value in mx.load(str(source / "model.safetensors")).items():
        numbers = np.array(value.astype(mx.float32))
        block, stem = "", name.rpartition(".")[0]
        if stem.startswith("model.layers."):
            _, _, layer, stem = stem.split(".", 3)
            block = f"blk.{layer}."
        short = GGUF_NAMES[stem]
        if short in {"attn_q", "attn_k"}:
            heads = config["num_attention_heads" if short == "attn_q" else "num_key_value_heads"]
            numbers = numbers.reshape(heads, 2, -1, numbers.shape[1]).swapaxes(1, 2).reshape(numbers.shape)
        tensors.append((f"{block}{short}.weight", (kinds or {}).get(short, "F32"), numbers))
    return write_gguf(path, {**llama_metadata(config), **metadata}, tensors)


def write_gguf(path: Path, metadata: Mapping[str, Any], tensors: Sequence[tuple[str, str, np.ndarray]]) -> Path:
    out = bytearray(b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(metadata)))
    for key, value in metadata.items():
        out += _text(key) + _value(value)
    bodies, offset = [], 0
    for name, kind, numbers in tensors:
        number, body = _encode(kind, numbers)
        out += _text(name) + struct.pack("<I", numbers.ndim)
        out += b"".join(struct.pack("<Q", size) for size in reversed(numbers.shape)) + struct.pack(
            "<IQ", number, offset
        )
        bodies.append(body + bytes(-len(body) % 32))
        offset += len(bodies[-1])
    path.write_bytes(bytes(out) + bytes(-len(out) % 32) + b"".join(bodies))
    return path


def _text(value: str) -> bytes:
    raw = value.encode()
    return struct.pack("<Q", len(raw)) + raw


def _value(value: Any) -> bytes:
    if isinstance(value, bool):
        return struct.pack("<I?", 7, value)
    if isinstance(value, int):
        return struct.pack("<II", 4, value)
    if isinstance(value, float):
        return struct.pack("<If", 6, value)
    if isinstance(value, str):
        return struct.pack("<I", 8) + _text(value)
    inner = [_value(each) for each in value]
    return struct.pack("<I", 9) + inner[0][:4] + struct.pack("<Q", len(inner)) + b"".join(each[4:] for each in inner)


def _encode(kind: str, numbers: np.ndarray) -> tuple[int, bytes]:
    if kind == "F32":
        return 0, numbers.astype("<f4").tobytes()
    if kind == "F16":
        return 1, numbers.astype("<f2").tobytes()
    if kind == "BF16":
        return 30, (numbers.astype("<f4").view("<u4") >> 16).astype("<u2").tobytes()
    blocks = numbers.reshape(-1, 32).astype(np.float32)
    low, high = blocks.min(1, keepdims=True), blocks.max(1, keepdims=True)
    if kind == "Q8_0":
        scale = (np.abs(blocks).max(1, keepdims=True) / 127).astype("<f2")
        body = np.rint(blocks / scale.astype("<f4")).clip(-128, 127).astype("i1")
        return 8, np.concatenate([scale.view("u1"), body.view("u1")], 1).tobytes()
    if kind == "Q4_1":
        scale, bias = ((high - low) / 15).astype("<f2"), low.astype("<f2")
        heads, number = [scale.view("u1"), bias.view("u1")], 3
    else:
        assert kind == "Q4_0"
        scale = (np.abs(blocks).max(1, keepdims=True) / 7).astype("<f2")
        bias, heads, number = scale * np.float16(-8), [scale.view("u1")], 2
    quants = np.rint((blocks - bias.astype("<f4")) / scale.astype("<f4")).clip(0, 15).astype("u1")
    return number, np.concatenate([*heads, quants[:, :16] | quants[:, 16:] << 4], 1).tobytes()
