"""Stages that become others take along what they have: nothing is loaded twice, and the arithmetic is the same."""

from __future__ import annotations

import ctypes
import mmap
import os
import signal
import sys
from dataclasses import replace

import numpy as np
import pytest

mx = pytest.importorskip("mlx.core")
pytest.importorskip("mlx_lm")

from clusters import SOON, eventually  # noqa: E402
from test_models_sharded import END, speaking  # noqa: E402
from tiny_models import make_directory, make_gguf, whole_directory, whole_tokens  # noqa: E402

import actors  # noqa: E402
from actors.exceptions import ModelError  # noqa: E402
from actors.models import ShardedModel, StageModel  # noqa: E402
from actors.models.gguf import read_header  # noqa: E402
from actors.models.stage import Row, Step  # noqa: E402
from actors.models.survey import Survey  # noqa: E402

PROMPT = [101, 20, 33, 7, 250, 88, 14]
CHANGES = [((0, 1), (0, 3)), ((0, 3), (0, 4)), ((0, 4), (2, 4)), ((2, 4), (1, 4)), ((1, 2), (2, 3)), ((2, 3), (0, 4))]
SLOW = pytest.mark.slow


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("reuse")
    plain = make_directory(folder / "plain", tie_word_embeddings=True)
    return {
        "directory": make_directory(folder / "directory", bits=4),
        "tied": make_directory(folder / "tied", bits=4, tie_word_embeddings=True),
        "gguf": make_gguf(folder / "model.gguf", plain, dict.fromkeys(("attn_q", "ffn_up", "token_embd"), "Q4_0")),
    }


def given(stage, hidden):
    step = Step((Row("a", (5, 6)),))
    out = stage.run(step, None if stage.first == 0 else hidden)
    stage.run(Step(forget=("a",)))
    return out


@pytest.mark.parametrize("wide", [0, pytest.param(1e9, marks=SLOW)], ids=["stored", "wide"])
@pytest.mark.parametrize("kind", [pytest.param("directory", marks=SLOW), pytest.param("tied", marks=SLOW), "gguf"])
def test_a_stage_made_of_another_gives_what_one_that_was_loaded_gives(files, kind, wide):
    hidden = mx.random.normal((1, 2, 64))
    for old, new in CHANGES:
        before = StageModel.load(files[kind], *old, wide=wide)
        made = StageModel.load(files[kind], *new, wide=wide, like=before)
        loaded = StageModel.load(files[kind], *new, wide=wide)
        assert mx.array_equal(given(made, hidden), given(loaded, hidden)), (old, new)
        assert made.nbytes == loaded.nbytes
        assert made.wide == loaded.wide


def test_layers_that_are_there_are_shared_and_not_read_again(files, monkeypatch):
    from actors.models.ggufmodel import GgufCheckpoint

    read, load = [], GgufCheckpoint.load
    monkeypatch.setattr(
        GgufCheckpoint, "load", lambda self, first, last: read.append((first, last)) or load(self, first, last)
    )
    before = StageModel.load(files["gguf"], 0, 2)
    StageModel.load(files["gguf"], 0, 4, like=before)
    StageModel.load(files["gguf"], 1, 2, like=before)
    assert read == [(0, 2), (3, 4), (1, 0)]


def resident(path):
    """Bytes of a file that are in memory, whoever had them read."""
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as data:
        pages = (ctypes.c_ubyte * -(-len(data) // mmap.PAGESIZE))()
        start = ctypes.addressof(ctypes.c_char.from_buffer(data))
        assert ctypes.CDLL(None, use_errno=True).mincore(ctypes.c_void_p(start), ctypes.c_size_t(len(data)), pages) == 0
        return mmap.PAGESIZE * sum(page & 1 for page in pages)


@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux which parts of a file are in memory")
def test_a_stage_reads_its_own_layers_alone_from_the_disk(tmp_path):
    path = make_directory(tmp_path / "wide", hidden_size=512, head_dim=128, intermediate_size=1024, vocab_size=8192)
    file = path / "model.safetensors"
    with file.open("r+b") as written:
        os.fsync(written.fileno())
        os.posix_fadvise(written.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    if resident(file) > file.stat().st_size / 10:
        pytest.skip("files of this folder stay in memory")
    stage = StageModel.load(path, 2, 2)
    stage.run(Step((Row("a", (1, 2, 3)),)), mx.zeros((1, 3, 512)))
    assert 6 * stage.nbytes < file.stat().st_size
    assert stage.nbytes <= resident(file) < 1.5 * stage.nbytes  # the system reads a little ahead


def test_a_stage_maps_its_own_tensors_alone_of_a_gguf_file(files, monkeypatch):
    asked, memmap = [], np.memmap
    monkeypatch.setattr(
        "actors.models.gguf.np.memmap",
        lambda path, dtype, mode, start, shape: (
            asked.append((start, *shape)) or memmap(path, dtype, mode, start, shape)
        ),
    )
    StageModel.load(files["gguf"], 1, 2)
    entries = read_header(files["gguf"]).tensors.values()
    assert sorted(asked) == sorted(
        (each.start, each.nbytes) for each in entries if each.name.startswith(("blk.1.", "blk.2."))
    )


@pytest.mark.slow
def test_a_stage_that_dies_leaves_the_processes_of_the_others(cluster, tmp_path):
    path = speaking(tmp_path / "llama")
    found = whole_tokens(whole_directory(path), PROMPT, 60)
    whole = found[: found.index(END) + 1] if END in found else found
    with ShardedModel.load(path) as model:
        before = [each["pid"] for each in model.status()["stages"]]
        for number in range(3):
            answer = model.submit(PROMPT, max_tokens=60)
            tokens = [next(answer).id for _ in range(5)]
            os.kill(model.status()["stages"][number]["pid"], signal.SIGKILL)
            assert tokens + [token.id for token in answer] == whole
            after = [each["pid"] for each in model.status()["stages"]]
            assert [a == b for a, b in zip(before, after, strict=True)] == [place != number for place in range(3)]
            before = after
        stages = model._deployment.stages
        eventually(lambda: actors.get([stage.sequences.remote() for stage in stages], timeout=SOON) == [()] * 3)


@pytest.mark.slow
def test_layers_move_in_the_middle_of_answers_with_their_caches(cluster, tmp_path):
    path = speaking(tmp_path / "llama")
    model = whole_directory(path)
    names = [node.name for node in actors.nodes()]
    with ShardedModel.load(path, nodes=names[:2], kv_memory=10_000_000) as small:
        prompts = [[number, *PROMPT, *PROMPT] for number in range(4)]
        answers = [small.submit(prompt, max_tokens=60) for prompt in prompts]
        sampled = small.submit(PROMPT, max_tokens=30, temperature=0.9, seed=5)
        tokens = [[next(answer).id for _ in range(3)] for answer in (*answers, sampled)]
        with small.conversation() as talk:
            talk.generate("Once upon a time", max_tokens=8)
            held = talk.cached_tokens
            small._succession._recipe = replace(small._succession._recipe, nodes=names)  # a third one is there
            assert len(small.rebalance().stages) == 3
            busy = small.status()
            assert busy["tokens"] == 0
            for answer, prompt, got in zip(answers, prompts, tokens, strict=False):
                rest = [token.id for token in answer]
                found = whole_tokens(model, prompt, 60)
                assert got + rest == (found[: found.index(END) + 1] if END in found else found)
            rest = [token.id for token in sampled]
            assert tokens[-1] + rest == list(small.tokens(PROMPT, max_tokens=30, temperature=0.9, seed=5))
            assert talk.cached_tokens == held > 0  # it came along
        stages = small._deployment.stages
        eventually(lambda: actors.get([stage.sequences.remote() for stage in stages], timeout=SOON) == [()] * 3)


class Tight(Survey):
    """Each node has room for seven tenths of a model."""

    def __init__(self, nbytes):
        super().__init__()
        self.room = 7 * nbytes // 10

    def devices(self, nodes, **options):
        return [replace(each, memory=self.room) for each in super().devices(nodes, **options)]


@pytest.mark.slow
def test_what_fits_no_longer_says_so_and_goes_on_once_it_does(cluster, tmp_path):
    path = speaking(tmp_path / "llama")
    found = whole_tokens(whole_directory(path), PROMPT, 8)
    names = [node.name for node in actors.nodes()][:2]
    with ShardedModel.load(path, nodes=names, arithmetic="stored") as model:
        recipe = replace(model._succession._recipe, survey=Tight(model.plan.model.nbytes))
        model._succession._recipe = replace(recipe, nodes=names[:1])  # as if the other one had gone
        tokens = model.tokens(PROMPT, max_tokens=60)
        next(tokens)
        os.kill(model.status()["stages"][1]["pid"], signal.SIGKILL)
        for ask in (lambda: list(tokens), lambda: model.generate("he", max_tokens=2)):
            with pytest.raises(ModelError, match=r"are missing\. Add a device"):
                ask()
        model._succession._recipe = recipe  # and were back
        assert list(model.tokens(PROMPT, max_tokens=8)) == found[: found.index(END) + 1 if END in found else 8]
        assert [stage.node for stage in model.plan.stages] == names
