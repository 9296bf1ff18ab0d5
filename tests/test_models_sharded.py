"""A model over three nodes, each a process of its own, says exactly what mlx-lm says with the same weights whole."""

from __future__ import annotations

import asyncio
import re
import sys
import threading
import time
from concurrent.futures import Future
from dataclasses import replace
from functools import cache

import psutil
import pytest

pytest.importorskip("mlx.core")
pytest.importorskip("mlx_lm")

from clusters import SOON, eventually, is_gone, slow
from test_models_architectures import CONFIGURATIONS
from test_models_tokenizer import metadata
from tiny_models import make_directory, make_gguf, whole_directory, whole_gguf, whole_tokens, write_gguf

import actors
from actors.exceptions import ModelError, PendingCallsLimitExceeded, PlacementError
from actors.models import ShardedModel, demo_model, load_tokenizer
from actors.observer import Observer

VOCABULARY = len(metadata()["tokenizer.ggml.tokens"])
PROMPT = [101, 20, 33, 7, 250, 88, 14]
END = 1
LONG = 400  # tokens, more than are read before a stream is closed
CHAT = [{"role": "user", "content": "What is the capital of France?"}]


def speaking(folder, **changes):
    """A directory of a small llama that knows all bytes; its words make no sense."""
    folder.mkdir(exist_ok=True)
    load_tokenizer(write_gguf(folder / "words.gguf", metadata(), [])).inner._tokenizer.save_pretrained(str(folder))
    return make_directory(folder, vocab_size=VOCABULARY, eos_token_id=END, **changes)


@pytest.fixture(scope="module")
def names(cluster):
    return [node.name for node in actors.nodes()]


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return speaking(tmp_path_factory.mktemp("llama"))


@pytest.fixture(scope="module")
def whole(path):
    """The tokens of the whole model, by mlx-lm."""
    model, known = whole_directory(path), {}

    def tokens(prompt, count):
        if tuple(prompt) not in known:
            found = whole_tokens(model, prompt, 40)
            known[tuple(prompt)] = found[: found.index(END) + 1] if END in found else found
        return known[tuple(prompt)][:count]

    return tokens


@pytest.fixture(scope="module")
def model(cluster, path):
    with ShardedModel.load(path) as model:
        yield model


def sequences(model):
    return actors.get([stage.sequences.remote() for stage in model._deployment.stages], timeout=SOON)


def free(model):
    return eventually(lambda: not any(sequences(model)), SOON, "caches free in all stages")


def in_time(work, within=30.0):
    """Does it on a thread that is given up when it takes too long: a deadlock shall fail and not hang."""
    done = Future()

    def run():
        try:
            done.set_result(work())
        except BaseException as error:
            done.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    try:
        return done.result(within)
    except TimeoutError:
        raise AssertionError(f"not done within {within:g} s") from None


def pids(model):
    return [
        each["pid"] for each in actors.get([stage.loaded.remote() for stage in model._deployment.stages], timeout=SOON)
    ]


@pytest.fixture(scope="module")
def file():
    """From the user's own cache, so that a machine fetches it once and not for each run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("ACTORS_HOME", raising=False)
        try:
            return demo_model()
        except ModelError as error:
            pytest.skip(str(error))


def test_every_token_is_that_of_the_whole_and_the_driver_holds_no_weights(cluster, file):
    load_tokenizer(file)  # imports, and the memory that comes with them
    before = psutil.Process().memory_info().rss
    with ShardedModel.load(file) as model:
        prompt = model.tokenizer.encode_chat(CHAT)
        tokens = list(model.tokens(prompt, max_tokens=12))
        grown = psutil.Process().memory_info().rss - before
        assert [(stage.first, stage.last) for stage in model.plan.stages] == [(0, 11), (12, 24), (25, 29)]
        assert len({stage.node for stage in model.plan.stages}) == 3
        assert grown < 0.5 * model.plan.model.nbytes
    assert "Paris" in model.tokenizer.decode(tokens)
    assert tokens == whole_tokens(whole_gguf(file), prompt, len(tokens))


class TestTokens:
    def test_they_are_those_of_the_whole(self, model, whole):
        assert len(set(whole(PROMPT, 24))) > 3  # a model stuck on one token would hide what is wrong
        for prompt in (PROMPT, PROMPT[:1], list(range(200, 260))):
            assert list(model.tokens(prompt, max_tokens=24)) == whole(prompt, 24)

    def test_a_gguf_file_gives_those_of_the_whole_too(self, cluster, tmp_path, path):
        words = {key: value for key, value in metadata().items() if key.startswith("tokenizer.")}
        file = make_gguf(tmp_path / "tiny.gguf", path, **words)
        with ShardedModel.load(file) as model:
            assert list(model.tokens(PROMPT, max_tokens=16)) == whole_tokens(whole_gguf(file), PROMPT, 16)

    def test_a_seed_makes_chance_repeatable(self, model):
        def draw(seed):
            return list(model.tokens(PROMPT, max_tokens=12, temperature=1.5, top_p=0.9, seed=seed))

        assert draw(1) == draw(1) != draw(2)

    def test_as_many_as_asked_for(self, model):
        assert list(model.tokens(PROMPT, max_tokens=0)) == []
        assert len(list(model.tokens(PROMPT, max_tokens=1))) == 1

    def test_a_relative_path_means_the_program_s_folder(self, cluster, path, whole, monkeypatch):
        monkeypatch.chdir(path.parent)
        with ShardedModel.load(path.name) as model:
            assert list(model.tokens(PROMPT, max_tokens=4)) == whole(PROMPT, 4)


class TestText:
    def test_pieces_are_the_whole_text(self, model, whole):
        pieces = list(model.stream("he said he", max_tokens=30))
        tokens = whole(model.tokenizer.encode("he said he"), 30)
        assert "".join(pieces) == model.generate("he said he", max_tokens=30) == model.tokenizer.decode(tokens)
        assert len(pieces) > 3

    def test_a_conversation_goes_through_the_template(self, model, whole):
        tokens = whole(model.tokenizer.encode_chat(CHAT), 20)
        assert "".join(model.chat(CHAT, max_tokens=20)) == model.tokenizer.decode(tokens)

    def test_the_token_that_ends_an_answer_is_no_part_of_its_text(self, cluster, path, whole, tmp_path):
        tokens = whole(PROMPT, 12)
        end = next(token for number, token in enumerate(tokens) if number > 3 and token not in tokens[:number])
        shorter = speaking(tmp_path)
        config = (shorter / "config.json").read_text().replace('"eos_token_id": ' + str(END), f'"eos_token_id": {end}')
        (shorter / "config.json").write_text(config)
        with ShardedModel.load(shorter) as model:
            got = list(model.tokens(PROMPT, max_tokens=12))
            assert got == tokens[: tokens.index(end) + 1]
            told = list(model.submit(PROMPT, max_tokens=12))
            assert "".join(token.text for token in told) == model.tokenizer.decode(got[:-1])
            assert (told[-1].id, told[-1].finish_reason) == (end, "stop")


class TestStreams:
    def test_closing_one_early_stops_the_work_and_frees_all_caches(self, model):
        tokens = model.tokens(PROMPT, max_tokens=LONG)
        next(tokens)
        assert [len(keys) for keys in sequences(model)] == [1, 1, 1]
        tokens.close()
        free(model)

    def test_closing_the_text_does_so_too(self, model):
        pieces = model.stream("he", max_tokens=LONG)
        next(pieces)
        pieces.close()
        free(model)

    def test_so_does_forgetting_it(self, model):
        next(model.chat(CHAT, max_tokens=LONG))
        free(model)

    def test_one_that_was_read_to_its_end_leaves_no_cache(self, model, whole):
        for _ in range(2):
            assert list(model.tokens(PROMPT, max_tokens=20)) == whole(PROMPT, 20)
        free(model)

    def test_two_are_read_in_turns(self, model, whole):
        other = [9, 8, 7]
        both = zip(model.tokens(PROMPT, max_tokens=40), model.tokens(other, max_tokens=40), strict=True)
        got = in_time(lambda: list(both))
        assert [list(tokens) for tokens in zip(*got, strict=True)] == [whole(PROMPT, 40), whole(other, 40)]
        free(model)

    def test_many_that_nobody_reads_on_do_not_hold_up_another(self, model, whole):
        paused = [model.tokens([7, number], max_tokens=LONG) for number in range(20)]
        for tokens in paused:
            in_time(lambda tokens=tokens: next(tokens))
        assert in_time(lambda: list(model.tokens(PROMPT, max_tokens=40))) == whole(PROMPT, 40)
        assert in_time(lambda: [next(paused[-1]) for _ in range(39)]) == whole([7, 19], 40)[1:]
        for tokens in paused:
            tokens.close()
        free(model)

    def test_threads_may_read_at_once(self, model, whole):
        results = {}

        def read(number):
            results[number] = list(model.tokens([5, number], max_tokens=20))

        threads = [threading.Thread(target=read, args=(number,)) for number in range(5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert results == {number: whole([5, number], 20) for number in range(5)}


class TestPlacement:
    def test_nodes_are_used_in_the_order_given(self, cluster, names, path, whole):
        order = [names[2], names[0]]
        with ShardedModel.load(path, nodes=order) as model:
            assert [stage.node for stage in model.plan.stages] == order
            held = actors.get([stage.loaded.remote() for stage in model._deployment.stages])
            assert [each["node"] for each in held] == order
            assert [each["nbytes"] for each in held] == [stage.nbytes for stage in model.plan.stages]
            assert list(model.tokens(PROMPT, max_tokens=8)) == whole(PROMPT, 8)

    def test_one_node_holds_it_all(self, cluster, names, path, whole):
        with ShardedModel.load(path, nodes=names[1:2], strategy="pipeline") as model:
            (stage,) = model.plan.stages
            assert (stage.first, stage.last) == (0, 4)
            assert list(model.tokens(PROMPT, max_tokens=8)) == whole(PROMPT, 8)
            free(model)

    def test_more_nodes_than_layers(self, cluster, tmp_path):
        path = speaking(tmp_path, num_hidden_layers=2)
        with ShardedModel.load(path) as model:
            assert [(stage.first, stage.last) for stage in model.plan.stages] == [(0, 0), (1, 1)]
            assert list(model.tokens(PROMPT, max_tokens=8)) == whole_tokens(whole_directory(path), PROMPT, 8)

    def test_a_dry_run_gives_the_plan_alone_with_what_it_foretells(self, cluster, names, path):
        plan = ShardedModel.load(path, nodes=names[:2], dry_run=True)
        assert [stage.node for stage in plan.stages] == names[:2]
        assert not plan.measured
        assert 0 < plan.tokens_per_s < plan.most_tokens_per_s
        assert "foretold" in str(plan)
        with ShardedModel.load(path, nodes=names[:2]) as model:
            assert [stage.place for stage in model.plan.stages] == [stage.place for stage in plan.stages]
            assert model.plan.measured
            assert "measured" in str(model.plan)
            assert [stage.how for stage in model.plan.stages] == [stage.how for stage in plan.stages] != ["", ""]

    def test_weights_that_are_sent_are_those_that_are_there(self, cluster, names, path, whole, capsys):
        for _ in range(2):
            with ShardedModel.load(path, nodes=names[1:], weights="send") as model:
                assert list(model.tokens(PROMPT, max_tokens=8)) == whole(PROMPT, 8)
        shown = [rf"weights of layers \d to \d to {name}, bytes: .*\(100%\)" for name in names[1:]]
        told = ""

        def all_shown():
            nonlocal told
            told += capsys.readouterr().err
            return all(re.search(line, told) for line in shown)

        eventually(all_shown, SOON, "how far each node is")

    def test_closing_ends_its_processes_and_no_others(self, model, path, whole):
        other = ShardedModel.load(path)
        mine, tokens = pids(other), other.tokens(PROMPT, max_tokens=LONG)
        next(tokens)
        other.close()
        other.close()
        eventually(lambda: all(map(is_gone, mine)), SOON, "the stages' processes gone")
        with pytest.raises(ModelError, match="was closed: load it again"):
            other.generate("he")
        with pytest.raises(ModelError, match="was closed: load it again"):
            in_time(lambda: list(tokens))
        assert list(model.tokens(PROMPT, max_tokens=4)) == whole(PROMPT, 4)


class TestBadInput:
    @pytest.mark.parametrize(
        ("make", "said"),
        [
            (lambda path, folder: folder / "none.gguf", "there is no model at .*none.gguf: no such file"),
            (lambda path, folder: cut_short(folder), "cut.gguf.*(truncated|ends)"),
            (lambda path, folder: written(folder / "notes.txt", b"no model at all"), "notes.txt"),
            (lambda path, folder: folder, "config.json"),
            (lambda path, folder: other_architecture(folder), "knows no architecture 'hal'"),
            (lambda path, folder: path / "model.safetensors", "give the directory that has config.json"),
        ],
        ids=["missing", "truncated", "no model", "empty folder", "architecture", "weights alone"],
    )
    def test_a_file_that_is_no_model_says_which_and_why(self, cluster, path, tmp_path, make, said):
        with pytest.raises(ModelError, match=said):
            ShardedModel.load(make(path, tmp_path))

    @pytest.mark.parametrize(
        ("options", "kind", "said"),
        [
            ({"nodes": ["nowhere"]}, PlacementError, "no node is called 'nowhere'; there are: "),
            ({"nodes": []}, ValueError, "at least one name"),
            ({"nodes": "abc"}, ValueError, "must be a list"),
            ({"strategy": "magic"}, ValueError, "one of auto, pipeline, tensor, not 'magic'"),
            ({"weights": "hub"}, ValueError, "weights must be one of auto, local, send, not 'hub'"),
            ({"max_requests": 0}, ValueError, "max_requests is 0"),
            ({"kv_memory": "much"}, ValueError, "kv_memory is 'much'"),
            ({"depth": 3}, TypeError, "depth"),
            ({"path": 5}, TypeError, "a model is a path, or a name on the Hugging Face hub, not 5"),
            (
                {"path": "hf://a/b/c"},
                ModelError,
                "hf://a/b/c is no name of a model on the hub: hf://organisation/model",
            ),
            (
                {"path": "hf://a/b", "weights": "local"},
                ValueError,
                "weights='local' has each node read the model",
            ),
        ],
    )
    def test_options_that_cannot_be_meant(self, cluster, path, options, kind, said):
        with pytest.raises(kind, match=said):
            ShardedModel.load(**{"path": path, **options})

    def test_a_node_named_twice(self, cluster, path, names):
        with pytest.raises(ValueError, match="names one twice"):
            ShardedModel.load(path, nodes=[names[0], names[0]])

    @pytest.mark.parametrize(
        ("sampling", "kind", "said"),
        [
            ({"temperature": -1}, ValueError, "temperature is -1"),
            ({"temperature": "hot"}, ValueError, "temperature is 'hot'"),
            ({"temperature": float("nan")}, ValueError, "temperature is nan"),
            ({"top_p": 0}, ValueError, "top_p is 0"),
            ({"top_p": 1.5}, ValueError, "top_p is 1.5"),
            ({"seed": -3}, ValueError, "seed is -3"),
            ({"max_tokens": -1}, ValueError, "max_tokens is -1"),
            ({"max_tokens": 2.5}, ValueError, "max_tokens is 2.5"),
            ({"top_k": -1}, ValueError, "top_k is -1"),
            ({"min_p": 2}, ValueError, "min_p is 2"),
            ({"repetition_penalty": 0}, ValueError, "repetition_penalty is 0"),
            ({"logit_bias": {VOCABULARY: 1}}, ValueError, "is not in the vocabulary"),
            ({"logit_bias": [1]}, TypeError, "logit_bias is"),
            ({"logprobs": 21}, ValueError, "logprobs is 21"),
            ({"stop": [""]}, ValueError, "stop has ''"),
            ({"processor": 5}, TypeError, "processor is 5; it must be a function"),
            ({"temprature": 1}, TypeError, "an answer takes no temprature; how its tokens are chosen: temp"),
        ],
    )
    def test_sampling_is_refused_at_once(self, model, sampling, kind, said):
        for ask in (model.stream, model.generate, lambda _, **sampling: model.chat(CHAT, **sampling)):
            with pytest.raises(kind, match=said):
                ask("he", **sampling)

    def test_prompts_that_cannot_be_gone_on_from(self, model):
        with pytest.raises(ValueError, match="the prompt has no tokens"):
            model.generate("")
        with pytest.raises(TypeError, match="a prompt is a text, not 5"):
            model.stream(5)
        with pytest.raises(TypeError, match="messages are a list of"):
            model.chat("What is the capital of France?")
        with pytest.raises(ValueError, match=f"token {VOCABULARY} is not in the vocabulary"):
            list(model.tokens([1, VOCABULARY]))

    def test_none_of_it_harms_the_model(self, model, whole):
        free(model)
        assert list(model.tokens(PROMPT, max_tokens=8)) == whole(PROMPT, 8)

    @pytest.mark.skipif(sys.platform != "linux", reason="needs a path that each process sees another file under")
    def test_a_node_that_does_not_see_the_file_says_so(self, cluster, names, path, monkeypatch):
        monkeypatch.chdir(path.parent)
        with pytest.raises(ModelError, match=f"node {names[0]} could not load its layers: there is no model at"):
            ShardedModel.load(f"/proc/self/cwd/{path.name}")


class TestSubmit:
    def test_tokens_come_with_their_text_and_the_last_says_why(self, model, whole):
        answer = model.submit(PROMPT, max_tokens=12)
        tokens = list(answer)
        assert [token.id for token in tokens] == whole(PROMPT, 12)
        assert answer.prompt_tokens == len(PROMPT)
        assert answer.finish_reason == tokens[-1].finish_reason == "length"
        assert {token.finish_reason for token in tokens[:-1]} == {None}
        assert {token.logprob for token in tokens} == {None}
        assert list(answer) == []

    def test_by_async_for_too(self, model, whole):
        async def read(prompt):
            return [token.id async for token in model.submit(prompt, max_tokens=20)]

        async def both():
            return await asyncio.gather(read(PROMPT), read([5, 3]))

        assert asyncio.run(both()) == [whole(PROMPT, 20), whole([5, 3], 20)]

    def test_probabilities(self, model):
        for token in model.submit(PROMPT, max_tokens=4, logprobs=2):
            (best, logprob), (_, second) = token.top_logprobs
            assert (best, logprob) == (token.id, token.logprob)
            assert second <= logprob <= 0

    def test_a_text_that_ends_it_is_no_part_of_it(self, model):
        text = model.generate("he said he", max_tokens=30)
        stop = text[7:10]
        answer = model.submit("he said he", max_tokens=30, stop=["never there", stop])
        assert "".join(token.text for token in answer) == text[: text.index(stop)]
        assert answer.finish_reason == "stop"
        free(model)

    def test_cancelled_by_another_thread(self, model):
        answer = model.submit(PROMPT, max_tokens=LONG)
        next(answer)
        threading.Timer(0.05, answer.cancel).start()
        assert in_time(lambda: len(list(answer))) < LONG
        assert answer.finish_reason == "cancelled"
        free(model)

    def test_more_than_are_taken_are_refused(self, cluster, names, path):
        with ShardedModel.load(path, nodes=names[:1], max_requests=2) as model:
            first, second = model.submit(PROMPT, max_tokens=LONG), model.submit(PROMPT, max_tokens=LONG)
            with pytest.raises(PendingCallsLimitExceeded, match="2 requests are under way or waiting"):
                model.submit(PROMPT)
            first.cancel()
            third = model.submit(PROMPT, max_tokens=1)
            assert len(list(third)) == 1
            second.cancel()

    def test_a_prompt_seen_before_is_in_the_caches(self, model, whole):
        prompt = list(range(30, 70))
        first = model.submit(prompt, max_tokens=4)
        assert [token.id for token in first] == whole(prompt, 4)
        second = model.submit(prompt, max_tokens=4)
        assert [token.id for token in second] == whole(prompt, 4)
        assert (first.cached_tokens, second.cached_tokens) == (0, len(prompt) - 1)

    def test_caches_have_a_bound(self, cluster, names, path, whole):
        with ShardedModel.load(path, nodes=names[:2], kv_memory=50_000) as model:
            limit = model.status()["kv_limit"]
            assert 0 < limit < 200
            with pytest.raises(ModelError, match=f"have room for {limit} tokens"):
                model.submit(PROMPT, max_tokens=limit)
            answers = [model.submit(PROMPT, max_tokens=limit - len(PROMPT)) for _ in range(3)]
            next(answers[0])
            assert (model.status()["running"], model.status()["waiting"]) == (1, 2)
            answers[0].cancel()
            assert next(answers[1]).id == whole(PROMPT, 1)[0]

    def test_its_room_is_what_the_model_was_made_for_wherever_its_configuration_says_so(self, cluster, names, tmp_path):
        inner = {**CONFIGURATIONS["mistral3"]["text_config"], "vocab_size": VOCABULARY, "max_position_embeddings": 96}
        path = speaking(tmp_path, model_type="mistral3", max_position_embeddings=None, text_config=inner)
        with ShardedModel.load(path, nodes=names[:1]) as model:
            assert model.kv_limit > model.room == 96
        with ShardedModel.load(path, nodes=names[:1], kv_memory=10_000) as model:
            assert 0 < model.kv_limit == model.room < 96


class TestTensor:
    """Layers cut lengthwise: 3 heads of keys and values over 2 nodes."""

    @pytest.mark.parametrize(
        "changes",
        [
            pytest.param({}, id="plain", marks=pytest.mark.slow),
            pytest.param({"bits": 4, "tie_word_embeddings": True}, id="quantised"),
        ],
    )
    def test_it_says_what_the_whole_says_and_goes_on_when_a_process_dies(self, cluster, names, tmp_path, changes):
        heads = {"hidden_size": 192, "num_attention_heads": 6, "num_key_value_heads": 3, "head_dim": 32}
        uneven = speaking(tmp_path, **heads, intermediate_size=320, **changes)
        expected = whole_tokens(whole_directory(uneven), PROMPT, 40)
        expected = expected[: expected.index(END) + 1] if END in expected else expected
        with ShardedModel.load(uneven, nodes=names[:2], strategy="tensor") as model:
            assert [len(share.heads) for share in model.plan.shares] == [2, 1]
            assert sum(len(share.words) for share in model.plan.shares) == VOCABULARY
            assert list(model.tokens(PROMPT, max_tokens=40)) == expected
            tokens = model.tokens(PROMPT, max_tokens=40)
            got = [next(tokens)]
            psutil.Process(pids(model)[0]).kill()
            assert in_time(lambda: got + list(tokens), 60) == expected

    @pytest.mark.slow
    def test_it_is_chosen_for_one_answer_at_a_time_on_one_host(self, cluster, names, path, tmp_path):
        plan = ShardedModel.load(path, max_requests=1, dry_run=True)
        assert (len(plan.shares), [stage.node for stage in plan.stages]) == (2, names[:2])
        assert not ShardedModel.load(path, dry_run=True).shares
        assert not ShardedModel.load(path, max_requests=1, nodes=names[:1], dry_run=True).shares
        other = make_directory(tmp_path, **CONFIGURATIONS["gemma2"])
        assert not ShardedModel.load(other, max_requests=1, dry_run=True).shares

    def test_more_nodes_than_heads_and_other_families(self, cluster, names, path, tmp_path):
        with ShardedModel.load(path, strategy="tensor") as model:  # two heads of keys and values, three nodes
            assert [stage.node for stage in model.plan.stages] == names[:2]
        other = make_directory(tmp_path, **CONFIGURATIONS["gemma2"])
        with pytest.raises(ModelError, match=r"strategy='tensor' is for the Llama family \(.*\), not for 'gemma2'"):
            ShardedModel.load(other, strategy="tensor")


class TestDeath:
    @pytest.mark.parametrize("stage", [1, *slow(0, 2)])
    def test_answers_go_on_when_a_stage_dies(self, cluster, path, whole, stage):
        with ShardedModel.load(path) as model:
            # More than the readers' windows hold: what is read in the end was not there when the stage died.
            tokens, other = model.tokens(PROMPT, max_tokens=LONG), model.tokens([7, 8], max_tokens=LONG)
            got, also = [next(tokens) for _ in range(5)], [next(other)]
            mine = pids(model)
            psutil.Process(mine[stage]).kill()
            assert in_time(lambda: got + list(tokens), 60) == long_answer(path, tuple(PROMPT))
            assert in_time(lambda: also + list(other), 60) == long_answer(path, (7, 8))
            assert model.generate("he", max_tokens=4)
            free(model)
        eventually(lambda: all(map(is_gone, mine)), SOON, "the other stages' processes gone")

    @pytest.mark.slow
    @pytest.mark.parametrize("stage", [0, 1, 2])
    def test_answers_go_on_when_a_stage_stands_still(self, cluster, path, stage):
        with ShardedModel.load(path) as model:
            tokens = model.tokens(PROMPT, max_tokens=LONG)
            got, frozen = [next(tokens)], pids(model)[stage]
            psutil.Process(frozen).suspend()
            assert in_time(lambda: got + list(tokens), 25) == long_answer(path, tuple(PROMPT))  # a call waits for 30 s
            assert len(model.plan.stages) == 3
            eventually(lambda: is_gone(frozen), SOON, "the process that stood still gone")

    @pytest.mark.slow
    def test_a_stage_that_computes_for_long_is_waited_for(self, cluster, path):
        with ShardedModel.load(path) as model:
            before, start = pids(model), time.monotonic()
            answer = model.submit(PROMPT, max_tokens=4, steer={2: Slow()})
            assert len(list(answer)) == 4
            assert time.monotonic() - start > 5
            assert pids(model) == before

    def test_a_model_with_nothing_to_do_is_whole_again_before_somebody_asks(self, cluster, path, whole):
        with ShardedModel.load(path) as model:
            assert list(model.tokens(PROMPT, max_tokens=4)) == whole(PROMPT, 4)
            broken, killed = model._deployment, pids(model)[1]
            psutil.Process(killed).kill()
            eventually(lambda: model._deployment is not broken and model.status()["ready"], SOON, "other stages")
            assert killed not in pids(model)
            assert list(model.tokens(PROMPT, max_tokens=4)) == whole(PROMPT, 4)

    @pytest.mark.slow
    def test_on_fewer_nodes_when_one_dies_and_on_more_when_asked_to(self, cluster, path):
        """The last test here: the cluster is smaller after it."""
        with ShardedModel.load(path, nodes=[node.name for node in actors.nodes()][:1]) as small:
            assert len(small.plan.stages) == 1
            assert small.rebalance() is small.plan
            small._succession._recipe = replace(small._succession._recipe, nodes=None)  # as if the others had come now
            tokens = small.tokens(PROMPT, max_tokens=LONG)
            next(tokens)
            assert len(small.rebalance().stages) == 3
            assert len(list(tokens)) == len(long_answer(path, tuple(PROMPT))) - 1
            assert list(small.tokens(PROMPT, max_tokens=LONG)) == long_answer(path, tuple(PROMPT))
        model = ShardedModel.load(path)
        tokens = model.tokens(PROMPT, max_tokens=LONG)
        got = [next(tokens)]
        lost = next(node for node in actors.nodes() if node.name == model.plan.stages[1].node)
        psutil.Process(lost.pid).kill()
        assert in_time(lambda: got + list(tokens), 60) == long_answer(path, tuple(PROMPT))
        assert len(model.plan.stages) == 2
        assert lost.name not in {stage.node for stage in model.plan.stages}
        model.close()
        eventually(lambda: not all(node.alive for node in actors.nodes()), SOON, "the node known to be dead")
        with pytest.raises(PlacementError, match=f"no node is called '{lost.name}'"):
            ShardedModel.load(path, nodes=[lost.name])


class Slow:
    """Holds the interpreter of a stage once for long, without a pause, as a call into C does."""

    held = False

    def __call__(self, hidden):
        if self.held:
            return hidden
        self.held = True
        before = sys.getswitchinterval()
        sys.setswitchinterval(60)
        try:
            end = time.monotonic() + 5
            while time.monotonic() < end:
                sum(range(1000))
        finally:
            sys.setswitchinterval(before)
        return hidden


@cache
def long_answer(path, prompt):
    found = whole_tokens(whole_directory(path), prompt, LONG)
    return found[: found.index(END) + 1] if END in found else found


def written(path, content):
    path.write_bytes(content)
    return path


def cut_short(folder):
    file = make_gguf(folder / "cut.gguf", make_directory(folder / "model"))
    return written(file, file.read_bytes()[: file.stat().st_size // 2])


def other_architecture(folder):
    written(folder / "config.json", b'{"model_type": "hal"}')
    written(folder / "model.safetensors", b"")
    return folder


def test_whoever_looks_at_the_cluster_sees_the_stages_and_the_tokens(cluster, path):
    observer = Observer.here()
    with ShardedModel.load(path) as model:
        made = list(model.tokens(PROMPT, max_tokens=12))

        def seen():
            state = observer.view().state
            found = [known for known in state.models.values() if known.model == path.name and known.state == "LOADED"]
            pairs = ((known, state.tokens[known.id]) for known in found if known.id in state.tokens)
            return next((pair for pair in pairs if pair[1].tokens == len(made)), None)  # others are loaded, too

        known, tokens = eventually(seen)
        assert known.stages == tuple((stage.node, stage.first, stage.last) for stage in model.plan.stages)
        assert tokens.seconds > 0
    eventually(lambda: observer.view().state.models[known.id].state == "CLOSED")
