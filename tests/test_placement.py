"""Where actors go, what they hold there, and what happens where there is no room."""

from __future__ import annotations

import os
import re
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from clusters import Program, eventually, failure

import actors
from actors.exceptions import ActorDiedError, PlacementError
from actors.strategy import NodeAffinitySchedulingStrategy

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def cluster() -> Iterator[actors.Cluster]:
    """Two nodes of two CPUs each, however many this machine has."""
    with actors.init(
        local_nodes=2, num_cpus=2, num_gpus=0, resources={"cam": 1, "memory": 1 << 30}, labels={"zone": "eu"}
    ) as cluster:
        yield cluster


pytestmark = pytest.mark.usefixtures("cluster")


@actors.remote
class Here:
    def __init__(self, how: str = "") -> None:
        if how:
            raise ValueError(how)

    def node(self) -> str | None:
        return actors.get_runtime_context().node_name

    def end(self) -> None:
        os._exit(3)

    def wait_for_others(self, waits: bool) -> None:
        process = actors.cluster.current()
        process.portal.run(process.ask_home("blocked" if waits else "unblocked", process.id))


@contextmanager
def hosted(*made: Any) -> Iterator[list[str]]:
    """Waits until actors are there; gives the names of their nodes, and ends the actors in the end."""
    try:
        yield actors.get([one.node.remote() for one in made], timeout=30)
    finally:
        for one in made:
            actors.kill(one)


def free(name: str = "CPU") -> float:
    return actors.available_resources()[name]


def names() -> list[str]:
    return [node.name for node in actors.nodes()]


def pending() -> list[dict[str, Any]]:
    process = actors.cluster.current()
    return [
        entry for node in process.directory.values()
        for entry in process.portal.run(process.ask(node, "node", "pending"))
    ]  # fmt: skip


@pytest.fixture(autouse=True)
def _all_given_back(cluster: actors.Cluster) -> Iterator[None]:
    yield
    eventually(lambda: actors.available_resources() == actors.cluster_resources(), what="all resources free again")
    assert pending() == []


# -- what there is ----------------------------------------------------------------------------------------------


def test_what_the_nodes_have() -> None:
    first, second = names()
    total = {"CPU": 4.0, "cam": 2.0, "memory": float(2 << 30), f"node:{first}": 1.0, f"node:{second}": 1.0}
    assert actors.cluster_resources() == total
    for node in actors.nodes():
        assert node.resources == {"CPU": 2.0, "cam": 1.0, "memory": float(1 << 30), f"node:{node.name}": 1.0}
        assert node.labels["zone"] == "eu"
        assert node.labels["ray.io/node-id"] == node.id
        assert node.labels["actors.io/node-name"] == node.name


def test_what_is_given_is_held_and_nothing_else() -> None:
    with hosted(Here.options(num_cpus=0.5, resources={"cam": 0.25}, memory=1 << 20).remote(), Here.remote()):
        assert free() == 3.5
        assert free("cam") == 1.75
        assert free("memory") == (2 << 30) - (1 << 20)


def test_an_end_of_any_kind_gives_it_back() -> None:
    raises, exits = Here.options(num_cpus=1).remote("wrong"), Here.options(num_cpus=1).remote()
    failure(raises.node.remote())
    failure(exits.end.remote())
    eventually(lambda: free() == 4.0)


# -- waiting ----------------------------------------------------------------------------------------------------


def test_one_waits_until_another_has_ended(capsys: pytest.CaptureFixture[str]) -> None:
    first, second = (Here.options(num_cpus=2, name=name).remote() for name in ("one", "two"))
    third = Here.options(num_cpus=2).remote()
    call = third.node.remote()
    eventually(lambda: "waits for room" in capsys.readouterr().err, what="a warning at the driver")
    (entry,) = pending()
    assert entry["demand"] == "2 CPUs"
    assert re.match(r"2 of 2 CPUs on node \S+ are taken, 2 of 2 CPUs on node \S+ are taken; it fits", entry["why"])
    left = actors.get(second.node.remote())
    actors.kill(second)
    assert actors.get(call, timeout=20) == left
    actors.kill(first)
    actors.kill(third)


def test_one_that_is_killed_waits_no_longer() -> None:
    waiting = Here.options(num_cpus=8).remote()
    call = waiting.node.remote()
    eventually(pending)
    actors.kill(waiting)
    eventually(lambda: not pending())
    assert isinstance(failure(call), ActorDiedError)


def test_without_num_cpus_a_node_must_have_one_which_need_not_be_free() -> None:
    with hosted(*(Here.options(num_cpus=2).remote() for _ in range(2)), Here.options(placement_timeout=0).remote()):
        refused = failure(Here.options(num_cpus=1, placement_timeout=0).remote().node.remote())
        assert isinstance(refused.__cause__, PlacementError)


def test_first_come_first_served() -> None:
    with hosted(*(Here.options(num_cpus=1, scheduling_strategy="SPREAD").remote() for _ in range(2))):
        big = Here.options(num_cpus=2).remote()
        eventually(pending)
        small = Here.options(num_cpus=1).remote()  # would fit, and keep the big one waiting
        eventually(lambda: "others that came first wait for CPU" in pending()[-1]["why"])
        other = Here.options(num_cpus=0, resources={"cam": 1}).remote()  # takes nothing that anybody waits for
        actors.get(other.node.remote(), timeout=20)
    with hosted(big, small, other):
        assert free() == 1.0


def test_nobody_is_held_up_for_long_by_one_that_came_first() -> None:
    with hosted(*(Here.options(num_cpus=1, scheduling_strategy="SPREAD").remote() for _ in range(2))):
        big = Here.options(num_cpus=2).remote()
        eventually(pending)
        with hosted(Here.options(num_cpus=1).remote()):
            assert [entry["demand"] for entry in pending()] == ["2 CPUs"]
    with hosted(big):
        pass


def test_one_that_never_fits_holds_nobody_up() -> None:
    never = Here.options(num_cpus=3).remote()
    eventually(pending)
    assert "no node has 3 CPUs: the most is 2" in pending()[0]["why"]
    with hosted(Here.options(num_cpus=2).remote()):
        actors.kill(never)


# -- refusals ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"num_cpus": 8}, r"it needs 8 CPUs, but no node has 8 CPUs: the most is 2 on node \S+; ask for less, or add"),
        ({"num_gpus": 1}, "it needs 1 CPU and 1 GPU, but no node has 1 GPU; ask for less"),
        ({"resources": {"cam": 2}}, "no node has 2 cam: the most is 1"),
        ({"memory": 1 << 40}, r"no node has 1024 GiB of memory: the most is 1 GiB on"),
        ({"label_selector": {"zone": "us"}}, r"no node has the labels {'zone': 'us'}: node \S+ has {'zone': 'eu'}"),
        (
            {"scheduling_strategy": NodeAffinitySchedulingStrategy("elsewhere")},
            r"node 'elsewhere' is not there; there are: .*; it fits when that node joins; with soft=True",
        ),
    ],
)
def test_a_refusal_says_what_was_asked_what_there_is_and_what_would_help(options: dict[str, Any], words: str) -> None:
    error = failure(Here.options(placement_timeout=0, **options).remote().node.remote())
    assert isinstance(error, ActorDiedError)
    assert isinstance(error, PlacementError)
    assert isinstance(error.__cause__, PlacementError)
    assert re.search(words, str(error.__cause__))
    assert re.search(r"The nodes: \S+ \(2 of 2 CPUs, .* free\), ", str(error.__cause__))


def test_a_named_one_is_refused_where_it_is_made() -> None:
    with pytest.raises(PlacementError, match=r"no node can take bob\(\S+\) within 0\.1 s: it needs 3 CPUs"):
        Here.options(name="bob", num_cpus=3, placement_timeout=0.1).remote()
    with pytest.raises(PlacementError, match="no node is called 'nowhere'; there are: "):
        Here.options(name="bob", node="nowhere").remote()


@pytest.mark.parametrize(
    ("wrong", "kind", "words"),
    [
        ({"num_cpus": -1}, ValueError, "num_cpus must be a number from 0, not -1"),
        ({"num_gpus": "1"}, TypeError, "num_gpus must be a number"),
        ({"resources": {"CPU": 1}}, ValueError, "use num_cpus= or num_gpus="),
        ({"resources": {"node:x": 1}}, ValueError, "does not begin with 'node:'"),
        ({"resources": [1]}, TypeError, "resources must be a dict"),
        ({"resources": {"cam": "1"}}, TypeError, r"resources\['cam'\] must be a number"),
        ({"labels": {"zone": 1}}, TypeError, r"labels\['zone'\] must be a string"),
        ({"labels": {"ray.io/node-id": "x"}}, ValueError, "given by the node itself"),
    ],
)
def test_init_refuses_what_a_node_cannot_have(wrong: dict[str, Any], kind: type[Exception], words: str) -> None:
    with pytest.raises(kind, match=words):
        actors.init(**wrong)


# -- strategies and labels --------------------------------------------------------------------------------------


def test_pack_fills_one_node_before_the_next() -> None:
    first, second = names()
    with hosted(*(Here.options(num_cpus=1, scheduling_strategy="PACK").remote() for _ in range(3))) as found:
        assert sorted(found) == sorted([first, first, second])


def test_affinity_and_labels() -> None:
    first, second = actors.nodes()
    wanted = [
        {"scheduling_strategy": NodeAffinitySchedulingStrategy(second.id)},
        {"scheduling_strategy": NodeAffinitySchedulingStrategy(second.name)},
        {"label_selector": {"ray.io/node-id": second.id, "zone": "in(eu,us)"}},
        {"label_selector": {"actors.io/node-name": f"!{first.name}"}},
        {"resources": {f"node:{second.name}": 0.01}},
    ]
    soft = Here.options(num_cpus=0, scheduling_strategy=NodeAffinitySchedulingStrategy("elsewhere", soft=True))
    with hosted(soft.remote(), *(Here.options(num_cpus=0, **options).remote() for options in wanted)) as found:
        assert found[1:] == [second.name] * len(wanted)


# -- groups -----------------------------------------------------------------------------------------------------


def test_a_group_is_placed_whole_or_waits_whole() -> None:
    single = Here.options(num_cpus=2).remote()
    with hosted(single):
        group = Here.options(num_cpus=1).group(3)
        calls = group.node.remote()
        eventually(lambda: len(pending()) == 3)
        assert free() == 2.0  # it keeps nothing while it waits
    assert sorted(actors.get(calls, timeout=30)).count(names()[0]) in {1, 2}
    assert free() == 1.0
    group.kill()


def test_a_group_that_is_too_large_says_so() -> None:
    error = failure(Here.options(num_cpus=1, placement_timeout=0).group(5)[4].node.remote())
    assert "its group of 5 finds room for 4 on all nodes together" in str(error)


@actors.remote
class Maker:
    """Makes groups from its own node."""

    def make(self, times: int) -> int:
        for _ in range(times):
            group = Here.options(num_cpus=1).group(3)
            actors.get(group.node.remote(), timeout=60)
            group.kill()
        return times


@pytest.mark.slow
def test_groups_made_on_different_nodes_do_not_wait_for_each_others_halves() -> None:
    makers = [Maker.options(num_cpus=0, node=name).remote() for name in names()]
    assert actors.get([maker.make.remote(2) for maker in makers], timeout=90) == [2, 2]
    for maker in makers:
        actors.kill(maker)


# -- lives ------------------------------------------------------------------------------------------------------


def test_one_that_is_made_anew_holds_its_place_once() -> None:
    phoenix = Here.options(num_cpus=2, max_restarts=1, max_task_retries=-1).remote()
    actors.get(phoenix.node.remote(), timeout=20)
    phoenix.end.options(max_task_retries=0).remote()
    with hosted(phoenix):
        assert free() == 2.0


def test_one_that_waits_for_others_lends_its_cpus() -> None:
    name = names()[1]
    waits = Here.options(num_cpus=2, node=name).remote()
    with hosted(waits):
        actors.get(waits.wait_for_others.remote(True), timeout=10)
        assert free() == 4.0
        with hosted(Here.options(num_cpus=2, node=name).remote()):
            actors.get(waits.wait_for_others.remote(False), timeout=10)  # it does not wait for them
            assert free() == 2.0
        assert free() == 2.0


@actors.remote
def free_meanwhile() -> float:
    return free()


def test_a_task_holds_one_cpu_while_its_worker_is_warm() -> None:
    assert actors.get(free_meanwhile.remote(), timeout=20) == 3.0
    assert isinstance(failure(free_meanwhile.options(num_cpus=3, placement_timeout=0).remote()), PlacementError)


def test_a_detached_one_holds_what_was_given() -> None:
    with pytest.raises(PlacementError, match="no node has 3 CPUs"):
        Here.options(num_cpus=3, lifetime="detached", name="dora", placement_timeout=0).remote()
    name = names()[1]
    with hosted(Here.options(num_cpus=1, lifetime="detached", name="dora", node=name).remote()) as found:
        assert found == [name]
        assert free() == 3.0


def test_a_node_that_dies_takes_its_resources_along() -> None:
    code = """
        import os, signal, time
        import actors
        from actors.strategy import NodeAffinitySchedulingStrategy

        @actors.remote
        class Here:
            def node(self): return actors.get_runtime_context().node_name

        actors.init(local_nodes=2, num_cpus=1)
        first, second = actors.nodes()
        there = Here.options(num_cpus=1, node=second.name).remote()
        actors.get(there.node.remote())
        hard = NodeAffinitySchedulingStrategy(second.id)
        waits = Here.options(num_cpus=1, scheduling_strategy=hard, placement_timeout=20).remote().node.remote()
        os.kill(second.pid, signal.SIGKILL)
        while actors.cluster_resources()["CPU"] > 1:
            time.sleep(0.02)
        assert actors.available_resources()["CPU"] == 1, actors.available_resources()
        soft = NodeAffinitySchedulingStrategy(second.id, soft=True)
        print(actors.get(Here.options(num_cpus=1, scheduling_strategy=soft).remote().node.remote()) == first.name)
        refused = Here.options(num_cpus=1, scheduling_strategy=hard, placement_timeout=0).remote().node.remote()
        try:
            actors.get(refused)
        except actors.exceptions.ActorDiedError as error:
            print("is not there" in str(error.__cause__))
    """
    with Program(code) as program:
        assert program.ends() == 0, program.report()
        assert program.printed == ["True", "True"]
