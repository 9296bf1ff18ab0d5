"""GGUF files of the Qwen family, written by llama.cpp's own package, say what mlx-lm says with the same numbers."""

from __future__ import annotations

import json

import numpy as np
import pytest

mx = pytest.importorskip("mlx.core")
pytest.importorskip("mlx_lm")
gguf = pytest.importorskip("gguf")

from mlx.utils import tree_flatten  # noqa: E402
from test_models_cut import PROMPT, Chain  # noqa: E402
from test_models_tokenizer import metadata  # noqa: E402
from tiny_models import GGUF_NAMES, make_directory, whole_directory, whole_logits, whole_tokens, write_gguf  # noqa: E402

from actors.exceptions import ModelError  # noqa: E402
from actors.models import describe, load_tokenizer  # noqa: E402

NAMES = {**GGUF_NAMES, "self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm"}
# Types of 16 bits are computed in these, and so differ from float32.
KINDS = {"F32": 2e-3, "F16": 0.02, "BF16": 0.2, "Q8_0": 2e-3, "Q4_0": 2e-3, "Q4_1": 2e-3}


def write(path, source, kind="F32", **changes):
    """As llama.cpp's converter does; the directory gets the numbers that the file's type leaves of them."""
    config = json.loads((source / "config.json").read_text())
    writer = gguf.GGUFWriter(path, config["model_type"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_key_length(changes.get("key_length", config["head_dim"]))
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(config["rope_theta"])
    writer.add_context_length(config["max_position_embeddings"])
    numbers = mx.load(str(source / "model.safetensors"))
    quantisation = gguf.GGMLQuantizationType[kind]
    for name, value in numbers.items():
        stem, _, part = name.rpartition(".")
        block = ""
        if stem.startswith("model.layers."):
            _, _, layer, stem = stem.split(".", 3)
            block = f"blk.{layer}."
        plain = np.array(value)
        if plain.ndim == 2:
            stored = gguf.quants.quantize(plain, quantisation)
            numbers[name] = mx.array(gguf.quants.dequantize(stored, quantisation))
            writer.add_tensor(f"{block}{NAMES[stem]}.{part}", stored, raw_dtype=quantisation)
        else:
            writer.add_tensor(f"{block}{NAMES[stem]}.{part}", plain)
    mx.save_safetensors(str(source / "model.safetensors"), numbers, {"format": "mlx"})
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def make(folder, family, *, tied=False):
    """With biases that are not zero, and norms that are not one."""
    path = make_directory(folder / "source", model_type=family, num_hidden_layers=3, tie_word_embeddings=tied)
    weights = dict(tree_flatten(mx.load(str(path / "model.safetensors"))))
    mx.random.seed(3)
    for name, value in weights.items():
        if name.endswith("bias") or "_norm." in name:
            weights[name] = value + 0.3 * mx.random.normal(value.shape)
    mx.save_safetensors(str(path / "model.safetensors"), weights, {"format": "mlx"})
    return path


@pytest.mark.parametrize("tied", [False, True], ids=["head", "tied"])
@pytest.mark.parametrize("family", ["qwen2", "qwen3"])
def test_unquantised_it_is_the_same_bit_for_bit_in_every_stage(family, tied, tmp_path):
    source = make(tmp_path, family, tied=tied)
    path = write(tmp_path / "tiny.gguf", source)
    info = describe(path)
    assert (info.architecture, info.layers, info.tied, info.quantised) == (family, 3, tied, False)
    wanted = whole_tokens(whole_directory(source), PROMPT, 16)
    assert len(set(wanted)) > 3
    for cut in ([(0, 2)], [(0, 0), (1, 2)], [(0, 0), (1, 1), (2, 2)]):
        assert Chain(path, cut).generate("a", PROMPT, 16) == wanted


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("family", ["qwen2", "qwen3"])
def test_in_every_quantisation_that_can_be_read(family, kind, tmp_path):
    source = make(tmp_path, family)
    chain = Chain(write(tmp_path / "tiny.gguf", source, kind), [(0, 1), (2, 2)])
    (expected,) = whole_logits(whole_directory(source), [PROMPT])
    found = chain.logits("a", PROMPT)[:, -1].astype(mx.float32)
    assert mx.abs(found - expected[:, -1]).max().item() < KINDS[kind]
    assert mx.abs(expected[:, -1]).max().item() > 1


def test_a_file_without_its_norms_is_incomplete(tmp_path):
    source = make(tmp_path, "qwen3")
    numbers = mx.load(str(source / "model.safetensors"))
    del numbers["model.layers.1.self_attn.q_norm.weight"]
    mx.save_safetensors(str(source / "model.safetensors"), numbers)
    with pytest.raises(ModelError, match=r"it has no tensor for model.layers.1.self_attn.q_norm.weight"):
        describe(write(tmp_path / "tiny.gguf", source))


def test_its_tokenizer_cuts_numbers_into_digits_and_composes_characters(tmp_path):
    words = {**metadata(), "tokenizer.ggml.pre": "qwen2"}
    tokenizer = load_tokenizer(write_gguf(tmp_path / "words.gguf", words, []))
    assert tokenizer.encode("12") == [*tokenizer.encode("1"), *tokenizer.encode("2")]
    assert tokenizer.encode("e\u0301") == tokenizer.encode("\u00e9")
    assert tokenizer.decode(tokenizer.encode("he said 123 é")) == "he said 123 é"
