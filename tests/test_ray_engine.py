"""The engine of Ray, on a cluster of Ray's own; see `on_ray.py`."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import psutil
import pytest
import ray_differs
from clusters import eventually, failure

import actors
from actors.exceptions import (
    ActorAlreadyExistsError,
    ActorDiedError,
    ActorsError,
    CollectiveError,
    NoClusterError,
    SerializationError,
    VersionMismatchError,
)
from actors.shortage import NoThreadError
from actors.threads import Threads

TESTS = Path(__file__).parent
on_ray = pytest.mark.skipif("ACTORS_TEST_RAY" not in os.environ, reason="runs in a cluster of Ray's: make test-ray")


@pytest.mark.slow
@pytest.mark.skipif("ACTORS_TEST_RAY" in os.environ, reason="this is that run")
def test_the_black_box_tests_hold_on_ray() -> None:
    python = os.environ.get("RAY_PYTHON")
    if python is None:
        pytest.skip("RAY_PYTHON names no Python that has Ray and this package's dependencies: make test-ray makes one")
    done = subprocess.run([python, TESTS / "on_ray.py"], check=False, timeout=900, stdin=subprocess.DEVNULL)
    assert done.returncode == 0


@pytest.mark.parametrize(("arguments", "says"), [
    ({"engine": "spark"}, "engine must be one of 'lan', 'ray'"),
    ({"address": "ray://127.0.0.1:1", "engine": "lan"}, "belongs to engine='ray'"),
])  # fmt: skip
def test_an_engine_nobody_knows_is_refused(arguments: dict[str, str], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        actors.init(**arguments)


@actors.remote
class Counter:
    def __init__(self, start: int = 0) -> None:
        self.value = start

    def add(self, amount: int = 1) -> int:
        self.value += amount
        return self.value

    def pid(self) -> int:
        return os.getpid()

    def lock(self) -> object:
        return threading.Lock()

    def place(self) -> tuple[int, int]:
        context = actors.get_runtime_context()
        return context.rank, context.world_size

    def sums(self, sizes: list[int]) -> list[tuple[float, int]]:
        rank = actors.collective.get_rank()
        found = [actors.collective.allreduce(np.full(size, rank + 1.0, np.float32)) for size in sizes]
        return [(float(x[0]), x.size) for x in found]

    def reduced(self, op: str, dtype: str) -> object:
        x = np.ones(100_000, dtype) + np.array(actors.collective.get_rank(), dtype)
        x[1] += 1
        return actors.collective.allreduce(x, op)

    def all_kinds(self) -> list[object]:
        group, rank = actors.collective, actors.collective.get_rank()
        x = np.arange(4) + rank
        gathered, got = group.allgather(x), group.broadcast({"from": 1} if rank == 1 else None, 1)
        part, items = group.reducescatter(x), group.alltoall([f"{rank}to{other}" for other in range(2)])
        other = 1 - rank
        group.send(rank, other)
        return [[list(map(int, one)) for one in gathered], got, list(map(int, part)), items, group.recv(other)]

    def reduce_wrongly(self) -> object:
        return actors.collective.allreduce(np.zeros(3 + actors.collective.get_rank()))

    def wait_for_all(self) -> object:
        return actors.collective.barrier(timeout=20)

    def way(self) -> str:
        actors.collective.barrier()
        self.part = actors.collective.split(0)
        assert self.part is not None
        self.part.barrier()
        return self.part.explain(1 << 20)

    def give(self, value: object, other: int) -> None:
        assert self.part is not None
        self.part.send(value, other)

    def take(self, other: int) -> object:
        assert self.part is not None
        return self.part.recv(other, timeout=20)

    def reduce_part(self) -> object:
        assert self.part is not None
        return self.part.allreduce(np.ones(200_000, np.float32), timeout=20)

    def leave_part(self) -> None:
        actors.collective.destroy_group(self.part)


@actors.remote
class Named:
    """Has methods of the names that the engine uses itself."""

    def label(self) -> int:
        return 0

    def it(self) -> int:
        return 1

    def cls(self) -> int:
        return 2

    def calls(self) -> int:
        return 3

    def begin(self) -> int:
        return 4

    def _begin(self) -> int:
        return 5

    def name(self) -> int:
        return 6

    def raw(self) -> int:
        return 7

    def manner(self) -> int:
        return 8


@actors.remote
class Saved:
    """Has state to be saved."""

    def get(self) -> int:
        return 1

    def __actor_save__(self) -> int:
        return 1

    def __actor_load__(self, state: int) -> None:
        pass


def test_the_page_of_what_differs_is_that_of_the_list() -> None:
    page = TESTS.parent / "docs" / "ray-differs.md"
    assert page.read_text("utf-8") == ray_differs.page(), "python tests/ray_differs.py > docs/ray-differs.md"


def test_each_module_of_the_list_is_there() -> None:
    for module in [*ray_differs.DIFFERS, *ray_differs.NOT_RUN]:
        assert (TESTS / f"test_{module}.py").exists(), module


@on_ray
@pytest.mark.parametrize(("address", "says"), [
    ("127.0.0.1:1", "'127.0.0.1:1'.*refused"), ("ray://127.0.0.1:1", "'ray://127.0.0.1:1'.*refused"),
    ("ray://", "that is no HOST:PORT"), ("127.0.0.1:99999", "that is no HOST:PORT"), ("here", "that is no HOST:PORT"),
    ("ray://{gcs}", "the head itself listens there"), ("{client}", "no head of a Ray cluster.*ray://HOST:PORT"),
])  # fmt: skip
def test_no_cluster_there(address: str, says: str) -> None:
    given = address.format(
        gcs=os.environ["ACTORS_TEST_RAY"], client=os.environ["ACTORS_TEST_RAY_CLIENT"].removeprefix("ray://")
    )
    with pytest.raises(NoClusterError, match=says):
        actors.init(given, engine="ray")


@on_ray
@pytest.mark.parametrize("scheme", ["", "ray://"])
def test_what_listens_there_is_silent(scheme: str) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as silent,
        pytest.raises(NoClusterError, match="nothing there answered within 1 s"),
    ):
        actors.init(f"{scheme}127.0.0.1:{silent.getsockname()[1]}", engine="ray", timeout=1)


@on_ray
def test_where_no_thread_can_be_begun_a_future_is_settled_and_a_stream_forgotten(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from actors.engines.ray import cancelling, refs

    def none(*_: object) -> None:
        raise NoThreadError("there is none")

    monkeypatch.setattr("actors.threads.begin", none)
    for module in (cancelling, refs):
        monkeypatch.setattr(module, "_borrowed", Threads("test-none"))
    raw: Future[int] = Future()
    future = refs.RayRef(SimpleNamespace(future=lambda: raw), "a call").future()
    raw.set_result(1)
    assert future.result(0) == 1
    cancelling.forget_stream(None)


@on_ray
def test_a_cluster_of_another_version_of_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    monkeypatch.setattr(ray, "__version__", "2.59.9")  # of this program: there is one Ray in its environment
    for address in (os.environ["ACTORS_TEST_RAY"], os.environ["ACTORS_TEST_RAY_CLIENT"]):
        with pytest.raises(VersionMismatchError, match=r"2\.60\.0.*2\.59\.9|2\.59\.9.*2\.60\.0"):
            actors.init(address, engine="ray")


@pytest.mark.usefixtures("cluster")
@on_ray
class TestOnRay:
    def test_nodes_tell_no_process_that_could_be_signalled_by_mistake(self) -> None:
        assert [node.pid for node in actors.nodes()] == [None] * 3  # to 0, a signal would be for this whole session
        assert {node.found_by for node in actors.nodes()} == {"ray"}

    def test_ranks_know_their_place(self) -> None:
        group = Counter.group(2)
        assert actors.get(group.place.remote(), timeout=60) == [(0, 2), (1, 2)]

    def test_arrays_are_reduced(self) -> None:
        group = Counter.group(2)
        sizes = [1, 1000, 100_000, 3_000_001]
        assert actors.get(group.sums.remote(sizes), timeout=120) == [[(3.0, size) for size in sizes]] * 2

    def test_every_kind_of_collective(self) -> None:
        group = Counter.group(2)
        both = [[0, 1, 2, 3], [1, 2, 3, 4]]
        assert actors.get(group.all_kinds.remote(), timeout=60) == [
            [both, {"from": 1}, [1, 3], ["0to0", "1to0"], 1], [both, {"from": 1}, [5, 7], ["0to1", "1to1"], 0],
        ]  # fmt: skip

    def test_ranks_that_do_not_agree_are_told_and_go_on(self) -> None:
        group = Counter.group(2)
        for ref in group.reduce_wrongly.remote():
            with pytest.raises(CollectiveError, match="do not call the same"):
                actors.get(ref, timeout=60)
        assert actors.get(group.sums.remote([5]), timeout=60) == [[(3.0, 5)]] * 2

    def test_a_rank_that_has_died_is_named_to_the_others(self) -> None:
        group = Counter.group(3)
        actors.get(group.place.remote(), timeout=60)
        waiting = [group[0].wait_for_all.remote(), group[2].wait_for_all.remote()]
        actors.kill(group[1])
        for ref in waiting:
            with pytest.raises(CollectiveError, match=r"rank 1 .* is gone: its actor on Ray has ended"):
                actors.get(ref, timeout=60)

    def test_values_go_by_gloo_where_all_have_torch_and_else_through_the_object_store(self) -> None:
        group = Counter.group(2)
        carrier = "gloo" if "ACTORS_TEST_TORCH" in os.environ else "Ray's object store"
        for way in actors.get(group.way.remote(), timeout=120):
            assert f"{carrier} carries what the ranks send each other" in way

    def test_a_rank_that_leaves_does_so_for_itself_alone(self) -> None:
        group = Counter.group(3)
        actors.get(group.way.remote(), timeout=120)
        actors.get(group[0].give.remote("last words", 2), timeout=60)
        actors.get(group[0].leave_part.remote(), timeout=60)
        actors.get(group[1].give.remote("still here", 2), timeout=60)
        assert actors.get(group[2].take.remote(1), timeout=60) == "still here"
        assert actors.get(group[2].take.remote(0), timeout=60) == "last words"
        with pytest.raises(CollectiveError, match=r"rank 0 .* has left the group: it was destroyed"):
            actors.get(group[2].take.remote(0), timeout=60)
        for ref in [group[1].reduce_part.remote(), group[2].reduce_part.remote()]:
            with pytest.raises(CollectiveError, match=r"rank 0 .* has left the group"):
                actors.get(ref, timeout=60)
        actors.get([group[1].leave_part.remote(), group[2].leave_part.remote()], timeout=60)
        assert actors.get(group.sums.remote([5]), timeout=60) == [[(6.0, 5)]] * 3

    def test_what_gloo_reduces_is_what_numpy_would(self) -> None:
        group = Counter.group(2)
        for op, dtype, expected in [
            ("sum", "float64", [3.0, 5.0]), ("product", "int32", [2, 6]), ("mean", "float32", [1.5, 2.5]),
            ("max", "int64", [2, 3]), ("sum", "float16", [3.0, 5.0]),
        ]:  # fmt: skip
            for found in actors.get(group.reduced.remote(op, dtype), timeout=60):
                assert (found[:2].tolist(), found.dtype.name, found.size) == (expected, dtype, 100_000)

    def test_a_group_of_actors_that_exist(self) -> None:
        members = [Counter.remote(start) for start in range(2)]
        group = actors.collective.create_group(members)
        assert actors.get(group.sums.remote([7]), timeout=60) == [[(3.0, 7)]] * 2
        actors.collective.destroy_group(group)

    def test_names(self) -> None:
        kept = Counter.options(name="kept").remote(5)
        assert actors.get(actors.get_actor("kept").add.remote(), timeout=60) == 6
        assert "kept" in actors.list_named_actors()
        with pytest.raises(ActorAlreadyExistsError):
            Counter.options(name="kept").remote()
        assert actors.get(Counter.options(name="kept", get_if_exists=True).remote().add.remote(), timeout=60) == 7
        with pytest.raises(ValueError, match=r"no actor is named 'other'.*kept"):
            actors.get_actor("other")
        del kept

    def test_an_actor_is_made_anew(self) -> None:
        counter = Counter.options(max_restarts=1, max_task_retries=1).remote(3)
        assert actors.get(counter.add.remote(), timeout=60) == 4
        first = actors.get(counter.pid.remote(), timeout=60)
        actors.kill(counter, no_restart=False)
        eventually(lambda: actors.get(counter.pid.remote(), timeout=60) != first)
        assert actors.get(counter.add.remote(), timeout=60) == 4
        actors.kill(counter)
        with pytest.raises(ActorDiedError):
            actors.get(counter.add.remote(), timeout=60)

    @pytest.mark.parametrize(("options", "name"), [
        ({"checkpoint": "call"}, "checkpoint"), ({"record": True}, "record"), ({"isolation": "thread"}, "isolation"),
        ({"scheduling_strategy": "PACK"}, "PACK"), ({"placement_timeout": 1}, "placement_timeout"),
        ({"replicas": 2, "lifetime": "detached", "max_restarts": 1}, "replicas"),
    ])  # fmt: skip
    def test_an_option_that_ray_does_not_have_is_refused_by_name(self, options: dict[str, object], name: str) -> None:
        with pytest.raises(NotImplementedError, match=f"engine 'ray' has no .*{name}"):
            Counter.options(**options).remote()

    def test_what_needs_a_lan_is_refused(self) -> None:
        counter = Counter.remote()
        with pytest.raises(NotImplementedError, match="move"):
            actors.move(counter, actors.nodes()[0])
        with pytest.raises(NotImplementedError, match="timeout"):
            counter.add.options(timeout=1).remote()
        with pytest.raises(NotImplementedError, match="engine 'ray' does not provide such a thing"):
            actors.timeline("/tmp/none.json")

    def test_what_cannot_be_pickled(self) -> None:
        counter = Counter.remote()
        with pytest.raises(SerializationError, match="Ray cannot send what"):
            actors.get(counter.lock.remote(), timeout=60)
        with pytest.raises(SerializationError):
            counter.add.remote(threading.Lock())

    def test_another_cluster_is_not_joined_beside_it(self) -> None:
        with pytest.raises(ActorsError, match="joined a Ray cluster by other arguments"):
            actors.init("auto", engine="ray")
        with pytest.raises(ActorsError, match="before it joins a LAN"):
            actors.init("local")

    def test_resources_and_nodes(self) -> None:
        assert actors.nodes()[0].alive
        assert {node.name for node in actors.nodes()} == {"first", "second", "third"}
        assert actors.cluster_resources()["CPU"] == 12
        assert actors.available_resources()["CPU"] <= 12

    def test_a_concurrency_group_that_is_not_there_ends_no_process(self) -> None:
        counter = Counter.options(concurrency_groups={"io": 1}).remote()
        error = failure(counter.add.options(concurrency_group="oi").remote())
        assert isinstance(error, ValueError)
        assert "there are: io" in str(error)
        assert actors.get(counter.add.remote(), timeout=60) == 1
        assert actors.get(counter.add.options(concurrency_group="io").remote(), timeout=60) == 2

    def test_methods_may_have_any_name(self) -> None:
        named = Named.remote()
        names = ("label", "it", "cls", "calls", "begin", "_begin", "name", "raw", "manner")
        calls = [getattr(named, name).remote() for name in names]
        assert actors.get(calls, timeout=60) == list(range(9))

    def test_saved_state_is_refused_with_or_without_checkpoint(self) -> None:
        with pytest.raises(NotImplementedError, match="no saved state, which Saved has hooks for"):
            Saved.options(max_restarts=1).remote()
        assert actors.get(Saved.remote().get.remote(), timeout=60) == 1

    def test_a_group_ends_with_its_handles(self) -> None:
        group = Counter.group(2)
        pids = actors.get(group.pid.remote(), timeout=60)
        assert actors.get(group.sums.remote([1]), timeout=60)
        del group
        eventually(lambda: not any(map(psutil.pid_exists, pids)), 60)


# The class of what is raised is one of the program's own file, so that it travels as code.
OWN = """
import os, actors
class Own(Exception):
    def __init__(self, code, *, hint): super().__init__(code); self.code = code
class Point: pass
@actors.remote
class Raiser:
    def fail(self): raise Own(3, hint="x")
    def look(self, point): return isinstance(point, Point), Point()
@actors.remote
def fail(): raise Own(4, hint="y")
if __name__ == "__main__":
    with actors.init(os.environ["ACTORS_TEST_RAY"], engine="ray", log_to_driver=False):
        raiser = Raiser.remote()
        for ref in (raiser.fail.remote(), fail.remote()):
            try: actors.get(ref)
            except Own as error: print(error.code)
        known, point = actors.get(raiser.look.remote(Point()))
        print(known, isinstance(point, Point))
"""


@on_ray
def test_classes_of_the_program_itself_stay_what_they_are(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(OWN)
    done = subprocess.run([sys.executable, program], capture_output=True, text=True, check=False, timeout=120)
    assert done.stdout.split() == ["3", "4", "True", "True"], done.stderr[-3000:]


CLIENT = """
import os, actors
with actors.init(os.environ["ACTORS_TEST_RAY_CLIENT"]):
    @actors.remote
    class Box:
        def __init__(self, value): self.value = value
        def get(self): return self.value
        def stream(self): yield 1
        def rank(self): return actors.collective.allgather(actors.get_runtime_context().rank)
    box = Box.remote(actors.put([1, 2]))
    print(actors.get(box.get.remote()))
    print(actors.get(Box.group(2, 0).rank.remote()))
    try:
        box.stream.remote()
    except NotImplementedError as error:
        print(error)
"""


@on_ray
def test_a_program_far_away_by_rays_client() -> None:
    done = subprocess.run([sys.executable, "-c", CLIENT], capture_output=True, text=True, check=False, timeout=120)
    lines = done.stdout.splitlines()
    assert lines[:2] == ["[1, 2]", "[[0, 1], [0, 1]]"], done.stderr[-3000:]
    assert "generator" in lines[2]


@on_ray
def test_the_example_runs_by_rays_client() -> None:
    command = [sys.executable, TESTS.parent / "examples" / "bigger_engine.py", os.environ["ACTORS_TEST_RAY_CLIENT"]]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    told = ["each rank says: [500000500000, 500000500000]", "doubled: [2, 4, 6]", "by its name: 1000001000000"]
    assert done.stdout.splitlines() == told, done.stderr[-3000:]


# Its cluster is its own: it ends it in the middle of a call.
DYING = """
import os, sys, time, json, subprocess, tempfile, actors
from pathlib import Path
with tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp", ignore_cleanup_errors=True) as folder:
    environment = {**os.environ, "RAY_TMPDIR": folder}
    command = [sys.executable, sys.argv[1], folder]
    cluster = subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    os.environ.update(json.loads(cluster.stdout.readline()))

    @actors.remote
    class Sleeper:
        def ready(self): return 1
        def sleep(self): time.sleep(600)

    with actors.init(os.environ["ACTORS_TEST_RAY"], engine="ray", log_to_driver=False):
        sleepers = [Sleeper.options(node=name).remote() for name in ("second", "third")]
        print(actors.get([sleeper.ready.remote() for sleeper in sleepers]))
        refs = [sleeper.sleep.remote() for sleeper in sleepers]
        cluster.stdin.close()
        cluster.wait(30)
        for ref in refs:
            try: actors.get(ref, timeout=60)
            except actors.exceptions.ActorsError as error: print(type(error).__name__, error)
    print("left")
"""


@on_ray
@pytest.mark.timeout(150)
def test_a_cluster_that_ends_in_the_middle_is_told_and_left() -> None:
    command = [sys.executable, "-c", DYING, TESTS / "ray_cluster.py"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=140)
    lines = done.stdout.splitlines()
    assert lines[0] == "[1, 1]", done.stderr[-3000:]
    assert [line.split()[0] for line in lines if "Sleeper(actor-" in line] == ["ActorDiedError"] * 2
    assert lines[-1] == "left", done.stderr[-3000:]
