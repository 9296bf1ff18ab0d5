"""GGUF files of Llama and Qwen, written by llama.cpp's own package, say what mlx-lm says with the same numbers."""

from __future__ import annotations

import json
import math

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
from actors.models import StageModel, describe, load_tokenizer  # noqa: E402
from actors.models.blocks import GROUP_SIZE, READABLE, TENSOR_TYPES, Affine, decode  # noqa: E402
from actors.models.gguf import read_header  # noqa: E402

NAMES = {**GGUF_NAMES, "self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm"}
# Types of 16 bits are computed in these, and so differ more from float32 than the order of additions does.
ROUNDED = {"F16": 0.02, "BF16": 0.2}
# What llama.cpp's package reads and cannot write: where the blocks have their scales, and how large these are to be for
# numbers about as large as those of the model.
SCALES = {
    "Q2_K": {80: 0.01, 82: 0.015},
    "Q3_K": {108: 0.004},
    "Q4_K": {0: 6e-4, 2: 4.5e-3},
    "Q5_K": {0: 3e-4, 2: 4.5e-3},
    "Q6_K": {208: 1e-4},
}
WIDE = {"hidden_size": 256, "intermediate_size": 256, "num_attention_heads": 16}  # blocks are of 256 numbers


def stored(numbers, kind):
    """As a file keeps them; or any others, in the types that cannot be written."""
    if kind.name not in SCALES:
        return gguf.quants.quantize(numbers, kind)
    chance = np.random.default_rng(5)
    block, nbytes = gguf.GGML_QUANT_SIZES[kind]
    blocks = chance.integers(0, 256, (numbers.size // block, nbytes), np.uint8)
    for place, scale in SCALES[kind.name].items():
        blocks[:, place : place + 2] = (scale * chance.uniform(0.5, 1.5, (len(blocks), 1))).astype("<f2").view(np.uint8)
    return blocks.reshape(len(numbers), -1)


def paired(rows, heads):
    """In llama.cpp's order of the rows of Llama's queries and keys."""
    return rows.reshape(heads, 2, -1, *rows.shape[1:]).swapaxes(1, 2).reshape(rows.shape)


def write(path, source, kind="F32", **changes):
    """As llama.cpp's converter does; the directory gets the numbers that the file's type leaves of them.

    Args:
        changes: `key_length`, and other types of some tensors, by their names in the file.
    """
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
    heads = {"attn_q": config["num_attention_heads"], "attn_k": config["num_key_value_heads"]}
    for name, value in numbers.items():
        stem, _, part = name.rpartition(".")
        block = ""
        if stem.startswith("model.layers."):
            _, _, layer, stem = stem.split(".", 3)
            block = f"blk.{layer}."
        plain = np.array(value)
        if plain.ndim == 2:
            quantisation = gguf.GGMLQuantizationType[changes.get(NAMES[stem], kind)]
            rows = stored(plain, quantisation)
            numbers[name] = mx.array(gguf.quants.dequantize(rows, quantisation))
            if config["model_type"] == "llama" and NAMES[stem] in heads:
                rows = paired(rows, heads[NAMES[stem]])
            writer.add_tensor(f"{block}{NAMES[stem]}.{part}", rows, raw_dtype=quantisation)
        else:
            writer.add_tensor(f"{block}{NAMES[stem]}.{part}", plain)
    mx.save_safetensors(str(source / "model.safetensors"), numbers, {"format": "mlx"})
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def make(folder, family, *, tied=False, **changes):
    """With biases that are not zero, and norms that are not one."""
    path = make_directory(
        folder / "source", model_type=family, num_hidden_layers=3, tie_word_embeddings=tied, **changes
    )
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


@pytest.mark.parametrize("kind", READABLE)
@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3"])
def test_in_every_quantisation_that_can_be_read(family, kind, tmp_path):
    source = make(tmp_path, family, **(WIDE if kind in SCALES else {}))
    chain = Chain(write(tmp_path / "tiny.gguf", source, kind), [(0, 1), (2, 2)])
    (expected,) = whole_logits(whole_directory(source), [PROMPT])
    found = chain.logits("a", PROMPT)[:, -1].astype(mx.float32)
    assert mx.abs(found - expected[:, -1]).max().item() < ROUNDED.get(kind, 2e-3)
    assert mx.abs(expected[:, -1]).max().item() > 1


def test_in_the_mixture_that_is_most_in_use_four_bits_stay_four(tmp_path):
    source = make(tmp_path, "llama", tied=True, **WIDE)
    mixed = {"token_embd": "Q6_K", "attn_v": "Q6_K", "ffn_down": "Q6_K"}  # of Q4_K_M; every other layer's there
    path = write(tmp_path / "tiny.gguf", source, "Q4_K", **mixed)
    wanted = whole_tokens(whole_directory(source), PROMPT, 12)
    assert len(set(wanted)) > 3
    assert Chain(path, [(0, 0), (1, 2)]).generate("a", PROMPT, 12) == wanted
    info, entries = describe(path), read_header(path).tensors
    assert info.quantised
    numbers = {name: math.prod(entry.shape) for name, entry in entries.items() if name.startswith("blk.1.")}
    quantised = sum(count for name, count in numbers.items() if entries[name].kind.name == "Q4_K")
    # Four bits each, and two numbers of 32 bits for 32 of them; whatever else there is takes 32 bits.
    assert info.layer_nbytes[1] == quantised * 6 // 8 + 4 * (sum(numbers.values()) - quantised)
    assert StageModel.load(path, 1, 1).nbytes == info.layer_nbytes[1]


@pytest.mark.parametrize("kind", READABLE)
def test_each_type_is_read_number_by_number_as_llama_cpp_reads_it(kind):
    quantisation = gguf.GGMLQuantizationType[kind]
    raw = stored(np.random.default_rng(1).normal(size=(3, 512)).astype(np.float32), quantisation)
    raw = np.ascontiguousarray(raw).view(np.uint8).reshape(3, -1)
    value = decode(TENSOR_TYPES[quantisation], raw, (3, 512))
    if isinstance(value, Affine):
        arrays = map(mx.array, (value.weight, value.scales, value.biases))
        value = np.array(mx.dequantize(*arrays, group_size=GROUP_SIZE, bits=value.bits))
    elif kind == "BF16":
        value = (value.astype(np.uint32) << 16).view(np.float32)
    assert np.array_equal(value, gguf.quants.dequantize(raw, quantisation))


def test_types_have_the_names_and_sizes_of_llama_cpp():
    sizes = {quantisation.name: size for quantisation, size in gguf.GGML_QUANT_SIZES.items()}
    sizes["Q8_1"] = (32, 36)  # its package says 40, as a version of long ago
    for number, kind in TENSOR_TYPES.items():
        assert gguf.GGMLQuantizationType(number).name == kind.name
        assert (kind.block, kind.nbytes) == sizes[kind.name]


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
