"""A model cut into stages answers bit for bit as mlx-lm's whole one; all in one process here."""

from __future__ import annotations

import asyncio
import json
import threading
from contextlib import closing
from importlib.util import find_spec
from itertools import combinations, pairwise

import pytest

mx = pytest.importorskip("mlx.core")
pytest.importorskip("mlx_lm")

from test_models_architectures import CONFIGURATIONS  # noqa: E402
from tiny_models import make_directory, make_gguf, whole_directory, whole_gguf, whole_logits, whole_tokens  # noqa: E402

from actors.exceptions import ModelError  # noqa: E402
from actors.models import StageModel, describe  # noqa: E402
from actors.models.sampler import Sampler  # noqa: E402
from actors.models.sampling import Request, Sampling  # noqa: E402
from actors.models.schedule import Schedule  # noqa: E402
from actors.models.stage import Row, Step  # noqa: E402

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
        self.asked = []

    def run(self, step, finish=None):
        self.asked += [row.ids for row in step.rows]
        hidden = None
        for stage in self.stages[:-1]:
            hidden = stage.run(step, hidden)
        return self.stages[-1].run(step, hidden, finish)

    def logits(self, key, ids):
        return self.run(Step((Row(key, tuple(ids)),)))

    def generate(self, key, prompt, count, **options):
        return answers(self, [request(prompt, count, **options)])[0]

    @property
    def sequences(self):
        return [stage.sequences for stage in self.stages]


def request(prompt, count, *, chunk=2048, stop_ids=(), kept=(), processor=None, **sampling):
    return Request(
        tuple(prompt), count, Sampling.of(**sampling), chunk, frozenset(stop_ids), tuple(kept), processor=processor
    )


def answers(chain, requests, limit=10_000, stop_after=None, before=()):
    """The tokens of each request, all of them under way at once."""

    async def begun(step, finish):
        return chain.run(step, finish)

    async def read(schedule, request):
        with closing(schedule.enter(request)) as entry:
            choices = [item async for item in aiter_first(entry.items(), stop_after)]
        return [choice.id for choice in choices if not isinstance(choice, int)]

    async def all_of_them():
        can_fork = chain.stages[-1].can_fork
        schedule = Schedule(
            lambda *step: asyncio.ensure_future(begun(*step)), width=len(chain.stages), limit=limit, can_fork=can_fork
        )
        for each in before:
            await read(schedule, each)
        chain.asked.clear()
        found = await asyncio.gather(*(read(schedule, each) for each in requests))
        await asyncio.sleep(0)  # what is over is forgotten by a step of its own
        busy = schedule.busy()
        assert (busy["running"], busy["waiting"], busy["kv_tokens"]) == (0, 0, 0)
        return found

    async def aiter_first(items, count):
        async for number, item in aenumerate(items):
            if number == count:
                return
            yield item

    async def aenumerate(items):
        number = 0
        async for item in items:
            yield number, item
            number += not isinstance(item, int)

    return asyncio.run(all_of_them())


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
        assert chain.generate("b", PROMPT, 12) == tokens, cut


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
    stage.run(Step((Row("a", (1, 2, 3)),)), mx.zeros((1, 3, 512)))
    grown = mx.get_active_memory() - before
    assert stage.nbytes <= grown < 1.2 * stage.nbytes


def test_many_answers_at_once_are_those_of_the_whole_and_leave_nothing(llama):
    whole = whole_directory(llama)
    prompts = [PROMPT[:length] for length in (12, 1, 5, 7, 2, 9, 12)]
    expected = [whole_tokens(whole, prompt, 5 + number) for number, prompt in enumerate(prompts)]
    for cut in ([(0, 4)], [(0, 2), (3, 4)], [(0, 0), (1, 3), (4, 4)]):
        chain = Chain(llama, cut)
        wanted = [request(prompt, 5 + number) for number, prompt in enumerate(prompts)]
        assert answers(chain, wanted) == expected
        assert chain.sequences == [()] * len(cut)


@pytest.mark.parametrize(("name", "can_be_cut_short"), [("llama", True), ("qwen3_next", False)])
def test_a_prompt_that_begins_like_an_earlier_one_goes_in_from_there(tmp_path, name, can_be_cut_short):
    path = make_directory(tmp_path, **(CONFIGURATIONS[name] if name != "llama" else {}))
    chain = Chain(path, [(0, 1), (2, describe(path).layers - 1)])
    whole = whole_directory(path)
    (first,) = answers(chain, [request(PROMPT, 6)])
    longer = [*PROMPT, *first, 5, 6]

    assert answers(chain, [request(longer, 6)], before=[request(PROMPT, 6)]) == [whole_tokens(whole, longer, 6)]
    assert chain.asked[0] == (first[-1], 5)  # what comes after the last token that the cache has
    assert answers(chain, [request(PROMPT, 6)], before=[request(PROMPT, 6)]) == [first]
    assert chain.asked[0] == (tuple(PROMPT[-1:]) if can_be_cut_short else tuple(PROMPT[:-1]))
    assert chain.sequences == [(), ()]


def test_what_does_not_fit_waits_and_what_never_fits_is_refused(llama):
    chain = Chain(llama, [(0, 2), (3, 4)])
    expected = whole_tokens(whole_directory(llama), PROMPT, 8)
    assert answers(chain, [request(PROMPT, 8)] * 4, limit=20) == [expected] * 4
    with pytest.raises(ModelError, match=r"12 tokens of prompt and up to 9 of answer.*room for 20 tokens"):
        answers(chain, [request(PROMPT, 9)], limit=20)


def test_one_that_is_not_read_on_leaves_nothing_and_holds_nobody_up(llama):
    chain = Chain(llama, [(0, 2), (3, 4)])
    expected = whole_tokens(whole_directory(llama), PROMPT, 30)
    assert answers(chain, [request(PROMPT, 30)] * 3, stop_after=2) == [expected[:2]] * 3
    assert chain.sequences == [(), ()]


@pytest.mark.parametrize("kept", [1, 2, 7])
@pytest.mark.parametrize("temperature", [0, 0.9])
def test_an_answer_that_was_begun_elsewhere_goes_on_as_it_would_have(llama, kept, temperature):
    options = {"temperature": temperature, "seed": 5, "chunk": 5, "repetition_penalty": 1.3}
    tokens = Chain(llama, [(0, 2), (3, 4)]).generate("a", PROMPT, 12, **options)
    chain = Chain(llama, [(0, 0), (1, 4)])
    assert chain.generate("a", PROMPT, 12, kept=tokens[:kept], **options) == tokens[kept:]
    assert chain.asked[:3] == [tuple(PROMPT[:5]), tuple(PROMPT[5:10]), (PROMPT[10],)]
    assert {len(ids) for ids in chain.asked[3:]} == {1}


def test_a_stop_token_ends_the_answer_and_is_told(llama):
    tokens = whole_tokens(whole_directory(llama), PROMPT, 8)
    stop = tokens[3]
    assert Chain(llama, [(0, 4)]).generate("a", PROMPT, 8, stop_ids={stop}) == tokens[: tokens.index(stop) + 1]


def test_no_step_is_asked_for_that_nobody_wants(llama):
    chain = Chain(llama, [(0, 2), (3, 4)])
    tokens = chain.generate("a", PROMPT, 3)
    assert chain.asked == [tuple(PROMPT[:-1]), tuple(PROMPT[-1:]), tuple(tokens[:1]), tuple(tokens[1:2])]
    assert chain.generate("b", PROMPT, 0) == []


@pytest.mark.parametrize("top_p", [1.0, 0.7])
def test_sampling_with_a_seed_is_mlx_lms(llama, top_p):
    from mlx_lm.sample_utils import make_sampler

    chain = Chain(llama, [(0, 2), (3, 4)])
    ours = chain.generate("a", PROMPT, 10, temperature=0.9, top_p=top_p, seed=11)
    whole = whole_directory(llama)
    mx.random.seed(11)
    theirs = whole_tokens(whole, PROMPT, 10, sampler=make_sampler(0.9, top_p=top_p))
    assert ours == theirs
    assert chain.generate("a", PROMPT, 10, temperature=0.9, top_p=top_p, seed=12) != ours


@pytest.mark.parametrize("temperature", [1e-4, 1e-30, 1e-300])
def test_next_to_no_temperature_takes_the_likeliest_token(llama, temperature):
    tokens = Chain(llama, [(0, 4)]).generate("a", PROMPT, 10, temperature=temperature, seed=1)
    assert tokens == whole_tokens(whole_directory(llama), PROMPT, 10)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ({"top_k": 3}, {"top_k": 3}),
        ({"min_p": 0.05}, {"min_p": 0.05}),
        ({"top_p": 0.9, "min_p": 0.01, "top_k": 9}, {"top_p": 0.9, "min_p": 0.01, "top_k": 9}),
    ],
)
def test_other_ways_of_sampling_are_mlx_lms_too(llama, ours, theirs):
    from mlx_lm.sample_utils import make_sampler

    whole = whole_directory(llama)
    mx.random.seed(11)
    expected = whole_tokens(whole, PROMPT, 10, sampler=make_sampler(1.5, **theirs))
    assert Chain(llama, [(0, 2), (3, 4)]).generate("a", PROMPT, 10, temperature=1.5, seed=11, **ours) == expected


def test_penalties_and_bias_are_mlx_lms(llama):
    from mlx_lm.sample_utils import make_logits_processors

    bias = {3: 2.5, 60: -4.0}
    options = {"repetition_penalty": 1.4, "presence_penalty": 0.5, "frequency_penalty": 0.25, "logit_bias": bias}
    expected = whole_tokens(whole_directory(llama), PROMPT, 12, logits_processors=make_logits_processors(**options))
    assert Chain(llama, [(0, 2), (3, 4)]).generate("a", PROMPT, 12, **options) == expected
    assert expected != whole_tokens(whole_directory(llama), PROMPT, 12)


def test_a_processor_of_the_users_own_sees_what_was_made_and_changes_what_comes(llama):
    def even():
        def only_even(tokens, logits):
            assert all(token % 2 == 0 for token in tokens)
            return mx.where(mx.arange(logits.size) % 2 == 0, logits, -mx.inf)

        return only_even

    def broken():
        raise RuntimeError("made to fail")

    chain = Chain(llama, [(0, 2), (3, 4)])
    tokens = chain.generate("a", PROMPT, 8, processor=even)
    assert len(tokens) == 8
    assert not any(token % 2 for token in tokens)
    with pytest.raises(RuntimeError, match="made to fail"):
        chain.generate("a", PROMPT, 8, processor=broken)


def test_probabilities_are_told_where_asked_for(llama):
    chain = Chain(llama, [(0, 2), (3, 4)])
    sampler = Sampler(request(PROMPT, 4, logprobs=3))
    logits = chain.logits("a", PROMPT)[:, -1, :]
    choice = sampler.tell(*sampler.lazily(logits))
    expected = (logits - mx.logsumexp(logits))[0]
    order = sorted(range(expected.size), key=lambda token: -expected[token].item())[:3]
    assert [token for token, _ in choice.top_logprobs] == order
    assert choice.id == order[0]
    assert choice.logprob == choice.top_logprobs[0][1] == pytest.approx(expected[order[0]].item())
    assert Sampler(request(PROMPT, 4)).tell(*sampler.lazily(logits)).logprob is None


def test_a_long_prompt_goes_in_in_mlx_lms_chunks(llama):
    expected = whole_tokens(whole_directory(llama), PROMPT, 6, prefill_step_size=5)
    assert Chain(llama, [(0, 1), (2, 4)]).generate("a", PROMPT, 6, chunk=5) == expected


def test_a_stage_may_be_loaded_in_one_thread_and_run_in_another(llama):
    chain = Chain(llama, [(0, 2), (3, 4)])
    got = []
    thread = threading.Thread(target=lambda: got.extend(chain.generate("a", PROMPT, 4)))
    thread.start()
    thread.join(30)
    assert got == whole_tokens(whole_directory(llama), PROMPT, 4)


@pytest.mark.parametrize(
    ("rows", "hidden", "said"),
    [
        ([[]], None, "no tokens"),
        ([[160]], None, "token 160 is not in the vocabulary"),
        ([[-1]], None, "token -1 is not in the vocabulary"),
        ([[1]], (1, 1, 64), "shape None"),
        ([[1], [2, 3]], None, r"rows of \[1, 2\] tokens"),
    ],
)
def test_steps_that_make_no_sense_are_refused(llama, rows, hidden, said):
    step = Step(tuple(Row(str(number), tuple(ids)) for number, ids in enumerate(rows)))
    with pytest.raises(ValueError, match=said):
        StageModel.load(llama, 0, 4).run(step, None if hidden is None else mx.zeros(hidden))


def test_hidden_states_that_do_not_fit_are_refused(llama):
    end = StageModel.load(llama, 3, 4)
    with pytest.raises(ValueError, match="got None"):
        end.run(Step((Row("a", (1,)),)))
    with pytest.raises(ValueError, match=r"shape \(1, 2, 64\) and got \(1, 1, 64\)"):
        end.run(Step((Row("a", (1, 2)),)), mx.zeros((1, 1, 64)))


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
        ({"model_type": "hal"}, "knows no architecture 'hal'"),
        ({"model_type": None}, "knows no architecture None"),
        ({"hidden_size": "wide"}, "mlx-lm cannot load the model in .*: .*str"),
        ({"num_hidden_layers": 9}, "Missing .* parameters"),
    ],
)
def test_a_configuration_that_does_not_fit_says_why(llama, tmp_path, changes, said):
    with pytest.raises(ModelError, match=said):
        describe(changed(llama, tmp_path, **changes))


@pytest.mark.parametrize(
    ("changes", "context"),
    [
        ({}, 512),
        ({"text_config": {"max_position_embeddings": 96}}, 512),
        ({"max_position_embeddings": None, "text_config": {"n_positions": 96}}, 96),
        ({"max_position_embeddings": None, "text_config": "none"}, None),
        ({"max_position_embeddings": 0, "text_config": None}, None),
    ],
)
def test_the_context_is_what_the_configuration_says_somewhere(llama, tmp_path, changes, context):
    assert describe(changed(llama, tmp_path, **changes)).context == context


@pytest.mark.skipif(find_spec("hf_olmo") is not None, reason="ai2-olmo is installed")
def test_an_architecture_that_needs_another_package_does_not_end_the_program(llama, tmp_path):
    with pytest.raises(ModelError, match="a package that 'olmo' needs is not installed"):
        describe(changed(llama, tmp_path, model_type="olmo"))


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
