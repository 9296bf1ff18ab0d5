"""Models of mlx-lm's architectures, cut into stages, answer bit for bit as they do whole.

`architectures.json` has a small configuration of each, most of them after those of mlx-lm's own tests (MIT licence).
"""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import pytest

mx = pytest.importorskip("mlx.core")
pytest.importorskip("mlx_lm")

from mlx_lm.models.cache import make_prompt_cache  # noqa: E402
from mlx_lm.utils import _get_classes  # noqa: E402

from actors.exceptions import ModelError  # noqa: E402
from actors.models.cut import Anatomy, Slice  # noqa: E402

_TABLE = json.loads(Path(__file__).with_name("architectures.json").read_text())
CONFIGURATIONS, REFUSED = ({each["model_type"]: each for each in _TABLE[part]} for part in ("cut", "refused"))
ALWAYS = ("gemma2", "gemma3_text", "phi3", "qwen3_moe", "mixtral", "gpt_oss", "qwen3_next", "mamba2")
LENGTHS = (5, 4, 1, 1, 3)  # of what goes in at once, past the windows of those that have one


def whole(configuration):
    mx.random.seed(7)
    model_class, arguments = _get_classes(dict(configuration))
    model = model_class(arguments.from_dict(dict(configuration)))
    model.eval()
    return model


def chunks(model):
    size = Anatomy.of(model).vocabulary
    ids = iter((number * 37 + 11) % min(size, 100) for number in range(sum(LENGTHS)))
    return [mx.array([[next(ids) for _ in range(length)]]) for length in LENGTHS]


def computed(out, cache):
    mx.eval(out, [each.state for each in cache if each is not None])
    return out


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
def test_every_way_of_cutting_gives_the_logits_of_the_whole(name):
    configuration = CONFIGURATIONS[name]
    model = whole(configuration)
    cache, inputs = make_prompt_cache(model), chunks(model)
    expected = [computed(model(ids, cache=cache), cache) for ids in inputs]
    total = len(model.layers)
    for places in cuts(model):
        stages = [Slice(whole(configuration), start, stop - 1) for start, stop in pairwise([0, *places, total])]
        caches = [stage.make_cache() for stage in stages]
        for ids, logits in zip(inputs, expected, strict=True):
            hidden = None
            for stage, own in zip(stages, caches, strict=True):
                hidden = computed(stage(ids, own, hidden), own)
            assert mx.array_equal(hidden, logits), places


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
