"""Sequences that go through a stage together, and OpenBLAS in place of MLX's own products."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from itertools import pairwise
from types import SimpleNamespace

import pytest

mx = pytest.importorskip("mlx.core")
pytest.importorskip("mlx_lm")

from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from test_models_architectures import CONFIGURATIONS, whole  # noqa: E402
from tiny_models import make_directory  # noqa: E402

from actors.models import StageModel  # noqa: E402
from actors.models.batch import Caches  # noqa: E402
from actors.models.cut import Anatomy, Slice  # noqa: E402
from actors.models.stage import Row, Step  # noqa: E402
from actors.models.trial import why_apart  # noqa: E402

ALWAYS = ("gemma3_text", "gpt_oss", "qwen3_next", "mamba2", "gemma4")
APART = {
    "gpt_bigcode": "its caches cannot be batched (ValueError",
    "llama4": "ChunkedKVCache",
    "phi3small": "its caches cannot be batched (ValueError",
}
KEYS = ("a", "b", "c", "d")


@pytest.fixture(scope="module")
def stages(tmp_path_factory):
    path = make_directory(tmp_path_factory.mktemp("model"))
    return StageModel.load(path, 0, 1), StageModel.load(path, 2, 4)


def run(stages, rows, **options):
    step = Step(tuple(Row(*row) for row in rows), **options)
    return stages[1].run(step, stages[0].run(step))


def close(some, others):
    return mx.allclose(some, others, rtol=1e-3, atol=1e-3).item()


@settings(max_examples=12, deadline=None)
@given(st.data())
def test_whoever_goes_together_in_whatever_order_it_is_as_if_alone(stages, data):
    run(stages, [], forget=(*KEYS, "alone"))  # of an example that failed
    taken = dict.fromkeys(KEYS, ())
    for key in KEYS:
        ids = tuple(data.draw(st.lists(st.integers(0, 159), min_size=1, max_size=6)))
        run(stages, [(key, ids)])
        taken[key] = ids
    for _ in range(4):
        keys = data.draw(st.lists(st.sampled_from(KEYS), min_size=1, unique=True))
        rows = [(key, (data.draw(st.integers(0, 159)),)) for key in keys]
        together = run(stages, rows, batched=True)
        for number, (key, ids) in enumerate(rows):
            taken[key] += ids
            alone = run(stages, [("alone", taken[key])])[:, -1:]
            run(stages, [], forget=("alone",))
            assert close(together[number : number + 1], alone), (key, keys)
        if data.draw(st.booleans()):  # one ends, and another one takes its name
            key = data.draw(st.sampled_from(KEYS))
            run(stages, [], forget=(key,))
            run(stages, [(key, (3, 1))])
            taken[key] = (3, 1)
    run(stages, [], forget=KEYS)
    assert stages[0].sequences == stages[1].sequences == ()


def test_one_that_was_together_with_others_can_be_kept_and_begun_from(stages):
    for key in "ab":
        run(stages, [(key, (1, 2, 3))])
    run(stages, [("a", (4,)), ("b", (5,))], batched=True)
    run(stages, [], keep=("a",))
    forked = run(stages, [("c", (9,))], fork=(("a", "c", 4),))
    alone = run(stages, [("alone", (1, 2, 3, 4, 9))])[:, -1:]
    assert close(forked, alone)
    run(stages, [], drop=("a",), forget=("b", "c", "alone"))
    assert stages[0].sequences == ()


def test_caches_are_a_mapping():
    caches = Caches()
    caches["a"] = [None]
    assert list(caches) == ["a"]
    assert "a" in caches
    del caches["a"]
    with pytest.raises(KeyError):
        caches["a"]


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in ALWAYS else [pytest.mark.slow]) for name in CONFIGURATIONS]
)
def test_each_architecture_goes_together_or_says_why_not(name):
    anatomy = Anatomy.of(whole(CONFIGURATIONS[name]))
    total = len(anatomy.layers)
    info = SimpleNamespace(vocab_size=anatomy.vocabulary, hidden_size=anatomy.width)
    middle = min(max(total // 2, 1), anatomy.together)
    places = [0, middle, total] if 0 < middle < total else [0, total]
    chain = [StageModel(info, Slice(whole(CONFIGURATIONS[name]), start, stop - 1)) for start, stop in pairwise(places)]

    async def begin(step, finish):
        hidden = None
        for stage in chain[:-1]:
            hidden = stage.run(step, hidden)
        return chain[-1].run(step, hidden, finish)

    why = chain[-1].unbatched or asyncio.run(why_apart(begin))
    assert all(stage.sequences == () for stage in chain)
    assert why.startswith(APART.get(name, "")), why
    assert bool(why) == (name in APART), why


def test_a_process_that_brings_openblas_first_multiplies_by_it():
    program = (
        "from actors.models.openblas import bring\n"
        "found = bring()\n"
        "import mlx.core as mx, ctypes\n"
        "x = mx.random.normal((64, 64)); print(found, mx.allclose(x @ x, x @ x).item(), bring())\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=120)
    found, right, again = done.stdout.split()
    assert right == "True"
    assert again == found


def test_it_is_too_late_once_mlx_is_there():
    program = "import mlx.core\nfrom actors.models.openblas import bring\nprint(bring())\n"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.strip() == "False"


def test_weights_are_in_float32_if_they_fit(tmp_path):
    path = make_directory(tmp_path, bits=4)
    stored, wide = StageModel.load(path, 0, 4), StageModel.load(path, 0, 4, wide=1e9)
    assert wide.wide
    assert wide.nbytes > 3 * stored.nbytes
    assert not StageModel.load(path, 0, 4, wide=wide.nbytes - 1).wide
    ids = (1, 2, 3, 4)
    assert close(stored.run(Step((Row("a", ids),))), wide.run(Step((Row("a", ids),))))
