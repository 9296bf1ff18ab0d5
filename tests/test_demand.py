"""What is asked for and what there is: labels that match, accounts that add up, nodes that are chosen."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, multiple, rule

from actors.demand import GRAIN, Demand, check_labels, demand_of, matches, parts
from actors.exceptions import PlacementError
from actors.node.choice import Offer, choose, obstacle
from actors.node.places import Places
from actors.node.stock import Stock, whole
from actors.node.waiting import Part, Waiting
from actors.options import ActorOptions, TaskOptions
from actors.spec import ActorSpec
from actors.strategy import NodeAffinitySchedulingStrategy

ONE = Demand({"CPU": 1.0}, {"CPU": 1.0})
TWO = Demand({"CPU": 2.0}, {"CPU": 2.0})
TWO_IN_EU = Demand({"CPU": 2.0}, {"CPU": 2.0}, selector={"zone": "eu"})


# -- what options ask for ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "needs", "holds"),
    [
        ({}, {"CPU": 1}, {}),
        ({"num_cpus": 0}, {}, {}),
        ({"num_cpus": 2}, {"CPU": 2}, {"CPU": 2}),
        ({"num_gpus": 0.5}, {"CPU": 1, "GPU": 0.5}, {"GPU": 0.5}),
        ({"memory": 1 << 30, "num_cpus": 0}, {"memory": 1 << 30}, {"memory": 1 << 30}),
        ({"resources": {"cam": 1, "arm": 0}}, {"CPU": 1, "cam": 1}, {"cam": 1}),
    ],
)
def test_an_actor_needs_one_cpu_and_holds_what_was_given(options: dict[str, Any], needs: Any, holds: Any) -> None:
    demand = demand_of(ActorOptions().merged(**options))
    assert demand.needs == needs
    assert demand.holds == holds


def test_a_task_holds_its_one_cpu() -> None:
    assert demand_of(TaskOptions(), runs_at_once=True).holds == {"CPU": 1}
    assert demand_of(TaskOptions(num_cpus=0), runs_at_once=True).holds == {}


@pytest.mark.parametrize(
    ("wrong", "kind", "words"),
    [
        ({"num_cpus": -1}, ValueError, "num_cpus must be a number from 0, not -1"),
        ({"num_cpus": "2"}, TypeError, "num_cpus must be a number, not '2'"),
        ({"num_cpus": True}, TypeError, "num_cpus must be a number"),
        ({"num_cpus": float("nan")}, ValueError, "not nan"),
        ({"num_cpus": 0.00001}, ValueError, r"0\.0001 or more"),
        ({"num_gpus": 1.5}, ValueError, "whole number where it is over 1"),
        ({"memory": float("inf")}, ValueError, "memory must be"),
        ({"resources": {"CPU": 1}}, ValueError, "use num_cpus="),
        ({"resources": {"cam": -1}}, ValueError, r"resources\['cam'\] must be a number from 0"),
        ({"resources": ["cam"]}, TypeError, "resources must be a dict"),
        ({"label_selector": {"zone": 3}}, TypeError, r"label_selector\['zone'\] must be a string, not 3"),
        ({"label_selector": {"zone": "in(a"}}, ValueError, r"'in\(value,value\)'"),
        ({"label_selector": {"zone": ""}}, ValueError, "'!value'"),
        ({"label_selector": {"-zone": "a"}}, ValueError, "a key of label_selector"),
        ({"placement_timeout": -1}, ValueError, "placement_timeout must be a number from 0"),
        ({"node": "n1", "scheduling_strategy": "PACK"}, ValueError, "leave scheduling_strategy= out"),
    ],
)
def test_what_cannot_be_asked_for_is_named(wrong: dict[str, Any], kind: type[Exception], words: str) -> None:
    with pytest.raises(kind, match=words):
        ActorOptions().merged(**wrong)


# -- labels -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wanted", "value", "met"),
    [
        ("eu", "eu", True),
        ("eu", "us", False),
        ("eu", None, False),
        ("!eu", "us", True),
        ("!eu", "eu", False),
        ("!eu", None, True),
        ("in(eu,us)", "us", True),
        ("in(eu, us)", "us", True),
        ("in(eu,us)", "asia", False),
        ("in(eu)", None, False),
        ("!in(eu,us)", "asia", True),
        ("!in(eu,us)", "eu", False),
        ("!in(eu,us)", None, True),
    ],
)
def test_selectors(wanted: str, value: str | None, met: bool) -> None:
    labels = {} if value is None else {"zone": value}
    assert matches({"zone": wanted}, labels) is met
    assert matches({"zone": wanted, "other": "!x"}, labels) is met


def test_no_selector_matches_all() -> None:
    assert matches(None, {})
    assert matches({}, {"zone": "eu"})


@pytest.mark.parametrize(
    ("labels", "kind", "words"),
    [
        (["zone"], TypeError, "labels must be a dict"),
        ({"zone": 1}, TypeError, r"labels\['zone'\] must be a string"),
        ({"zone": "a b"}, ValueError, "not 'a b'"),
        ({"zone": "a,b"}, ValueError, "not 'a,b'"),
        ({"a/b/c": "x"}, ValueError, "of the form"),
        ({"ray.io/node-id": "x"}, ValueError, "given by the node itself"),
        ({3: "x"}, TypeError, "keys of labels must be strings"),
    ],
)
def test_labels_that_nobody_could_select_are_refused(labels: Any, kind: type[Exception], words: str) -> None:
    with pytest.raises(kind, match=words):
        check_labels(labels)


# -- accounts ---------------------------------------------------------------------------------------------------

TOTALS = {"CPU": 4.0, "GPU": 1.0, "cam": 2.0}
_lots = st.fixed_dictionaries(
    {}, optional={name: st.integers(0, 30).map(lambda tenths: tenths / 10) for name in TOTALS}
)


class Accounts(RuleBasedStateMachine):
    """Whoever takes, waits, goes on and ends in whatever order: the accounts add up."""

    holders = Bundle("holders")

    def __init__(self) -> None:
        super().__init__()
        self.stock = Stock(TOTALS)
        self.held: dict[str, dict[str, int]] = {}
        self.waits: dict[str, int] = {}
        self.names = (f"p{number}" for number in range(10_000))

    def expected(self) -> dict[str, int]:
        free = parts(TOTALS)
        for holder, held in self.held.items():
            for name, count in held.items():
                if not (name == "CPU" and self.waits[holder]):
                    free[name] -= count
        return free

    @rule(target=holders, holds=_lots, more=_lots)
    def take(self, holds: dict[str, float], more: dict[str, float]) -> Any:
        holder, needs = next(self.names), {**more, **holds}
        free, totals = self.expected(), parts(TOTALS)
        fits = all(totals[name] >= count for name, count in parts(needs).items())
        fits = fits and all(free[name] >= count for name, count in parts(holds).items())
        assert self.stock.take(holder, needs, holds) is fits
        if not fits:
            return multiple()
        self.held[holder], self.waits[holder] = parts(holds), 0
        return holder

    @rule(holder=holders)
    def take_again(self, holder: str) -> None:
        if holder in self.held:
            assert self.stock.take(holder, {"CPU": 3.0}, {"CPU": 3.0})

    @rule(holder=consumes(holders))
    def give_back(self, holder: str) -> None:
        held = self.held.pop(holder, None)
        assert self.stock.give_back(holder) is bool(held)
        assert not self.stock.give_back(holder)

    @rule(target=holders, holder=consumes(holders))
    def pass_on(self, holder: str) -> Any:
        if holder not in self.held:
            return multiple()
        heir = next(self.names)
        self.stock.pass_on(holder, heir)
        self.held[heir], self.waits[heir] = self.held.pop(holder), self.waits.pop(holder)
        return heir

    @rule(holder=holders)
    def wait(self, holder: str) -> None:
        self.stock.wait(holder)
        if holder in self.held:
            self.waits[holder] += 1

    @rule(holder=holders)
    def resume(self, holder: str) -> None:
        self.stock.resume(holder)
        if holder in self.held:
            self.waits[holder] = max(self.waits[holder] - 1, 0)

    @invariant()
    def adds_up(self) -> None:
        free = self.stock.free()
        assert free == self.expected()
        assert all(count <= parts(TOTALS)[name] for name, count in free.items())
        assert all(count >= 0 for name, count in free.items() if name != "CPU")
        assert all(count >= 0 for count in whole(free).values())

    def teardown(self) -> None:
        for holder in list(self.held):
            self.stock.give_back(holder)
        assert self.stock.free() == parts(TOTALS)


TestAccounts = Accounts.TestCase


@given(st.lists(_lots, max_size=20))
def test_without_waiting_nothing_is_ever_below_zero(lots: list[dict[str, float]]) -> None:
    stock = Stock(TOTALS)
    for number, lot in enumerate(lots):
        stock.take(str(number), lot, lot)
        assert all(0 <= count <= parts(TOTALS)[name] for name, count in stock.free().items())


def test_tenths_add_up() -> None:
    stock = Stock({"GPU": 1.0})
    assert all(stock.take(str(number), {"GPU": 0.1}, {"GPU": 0.1}) for number in range(10))
    assert not stock.take("one more", {"GPU": 0.1}, {"GPU": 0.1})


def test_who_goes_on_takes_its_cpus_though_there_are_none() -> None:
    stock = Stock({"CPU": 1.0})
    assert stock.take("waits", {"CPU": 1.0}, {"CPU": 1.0})
    assert stock.wait("waits")
    assert not stock.wait("waits")  # its second thread frees nothing more
    assert stock.take("runs", {"CPU": 1.0}, {"CPU": 1.0})
    stock.resume("waits")
    assert stock.free() == {"CPU": 0}
    stock.resume("waits")
    assert stock.free() == {"CPU": -GRAIN}
    assert whole(stock.free()) == {"CPU": 0.0}
    stock.give_back("runs")
    assert not stock.take("another", {"CPU": 1.0}, {"CPU": 1.0})


def _spec(number: int, demand: Demand = ONE, owner: str = "driver") -> ActorSpec:
    return ActorSpec(f"a{number}", f"A(a{number})", "A", None, "ns", owner, None, None, demand)


async def _places_are_set_aside() -> None:
    freed: list[bool] = []
    stock = Stock({"CPU": 3.0})
    places = Places(stock, asyncio.get_running_loop(), lambda: freed.append(True))
    two = Demand({"CPU": 2.0}, {"CPU": 2.0})
    assert not places.reserve(["a1", "a2"], two)  # for both or for none
    assert places.report() == (0, parts({"CPU": 3.0}))
    freed.clear()
    assert places.reserve(["a1"], two)
    assert not places.claim("a2", two)
    assert places.claim("a1", two)  # not twice
    assert places.report() == (1, parts({"CPU": 1.0}))
    places.settle("a1", "worker-1")
    places.release("a1")  # it is not there under that name any more
    assert freed == []
    places.release("worker-1")
    assert freed == [True]
    assert places.report() == (0, parts({"CPU": 3.0}))
    assert places.reserve(["late"], two)
    places.close()


def test_places_are_set_aside_for_all_or_none() -> None:
    asyncio.run(_places_are_set_aside())


async def _waiting() -> None:
    loop = asyncio.get_running_loop()
    waiting, now = Waiting(), loop.time()
    all_parts = [Part(_spec(number, owner=f"p{number % 2}"), loop.create_future()) for number in range(6)]
    late = waiting.add(all_parts[0], None, now, 7)
    early = waiting.add(all_parts[1], None, now - 1, 8)  # it comes again, and has waited before
    group = waiting.add(all_parts[2], ("g", 1, 3), now, 9)
    assert list(waiting) == [early, late, group]
    assert waiting.add(all_parts[4], ("g", 0, 3), now, 9) is group
    assert not group.complete
    assert group.ranks() == [all_parts[4], all_parts[2]]
    waiting.refuse_incomplete(now + 1)
    assert group.open
    waiting.strike(group, all_parts[2])  # the others could not be placed without it
    assert isinstance(all_parts[4].found.exception(), PlacementError)
    assert all_parts[2].found.exception() is not None
    half = waiting.add(all_parts[5], ("g", 0, 2), now, 9)
    waiting.refuse_incomplete(now + 60)
    assert not half.open
    assert "1 of its group never asked" in str(all_parts[5].found.exception())
    waiting.gone("p1")
    assert all_parts[1].found.cancelled()
    assert [entry["actor"] for entry in waiting.listed()] == ["a0"]
    waiting.drop(late)
    assert not waiting


def test_who_waits_is_in_order_and_groups_stay_together() -> None:
    asyncio.run(_waiting())


# -- choosing ---------------------------------------------------------------------------------------------------


def _node(name: str, free: float = 2.0, actors: int = 0, total: float = 2.0, **labels: str) -> Offer:
    return Offer(f"id-{name}", name, labels, parts({"CPU": total}), parts({"CPU": free}), actors)


def _names(found: list[str] | None) -> list[str] | None:
    return None if found is None else [id.removeprefix("id-") for id in found]


def _chosen(demand: Demand, *offers: Offer, turns: tuple[int, ...] = (0,), grouped: bool = False) -> list[str] | None:
    return _names(choose(demand, offers, turns, {}, grouped=grouped))


def test_the_least_busy_of_those_that_fit() -> None:
    assert _chosen(ONE, _node("a", free=0.0), _node("b", actors=3), _node("c", actors=2)) == ["c"]
    assert _chosen(ONE, _node("a"), _node("b")) == ["a"]
    assert _chosen(ONE, _node("a", free=1.0), _node("b")) == ["b"]


def test_spread_goes_round_those_that_fit() -> None:
    spread = Demand(ONE.needs, ONE.holds, strategy="SPREAD")
    offers = _node("a"), _node("b", free=0.0), _node("c")
    assert [_chosen(spread, *offers, turns=(turn,)) for turn in range(3)] == [["a"], ["c"], ["c"]]


def test_pack_fills_one_node_before_the_next() -> None:
    pack = Demand(ONE.needs, ONE.holds, strategy="PACK")
    assert _chosen(pack, _node("a"), _node("b"), turns=(0, 1, 2, 3), grouped=True) == ["a", "a", "b", "b"]


def test_a_group_is_spread_evenly_or_not_placed_at_all() -> None:
    offers = _node("a"), _node("b", free=1.0), _node("c")
    assert _chosen(ONE, *offers, turns=(0, 1, 2), grouped=True) == ["a", "b", "c"]
    assert _chosen(ONE, *offers, turns=(0, 1, 2, 3, 4), grouped=True) == ["a", "b", "c", "a", "c"]
    assert _chosen(ONE, *offers, turns=(0, 1, 2, 3, 4, 5), grouped=True) is None
    assert offers[0].free == parts({"CPU": 2.0})  # what did not work out has left no trace


def test_affinity() -> None:
    hard, soft = (
        Demand({"CPU": 4.0}, {"CPU": 4.0}, strategy=NodeAffinitySchedulingStrategy("b", soft)) for soft in (False, True)
    )
    big, small, full = _node("a", 8, total=8), _node("b"), _node("b", 0, total=8)
    assert _chosen(hard, big, small) is None
    assert _chosen(soft, big, small) == ["a"]  # b can never give so much
    assert _chosen(soft, big, full) is None  # it waits for b
    assert _chosen(soft, big) == ["a"]
    assert _chosen(hard, big) is None
    by_id = Demand({"CPU": 1.0}, {}, strategy=NodeAffinitySchedulingStrategy("id-b"))
    assert _chosen(by_id, big, small) == ["b"]


def test_nobody_overtakes_on_what_another_waits_for() -> None:
    guarded: dict[str, set[str]] = {}
    both = Demand({"CPU": 2.0}, {"CPU": 2.0})
    offers = [_node("a", free=1.0)]
    assert choose(both, offers, [0], guarded) is None
    assert guarded == {"id-a": {"CPU"}}
    assert choose(ONE, offers, [0], guarded) is None
    assert _names(choose(Demand({"CPU": 1.0}, {}), offers, [0], guarded)) == ["a"]  # it takes nothing away


def test_what_can_never_be_had_holds_nobody_up() -> None:
    guarded: dict[str, set[str]] = {}
    offers = [_node("a")]
    assert choose(Demand({"CPU": 8.0}, {"CPU": 8.0}), offers, [0], guarded) is None
    assert _names(choose(ONE, offers, [0], guarded)) == ["a"]


_offers = st.lists(st.integers(0, 4), min_size=1, max_size=4).map(
    lambda frees: [_node(f"n{number}", float(free), total=4.0) for number, free in enumerate(frees)]
)


@given(_offers, st.integers(1, 6), st.integers(1, 2), st.sampled_from(["DEFAULT", "SPREAD", "PACK"]))
def test_a_group_gets_no_more_than_there_is(offers: list[Offer], size: int, each: int, strategy: str) -> None:
    demand = Demand({"CPU": float(each)}, {"CPU": float(each)}, strategy=strategy)
    found = choose(demand, offers, range(size), {}, grouped=size > 1)
    room = {offer.id: offer.free.get("CPU", 0) // (each * GRAIN) for offer in offers}
    assert (found is not None) == (sum(room.values()) >= size)
    for node in found or []:
        room[node] -= 1
    assert min(room.values()) >= 0


# -- why not ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("demand", "count", "words"),
    [
        (Demand({"CPU": 8.0}, {}), 1, "no node has 8 CPUs: the most is 2 on node a; ask for less, or add a node"),
        (Demand({"cam": 1.0}, {}), 1, "no node has 1 cam; ask for less"),
        (TWO, 1, "1 of 2 CPUs on node a are taken, 2 of 2 CPUs on node b are taken; it fits when"),
        (ONE, 5, "its group of 5 finds room for 4 on all nodes together; make the group smaller"),
        (ONE, 4, "2 of 2 CPUs on node b are taken; it fits when"),
        (
            Demand({}, {}, selector={"zone": "us"}), 1,
            "no node has the labels {'zone': 'us'}: node a has {'zone': 'eu'}, node b has {}; correct label_selector=",
        ),
        (TWO_IN_EU, 1, "1 of 2 CPUs on node a are taken; it fits"),
        (Demand({"CPU": 3.0}, {}, selector={"zone": "eu"}), 1, "no node it may go to has 3 CPUs: the most is 2"),
        (
            Demand({}, {}, strategy=NodeAffinitySchedulingStrategy("x")), 1,
            "node 'x' is not there; there are: a, b; it fits when that node joins; with soft=True",
        ),
    ],
)  # fmt: skip
def test_why_it_is_not_placed_and_what_would_help(demand: Demand, count: int, words: str) -> None:
    offers = [_node("a", free=1.0, zone="eu"), _node("b", free=0.0)]
    assert words in str(obstacle(demand, offers, count, {}))
