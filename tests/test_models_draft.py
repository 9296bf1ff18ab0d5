"""A draft model guesses ahead: what comes is what would have come without it."""

from __future__ import annotations

import json
import os
import signal

import pytest

pytest.importorskip("mlx.core")
pytest.importorskip("mlx_lm")

from clusters import eventually, is_gone
from hypothesis import given, settings
from hypothesis import strategies as st
from test_models_architectures import CONFIGURATIONS
from test_models_sharded import END, VOCABULARY, speaking
from tiny_models import make_directory, whole_directory, whole_tokens

import actors
from actors.exceptions import ModelError
from actors.models import ShardedModel, StageModel
from actors.models.draft import DraftModel
from actors.models.pace import Pace
from actors.models.sampling import Request, Sampling

PROMPT = [101, 20, 33, 7, 250, 88, 14]
SEEDED = {"temperature": 0.9, "seed": 5, "top_p": 0.95}


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    """A model, and a draft that has its first layers alone: right now and then."""
    import mlx.core as mx

    folder = tmp_path_factory.mktemp("draft")
    large = speaking(folder / "large")
    small = speaking(folder / "small", num_hidden_layers=2)
    weights = mx.load(str(large / "model.safetensors"))
    layers = tuple(f"model.layers.{number}." for number in (2, 3, 4))
    kept = {name: value for name, value in weights.items() if not name.startswith(layers)}
    mx.save_safetensors(str(small / "model.safetensors"), kept, {"format": "mlx"})
    return large, small


def spoken(model, prompt, count):
    """What the whole model says, up to the token that ends it."""
    found = whole_tokens(model, prompt, count)
    return found[: found.index(END) + 1] if END in found else found


@pytest.fixture(scope="module", params=["stored", pytest.param("float32", marks=pytest.mark.slow)])
def model(request, cluster, paths):
    with ShardedModel.load(paths[0], draft=paths[1], arithmetic=request.param) as model:
        yield model


def test_tokens_are_those_of_the_whole_model(model, paths):
    whole = spoken(whole_directory(paths[0]), PROMPT, 60)

    def has_guessed():
        assert list(model.tokens(PROMPT, max_tokens=60)) == whole
        return model.plan.draft.guessed

    eventually(has_guessed)  # the draft takes the prompt in beside the stages, and may come too late
    draft = model.plan.draft
    assert draft.node == model.plan.stages[0].node
    assert draft.guessed >= draft.right >= 0
    assert f"draft  {draft.node}  all 2 layers" in str(model.plan)
    assert model.status()["draft"]["guessed"] >= draft.guessed


@pytest.mark.slow
def test_a_seed_gives_what_it_gives_without_a_draft(model, paths, cluster):
    with ShardedModel.load(paths[0], arithmetic="stored") as plain:
        expected = list(plain.tokens(PROMPT, max_tokens=60, **SEEDED))
    assert list(model.tokens(PROMPT, max_tokens=60, **SEEDED)) == expected


def test_many_at_once_and_a_prompt_once_more(model, paths):
    whole = whole_directory(paths[0])
    prompts = [[number, *PROMPT, *PROMPT] for number in range(5)]
    for _ in range(2):  # the second time out of the prefix cache, which has what was guessed right and no more
        answers = [model.submit(prompt, max_tokens=24) for prompt in prompts]
        for prompt, answer in zip(prompts, answers, strict=True):
            assert [token.id for token in answer] == spoken(whole, prompt, 24)
    longer = [*prompts[0], *spoken(whole, prompts[0], 24)]
    again = model.submit(longer, max_tokens=8)
    assert [token.id for token in again] == spoken(whole, longer, 8)
    assert again.cached_tokens >= len(prompts[0])


def test_nothing_is_left_of_answers_that_are_over_or_were_dropped(model):
    answer = model.submit(PROMPT, max_tokens=200)
    for _ in range(20):
        next(answer)
    answer.cancel()
    for stage in model._deployment.stages:
        eventually(lambda stage=stage: actors.get(stage.sequences.remote()) == ())


@pytest.mark.slow
def test_a_draft_that_dies_is_done_without(cluster, paths):
    with ShardedModel.load(paths[0], draft=paths[1], arithmetic="stored") as model:
        whole = spoken(whole_directory(paths[0]), PROMPT, 60)
        answer = model.submit(PROMPT, max_tokens=60)
        tokens = [next(answer).id for _ in range(8)]
        pid = actors.get(model._deployment._draft.loaded.remote())["pid"]
        os.kill(pid, signal.SIGKILL)
        eventually(lambda: is_gone(pid))
        assert tokens + [token.id for token in answer] == whole
        assert list(model.tokens(PROMPT, max_tokens=60)) == whole
        assert "it is lost" in str(model.plan)


def test_what_cannot_guess_is_refused_by_name(cluster, paths, tmp_path):
    other = speaking(tmp_path / "other")
    config = json.loads((other / "tokenizer.json").read_text())
    words = config["model"]["vocab"]
    (a, one), (b, two) = list(words.items())[40:42]
    words[a], words[b] = two, one
    (other / "tokenizer.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match="another tokenizer"):
        ShardedModel.load(paths[0], draft=other)
    windowed = speaking(tmp_path / "windows")
    make_directory(windowed, **{**CONFIGURATIONS["gemma3_text"], "vocab_size": VOCABULARY})
    with pytest.raises(ModelError, match="keeps a RotatingKVCache"):
        ShardedModel.load(paths[0], draft=windowed)
    with pytest.raises(ModelError, match="there is no model"):
        ShardedModel.load(paths[0], draft=tmp_path / "nowhere", dry_run=True)


@pytest.mark.slow
def test_the_plan_alone_has_the_draft(cluster, paths):
    plan = ShardedModel.load(paths[0], draft=paths[1], dry_run=True)
    assert plan.draft.path == str(paths[1])
    assert plan.draft.seconds is None


@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_guesses_of_the_model_itself_are_right_whatever_was_said_in_between(paths, data):
    """Its caches and random numbers are those of the tokens that were said, after any wrong guess."""
    stage = StageModel.load(paths[1], 0, 1)
    sampling = Sampling.of(**data.draw(st.sampled_from([{"temperature": 0.0}, SEEDED])))
    request = Request(tuple(PROMPT), 100, sampling, 4)
    draft, said = DraftModel(stage, 260), []
    draft.begin("a", request)
    told = 0
    for number in range(4):
        guesses = draft.propose("a", said[told:], data.draw(st.integers(1, 4)))
        told = len(said)
        alone = DraftModel(stage, 260)  # one that was told all at once
        alone.begin(f"alone-{number}", request.going_on(said))
        assert alone.propose(f"alone-{number}", (), len(guesses)) == guesses
        alone.forget(f"alone-{number}")
        said += guesses[: data.draw(st.integers(0, len(guesses)))]
        said += data.draw(st.lists(st.integers(0, 250), min_size=1, max_size=3))
    draft.forget("a")
    assert stage.sequences == ()


def rounds(pace, count, *, right, guess_seconds, step_seconds):
    """How many tokens were guessed in each round, where so many guesses are right each time."""
    found = []
    for _ in range(count):
        guessed = pace.next()
        pace.took(guessed, min(right, guessed) + 1, step_seconds + guessed * guess_seconds)
        found.append(guessed)
    return found


def test_guessing_goes_on_where_it_pays_and_stops_where_it_does_not():
    assert sum(1 for each in rounds(Pace(), 100, right=9, guess_seconds=0.01, step_seconds=0.1) if each) > 80
    assert max(rounds(Pace(), 100, right=9, guess_seconds=0.01, step_seconds=0.1)) == 8
    dear = rounds(Pace(), 100, right=9, guess_seconds=0.2, step_seconds=0.1)
    assert sum(1 for each in dear if each) < 15
    wrong = rounds(Pace(), 100, right=0, guess_seconds=0.05, step_seconds=0.1)
    assert sum(1 for each in wrong if each) < 15
    assert any(wrong[50:])  # it is tried again


def test_guesses_become_fewer_while_they_are_wrong():
    pace = Pace()
    found = [each for each in rounds(pace, 60, right=1, guess_seconds=0.001, step_seconds=0.1) if each]
    assert set(found[6:]) <= {1, 2, 3}
