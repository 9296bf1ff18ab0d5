"""Models of mlx-lm's architectures, cut into stages, answer bit for bit as they do whole.

`architectures.json` has a small configuration of each, most of them after those of mlx-lm's own tests (MIT licence).
"""

from __future__ import annotations

import json
import pkgutil
from itertools import combinations, pairwise
from pathlib import Path

import pytest

mx = pytest.importorskip("mlx.core")
pytest.importorskip("mlx_lm")

import mlx_lm.models  # noqa: E402
from mlx.utils import tree_flatten  # noqa: E402
from mlx_lm.models.cache import CacheList, ChunkedKVCache, RotatingKVCache, make_prompt_cache  # noqa: E402
from mlx_lm.utils import _get_classes  # noqa: E402

from actors.exceptions import ModelError  # noqa: E402
from actors.models.cut import Anatomy, Slice  # noqa: E402

_TABLE = json.loads(Path(__file__).with_name("architectures.json").read_text())
CONFIGURATIONS, REFUSED = (
    {each.get("architectures", [each["model_type"]])[0]: each for each in _TABLE[part]} for part in ("cut", "refused")
)
ALWAYS = ("gemma2", "gemma3_text", "phi3", "qwen3_moe", "mixtral", "gpt_oss", "qwen3_next", "mamba2")
LENGTHS = (5, 4, 1, 1, 3)  # of what goes in at once


def whole(configuration):
    mx.random.seed(7)
    copy = json.loads(json.dumps(configuration))  # some of mlx-lm's write into what they are given
    model_class, arguments = _get_classes(copy)
    model = model_class(arguments.from_dict(copy))
    model.eval()
    return model


def chunks(model, lengths=LENGTHS):
    size = Anatomy.of(model).vocabulary
    ids = iter((number * 37 + 11) % min(size, 100) for number in range(sum(lengths)))
    return [mx.array([[next(ids) for _ in range(length)]]) for length in lengths]


def windows(cache):
    """Tokens that caches keep at most."""
    for each in cache:
        if isinstance(each, CacheList):
            yield from windows(each.caches)
        elif isinstance(each, RotatingKVCache | ChunkedKVCache):
            yield each.max_size if isinstance(each, RotatingKVCache) else each.chunk_size


def prompts(model):
    """What goes in at once: below, at and beyond the window, where there is one, and a few tokens after that."""
    yield LENGTHS
    for window in sorted(set(windows(make_prompt_cache(model)))):
        assert window < sum(LENGTHS), "a window that is never full is not tried"
        yield from ((length, 1, 1) for length in (window - 1, window, window + 1, 2 * window + 1))


def computed(model, cache, inputs, hidden):
    """What a model or a slice gives for each input, given the hidden state of each."""
    found = []
    for ids, before in zip(inputs, hidden, strict=True):
        found.append(model(ids, cache, before) if isinstance(model, Slice) else model(ids, cache=cache))
        mx.eval(found[-1], [each.state for each in cache if each is not None])
    return found


def equal(one, other):
    pairs = zip(tree_flatten(one), tree_flatten(other), strict=True)
    return all(mx.array_equal(mine, theirs) if isinstance(mine, mx.array) else mine == theirs
               for (_, mine), (_, theirs) in pairs)  # fmt: skip


def cuts(model):
    anatomy = Anatomy.of(model)
    places = range(1, min(anatomy.together + 1, len(anatomy.layers)))
    yield []
    if not places:
        return
    yield from ([place] for place in {places[0], places[len(places) // 2], places[-1]})
    yield list(places)[:3]  # one layer a stage, but for the last
    if len(places) > 3:
        yield list(places)[-3:]


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in ALWAYS else [pytest.mark.slow]) for name in CONFIGURATIONS]
)
def test_cut_it_gives_the_logits_of_the_whole(name):
    configuration = CONFIGURATIONS[name]
    model = whole(configuration)
    inputs = chunks(model)
    expected = computed(model, make_prompt_cache(model), inputs, [None] * len(inputs))
    total = len(model.layers)
    for places in cuts(model):
        stages = [Slice(whole(configuration), start, stop - 1) for start, stop in pairwise([0, *places, total])]
        hidden = [None] * len(inputs)
        for stage in stages:
            hidden = computed(stage, stage.make_cache(), inputs, hidden)
        assert all(map(equal, hidden, expected)), places


@pytest.mark.parametrize("name", ALWAYS)
def test_every_way_of_cutting_gives_the_logits_of_the_whole(name):
    """Each slice there can be makes of the hidden state before it the one that follows: so every chain of them does."""
    model = whole(CONFIGURATIONS[name])
    total = len(model.layers)
    places = [*range(min(Anatomy.of(model).together, total - 1) + 1), total]  # where a cut may fall
    trials = [chunks(model, lengths) for lengths in prompts(model)]
    nothing = [None] * max(map(len, trials))
    expected = [computed(model, make_prompt_cache(model), inputs, nothing[: len(inputs)]) for inputs in trials]
    hidden = {0: [nothing[: len(inputs)] for inputs in trials], total: expected}
    for start, stop in combinations(places, 2):
        piece = Slice(whole(CONFIGURATIONS[name]), start, stop - 1)
        for trial, inputs in enumerate(trials):
            found = computed(piece, piece.make_cache(), inputs, hidden[start][trial])
            known = hidden.setdefault(stop, [])
            if len(known) == trial:  # of the slice that begins with the first layer
                known.append(found)
            assert all(map(equal, found, known[trial])), (start, stop, [ids.size for ids in inputs])


def test_every_architecture_of_mlx_lm_is_tried():
    if mlx_lm.__version__ != _TABLE["mlx-lm"]:
        pytest.skip(f"the table is of mlx-lm {_TABLE['mlx-lm']}")
    table = [*_TABLE["cut"], *_TABLE["refused"]]
    tried = {_get_classes(dict(each))[0].__module__ for each in table}
    tried |= {f"mlx_lm.models.{each['model_type']}" for each in table}  # some use another one's class
    names = {f"mlx_lm.models.{module.name}" for module in pkgutil.iter_modules(mlx_lm.models.__path__)}
    assert names - tried == {f"mlx_lm.models.{name}" for name in (*_TABLE["elsewhere"], *_TABLE["no models"])}


@pytest.mark.parametrize("name", ["gemma3n", "gemma4"])
def test_layers_that_share_keys_and_values_stay_together(name):
    model = whole(CONFIGURATIONS[name])
    first = Anatomy.of(model).together
    assert first < len(model.layers) - 1
    with pytest.raises(ModelError, match=f"{name}.* cannot be cut before layer {first + 1}: its layers {first} to"):
        Slice(model, 0, first)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("nanbeige", "passes through its layers more than once"),
        ("iquestloopcoder", "iquestloopcoder cannot be cut: it looks into its layers as it runs"),
        ("deepseek_v41", "deepseek_v41 cannot be cut: its layers keep a LayerCache of their own"),
        ("afm7", "the architecture 'afm7' cannot be cut: its layers are not in one list"),
    ],
)
def test_an_architecture_that_cannot_be_cut_is_refused_by_name(name, said):
    with pytest.raises(ModelError, match=said):
        stage = Slice(whole(REFUSED[name]), 0, 0)
        stage(mx.array([[1, 2]]), stage.make_cache(), None)
