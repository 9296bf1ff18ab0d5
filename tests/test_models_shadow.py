"""Caches kept twice: a neighbour has what a stage that dies had, and answers go on without their tokens again."""

from __future__ import annotations

import os
import signal
from itertools import count

import pytest

mx = pytest.importorskip("mlx.core")
pytest.importorskip("mlx_lm")

from clusters import SOON, eventually  # noqa: E402
from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from test_models_architectures import CONFIGURATIONS  # noqa: E402
from test_models_sharded import LONG, long_answer, speaking  # noqa: E402
from tiny_models import make_directory  # noqa: E402

import actors  # noqa: E402
from actors.exceptions import ModelError  # noqa: E402
from actors.models import ShardedModel, StageModel  # noqa: E402
from actors.models.remains import Remains, agreed  # noqa: E402
from actors.models.shadow import Journal, Legacy, Shadow  # noqa: E402
from actors.models.stage import Row, Step  # noqa: E402

PROMPT = [101, 20, 33, 7, 250, 88, 14, *range(60, 110)]
NAMES = count()


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return speaking(tmp_path_factory.mktemp("llama"))


@pytest.fixture(scope="module")
def stage(path):
    return StageModel.load(path, 0, 1)


class Programs:
    """Steps that a schedule might take, at random, and what a neighbour is told of them now and then."""

    def __init__(self, stage, draw):
        self.stage, self.draw = stage, draw
        self.journal, self.shadow = Journal(), Shadow()
        self.running, self.kept = {}, {}

    def take(self, **fields):
        step = Step(**fields)
        self.stage.run(step)
        self.journal.note(step)

    def new(self):
        return f"sequence-{next(NAMES)}"

    def rows(self):
        length = self.draw(st.integers(1, 3))
        chosen = self.draw(st.lists(st.sampled_from(sorted(self.running)), unique=True)) if self.running else []
        rows = {key: self.tokens(length) for key in [*chosen, *([] if chosen else [self.new()])]}
        self.take(rows=tuple(Row(*each) for each in rows.items()), batched=self.draw(st.booleans()))
        for key, ids in rows.items():
            self.running[key] = self.running.get(key, ()) + ids

    def tokens(self, length):
        return tuple(self.draw(st.lists(st.integers(0, 250), min_size=length, max_size=length)))

    def change(self):
        kind = self.draw(st.sampled_from(["trim", "forget", "keep", "drop", "fork"]))
        among = sorted(self.kept if kind in {"drop", "fork"} else self.running)
        if not among:
            return
        key = self.draw(st.sampled_from(among))
        if kind == "trim":
            lost = self.draw(st.integers(0, len(self.running[key]) - 1))
            self.take(trim=((key, lost),))
            self.running[key] = self.running[key][: len(self.running[key]) - lost]
        elif kind == "fork":
            other, length = self.new(), self.draw(st.integers(1, len(self.kept[key])))
            self.take(fork=((key, other, length),))
            self.running[other] = self.kept[key][:length]
        else:
            self.take(**{kind: (key,)})
            tokens = (self.kept if kind == "drop" else self.running).pop(key)
            if kind == "keep":
                self.kept[key] = tokens

    def tell(self):
        delta = self.journal.delta(self.stage)
        if delta is not None:
            self.shadow.take(delta)

    def end(self):
        self.take(forget=tuple(self.running), drop=tuple(self.kept))


@settings(max_examples=20, deadline=None)
@given(st.data())
def test_a_neighbour_has_what_the_stage_has_whatever_was_done_in_between(stage, data):
    stage.run(Step(forget=stage.sequences))  # of an example that failed
    programs = Programs(stage, data.draw)
    for _ in range(data.draw(st.integers(1, 14))):
        data.draw(st.sampled_from([programs.rows, programs.rows, programs.change, programs.tell]))()
    programs.tell()
    expected = {**programs.running, **programs.kept}
    found = {key: (tokens, saved) for tokens, key, saved in programs.shadow.remains()}
    assert {key: tokens for key, (tokens, _) in found.items()} == expected
    for key, (_, copies) in found.items():
        own = stage.save(key, stage.own)
        assert set(copies) == set(stage.own)
        for place, arrays in copies.items():
            assert all(mx.array_equal(*pair).item() for pair in zip(arrays, own[place][:2], strict=True))
    programs.end()
    programs.tell()
    assert programs.shadow.remains() == []
    assert stage.sequences == ()


@given(st.data())
def test_what_all_have_is_agreed_on(data):
    """Some stages are ahead, some copies are older, some sequences nobody has whole."""
    tokens = tuple(data.draw(st.lists(st.integers(0, 9), min_size=1, max_size=9)))
    found, has = [], dict.fromkeys(range(4), 0)
    for _ in range(data.draw(st.integers(0, 6))):
        length = data.draw(st.integers(1, len(tokens)))
        places = data.draw(st.sets(st.sampled_from(range(4))))
        found.append(Remains("a", tokens[:length], tuple(places)))
        has |= {place: max(has[place], length) for place in places}
    expected = {"a": tokens[: min(has.values())]} if all(has.values()) else {}
    assert agreed(found, range(4)) == expected


def test_where_they_differ_it_is_what_they_begin_with():
    found = [Remains("a", (1, 2, 3), (0,)), Remains("a", (1, 2, 4, 5), (1,)), Remains("b", (9,), (0, 1))]
    assert agreed(found, (0, 1)) == {"a": (1, 2), "b": (9,)}
    assert agreed([*found, Remains("a", (7,), (2,))], (0, 1, 2)) == {}


def test_what_is_left_is_given_as_far_as_it_is_asked_for():
    arrays = (mx.arange(6.0).reshape(1, 1, 6, 1), mx.ones((1, 1, 6, 1)))
    older = (mx.zeros((1, 1, 2, 1)),) * 2
    legacy = Legacy([((1, 2), "a", {0: older}), ((1, 2, 3, 4, 5, 6), "a", {0: arrays, 1: arrays})])
    saved = legacy.save("a", (1, 2, 3), {0})
    assert saved[0][0].tolist() == [[[[0], [1], [2]]]]
    assert {each.shape for each in saved[1][:2]} == {(1, 1, 3, 1)}
    assert saved[1][0].make().shape == (1, 1, 3, 1)
    assert legacy.save("a", (1, 9), {0}) == {}


def settled(model):
    actors.get([stage.settle.remote() for stage in model._deployment.stages], timeout=SOON)


def kill(model, number):
    pid = model.status()["stages"][number]["pid"]
    os.kill(pid, signal.SIGKILL)
    return pid


def is_replaced(model, pid):
    stages = model.status().get("stages", ())  # none while there is a new one being made
    return bool(stages) and pid not in [stage["pid"] for stage in stages]


@pytest.mark.slow
@pytest.mark.parametrize("number", [0, 1, 2])
def test_an_answer_goes_on_where_it_was_when_a_stage_dies(cluster, path, number):
    whole = long_answer(path, tuple(PROMPT))
    with ShardedModel.load(path, shadow=True) as model:
        said = list(model.tokens([5, *PROMPT], max_tokens=4))
        answer = model.submit(PROMPT, max_tokens=LONG)
        tokens = [next(answer).id for _ in range(5)]
        # The last stage stops when it is ahead of its reader, so that all is told that can be.
        eventually(lambda: model.status()["tokens"] >= len(said) + len(tokens) + 16)
        for _ in range(2):  # the copies of what was taken over are there the second time
            settled(model)
            gone = kill(model, number)
            while not is_replaced(model, gone):  # some were told before
                tokens.append(next(answer).id)
        assert answer.replayed_tokens < len(PROMPT)  # what it was ahead of its reader by, at most, each time
        assert tokens + [token.id for token in answer] == whole
        again = model.submit([5, *PROMPT], max_tokens=4)  # what was kept for others is there too
        assert [token.id for token in again] == said
        assert again.cached_tokens == len(PROMPT)
        stages = model._deployment.stages
        eventually(lambda: actors.get([stage.sequences.remote() for stage in stages], timeout=SOON) == [()] * 3)


@pytest.mark.slow
@pytest.mark.parametrize("arithmetic", ["stored", "float32"])
def test_many_answers_at_any_time(cluster, path, arithmetic):
    """Nothing is waited for: some of it is computed again, and nothing comes out otherwise."""
    prompts = [[number, *PROMPT] for number in range(6)]
    with ShardedModel.load(path, shadow=True, arithmetic=arithmetic) as model:
        expected = [list(model.tokens(prompt, max_tokens=60)) for prompt in prompts]
        for number in (1, 2, 0):
            answers = [model.submit(prompt, max_tokens=60) for prompt in prompts]
            got = [[next(answer).id for _ in range(3)] for answer in answers]
            kill(model, number)
            assert [tokens + [token.id for token in answer] for tokens, answer in zip(got, answers, strict=True)] == (
                expected
            )
            assert max(answer.replayed_tokens for answer in answers) < len(PROMPT)


@pytest.mark.slow
def test_neighbours_that_die_together_are_made_up_for(cluster, path):
    with ShardedModel.load(path, shadow=True) as model:
        answer = model.submit(PROMPT, max_tokens=40)
        tokens = [next(answer).id for _ in range(5)]
        settled(model)
        for number in (0, 1):
            kill(model, number)
        assert tokens + [token.id for token in answer] == long_answer(path, tuple(PROMPT))[:40]
        assert answer.replayed_tokens >= len(PROMPT)


def test_what_cannot_be_kept_twice_is_refused(cluster, path, tmp_path):
    windowed = make_directory(tmp_path, **CONFIGURATIONS["gemma3_text"])
    with pytest.raises(ModelError, match=r"keeps a RotatingKVCache.*shadow=True is for models with full attention"):
        ShardedModel.load(windowed, shadow=True)
    with pytest.raises(ValueError, match="shadow=True is for a model cut by its layers"):
        ShardedModel.load(path, shadow=True, strategy="tensor")


@pytest.mark.slow
def test_both_copies_are_counted_and_one_stage_keeps_none(cluster, path):
    room = {"kv_memory": 1_000_000}
    with ShardedModel.load(path, shadow=True, **room) as twice, ShardedModel.load(path, **room) as once:
        assert 0.4 * once.kv_limit < twice.kv_limit < 0.7 * once.kv_limit
    name = actors.nodes()[0].name
    with ShardedModel.load(path, shadow=True, nodes=[name]) as alone:
        tokens = alone.tokens(PROMPT, max_tokens=20)
        got = [next(tokens)]
        kill(alone, 0)
        assert got + list(tokens) == long_answer(path, tuple(PROMPT))[:20]
