"""Options of an actor: merged whole, and a wrong one is refused where it is written."""

from __future__ import annotations

import pickle
from typing import Any

import pytest

from actors.options import NOT_HERE, ActorOptions
from actors.strategy import NAMED


def test_merging_leaves_the_first_as_it_was() -> None:
    first = ActorOptions().merged(name="bob", max_concurrency=2)
    second = first.merged(name="ann", node="n1")
    assert first == ActorOptions(name="bob", max_concurrency=2)
    assert second == ActorOptions(name="ann", max_concurrency=2, node="n1")
    assert second.merged() == second
    assert second.merged(name=None).name is None


def test_options_travel() -> None:
    options = ActorOptions(name="bob", get_if_exists=True)
    assert pickle.loads(pickle.dumps(options)) == options


@pytest.mark.parametrize("strategy", NAMED)
def test_strategies(strategy: str) -> None:
    assert ActorOptions().merged(scheduling_strategy=strategy).scheduling_strategy == strategy


@pytest.mark.parametrize(
    ("wrong", "kind", "words"),
    [
        ({"nmae": "bob"}, TypeError, "'nmae' is no option of an actor; there are: .*name"),
        ({"name": 3}, TypeError, "name must be a non-empty string, not 3"),
        ({"name": ""}, TypeError, "name must be a non-empty string"),
        ({"node": b"n1"}, TypeError, "node must be a non-empty string"),
        ({"namespace": ["x"]}, TypeError, "namespace must be"),
        ({"get_if_exists": True}, ValueError, "needs a name"),
        ({"max_concurrency": 0}, ValueError, "max_concurrency must be a whole number from 1, not 0"),
        ({"max_concurrency": -1}, ValueError, "not -1"),
        ({"max_concurrency": 1.5}, ValueError, r"not 1\.5"),
        ({"max_concurrency": "2"}, ValueError, "not '2'"),
        ({"scheduling_strategy": "spread"}, ValueError, "one of DEFAULT, SPREAD, PACK, or .* not 'spread'"),
        ({"scheduling_strategy": ["SPREAD"]}, ValueError, "one of DEFAULT"),
    ],
)
def test_wrong_options_are_named(wrong: dict[str, Any], kind: type[Exception], words: str) -> None:
    with pytest.raises(kind, match=words):
        ActorOptions().merged(**wrong)


@pytest.mark.parametrize("name", sorted(NOT_HERE))
def test_an_option_of_rays_that_is_not_honoured_says_so(name: str) -> None:
    with pytest.raises(NotImplementedError, match=name):
        ActorOptions().merged(**{name: 1})
