"""The ring and the rumours: whatever the order in which nodes hear things, they come to know the same."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.address import Address
from actors.node.neighbours import Neighbours
from actors.node.ring import NEAR, Ring, in_order
from actors.node.rumours import ENDED, HERE, SILENT, Record, Rumours, Word
from actors.nodeinfo import NodeInfo
from actors.simulation import SimulationError, simulate_crowd

if TYPE_CHECKING:
    import random

HEAR = Rumours.hear

crowds = st.sets(st.integers(0, 10**6).map(lambda number: f"node{number}"), min_size=1, max_size=60)
words = st.builds(
    Word, st.sampled_from(("a", "b", "c", "me")), st.integers(0, 4), st.sampled_from((HERE, SILENT, ENDED))
)


def described(node: str, life: int, name: str = "") -> Record:
    info = NodeInfo(node, name or node, "", True, 1, "zeroconf", {}, {}, {}, {})
    return Record(life, info, Address(f"node-{node}", "", "", node))


def _believed(rumours: Rumours, word: Word) -> Word | None:
    return None if word.node == rumours.me else HEAR(rumours, word)


@given(crowds)
def test_who_is_near_is_near_in_turn(nodes: set[str]) -> None:
    ring = Ring(nodes)
    for node in nodes:
        near = ring.near(node)
        assert node not in near
        assert len(near) == min(2 * NEAR, len(nodes) - 1)
        assert all(node in ring.near(other) for other in near)


@given(crowds)
def test_neighbours_reach_all_in_few_steps_and_are_few(nodes: set[str]) -> None:
    ring, steps = Ring(nodes), len(nodes).bit_length() + 3
    reached = {min(nodes)}
    for _ in range(steps):
        reached |= {other for node in reached for other in ring.neighbours(node)}
    assert reached == nodes
    assert all(len(ring.neighbours(node)) <= 2 * NEAR + len(nodes).bit_length() for node in nodes)


@given(crowds, st.integers(0, 10**6))
def test_a_ring_that_one_has_joined_is_the_ring_of_all(nodes: set[str], number: int) -> None:
    new = f"node{number}"
    before, joined, anew = Ring(nodes), Ring(nodes).joined_by(new), Ring({*nodes, new})
    for node in nodes | {new}:
        assert joined.neighbours(node) == anew.neighbours(node)
    before.joined_by(new)
    assert all(before.neighbours(node) == Ring(nodes).neighbours(node) for node in nodes)


@given(crowds, st.text("abc", min_size=1, max_size=5))
def test_one_that_goes_moves_what_it_kept_and_nothing_else(nodes: set[str], what: str) -> None:
    def keepers(ids: set[str]) -> list[str]:
        members: Any = [SimpleNamespace(info=SimpleNamespace(id=id)) for id in ids]
        return [member.info.id for member in in_order(what, members)[:3]]

    kept = keepers(nodes)
    gone = min(nodes)
    left = keepers(nodes - {gone})
    assert [node for node in kept if node != gone] == left[: len(kept) - (gone in kept)]


@given(
    st.lists(st.one_of(words, st.builds(described, st.sampled_from("abc"), st.integers(0, 4)), st.sampled_from("abc")))
)
def test_who_is_lacking_is_known_without_a_look_at_all(said: list[Word | Record | str]) -> None:
    rumours = Rumours("me", 0)
    for each in said:
        if isinstance(each, Word):
            rumours.hear(each)
        elif isinstance(each, Record):
            rumours.take(each)
        else:
            rumours.forget(each)
        others = [word for word in rumours.words() if word.node != "me" and word.state != ENDED]
        assert sorted(rumours.lacking()) == sorted(word.node for word in others if not rumours.knows(word.node))


@given(st.lists(words), st.randoms(use_true_random=False))
def test_whatever_the_order_all_believe_the_same_of_others(said: list[Word], chance: random.Random) -> None:
    of_others = [word for word in said if word.node != "me"]
    mixed = chance.sample(of_others, len(of_others))
    one, two = Rumours("me", 0), Rumours("me", 0)
    for word in of_others:
        one.hear(word)
    for word in mixed + mixed:
        two.hear(word)
    assert sorted(one.words()) == sorted(two.words())
    assert one.digest == two.digest
    assert one.newer(two.words()) == []


@given(st.lists(words))
def test_a_node_objects_to_whatever_is_said_against_it_and_only_once(said: list[Word]) -> None:
    rumours = Rumours("me", 1)
    life = 1
    for word in said:
        objection = rumours.hear(word)
        if word.node == "me":
            assert (objection is not None) == ((word.life, word.state) > (life, HERE))
            if objection is not None:
                assert objection.state == HERE
                assert objection.life > max(life, word.life) - (word.life == life)
                life = objection.life
    assert rumours.state("me") == HERE
    assert Rumours("other", 0).hear(Word("me", life, HERE))


@settings(max_examples=50)
@given(st.lists(words, max_size=20), st.lists(words, max_size=20))
def test_two_that_compare_know_the_same_afterwards(mine: list[Word], theirs: list[Word]) -> None:
    one, two = Rumours("one", 3), Rumours("two", 3)
    for word in mine:
        one.hear(word)
    for word in theirs:
        two.hear(word)
    heard = two.words()
    newer = one.newer(heard)
    for word in heard:
        one.hear(word)
    for word in newer:
        two.hear(word)
    for word in one.words():
        two.hear(word)
    assert one.digest == two.digest


def test_a_record_of_an_earlier_life_is_no_news_and_what_has_changed_is() -> None:
    rumours, mine = Rumours("me", 5), described("me", 0)
    assert rumours.publish(mine.info, mine.where) == Word("me", 5, HERE)
    assert rumours.publish(mine.info, mine.where) is None
    renamed = described("me", 0, "other").info
    assert rumours.publish(renamed, mine.where) == Word("me", 6, HERE)
    rumours.hear(Word("a", 2, HERE))
    assert rumours.lacking() == ["a"]
    assert rumours.take(described("a", 1))
    assert rumours.lacking() == ["a"]
    assert rumours.take(described("a", 2))
    assert not rumours.take(described("a", 2))
    assert rumours.lacking() == []
    assert rumours.say("a", ENDED) == Word("a", 2, ENDED)
    assert rumours.say("a", SILENT) is None
    assert rumours.standing() == ["me"]
    rumours.forget("a")
    assert rumours.state("a") is None


def test_many_devices_know_each_other_whatever_goes_wrong() -> None:
    for seed in range(6):
        simulate_crowd(seed, size=10)
    assert simulate_crowd(3, size=8, trace=True) == simulate_crowd(3, size=8, trace=True)


@pytest.mark.slow
def test_many_more_do() -> None:
    for seed in range(10):
        simulate_crowd(seed)
    simulate_crowd(1, size=40, limit=8)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("broken", "method", "wrong", "says", "first"),
    [
        (Neighbours, "_judge", lambda *_: None, "does not miss", 7),  # what a node sees of its neighbours
        (Neighbours, "_tell", lambda *_: None, "does not miss", 7),  # what it has heard
        (Rumours, "hear", _believed, "for lost", 19),  # that one which is said to be gone objects
    ],
)
def test_a_crowd_that_is_wrong_is_found(
    monkeypatch: pytest.MonkeyPatch, broken: Any, method: str, wrong: Any, says: str, first: int
) -> None:
    monkeypatch.setattr(broken, method, wrong)
    with pytest.raises(SimulationError, match=says):
        for seed in range(first, first + 30):
            simulate_crowd(seed, size=10)
