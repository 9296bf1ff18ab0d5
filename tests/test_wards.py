"""Wards: which of the states that an heir is told of it keeps, in whatever order they come."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.messages import Payload
from actors.node.copies import Copies, Ward
from actors.node.wards import Wards
from actors.spec import Construction

ACTOR = "actor-1"


def ward(term: int, serial: int, state: Payload | None = None) -> Ward:
    spec = cast("Any", SimpleNamespace(id=ACTOR))
    construction = Construction(
        code=Payload(b""), spec=spec, arguments=Payload(b""), max_concurrency=None, is_async=False, group=None,
        state=state,
    )  # fmt: skip
    return Ward(construction, -1, 0, "node-a", ("node-b",), term, serial)


def state(number: int) -> Payload:
    return Payload(b"%d" % number)


def kept(wards: Wards) -> tuple[int, int, Payload | None]:
    found = wards.find(ACTOR)
    assert found is not None
    return found.term, found.serial, found.construction.state


def test_a_later_state_takes_the_place_of_an_earlier_one_and_never_the_other_way_round() -> None:
    wards = Wards()
    with pytest.raises(LookupError, match="is not kept here"):
        wards.update(ACTOR, 0, 1, state(1))
    wards.keep(ward(0, 1))
    assert ACTOR in wards
    assert wards.update(ACTOR, 0, 3, state(3))
    with pytest.raises(LookupError, match="a later state"):
        wards.update(ACTOR, 0, 2, state(2))
    assert kept(wards) == (0, 3, state(3))
    wards.keep(ward(0, 2, state(2)))
    assert kept(wards) == (0, 3, state(3))
    assert wards.update(ACTOR, 1, 1, state(11))  # of a later term
    assert not wards.update(ACTOR, 0, 9, state(9))
    assert not wards.keep(ward(0, 9, state(9)))
    assert kept(wards) == (1, 1, state(11))
    wards.drop(ACTOR, 0)
    assert ACTOR in wards
    wards.drop(ACTOR, 1)
    assert ACTOR not in wards
    assert wards.find(ACTOR) is None


def test_a_state_that_no_heir_is_to_have_is_safe_at_once() -> None:
    nobody: Any = None
    copies = Copies(nobody, nobody, ward(0, 1), nobody, 0, nobody, nobody)
    assert copies.saved(state(1)) is None  # and no coroutine, for which a node would make a task


@given(st.lists(st.sampled_from(["send", "recall", "spread"]), max_size=30), st.data())
def test_what_an_heir_has_taken_is_what_is_recalled(steps: list[str], data: st.DataObject) -> None:
    """The actor sends states by a leave, some of them late; whoever has charge recalls, and gives further ones."""
    wards = Wards()
    wards.keep(ward(0, 0))
    base, number = 0, 0  # of the leave that is in force; how many states were taken
    taken = 0  # the last one that the heir has answered for
    for step in steps:
        if step == "send":
            number += 1
            by = data.draw(st.sampled_from([base, max(0, base - 100)]))
            try:
                wards.update(ACTOR, 0, by + number, state(number))
                taken = number
            except LookupError:
                assert by < base
        else:
            base += 100
            found = wards.recall(ACTOR, 0, base)
            assert (found[1] if found is not None else None) == (state(taken) if taken else None)
            with pytest.raises(LookupError):  # it was on its way
                wards.update(ACTOR, 0, base - 1, state(-1))
            if step == "spread":
                wards.keep(ward(0, base, state(taken) if taken else None))
    assert kept(wards)[2] == (state(taken) if taken else None)
