"""Caches as a user's objects: conversations that are forked, here and onto other stages, and code beside layers."""

from __future__ import annotations

import pytest

mx = pytest.importorskip("mlx.core")
pytest.importorskip("mlx_lm")

from clusters import eventually  # noqa: E402
from test_models_architectures import CONFIGURATIONS  # noqa: E402
from test_models_cut import MODELS, PROMPT, Chain  # noqa: E402
from test_models_sharded import END, speaking  # noqa: E402
from tiny_models import make_directory, whole_directory, whole_tokens  # noqa: E402

from actors.exceptions import ModelError, TaskError  # noqa: E402
from actors.models import ShardedModel  # noqa: E402
from actors.models.prefixes import Prefixes  # noqa: E402
from actors.models.saved import joined  # noqa: E402

FAMILIES = {name: MODELS[name] for name in ("llama", "llama, window 6", "qwen3")}
FAMILIES |= {name: CONFIGURATIONS[name] for name in ("gemma3_text", "qwen3_next", "mamba2", "nemotron_h", "gpt_oss")}


@pytest.mark.parametrize("name", FAMILIES)
def test_caches_go_to_stages_that_are_cut_otherwise(name, tmp_path):
    """And what comes then is bit for bit what would have come."""
    path = make_directory(tmp_path, **{"dtype": mx.float32, **FAMILIES[name]})
    layers = Chain(path, [(0, 0)]).stages[0].info.layers
    one, other = Chain(path, [(0, 0), (1, layers - 1)]), Chain(path, [(0, layers - 2), (layers - 1, layers - 1)])
    for chain in (one, other):
        chain.logits("probe", [1])  # so that each stage knows its own
    one.logits("a", PROMPT)
    one.logits("a", [5])
    for stage in other.stages:
        stage.restore("b", joined([each.save("a", stage.own) for each in one.stages]))
    for token in (7, 8, 9):
        assert mx.array_equal(one.logits("a", [token]), other.logits("b", [token]))


class TestPrefixes:
    def test_what_is_held_is_given_up_last_and_not_for_a_longer_one(self):
        prefixes = Prefixes()
        for key, tokens in {"a": (1, 2), "b": (3, 4), "c": (5, 6)}.items():
            prefixes.add(key, tokens)
        assert prefixes.hold((9, 9)) is None
        assert prefixes.hold((1, 2)) == prefixes.hold((1, 2)) == "a"
        prefixes.release("a")
        assert prefixes.add("d", (1, 2, 3)) == []
        assert [prefixes.pop() for _ in range(3)] == ["b", "c", "d"]
        assert (prefixes.pop(), prefixes.length("a")) == ("a", 0)

    def test_one_that_nobody_holds_any_more_is_as_the_others(self):
        prefixes = Prefixes()
        prefixes.add("a", (1, 2))
        prefixes.hold((1, 2))
        prefixes.release("a")
        assert prefixes.add("b", (1, 2, 3)) == ["a"]


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return speaking(tmp_path_factory.mktemp("llama"))


@pytest.fixture(scope="module")
def model(cluster, path):
    with ShardedModel.load(path) as model:
        yield model


START, THEN, ELSE = list(range(30, 60)), [7, 8, 9], [90, 91]


def follows(path, tokens, count):
    found = whole_tokens(whole_directory(path), tokens, count)
    return found[: found.index(END) + 1] if END in found else found


def said(answer):
    return [token.id for token in answer]


class TestConversation:
    def test_it_goes_on_from_its_caches_and_both_branches_by_themselves(self, model, path):
        with model.conversation() as talk:
            first = said(talk.submit(START, max_tokens=4))
            assert first == follows(path, START, 4)
            assert talk.cached_tokens == len(talk.tokens) - 1 == len(START) + 3
            branch = talk.fork()
            for each, more in ((talk, THEN), (branch, ELSE)):
                wanted = follows(path, [*START, *first, *more], 4)
                answer = each.submit(more, max_tokens=4)
                assert said(answer) == wanted
                assert answer.cached_tokens >= len(START) + 3  # the other one's may be longer
                assert each.tokens == (*START, *first, *more, *wanted)
            branch.close()

    def test_on_other_nodes_the_caches_travel(self, model, path):
        names = [stage.node for stage in model.plan.stages]
        with model.conversation() as talk, ShardedModel.load(path, nodes=names[:1:-1]) as there:
            first = said(talk.submit(START, max_tokens=4))
            with talk.fork(there) as branch:
                assert branch.cached_tokens == len(START) + 3
                answer = branch.submit(THEN, max_tokens=4)
                assert said(answer) == follows(path, [*START, *first, *THEN], 4)
                assert answer.cached_tokens == len(START) + 3
            assert there.status()["waiting"] == 0

    def test_what_was_closed_is_no_longer_held(self, model):
        talk = model.conversation()
        said(talk.submit(START, max_tokens=2))
        with pytest.raises(ModelError, match="this conversation was closed"):
            talk.close() or talk.submit(THEN)
        with pytest.raises(ModelError, match="this conversation was closed"):
            talk.fork()

    def test_one_answer_at_a_time(self, model):
        with model.conversation() as talk:
            talk.submit(START, max_tokens=200)
            with pytest.raises(ModelError, match="an answer of this conversation is under way"):
                talk.submit(THEN)
        eventually(lambda: model.status()["running"] == 0)

    def test_what_cannot_be_meant(self, model):
        talk = model.conversation()
        with pytest.raises(TypeError, match="a prompt is a text or a list of tokens, not 5"):
            talk.submit(5)
        with pytest.raises(TypeError, match="is forked onto a ShardedModel, not onto 3"):
            talk.fork(3)
        with pytest.raises(TypeError, match="begins with tokens, not with 'he'"):
            model.conversation("he")

    def test_another_model_has_no_use_for_it(self, model, tmp_path):
        node = model.plan.stages[0].node
        other = ShardedModel.load(speaking(tmp_path, num_hidden_layers=2), nodes=[node])
        with other, pytest.raises(ModelError, match="it is another model"):
            model.conversation(START).fork(other)


class TestBeside:
    def test_a_probe_sees_each_layer_s_hidden_state_and_changes_nothing(self, model, path):
        probes = {layer: lambda hidden: hidden.shape for layer in (0, 2, 4)}
        answer = model.submit(START, max_tokens=3, probe=probes)
        tokens = said(answer)
        assert tokens == follows(path, START, 3)
        shapes = [(len(START) - 1, 64), *[(1, 64)] * len(tokens)]
        assert answer.probed == dict.fromkeys(probes, shapes)

    def test_steering_changes_what_comes_for_this_answer_alone(self, model, path):
        answer = model.submit(START, max_tokens=6, steer={1: lambda hidden: hidden * 0}, probe={1: mx.sum})
        other = model.submit(START, max_tokens=6)
        assert said(answer) != follows(path, START, 6)
        assert said(other) == follows(path, START, 6)
        assert all(value.item() == 0 for value in answer.probed[1])
        again = model.submit(START, max_tokens=6)
        assert said(again) == follows(path, START, 6)

    def test_code_that_raises_ends_its_own_answer(self, model, path):
        def wrong(hidden):
            raise KeyError("no such direction")

        other = model.submit(THEN, max_tokens=6)
        with pytest.raises(TaskError, match="no such direction"):
            said(model.submit(START, max_tokens=6, steer={3: wrong}))
        with pytest.raises(TaskError, match=r"steer=\{0: …\} must return a hidden state of shape \(29, 64\)"):
            said(model.submit(START, steer={0: lambda hidden: None}))
        assert said(other) == follows(path, THEN, 6)

    @pytest.mark.parametrize(
        ("code", "kind", "said"),
        [
            ({5: print}, ValueError, "probe names layer 5; the model has the layers 0 to 4"),
            ({1: "x"}, TypeError, "must be a mapping of layer numbers to functions"),
            ([print], TypeError, "must be a mapping of layer numbers to functions"),
        ],
    )
    def test_layers_that_are_not_there(self, model, code, kind, said):
        with pytest.raises(kind, match=said):
            model.submit(START, probe=code)
