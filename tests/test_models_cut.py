"""A model cut into stages answers bit for bit as mlx-lm's whole one; all in one process here."""

from __future__ import annotations

import json
import threading
from itertools import combinations, pairwise

import pytest

mx = pytest.importorskip("mlx.core")
pytest.importorskip("mlx_lm")

from tiny_models import make_directory, make_gguf, whole_directory, whole_gguf, whole_logits, whole_tokens  # noqa: E402

from actors.exceptions import ModelError  # noqa: E402
from actors.models import StageModel, describe  # noqa: E402

PROMPT = [3, 141, 59, 26, 53, 58, 97, 93, 23, 84, 62, 64]
CHUNKS = [PROMPT[:7], PROMPT[7:11], PROMPT[11:], [5], [80]]
SLIDING = ["sliding_attention", "full_attention", "sliding_attention", "full_attention", "full_attention"]
QWEN3 = {"model_type": "qwen3", "num_hidden_layers": 3}
MODELS = {
    "llama": {},
    "llama, tied": {"tie_word_embeddings": True},
    "llama, 4 bit": {"bits": 4},
    "llama, 8 bit, tied": {"bits": 8, "tie_word_embeddings": True},
    "llama, float16": {"dtype": "float16"},
    "llama, one kv head": {"num_key_value_heads": 1, "num_attention_heads": 3},
    "llama, window 6": {"layer_types": SLIDING, "sliding_window": 6},
    "llama, rope of 3.1": {"rope_scaling": {"rope_type": "llama3", "factor": 8.0}},
    "mistral": {"model_type": "mistral", "num_hidden_layers": 3},
    "qwen2": {"model_type": "qwen2", "num_hidden_layers": 3},
    "qwen3": QWEN3,
    "qwen3, tied": {**QWEN3, "tie_word_embeddings": True},
}


def every_cut(layers):
    for stages in range(1, 5):
        for inner in combinations(range(1, layers), stages - 1):
            cuts = (0, *inner, layers)
            yield [(a, b - 1) for a, b in pairwise(cuts)]


class Chain:
    """Stages called one after the other."""

    def __init__(self, path, cut):
        self.stages = [StageModel.load(path, first, last) for first, last in cut]

    def upstream(self, key):
        def run(ids):
            hidden = None
            for stage in self.stages[:-1]:
                hidden = stage.forward(key, ids, hidden)
            return hidden

        return run if len(self.stages) > 1 else None

    def logits(self, key, ids):
        run = self.upstream(key)
        return self.stages[-1].forward(key, ids, run(ids) if run else None)

    def generate(self, key, prompt, count, **options):
        return self.stages[-1].generate(key, prompt, self.upstream(key), max_tokens=count, **options)

    def forget(self, key):
        for stage in self.stages:
            stage.forget(key)


@pytest.fixture(scope="module", params=MODELS)
def model(request, tmp_path_factory):
    options = dict(MODELS[request.param])
    if "dtype" in options:
        options["dtype"] = getattr(mx, options["dtype"])
    return make_directory(tmp_path_factory.mktemp("model"), **options)


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    return make_directory(tmp_path_factory.mktemp("llama"))


def test_every_cut_gives_the_logits_and_tokens_of_the_whole(model):
    whole = whole_directory(model)
    logits = whole_logits(whole, CHUNKS)
    tokens = whole_tokens(whole, PROMPT, 12)
    assert len(set(tokens)) > 3  # a model stuck on one token would hide what is wrong
    for cut in every_cut(describe(model).layers):
        chain = Chain(model, cut)
        for chunk, expected in zip(CHUNKS, logits, strict=True):
            assert mx.array_equal(chain.logits("a", chunk), expected), cut
        assert list(chain.generate("b", PROMPT, 12)) == tokens, cut


@pytest.mark.parametrize("kind", ["F32", "F16", "BF16", "Q4_0", "Q4_1", "Q8_0"])
@pytest.mark.parametrize("tied", [True, False])
def test_a_gguf_file_gives_what_mlx_reads_from_it(tmp_path, kind, tied):
    source = make_directory(tmp_path / "source", tie_word_embeddings=tied)
    stems = ("token_embd", "output", "attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")
    # One F32 matrix in all but quantised files would do; the mix is what llama.cpp's own recipes have.
    kinds = dict.fromkeys(stems, kind) | ({"token_embd": "Q8_0"} if kind.startswith("Q4") else {})
    path = make_gguf(tmp_path / "tiny.gguf", source, kinds)
    whole = whole_gguf(path)
    if kind in {"F16", "BF16"}:
        whole.set_dtype(mx.float16 if kind == "F16" else mx.bfloat16)
    logits = whole_logits(whole, CHUNKS)
    for cut in ([(0, 4)], [(0, 1), (2, 2), (3, 4)]):
        chain = Chain(path, cut)
        for chunk, expected in zip(CHUNKS, logits, strict=True):
            assert mx.array_equal(chain.logits("a", chunk), expected), cut


def test_a_gguf_file_is_the_directory_it_was_made_from(tmp_path, llama):
    path = make_gguf(tmp_path / "tiny.gguf", llama)
    ours = Chain(path, [(0, 2), (3, 4)]).logits("a", PROMPT)
    assert mx.array_equal(ours, whole_logits(whole_directory(llama), [PROMPT])[0])


def test_a_stage_holds_only_its_own_weights(llama):
    info = describe(llama)
    stages = Chain(llama, [(0, 0), (1, 3), (4, 4)]).stages
    assert [stage.nbytes for stage in stages] == [
        info.layer_nbytes[0] + info.embedding_nbytes,
        sum(info.layer_nbytes[1:4]),
        info.layer_nbytes[4] + info.head_nbytes,
    ]
    assert StageModel.load(llama, 0, 4).nbytes == info.nbytes


def test_loading_a_stage_takes_memory_for_that_stage_only(tmp_path):
    path = make_directory(tmp_path / "wide", hidden_size=512, intermediate_size=2048, vocab_size=4096)
    mx.clear_cache()
    before = mx.get_active_memory()
    stage = StageModel.load(path, 2, 2)
    stage.forward("a", [1, 2, 3], mx.zeros((1, 3, 512)))
    grown = mx.get_active_memory() - before
    assert stage.nbytes <= grown < 1.2 * stage.nbytes


def test_sequences_are_kept_apart_and_forgotten(llama):
    tokens = whole_tokens(whole_directory(llama), PROMPT, 8)
    other = whole_tokens(whole_directory(llama), PROMPT[:5], 8)
    chain = Chain(llama, [(0, 2), (3, 4)])
    pairs = list(zip(chain.generate("a", PROMPT, 8), chain.generate("b", PROMPT[:5], 8), strict=True))
    assert [list(each) for each in zip(*pairs, strict=True)] == [tokens, other]
    chain.forget("a")
    assert [stage.sequences for stage in chain.stages] == [("b",), ()]
    chain.forget("never seen")
    assert list(chain.generate("a", PROMPT, 8)) == tokens


def test_an_iterator_that_is_closed_early_leaves_nothing(llama):
    chain = Chain(llama, [(0, 2), (3, 4)])
    tokens = chain.generate("a", PROMPT, 100)
    next(tokens)
    assert chain.stages[1].sequences == ("a",)
    tokens.close()
    assert chain.stages[1].sequences == ()


def test_a_stop_token_ends_the_answer_and_is_told(llama):
    tokens = whole_tokens(whole_directory(llama), PROMPT, 8)
    stop = tokens[3]
    assert list(Chain(llama, [(0, 4)]).generate("a", PROMPT, 8, stop_ids={stop})) == tokens[: tokens.index(stop) + 1]


def test_no_step_is_asked_for_that_nobody_wants(llama):
    chain = Chain(llama, [(0, 2), (3, 4)])
    asked = []

    def upstream(ids):
        asked.append(ids)
        return chain.stages[0].forward("a", ids)

    tokens = list(chain.stages[1].generate("a", PROMPT, upstream, max_tokens=3))
    assert asked == [PROMPT[:-1], PROMPT[-1:], tokens[:1], tokens[1:2]]
    assert list(chain.stages[1].generate("b", PROMPT, upstream, max_tokens=0)) == []


@pytest.mark.parametrize("top_p", [1.0, 0.7])
def test_sampling_with_a_seed_is_mlx_lms(llama, top_p):
    from mlx_lm.sample_utils import make_sampler

    chain = Chain(llama, [(0, 2), (3, 4)])
    ours = list(chain.generate("a", PROMPT, 10, temperature=0.9, top_p=top_p, seed=11))
    whole = whole_directory(llama)
    mx.random.seed(11)
    theirs = whole_tokens(whole, PROMPT, 10, sampler=make_sampler(0.9, top_p=top_p))
    assert ours == theirs
    chain.forget("a")
    assert list(chain.generate("a", PROMPT, 10, temperature=0.9, top_p=top_p, seed=12)) != ours


def test_a_long_prompt_goes_in_in_mlx_lms_chunks(llama, monkeypatch):
    from actors.models import generate

    monkeypatch.setattr(generate, "PREFILL_CHUNK", 5)
    expected = whole_tokens(whole_directory(llama), PROMPT, 6, prefill_step_size=5)
    assert list(Chain(llama, [(0, 1), (2, 4)]).generate("a", PROMPT, 6)) == expected


def test_a_stage_may_be_loaded_in_one_thread_and_run_in_another(llama):
    chain = Chain(llama, [(0, 2), (3, 4)])
    got = []
    thread = threading.Thread(target=lambda: got.extend(chain.generate("a", PROMPT, 4)))
    thread.start()
    thread.join(30)
    assert got == whole_tokens(whole_directory(llama), PROMPT, 4)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda whole, end: whole.forward("a", []), "no tokens"),
        (lambda whole, end: whole.forward("a", [160]), "token 160 is not in the vocabulary"),
        (lambda whole, end: whole.forward("a", [-1]), "token -1 is not in the vocabulary"),
        (lambda whole, end: whole.forward("a", [1], mx.zeros((1, 1, 64))), "shape None"),
        (lambda whole, end: end.forward("a", [1]), "got None"),
        (lambda whole, end: end.forward("a", [1, 2], mx.zeros((1, 1, 64))), r"shape \(1, 2, 64\) for 2 tokens"),
        (lambda whole, end: whole.generate("a", [], None), "no tokens"),
        (lambda whole, end: whole.generate("a", [1], None, max_tokens=-1), "max_tokens is -1"),
        (lambda whole, end: whole.generate("a", [1], None, temperature=-0.1), "temperature is -0.1"),
        (lambda whole, end: whole.generate("a", [1], None, temperature=float("nan")), "temperature is nan"),
        (lambda whole, end: whole.generate("a", [1], None, top_p=0), "top_p is 0"),
        (lambda whole, end: whole.generate("a", [1], None, top_p=1.1), "top_p is 1.1"),
        (lambda whole, end: end.generate("a", [1], None), "upstream is None"),
    ],
)
def test_wrong_arguments_are_refused_at_once(llama, call, said):
    with pytest.raises(ValueError, match=said):
        call(StageModel.load(llama, 0, 4), StageModel.load(llama, 3, 4))


def test_a_key_under_way_and_a_stage_that_is_not_the_last_are_refused(llama):
    stage = StageModel.load(llama, 0, 4)
    stage.forward("a", [1])
    with pytest.raises(ValueError, match="under way"):
        stage.generate("a", [1], None)
    with pytest.raises(ModelError, match="last stage; this one ends at layer 3 of 5"):
        StageModel.load(llama, 0, 3).generate("a", [1], None)


@pytest.mark.parametrize(("first", "last"), [(0, 5), (-1, 2), (3, 2)])
def test_layers_that_are_not_there(llama, first, last):
    with pytest.raises(ModelError, match="the model has the layers 0 to 4"):
        StageModel.load(llama, first, last)


def changed(path, tmp_path, **changes):
    for file in path.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    config = json.loads((path / "config.json").read_text()) | changes
    (tmp_path / "config.json").write_text(json.dumps({k: v for k, v in config.items() if v is not None}))
    return tmp_path


def test_a_directory_that_is_no_model_says_why(llama, tmp_path):
    with pytest.raises(ModelError, match="no such file or directory"):
        describe(tmp_path / "nowhere")
    with pytest.raises(ModelError, match=r"there is no config\.json"):
        describe(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ModelError, match=r"config\.json cannot be read"):
        describe(tmp_path)
    with pytest.raises(ModelError, match="holds weights alone"):
        describe(llama / "model.safetensors")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model_type": "mamba"}, "the architecture 'mamba' is not supported; what is supported: llama"),
        ({"model_type": None}, "the architecture None is not supported"),
        ({"hidden_size": "wide"}, "hidden_size is 'wide'"),
        ({"num_hidden_layers": 9}, "no weights for layer 5"),
    ],
)
def test_a_configuration_that_does_not_fit_says_why(llama, tmp_path, changes, said):
    with pytest.raises(ModelError, match=said):
        describe(changed(llama, tmp_path, **changes))


def test_a_configuration_that_contradicts_the_weights_says_why(llama, tmp_path):
    with pytest.raises(ModelError, match="mlx-lm cannot load the model"):
        StageModel.load(changed(llama, tmp_path, intermediate_size=100), 0, 4)


def test_weights_that_are_missing_or_truncated_say_so(llama, tmp_path):
    path = changed(llama, tmp_path)
    weights = path / "model.safetensors"
    whole = weights.read_bytes()
    for size in [0, 4, 8, 20, 500, len(whole) // 2, len(whole) - 1]:
        weights.write_bytes(whole[:size])
        with pytest.raises(ModelError, match="truncated"):
            describe(path)
    weights.write_bytes(b"\x10" + bytes(7) + b"not JSON at all!" + bytes(100))
    with pytest.raises(ModelError, match="damaged"):
        describe(path)
    weights.unlink()
    with pytest.raises(ModelError, match=r"no model\*\.safetensors"):
        describe(path)
    (path / "model.safetensors.index.json").write_text('{"weight_map": {"a": "model-1.safetensors"}}')
    with pytest.raises(ModelError, match=r"model-1\.safetensors is missing"):
        describe(path)
