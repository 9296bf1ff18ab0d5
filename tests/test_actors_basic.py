"""What a program does with actors when all goes well."""

from __future__ import annotations

import asyncio
import itertools
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor, as_completed

import mlx.core as mx
import numpy as np
import psutil
import pytest
from clusters import Counter, Latch, eventually

import actors
from actors.exceptions import GetTimeoutError

pytestmark = pytest.mark.usefixtures("cluster")
PATIENCE = 30.0


@actors.remote
class Recorder:
    """Remembers what it was called with, and does things with what it is given."""

    def __init__(self, *first: object) -> None:
        self.seen: list[object] = list(first)

    def note(self, value: object) -> None:
        self.seen.append(value)

    def all(self) -> list[object]:
        return self.seen

    def echo(self, *args: object, **kwargs: object) -> object:
        return (args, kwargs)

    def kinds(self, *args: object, **kwargs: object) -> list[str]:
        return [type(value).__name__ for value in (*args, *kwargs.values())]

    def add_to(self, counter: actors.ActorHandle, amount: int = 1) -> int:
        return actors.get(counter.add.remote(amount), timeout=PATIENCE)

    def add_to_all(self, book: dict[str, list[actors.ActorHandle]]) -> list[int]:
        return actors.get([counter.add.remote() for counter in book["counters"]], timeout=PATIENCE)

    def pass_on(self, counter: actors.ActorHandle, other: actors.ActorHandle) -> int:
        return actors.get(other.add_to.remote(counter, 10), timeout=PATIENCE)

    def ask_for_ref(self, counter: actors.ActorHandle) -> list[actors.ObjectRef]:
        return [counter.add.remote(100)]

    def open_box(self, box: dict[str, actors.ObjectRef]) -> object:
        return actors.get(box["ref"], timeout=PATIENCE)

    def keep(self, value: object) -> list[actors.ObjectRef]:
        return [actors.put(value)]

    def make_child(self, start: int) -> actors.ActorHandle:
        self.child = Counter.remote(start)
        return self.child


def get(refs: object, timeout: float = PATIENCE) -> object:
    return actors.get(refs, timeout=timeout)


# -- calls ------------------------------------------------------------------------------------------------------


def test_calls_of_one_holder_run_in_the_order_they_were_made() -> None:
    recorder = Recorder.remote()
    for number in range(1000):
        recorder.note.remote(number)
    assert get(recorder.all.remote()) == list(range(1000))


def test_order_holds_when_an_argument_is_still_on_its_way() -> None:
    latch, recorder = Latch.remote(), Recorder.remote()
    late = latch.wait.remote("first")
    recorder.note.remote(late)
    recorder.note.remote("second")
    get(latch.open.remote())
    assert get(recorder.all.remote()) == ["first", "second"]


def test_order_holds_between_large_and_small_calls() -> None:
    recorder = Recorder.remote()
    for size in (0, 5_000_000, 1, 3_000_000, 2, 2):
        recorder.note.remote(b"x" * size)
    assert [len(value) for value in get(recorder.all.remote())] == [0, 5_000_000, 1, 3_000_000, 2, 2]


def test_ten_thousand_calls_in_flight() -> None:
    counter = Counter.remote()
    refs = [counter.add.remote() for _ in range(10_000)]
    assert get(refs) == list(range(1, 10_001))


def test_many_threads_share_a_handle() -> None:
    counter = Counter.remote()
    with ThreadPoolExecutor(8) as pool:
        numbers = list(pool.map(lambda _: get(counter.add.remote()), range(400)))
    assert sorted(numbers) == list(range(1, 401))


def test_several_actors_call_one_at_once() -> None:
    counter = Counter.remote()
    callers = [Recorder.remote() for _ in range(3)]
    refs = [caller.add_to.remote(counter) for _ in range(50) for caller in callers]
    assert sorted(get(refs)) == list(range(1, 151))


def test_state_is_kept_between_calls_and_apart_from_others() -> None:
    one, other = Counter.remote(), Counter.remote(10)
    assert get([one.add.remote(), other.add.remote(), one.add.remote()]) == [1, 11, 2]


def test_every_actor_has_a_process_of_its_own() -> None:
    pids = set(get([Counter.remote().pid.remote() for _ in range(2)]))
    assert len(pids) == 2
    assert os.getpid() not in pids


def test_map_calls_once_for_each_value_in_order() -> None:
    assert get(Counter.remote().add.map([1, 10, 100])) == [1, 11, 111]


def test_arguments_are_taken_when_the_call_is_made() -> None:
    latch, recorder = Latch.remote(), Recorder.remote()
    recorder.note.remote(latch.wait.remote())  # holds the next one back
    listed, array = [1], np.ones(1000)
    recorder.note.remote(listed)
    recorder.note.remote(array)
    listed.append(2)
    array[:] = 7
    get(latch.open.remote())
    _, first, second = get(recorder.all.remote())
    assert first == [1]
    assert second.tolist() == [1.0] * 1000


def test_arguments_and_results_of_all_kinds() -> None:
    values = [
        None,
        True,
        2**70,
        1.5,
        "ä\0€",
        b"\0\xff",
        [],
        {},
        {"a": (1, {2})},
        float("inf"),
        range(3),
        "x" * 3_000_000,
    ]
    args, kwargs = get(Recorder.remote().echo.remote(*values, key=values))
    assert list(args) == values
    assert kwargs == {"key": values}


def test_a_class_is_usable_without_the_cluster() -> None:
    plain = Counter.cls(5)
    assert plain.add() == 6


def test_inherited_static_and_class_methods_are_called_alike() -> None:
    class Base:
        def greet(self) -> str:
            return f"{type(self).__name__} {self.twice(2)}"

    @actors.remote
    class Child(Base):
        @staticmethod
        def twice(number: int) -> int:
            return 2 * number

        @classmethod
        def named(cls) -> str:
            return cls.__name__

        def greet(self) -> str:
            return super().greet() + "!"

    child = Child.remote()
    assert get([child.greet.remote(), child.twice.remote(4), child.named.remote()]) == ["Child 4!", 8, "Child"]


def test_a_class_uses_what_stands_around_it() -> None:
    factor = 3

    @actors.remote
    class Scaler:
        def scale(self, number: int) -> int:
            return _helper(number) * factor

    assert get(Scaler.remote().scale.remote(2)) == 9


def _helper(number: int) -> int:
    return number + 1


# -- handles in arguments ---------------------------------------------------------------------------------------


def test_a_handle_works_where_it_arrives_even_right_after_remote() -> None:
    caller, counter = Recorder.remote(), Counter.remote()
    assert get(caller.add_to.remote(counter)) == 1
    assert get(caller.add_to.remote(Counter.remote(5))) == 6
    assert get(caller.add_to.remote(counter=counter, amount=2)) == 3


def test_handles_nested_in_lists_and_dicts() -> None:
    counters = [Counter.remote(start) for start in (0, 10)]
    assert get(Recorder.remote().add_to_all.remote({"counters": counters})) == [1, 11]


def test_a_handle_in_the_constructor() -> None:
    counter = Counter.remote(41)
    (found,) = get(Recorder.remote(counter).all.remote())
    assert found == counter
    assert get(found.add.remote()) == 42


def test_an_actor_passes_a_handle_on() -> None:
    counter = Counter.remote()
    assert get(Recorder.remote().pass_on.remote(counter, Recorder.remote())) == 10
    assert get(counter.add.remote()) == 11


def test_an_actor_makes_actors_and_hands_them_out() -> None:
    parent = Recorder.remote()
    child = get(parent.make_child.remote(7))
    assert get(child.add.remote()) == 8
    assert get(Recorder.remote().add_to.remote(child)) == 9


def test_handles_across_nodes() -> None:
    names = [node.name for node in actors.nodes()]
    counters = [Counter.options(node=name).remote() for name in names]
    callers = [Recorder.options(node=name).remote() for name in names]
    results = get([caller.add_to.remote(counter) for caller in callers for counter in counters])
    assert sorted(results) == [1, 1, 1, 2, 2, 2, 3, 3, 3]


# -- references in arguments ------------------------------------------------------------------------------------


def test_a_reference_is_resolved_at_top_level_and_left_alone_when_nested() -> None:
    ref = Counter.remote().add.remote()
    kinds = Recorder.remote().kinds.remote(ref, [ref], key=ref)
    assert get(kinds) == ["int", "list", "int"]
    args, _ = get(Recorder.remote().echo.remote(ref, actors.put({"a": 1}), [ref]))
    assert args[:2] == (1, {"a": 1})
    assert isinstance(args[2][0], actors.ObjectRef)
    assert get(args[2][0]) == 1


def test_a_nested_reference_is_fetched_in_the_actor() -> None:
    recorder = Recorder.remote()
    assert get(recorder.open_box.remote({"ref": actors.put("kept here")})) == "kept here"
    latch = Latch.remote()
    opened = recorder.open_box.remote({"ref": latch.wait.remote("late")})
    get(latch.open.remote())
    assert get(opened) == "late"


def test_a_reference_made_in_an_actor_is_fetched_here_and_in_another_actor() -> None:
    maker, other, counter = Recorder.remote(), Recorder.remote(), Counter.remote()
    (called,) = get(maker.ask_for_ref.remote(counter))
    assert get(called) == 100
    (kept,) = get(maker.keep.remote({"kept": "there"}))
    assert get(other.open_box.remote({"ref": kept})) == {"kept": "there"}
    assert get(other.kinds.remote(kept, called)) == ["dict", "int"]


def test_a_reference_in_the_constructor_is_resolved() -> None:
    latch = Latch.remote()
    recorder = Recorder.remote(latch.wait.remote("seen"))
    get(latch.open.remote())
    assert get(recorder.all.remote()) == ["seen"]


# -- get, wait, put ---------------------------------------------------------------------------------------------


def test_get_keeps_the_order_of_the_list() -> None:
    counter = Counter.remote()
    first, second = counter.add.remote(), counter.add.remote()
    assert get([second, first, second]) == [2, 1, 2]
    assert get(second) == 2
    assert get([]) == []


def test_get_gives_up_in_time_and_the_call_goes_on() -> None:
    latch = Latch.remote()
    ref = latch.wait.remote("after all")
    eventually(lambda: get(latch.waiting.remote()) == 1)
    for timeout in (0, 0.2):
        begun = time.monotonic()
        with pytest.raises(GetTimeoutError) as caught:
            get(ref, timeout)
        assert time.monotonic() - begun < timeout + 0.5
        assert isinstance(caught.value, TimeoutError)
        assert "wait" in str(caught.value)
    with pytest.raises(GetTimeoutError):
        ref.result(timeout=0.1)
    get(latch.open.remote())
    assert get([ref]) == ["after all"]
    assert actors.get(ref, timeout=0) == "after all"


@pytest.mark.parametrize("wrong", [None, 3, "ref", [3], {"a": 1}, Counter], ids=repr)
def test_get_refuses_what_is_no_reference(wrong: object) -> None:
    with pytest.raises(TypeError, match="ObjectRef"):
        actors.get(wrong)


def test_get_refuses_a_handle() -> None:
    with pytest.raises(TypeError, match="ObjectRef"):
        actors.get(Counter.remote())


def test_wait_gives_those_that_are_there() -> None:
    latch, counter = Latch.remote(), Counter.remote()
    late, early = latch.wait.remote(), counter.add.remote()
    assert actors.wait([late, early], timeout=PATIENCE) == ([early], [late])
    begun = time.monotonic()
    assert actors.wait([late, early], num_returns=2, timeout=0.2) == ([early], [late])
    assert 0.2 <= time.monotonic() - begun < 0.7
    assert actors.wait([late], timeout=0) == ([], [late])
    get(latch.open.remote())
    assert actors.wait([late, early], num_returns=2, timeout=PATIENCE) == ([late, early], [])
    assert actors.wait([late, early], timeout=PATIENCE) == ([late], [early])


def test_wait_counts_a_failed_call_as_there() -> None:
    ref = Recorder.remote().add_to.remote(None)
    assert actors.wait([ref], timeout=PATIENCE) == ([ref], [])


def test_wait_of_nothing_is_nothing() -> None:
    assert actors.wait([]) == ([], [])


def test_wait_refuses_nonsense() -> None:
    ref = actors.put(1)
    with pytest.raises(ValueError, match="twice"):
        actors.wait([ref, ref])
    for count in (0, -1, 2):
        with pytest.raises(ValueError, match="num_returns"):
            actors.wait([ref], num_returns=count)
    with pytest.raises(ValueError, match="timeout"):
        actors.wait([ref], timeout=-1)
    for wrong in (ref, [1], None, "x"):
        with pytest.raises(TypeError, match="ObjectRef"):
            actors.wait(wrong)


def test_put_keeps_the_value_as_it_was() -> None:
    value = {"a": [1]}
    ref = actors.put(value)
    value["a"].append(2)
    assert get(ref) == {"a": [1]}
    with pytest.raises(TypeError, match="ObjectRef"):
        actors.put(ref)


def test_a_reference_says_what_it_is() -> None:
    latch = Latch.remote()
    ref = latch.wait.remote()
    assert "wait" in repr(ref)
    assert ref == ref
    assert ref != latch.open.remote()
    get(ref)


# -- await and futures ------------------------------------------------------------------------------------------


def test_await_and_gather() -> None:
    counter = Counter.remote()

    async def main() -> list[int]:
        assert await counter.add.remote() == 1
        return await asyncio.gather(*(counter.add.remote() for _ in range(100)))

    assert asyncio.run(main()) == list(range(2, 102))


def test_a_reference_is_awaited_twice_and_within_a_timeout() -> None:
    latch = Latch.remote()

    async def main() -> object:
        ref = latch.wait.remote("late")
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(ref, 0.1)
        await latch.open.remote()
        assert await ref == "late"
        return await ref

    assert asyncio.run(main()) == "late"


def test_the_loop_goes_on_while_a_reference_is_awaited() -> None:
    latch = Latch.remote()

    async def main() -> bool:
        ref = asyncio.ensure_future(_await(latch.wait.remote()))
        for _ in range(5):
            await asyncio.sleep(0.01)
        waiting = not ref.done()
        await latch.open.remote()
        await ref
        return waiting

    assert asyncio.run(main())


async def _await(ref: actors.ObjectRef) -> object:
    return await ref


def test_futures_complete_as_the_calls_do() -> None:
    counters = [Counter.remote(start) for start in range(3)]
    futures = {counter.add.remote().future(): start for start, counter in enumerate(counters)}
    for future in as_completed(futures, timeout=PATIENCE):
        assert future.result() == futures[future] + 1
    failed = Recorder.remote().add_to.remote(None).future()
    assert isinstance(failed.exception(timeout=PATIENCE), AttributeError)


# -- streams ----------------------------------------------------------------------------------------------------


@actors.remote(max_concurrency=3)
class Producer:
    """Yields, and can be asked meanwhile how far it is."""

    def __init__(self) -> None:
        self.made = 0
        self.closed = 0

    def count(self, upto: int | None = None, fail: bool = False) -> object:
        try:
            for number in range(upto) if upto is not None else itertools.count():
                self.made += 1
                yield number
            if fail:
                raise LookupError("in the middle")
        finally:
            self.closed += 1

    def arrays(self, *sizes: int) -> object:
        for number, size in enumerate(sizes):
            yield np.full(size, number)

    def state(self) -> tuple[int, int]:
        return self.made, self.closed


@actors.remote
class AsyncProducer:
    """The same on an event loop."""

    def __init__(self) -> None:
        self.made = 0
        self.closed = 0

    async def count(self, upto: int | None = None, fail: bool = False) -> object:
        try:
            for number in range(upto) if upto is not None else itertools.count():
                self.made += 1
                yield number
                await asyncio.sleep(0)
            if fail:
                raise LookupError("in the middle")
        finally:
            self.closed += 1

    async def state(self) -> tuple[int, int]:
        return self.made, self.closed


PRODUCERS = pytest.mark.parametrize("kind", [Producer, AsyncProducer], ids=["thread", "async"])


@PRODUCERS
def test_a_generator_method_gives_its_values_one_by_one(kind: actors.ActorClass) -> None:
    producer = kind.remote()
    assert [get(ref) for ref in producer.count.remote(500)] == list(range(500))
    assert list(producer.count.remote(0)) == []


@PRODUCERS
def test_the_first_value_comes_before_the_last_is_made(kind: actors.ActorClass) -> None:
    values = kind.remote().count.remote()
    assert [get(next(values)) for _ in range(100)] == list(range(100))
    values.close()


@PRODUCERS
def test_a_producer_waits_for_its_reader(kind: actors.ActorClass) -> None:
    producer = kind.remote()
    values = producer.count.remote()
    assert get(next(values)) == 0
    standing = _standstill(producer)
    assert standing < 100
    assert [get(next(values)) for _ in range(200)] == list(range(1, 201))
    assert 200 < _standstill(producer) < 300
    values.close()


def _standstill(producer: actors.ActorHandle) -> int:
    """Returns how many values were made, once that number has stopped growing."""
    seen: list[int] = []

    def settled() -> bool:
        seen.append(get(producer.state.remote())[0])
        return len(seen) > 20 and len(set(seen[-20:])) == 1

    eventually(settled, what="the producer waits")
    return seen[-1]


@PRODUCERS
@pytest.mark.parametrize("how", ["close", "drop"])
def test_closing_or_dropping_a_stream_stops_the_producer(kind: actors.ActorClass, how: str) -> None:
    producer = kind.remote()
    values = producer.count.remote()
    assert get(next(values)) == 0
    if how == "close":
        values.close()
    del values
    eventually(lambda: get(producer.state.remote())[1] == 1, what="its finally clause ran")
    assert [get(ref) for ref in producer.count.remote(3)] == [0, 1, 2]


@PRODUCERS
def test_an_error_in_the_middle_is_the_last_value(kind: actors.ActorClass) -> None:
    values = kind.remote().count.remote(3, fail=True)
    assert [get(next(values)) for _ in range(3)] == [0, 1, 2]
    failed = next(values)
    with pytest.raises(LookupError, match="in the middle"):
        get(failed)
    assert list(values) == []


def test_a_stream_that_was_read_to_its_end_stays_at_its_end() -> None:
    values = Producer.remote().count.remote(1)
    assert len(list(values)) == 1
    for _ in range(2):
        with pytest.raises(StopIteration):
            next(values)


@PRODUCERS
def test_streams_are_read_by_async_for(kind: actors.ActorClass) -> None:
    producer = kind.remote()

    async def main() -> list[int]:
        return [await ref async for ref in producer.count.remote(50)]

    assert asyncio.run(main()) == list(range(50))


def test_streams_of_one_actor_are_read_side_by_side() -> None:
    producer = Producer.remote()
    one, other = producer.count.remote(50), producer.count.remote(50)
    assert [(get(a), get(b)) for a, b in zip(one, other, strict=True)] == [(n, n) for n in range(50)]


@pytest.mark.parametrize("sizes", [(300_000,) * 3, (300_000, 1, 1), (1, 300_000, 1), (1, 1, 300_000)], ids=str)
def test_large_and_small_values_of_a_stream_all_come_in_order(sizes: tuple[int, ...]) -> None:
    refs = list(Producer.remote().arrays.remote(*sizes))
    assert [(get(ref).size, int(get(ref)[-1])) for ref in refs] == [(size, n) for n, size in enumerate(sizes)]


def test_a_streams_value_is_an_argument_like_any_other() -> None:
    refs = list(Producer.remote().arrays.remote(1, 2, 3))
    assert get(Recorder.remote().kinds.remote(*refs)) == ["ndarray"] * 3


def test_an_actor_reads_a_stream_of_another() -> None:
    @actors.remote
    class Reader:
        def total(self, producer: actors.ActorHandle) -> int:
            return sum(actors.get(ref) for ref in producer.count.remote(100))

    assert get(Reader.remote().total.remote(Producer.remote())) == sum(range(100))


# -- concurrency ------------------------------------------------------------------------------------------------


def test_async_methods_interleave() -> None:
    latch = Latch.remote()
    refs = [latch.wait.remote(number) for number in range(20)]
    eventually(lambda: get(latch.waiting.remote()) == 20)
    get(latch.open.remote())
    assert get(refs) == list(range(20))


@actors.remote
class Crowd:
    """Counts how many calls are inside at once."""

    def __init__(self) -> None:
        self.inside = self.most = 0
        self.changed = threading.Condition()

    def enter(self, until: int) -> int:
        """Stays until so many were inside at once, at most half a second."""
        with self.changed:
            self.inside += 1
            self.most = max(self.most, self.inside)
            self.changed.notify_all()
            self.changed.wait_for(lambda: self.most >= until, 0.5)
            self.inside -= 1
            return self.most


def test_max_concurrency_bounds_the_calls_inside() -> None:
    crowd = Crowd.options(max_concurrency=3).remote()
    assert get([crowd.enter.remote(3) for _ in range(3)]) == [3] * 3
    assert get([crowd.enter.remote(4) for _ in range(6)]) == [3] * 6


def test_one_call_at_a_time_by_default() -> None:
    crowd = Crowd.remote()
    assert get([crowd.enter.remote(2) for _ in range(3)]) == [1] * 3


def test_max_concurrency_bounds_async_methods() -> None:
    latch = Latch.options(max_concurrency=2).remote()
    refs = [latch.wait.remote(number) for number in range(2)]
    opened = latch.open.remote()
    assert actors.wait([*refs, opened], timeout=0.5) == ([], [*refs, opened])
    actors.kill(latch)


# -- names and nodes --------------------------------------------------------------------------------------------


def test_a_named_actor_is_found_here_and_in_actors() -> None:
    @actors.remote
    class Finder:
        def add(self, name: str) -> int:
            return actors.get(actors.get_actor(name).add.remote(), timeout=PATIENCE)

    counter = Counter.options(name="found").remote()
    assert get(actors.get_actor("found").add.remote()) == 1
    assert get(Finder.remote().add.remote("found")) == 2
    assert actors.get_actor("found") == counter
    assert "found" in actors.list_named_actors()


def test_get_if_exists_takes_the_one_there_is() -> None:
    chosen = Counter.options(name="either", get_if_exists=True)
    first = chosen.remote(10)
    assert get(first.add.remote()) == 11
    second = chosen.remote(100)
    assert second == first
    assert get(second.add.remote()) == 12


def test_names_hold_in_their_namespace() -> None:
    here, there = Counter.options(name="same").remote(), Counter.options(name="same", namespace="other").remote(50)
    assert get(actors.get_actor("same").add.remote()) == 1
    assert get(actors.get_actor("same", namespace="other").add.remote()) == 51
    assert {"name": "same", "namespace": "other"} in actors.list_named_actors(all_namespaces=True)
    assert here != there


def test_a_name_is_free_again_after_its_actor_ended() -> None:
    first = Counter.options(name="again").remote()
    get(first.add.remote())
    actors.kill(first)
    eventually(lambda: "again" not in actors.list_named_actors())
    assert get(Counter.options(name="again").remote(5).add.remote()) == 6


def test_nodes_are_three_and_an_actor_goes_where_it_is_told() -> None:
    @actors.remote
    class Where:
        def where(self) -> tuple[str, str]:
            return actors.get_runtime_context().get_node_id(), actors.get_runtime_context().node_name

    nodes = actors.nodes()
    assert len(nodes) == len({node.id for node in nodes}) == len({node.name for node in nodes}) == 3
    assert all(node.alive for node in nodes)
    assert all(psutil.pid_exists(node.pid) for node in nodes)
    for node in nodes:
        assert get(Where.options(node=node.name).remote().where.remote()) == (node.id, node.name)
        assert get(Where.options(node=node.id).remote().where.remote()) == (node.id, node.name)
    spread = [Where.options(scheduling_strategy="SPREAD").remote() for _ in range(3)]
    assert len(set(get([actor.where.remote() for actor in spread]))) == 3
    packed = [Where.options(scheduling_strategy="PACK").remote() for _ in range(2)]
    assert len(set(get([actor.where.remote() for actor in packed]))) == 1


def test_options_in_the_decorator() -> None:
    @actors.remote(name="decorated", max_concurrency=2)
    class Decorated:
        def answer(self) -> int:
            return 42

    decorated = Decorated.remote()
    assert actors.get_actor("decorated") == decorated
    assert get(actors.get_actor("decorated").answer.remote()) == 42


# -- arrays -----------------------------------------------------------------------------------------------------


def test_arrays_arrive_read_only() -> None:
    @actors.remote
    class Array:
        def writeable(self, array: np.ndarray, nested: dict[str, np.ndarray]) -> list[bool]:
            return [array.flags.writeable, nested["a"].flags.writeable]

        def give(self, size: int) -> np.ndarray:
            return np.zeros(size)

    array = Array.remote()
    for size in (3, 300_000):
        own = np.ones(size)
        assert get(array.writeable.remote(own, {"a": own})) == [False, False]
        assert get(array.writeable.remote(actors.put(own), {"a": own})) == [False, False]
        assert own.flags.writeable
        given = get(array.give.remote(size))
        assert not given.flags.writeable
        with pytest.raises(ValueError, match="read-only"):
            given[0] = 1
        assert not get(actors.put(own)).flags.writeable


@pytest.mark.parametrize("dtype", ["?", "i1", "u8", "f2", "f8", "c8", "U5", "M8[s]", "i4,f8"])
def test_numpy_arrays_of_every_kind(dtype: str, recorder: actors.ActorHandle) -> None:
    array = np.arange(6).reshape(2, 3).astype(dtype)
    sent = [array, array.T, array[:, ::2], array[:0], np.asfortranarray(array), array[0, 0]]
    back, _ = get(recorder.echo.remote(*sent))
    for before, after in zip(sent, back, strict=True):
        assert after.dtype == before.dtype
        np.testing.assert_array_equal(after, before)


@pytest.fixture(scope="module")
def recorder(cluster: actors.Cluster) -> actors.ActorHandle:
    return Recorder.remote()


@pytest.mark.parametrize("dtype", [mx.float32, mx.bfloat16, mx.int8, mx.bool_, mx.complex64], ids=str)
def test_mlx_arrays_come_back_as_they_went(dtype: mx.Dtype, recorder: actors.ActorHandle) -> None:
    array = mx.arange(12).reshape(3, 4).astype(dtype)
    (back,), _ = get(recorder.echo.remote(array))
    assert isinstance(back, mx.array)
    assert back.dtype == array.dtype
    assert mx.array_equal(back, array)


@actors.remote
class Warehouse:
    """Takes and gives large arrays."""

    def take(self, array: np.ndarray) -> tuple[int, int, int]:
        return array.nbytes, int(array[0]), int(array[-1])

    def give(self, count: int) -> np.ndarray:
        array = np.zeros(count, np.int32)
        array[0], array[-1] = 1, 2
        return array


@pytest.mark.parametrize("mebibytes", [64, 300])
def test_large_arrays_go_both_ways(mebibytes: int) -> None:
    count = mebibytes * 2**20 // 4
    warehouse = Warehouse.options(node=actors.nodes()[-1].name).remote()
    array = np.zeros(count, np.int32)
    array[0], array[-1] = 3, 4
    assert get(warehouse.take.remote(array), 60) == (count * 4, 3, 4)
    back = get(warehouse.give.remote(count), 60)
    assert (back.nbytes, back[0], back[-1]) == (count * 4, 1, 2)


def test_a_large_array_from_actor_to_actor() -> None:
    one, other = (Warehouse.options(node=node.name).remote() for node in actors.nodes()[:2])
    assert get(other.take.remote(one.give.remote(16 * 2**20)), 60) == (64 * 2**20, 1, 2)


def test_small_calls_pass_while_a_large_one_is_under_way() -> None:
    warehouse, counter = Warehouse.remote(), Counter.remote()
    get([warehouse.take.remote(np.zeros(1, np.int32)), counter.add.remote()])
    large = warehouse.take.remote(np.zeros(16 * 2**20, np.int32))
    assert get(counter.add.remote()) == 2
    assert get(large)[0] == 64 * 2**20
