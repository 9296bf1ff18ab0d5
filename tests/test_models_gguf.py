from __future__ import annotations

import struct

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

mx = pytest.importorskip("mlx.core")
pytest.importorskip("mlx_lm")

from tiny_models import BASE, llama_metadata, make_directory, make_gguf, write_gguf  # noqa: E402

from actors.exceptions import ModelError  # noqa: E402
from actors.models import describe  # noqa: E402
from actors.models.blocks import Affine  # noqa: E402
from actors.models.gguf import read_header  # noqa: E402

WORDS = ["<s>", "</s>", "a", "b", "ab", "\u0120", "\u65e5"]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gguf")
    source = make_directory(folder / "source", num_hidden_layers=2)
    kinds = {"attn_q": "Q4_0", "attn_v": "Q4_1", "token_embd": "Q8_0", "ffn_up": "F16", "ffn_down": "BF16"}
    return make_gguf(folder / "tiny.gguf", source, kinds, **{"tokenizer.ggml.tokens": WORDS, "some.flag": True})


def header_size(path):
    return min(entry.start for entry in read_header(path).tensors.values())


def test_every_type_is_read_as_mlx_reads_it(tiny):
    file, reference = read_header(tiny), mx.load(str(tiny))
    seen = set()
    for name, entry in file.tensors.items():
        value = file.read(name)
        seen.add(entry.kind.name)
        if isinstance(value, Affine):
            stem = name.removesuffix(".weight")
            assert mx.array_equal(mx.array(value.weight), reference[name])
            assert mx.array_equal(mx.array(value.scales), reference[f"{stem}.scales"].astype(mx.float32))
            assert mx.array_equal(mx.array(value.biases), reference[f"{stem}.biases"].astype(mx.float32))
        elif entry.kind.name == "BF16":
            expected = reference[name].astype(mx.float32)
            assert mx.allclose(mx.array(value).view(mx.bfloat16).astype(mx.float32), expected, rtol=1e-2)
        else:
            assert np.array_equal(value, np.array(reference[name]))
    assert seen == {"F32", "F16", "BF16", "Q4_0", "Q4_1", "Q8_0"}
    assert file.array("tokenizer.ggml.tokens") == WORDS
    assert file.metadata["some.flag"] is True
    assert file.array("not.there") == []


@given(data=st.data())
@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_file_truncated_anywhere_is_a_model_error(tiny, tmp_path, data):
    whole = tiny.read_bytes()
    header = header_size(tiny)
    size = data.draw(st.one_of(st.integers(0, header), st.integers(0, len(whole) - 33)))
    short = tmp_path / "short.gguf"
    short.write_bytes(whole[:size])
    with pytest.raises(ModelError, match=r"truncated|damaged|not a GGUF"):
        describe(short)


@given(data=st.data())
@settings(deadline=None, max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_damaged_header_is_a_model_error_or_harmless(tiny, tmp_path, data):
    raw = bytearray(tiny.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        position = data.draw(st.integers(0, header_size(tiny) - 8))
        raw[position : position + 8] = data.draw(st.binary(min_size=1, max_size=8)).ljust(8, b"\xff")
    bad = tmp_path / "bad.gguf"
    bad.write_bytes(raw)
    try:
        info = describe(bad)
    except ModelError:
        return
    assert info.layers >= 1


@given(st.binary(max_size=200))
@settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_noise_is_a_model_error(tmp_path, noise):
    path = tmp_path / "noise.gguf"
    path.write_bytes(noise)
    with pytest.raises(ModelError):
        describe(path)
    path.write_bytes(b"GGUF" + struct.pack("<I", 3) + noise)
    with pytest.raises(ModelError):
        describe(path)


def refused(tmp_path, metadata=(), tensors=()):
    path = write_gguf(tmp_path / "odd.gguf", {**llama_metadata(BASE), **dict(metadata)}, list(tensors))
    with pytest.raises(ModelError) as caught:
        describe(path)
    return str(caught.value)


def test_what_cannot_be_run_is_refused_by_name(tmp_path):
    table = ("token_embd.weight", "F32", np.zeros((160, 64), np.float32))
    assert "the architecture 'mamba' is not supported in GGUF files; what is supported: llama, qwen2, qwen3" in refused(
        tmp_path, {"general.architecture": "mamba"}
    )
    assert "mixture of experts" in refused(tmp_path, {"llama.expert_count": 8})
    assert "'yarn' is not supported" in refused(tmp_path, {"llama.rope.scaling.type": "yarn"}, [table])
    assert "only a part of each head" in refused(tmp_path, {"llama.rope.dimension_count": 8}, [table])
    assert "llama.block_count is 0" in refused(tmp_path, {"llama.block_count": 0}, [table])
    assert "layers that differ in llama.attention.head_count" in refused(
        tmp_path, {"llama.attention.head_count": [4, 2]}, [table]
    )
    assert "token_embd.weight is missing" in refused(tmp_path)
    assert "no tensor for model.layers.0" in refused(tmp_path, {"llama.block_count": 4_000_000_000}, [table])
    extra = ("blk.0.attn_sinks.weight", "F32", np.zeros(4, np.float32))
    assert "'blk.0.attn_sinks.weight' is of a variant" in refused(tmp_path, {}, [table, extra])


def test_shapes_that_contradict_the_metadata_are_refused(tmp_path):
    source = make_directory(tmp_path / "source", num_hidden_layers=1)
    path = make_gguf(tmp_path / "tiny.gguf", source, **{"llama.feed_forward_length": 128})
    with pytest.raises(ModelError, match=r"'blk\.0\.ffn_(gate|up|down)\.weight' has the shape .* its metadata says"):
        describe(path)


def test_a_quantisation_that_cannot_be_read_is_called_by_name(tmp_path, tiny):
    raw = tiny.read_bytes()
    name = b"blk.0.ffn_gate.weight"
    at = raw.index(name) + len(name) + 4 + 16
    bad = tmp_path / "odd.gguf"
    bad.write_bytes(raw[:at] + struct.pack("<I", 9) + raw[at + 4 :])  # Q8_1, smaller than what was there
    with pytest.raises(ModelError, match=r"stored as Q8_1; what can be read is F32, F16, BF16, Q4_0, Q4_1, Q5_0"):
        describe(bad)
    bad.write_bytes(raw[:at] + struct.pack("<I", 99) + raw[at + 4 :])
    with pytest.raises(ModelError, match="type number 99"):
        describe(bad)


def test_rotary_factors_of_llama_3_are_understood(tmp_path):
    source = make_directory(tmp_path / "source", num_hidden_layers=1, rope_theta=500000.0)
    path = make_gguf(tmp_path / "tiny.gguf", source)
    from mlx_lm.models.rope_utils import Llama3RoPE

    scaled = Llama3RoPE(16, base=500000.0, scaling_config={"factor": 32.0})._freqs
    divisors = np.array(scaled) / 500000.0 ** (np.arange(0, 16, 2) / 16)
    file = read_header(path)
    tensors = [("rope_freqs.weight", "F32", divisors.astype(np.float32))]
    tensors += [(name, "F32", file.read(name)) for name in file.tensors]
    from actors.models import llama

    config = llama.config(read_header(write_gguf(tmp_path / "a.gguf", file_metadata(file), tensors)))
    assert config["rope_scaling"]["rope_type"] == "llama3"
    assert config["rope_scaling"]["factor"] == 32.0
    tensors[0] = ("rope_freqs.weight", "F32", np.linspace(1, 9, 8).astype(np.float32))
    with pytest.raises(ModelError, match="rotary frequencies"):
        llama.config(read_header(write_gguf(tmp_path / "b.gguf", file_metadata(file), tensors)))


def file_metadata(file):
    return {key: value for key, value in file.metadata.items() if not hasattr(value, "start")}
