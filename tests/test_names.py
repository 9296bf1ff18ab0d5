"""Names: whatever the order in which nodes ask each other, one actor has the name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st

from actors.demand import Demand
from actors.node.names import Names
from actors.spec import ActorSpec

if TYPE_CHECKING:
    from collections.abc import Iterator


def spec(id: str, name: str | None = "bob", namespace: str = "ns") -> ActorSpec:
    return ActorSpec(
        id=id, label=id, class_name="C", name=name, namespace=namespace, owner="driver", driver=None, handle=None,
        demand=Demand({}, {}),
    )  # fmt: skip


def test_a_name_is_had_from_its_confirmation_to_its_release() -> None:
    names, bob = Names(), spec("a1")
    assert names.reserve(bob)
    assert names.find("bob", "ns") is None
    assert names.all(None) == []
    assert names.confirm(bob)
    assert names.find("bob", "ns") is bob
    assert names.all("ns") == names.all(None) == [("ns", "bob")]
    assert not names.reserve(spec("a2"))
    assert not names.confirm(spec("a2"))
    names.release(bob)
    assert names.find("bob", "ns") is None
    assert names.reserve(spec("a2"))


def test_a_name_set_aside_is_not_given_twice() -> None:
    names, bob = Names(), spec("a2")
    assert names.reserve(bob)
    assert not names.reserve(spec("a1"))  # on one node the first comes first
    names.release(spec("a1"))  # the loser gives back nothing of the winner's
    assert names.confirm(bob)
    names.release(spec("a1"))
    assert names.find("bob", "ns") is bob


def test_namespaces_are_apart() -> None:
    names = Names()
    for namespace in ("one", "two"):
        bob = spec(f"a-{namespace}", namespace=namespace)
        assert names.reserve(bob)
        assert names.confirm(bob)
    assert sorted(names.all(None)) == [("one", "bob"), ("two", "bob")]
    assert names.all("two") == [("two", "bob")]
    assert names.all("three") == []
    assert not names.holds("bob", "three", "a0")


def test_of_two_claims_the_lower_id_wins() -> None:
    names, bob = Names(), spec("a5")
    assert names.reserve(bob)
    assert names.holds("bob", "ns", "a6")
    assert names.confirm(bob)
    assert names.holds("bob", "ns", "a1")  # once it is had, nobody takes it
    other, ann = Names(), spec("a5")
    assert other.reserve(ann)
    assert not other.holds("bob", "ns", "a4")
    assert not other.confirm(ann)
    assert other.find("bob", "ns") is None


def test_releasing_an_actor_without_a_name_is_nothing() -> None:
    names = Names()
    names.release(spec("a1", name=None))
    assert names.all(None) == []


def claim(nodes: list[Names], here: int, actor: ActorSpec) -> Iterator[None]:
    """What a node does for a name, step by step; others do theirs between the steps."""
    assert actor.name is not None
    taken = not nodes[here].reserve(actor)
    yield
    for there, node in enumerate(nodes):
        if there != here and not taken:
            taken = node.holds(actor.name, actor.namespace, actor.id)
            yield
    if taken or not nodes[here].confirm(actor):
        nodes[here].release(actor)


@given(st.integers(2, 4), st.data())
def test_one_claim_wins_in_any_order(count: int, data: st.DataObject) -> None:
    nodes = [Names() for _ in range(count)]
    places = data.draw(st.lists(st.integers(0, count - 1), min_size=1, max_size=5))
    ids = data.draw(st.permutations([f"a{index}" for index in range(len(places))]))
    claims = [claim(nodes, place, spec(id)) for place, id in zip(places, ids, strict=True)]
    while claims:
        chosen = data.draw(st.sampled_from(claims))
        if next(chosen, "over") == "over":
            claims.remove(chosen)
        assert sum(node.find("bob", "ns") is not None for node in nodes) <= 1
    assert sum(node.find("bob", "ns") is not None for node in nodes) == 1


def test_names_on_both_sides_of_a_cut_are_settled() -> None:
    here, there = Names(), Names()
    loser, winner = spec("a7"), spec("a3")
    for names, actor in ((here, loser), (there, winner)):
        assert names.reserve(actor)
        assert names.confirm(actor)
    mine, theirs = here.claims(), there.claims()
    assert here.settle(theirs) == [loser]
    assert there.settle(mine) == []
    assert here.settle(theirs) == []  # once is enough
    assert here.find("bob", "ns") is None
    assert here.find_here("bob", "ns") is loser
    assert here.all_aside("ns") == [("ns", "bob")]
    assert here.is_aside(loser)
    assert not here.reserve(spec("a9"))  # node/bob would be two
    here.release(loser)
    assert here.reserve(spec("a9"))


def test_a_name_given_while_another_node_hears_that_it_is_only_claimed_is_told_again() -> None:
    here, there, mine, theirs = Names(), Names(), spec("a1"), spec("a2")
    assert here.reserve(mine)
    assert there.reserve(theirs)
    assert there.confirm(theirs)
    told, heard = here.claims(), there.claims()
    assert there.settle(told) == []  # it has the name, which is only claimed here
    assert not here.has_given_since(told, heard)
    assert here.confirm(mine)
    assert here.settle(heard) == []  # by the lower id
    assert here.has_given_since(told, heard)
    assert not here.has_given_since(here.claims(), heard)
    assert there.settle(here.claims()) == [theirs]


def test_a_name_that_is_only_claimed_gives_way_to_one_that_is_had() -> None:
    here, bob = Names(), spec("a1")
    assert here.reserve(bob)
    assert here.settle([("ns", "bob", "a9", True)]) == []
    assert not here.confirm(bob)
    assert here.reserve(bob)
    here.settle([("ns", "bob", "a9", False)])  # of two that are only about to, the lower
    assert here.confirm(bob)
    assert here.settle([("ns", "bob", "a0", False)]) == []  # what is had is not lost to a mere claim


@given(st.integers(2, 5), st.data())
def test_after_any_cut_one_has_the_name_and_none_is_lost(count: int, data: st.DataObject) -> None:
    nodes = [Names() for _ in range(count)]
    ids = data.draw(st.permutations([f"a{index}" for index in range(count)]))
    for node, id in zip(nodes, ids, strict=True):
        bob = spec(id)
        assert node.reserve(bob)
        assert node.confirm(bob)
    pairs = data.draw(st.permutations([(a, b) for a in range(count) for b in range(a)]))
    for a, b in pairs:
        mine, theirs = nodes[a].claims(), nodes[b].claims()
        nodes[a].settle(theirs)
        nodes[b].settle(mine)
    holders = [found.id for node in nodes if (found := node.find("bob", "ns")) is not None]
    assert holders == ["a0"]
    still = [found.id for node in nodes if (found := node.find_here("bob", "ns")) is not None]
    assert sorted(still) == sorted(ids)
