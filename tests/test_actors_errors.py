"""What goes wrong by a program's own doing: each mistake is told at once, by name, and harms nothing beside it."""

from __future__ import annotations

import threading
import traceback
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from clusters import Counter, Latch, eventually, failure

import actors
from actors.exceptions import (
    ActorAlreadyExistsError,
    ActorDiedError,
    ActorsError,
    PlacementError,
    SerializationError,
    TaskError,
    Verdict,
)

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("cluster")
PATIENCE = 30.0


class OwnError(Exception):
    """As a user writes it: pickles, and does not unpickle."""

    def __init__(self, code: int, *, hint: str) -> None:
        super().__init__(f"code {code}")
        self.code = code
        self.hint = hint


class LockedError(Exception):
    """Holds what cannot be sent."""

    def __init__(self) -> None:
        super().__init__("locked")
        self.lock = threading.Lock()


class MuteError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


class Lock:
    """Cannot be pickled for the sake of one attribute."""

    def __init__(self) -> None:
        self.name = "fine"
        self.inner_lock = threading.Lock()


class Trap:
    """Pickles, and raises where it is unpickled."""

    def __reduce__(self) -> tuple[object, ...]:
        return (_snap, ())


def _snap() -> None:
    raise OSError("the trap snapped")


@actors.remote
class Wrong:
    """Does everything that can go wrong in a method."""

    def __init__(self) -> None:
        self.calls = 0

    def fine(self, value: int, *, factor: int = 1) -> int:
        self.calls += 1
        return value * factor

    def divide(self, by: int) -> float:
        return 1 / by

    def own(self) -> None:
        raise OwnError(7, hint="look there")

    def locked(self) -> None:
        raise LockedError

    def mute(self) -> None:
        raise MuteError

    def chained(self) -> None:
        try:
            self.divide(0)
        except ZeroDivisionError as error:
            raise KeyError("outer") from error

    def many(self) -> None:
        raise ExceptionGroup("several", [ValueError("one"), TypeError("two")])

    def local(self) -> None:
        class NobodyKnowsError(Exception):
            pass

        raise NobodyKnowsError("from inside")

    def interrupted(self) -> None:
        raise KeyboardInterrupt

    def stop_iteration(self) -> None:
        raise StopIteration(3)

    def leave(self) -> None:
        raise GeneratorExit

    def recurse(self) -> None:
        self.recurse()

    def lock(self) -> Lock:
        return Lock()

    def nested_lock(self) -> dict[str, list[Lock]]:
        return {"deep": [Lock()]}

    def stream_of_locks(self) -> object:
        yield 1
        yield Lock()

    def generator(self) -> object:
        return (number for number in range(3))

    def trap(self) -> Trap:
        return Trap()

    def deep(self, depth: int) -> list[object]:
        nested: list[object] = []
        for _ in range(depth):
            nested = [nested]
        return nested

    def take(self, value: object) -> str:
        return type(value).__name__

    def ask(self, other: actors.ActorHandle, method: str) -> object:
        return actors.get(getattr(other, method).remote(), timeout=PATIENCE)

    def init(self) -> None:
        actors.init(local_nodes=2)


@pytest.fixture(scope="module")
def wrong(cluster: actors.Cluster) -> actors.ActorHandle:
    """One actor for all tests: whatever they do to it, it answers the next."""
    return Wrong.options(name="wrong").remote()


@pytest.fixture(autouse=True)
def _unharmed(wrong: actors.ActorHandle) -> object:
    yield
    assert actors.get(wrong.fine.remote(3, factor=2), timeout=PATIENCE) == 6


# -- what a method raises ---------------------------------------------------------------------------------------


def test_a_methods_error_is_the_users_own_and_tells_where(wrong: actors.ActorHandle) -> None:
    with pytest.raises(ZeroDivisionError) as caught:
        actors.get(wrong.divide.remote(0), timeout=PATIENCE)
    error = caught.value
    assert isinstance(error, TaskError)
    assert isinstance(error, ActorsError)
    assert isinstance(error.cause, ZeroDivisionError)
    assert not isinstance(error.cause, TaskError)
    assert (error.verdict, error.method) == (Verdict.RAISED, "divide")
    assert error.node in {node.name for node in actors.nodes()}
    for part in ("return 1 / by", "division by zero", "test_actors_errors.py", "wrong(", error.node):
        assert part in str(error)


def test_an_exception_with_an_init_of_its_own(wrong: actors.ActorHandle) -> None:
    with pytest.raises(OwnError) as caught:
        actors.get(wrong.own.remote(), timeout=PATIENCE)
    assert (caught.value.code, caught.value.hint) == (7, "look there")
    assert isinstance(caught.value, TaskError)
    assert "code 7" in str(caught.value)


def test_an_exception_that_cannot_travel_still_tells(wrong: actors.ActorHandle) -> None:
    error = failure(wrong.locked.remote())
    assert isinstance(error, TaskError)
    assert "LockedError" in str(error)
    assert "raise LockedError" in str(error)


def test_an_exception_without_words(wrong: actors.ActorHandle) -> None:
    error = failure(wrong.mute.remote())
    assert isinstance(error, TaskError)
    assert "MuteError" in str(error)


def test_a_chain_of_causes_is_told_whole(wrong: actors.ActorHandle) -> None:
    error = failure(wrong.chained.remote())
    assert isinstance(error, KeyError)
    assert "division by zero" in str(error)
    assert isinstance(error.__cause__, ZeroDivisionError)
    assert "division by zero" in "".join(traceback.format_exception(error))


def test_an_exception_group_is_one_here(wrong: actors.ActorHandle) -> None:
    error = failure(wrong.many.remote())
    assert isinstance(error, TaskError)
    assert isinstance(error, ExceptionGroup)
    assert [type(part) for part in error.exceptions] == [ValueError, TypeError]


@pytest.mark.parametrize("method", ["local", "interrupted", "stop_iteration", "leave", "recurse"])
def test_every_kind_of_exception_is_one_reply(wrong: actors.ActorHandle, method: str) -> None:
    with pytest.raises(TaskError, match=method):
        actors.get(getattr(wrong, method).remote(), timeout=5)


def test_an_error_passes_through_an_actor_between(wrong: actors.ActorHandle) -> None:
    with pytest.raises(OwnError) as caught:
        actors.get(Wrong.remote().ask.remote(wrong, "own"), timeout=PATIENCE)
    assert caught.value.code == 7


def test_an_error_comes_by_every_way_of_waiting(wrong: actors.ActorHandle) -> None:
    import asyncio

    async def awaited() -> None:
        await wrong.own.remote()

    with pytest.raises(OwnError):
        asyncio.run(awaited())
    with pytest.raises(OwnError):
        wrong.own.remote().result(timeout=PATIENCE)
    with pytest.raises(OwnError):
        wrong.own.remote().future().result(timeout=PATIENCE)
    ref = wrong.own.remote()
    for _ in range(2):
        with pytest.raises(OwnError):
            actors.get([actors.put(1), ref], timeout=PATIENCE)


def test_a_failed_argument_fails_the_call_that_needs_it(wrong: actors.ActorHandle) -> None:
    with pytest.raises(OwnError):
        actors.get(wrong.take.remote(wrong.own.remote()), timeout=PATIENCE)
    assert isinstance(failure(Wrong.remote().take.remote(wrong.own.remote())), OwnError)
    assert isinstance(failure(Counter.remote(wrong.own.remote()).add.remote()), ActorDiedError)


def test_an_error_can_be_sent_on(wrong: actors.ActorHandle) -> None:
    error = failure(wrong.own.remote())
    assert actors.get(wrong.take.remote(error), timeout=PATIENCE) == "OwnError"
    again = actors.get(actors.put(error))
    assert isinstance(again, OwnError)
    assert again.code == 7


# -- how a call is made -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("args", "kwargs", "named"),
    [
        ((), {}, "value"),
        ((1, 2), {}, "positional"),
        ((1,), {"facto": 2}, "facto"),
        ((1,), {"value": 2}, "value"),
    ],
    ids=["missing", "too many", "unknown", "twice"],
)
def test_wrong_arguments_are_a_type_error_at_once(
    wrong: actors.ActorHandle, args: tuple[int, ...], kwargs: dict[str, int], named: str
) -> None:
    before = actors.get(wrong.fine.remote(0), timeout=PATIENCE)
    with pytest.raises(TypeError, match=named) as caught:
        wrong.fine.remote(*args, **kwargs)
    assert "fine" in str(caught.value)
    assert before == 0


def test_wrong_constructor_arguments_are_a_type_error_at_once() -> None:
    for make in (Counter.remote, Counter.options(name="never").remote):
        with pytest.raises(TypeError, match="Counter"):
            make(1, 2)
        with pytest.raises(TypeError, match="begin"):
            make(begin=1)
    assert "never" not in actors.list_named_actors()
    with pytest.raises(TypeError, match="begin"):
        Counter.group(2, begin=1)
    with pytest.raises(TypeError, match="Wrong"):
        Wrong.remote(1)


def test_calls_without_remote_are_refused_with_advice(wrong: actors.ActorHandle) -> None:
    with pytest.raises(TypeError, match=r"fine\.remote"):
        wrong.fine(1)
    with pytest.raises(TypeError, match=r"Counter\.remote"):
        Counter()


def test_an_unknown_method_is_an_attribute_error_with_a_guess(wrong: actors.ActorHandle) -> None:
    with pytest.raises(AttributeError, match="did you mean 'divide'"):
        wrong.divid.remote(1)
    assert not hasattr(wrong, "__len__")


def test_remote_wants_a_class_or_a_function() -> None:
    for nonsense in (3, "Counter", None, actors.put(1)):
        with pytest.raises(TypeError):
            actors.remote(nonsense)
    for decorated in (Counter, actors.remote(len)):
        with pytest.raises(TypeError, match="remote already"):
            actors.remote(decorated)
    assert actors.get(actors.remote(len).remote("abc")) == 3


def test_kill_and_cancel_want_what_they_name() -> None:
    for nonsense in (None, "wrong", Counter, actors.put(1)):
        with pytest.raises(TypeError, match="handle"):
            actors.kill(nonsense)
    for nonsense in (None, "ref", [actors.put(1)]):
        with pytest.raises(TypeError, match="ObjectRef"):
            actors.cancel(nonsense)


# -- what cannot be sent ----------------------------------------------------------------------------------------


def test_an_argument_that_cannot_be_pickled_names_the_attribute(wrong: actors.ActorHandle) -> None:
    for send in (wrong.take.remote, Wrong.remote().take.remote, actors.put):
        for value in (Lock(), [Lock()], {"deep": (Lock(),)}):
            with pytest.raises(SerializationError, match="inner_lock") as caught:
                send(value)
            assert isinstance(caught.value, TypeError)
    with pytest.raises(SerializationError, match="inner_lock"):
        Counter.remote(Lock())
    with pytest.raises(SerializationError, match="inner_lock"):
        Counter.group(2, Lock())


def test_a_class_that_cannot_be_pickled_names_what_it_uses() -> None:
    private_lock = threading.Lock()

    @actors.remote
    class Closed:
        def use(self) -> bool:
            return private_lock.locked()

    with pytest.raises(SerializationError, match="private_lock"):
        Closed.remote()


@pytest.mark.parametrize("method", ["lock", "nested_lock"])
def test_a_result_that_cannot_be_pickled_names_the_attribute(wrong: actors.ActorHandle, method: str) -> None:
    error = failure(getattr(wrong, method).remote())
    assert isinstance(error, SerializationError)
    assert "inner_lock" in str(error)
    assert method in str(error)


def test_a_streams_value_that_cannot_be_pickled_names_the_attribute(wrong: actors.ActorHandle) -> None:
    first, second, *rest = wrong.stream_of_locks.remote()
    assert actors.get(first, timeout=PATIENCE) == 1
    error = failure(second)
    assert isinstance(error, SerializationError)
    assert "inner_lock" in str(error)
    assert rest == []


def test_a_returned_generator_is_an_answer_or_an_error_that_says_why(wrong: actors.ActorHandle) -> None:
    error = failure(wrong.generator.remote())
    assert isinstance(error, SerializationError)
    assert "generator" in str(error)


def test_what_raises_where_it_is_unpickled(wrong: actors.ActorHandle) -> None:
    for ref in (wrong.take.remote(Trap()), wrong.trap.remote(), wrong.take.remote([Trap()])):
        assert "the trap snapped" in str(failure(ref))


def test_deep_nesting_takes_nothing_down(wrong: actors.ActorHandle) -> None:
    nested: list[object] = []
    for _ in range(100_000):
        nested = [nested]
    with pytest.raises(SerializationError, match="deep"):
        wrong.take.remote(nested)
    with pytest.raises(SerializationError, match="deep"):
        actors.put(nested)
    error = failure(wrong.deep.remote(100_000))
    assert isinstance(error, SerializationError)
    assert "deep" in str(error)


# -- constructors -----------------------------------------------------------------------------------------------


@actors.remote
class Stillborn:
    """Its constructor fails in the way asked for."""

    def __init__(self, how: str) -> None:
        import os
        import sys

        if how == "raise":
            raise OwnError(9, hint="born wrong")
        if how == "exit":
            sys.exit(3)
        if how == "_exit":
            os._exit(4)

    def ping(self) -> None: ...

    def stream(self) -> object:
        yield 1


def test_a_constructors_error_comes_with_every_call() -> None:
    actor = Stillborn.remote("raise")
    refs = [actor.ping.remote() for _ in range(3)]
    for ref in [*refs, actor.ping.remote()]:
        error = failure(ref)
        assert isinstance(error, ActorDiedError)
        assert isinstance(error.__cause__, OwnError)
        assert error.__cause__.code == 9
        for part in ("OwnError", "code 9", "raise OwnError", "Stillborn"):
            assert part in str(error)
    (last,) = list(actor.stream.remote())
    assert isinstance(failure(last), ActorDiedError)
    actors.kill(actor)


@pytest.mark.parametrize(("how", "told"), [("exit", "3"), ("_exit", "4")])
def test_a_constructor_that_ends_its_process(how: str, told: str) -> None:
    error = failure(Stillborn.remote(how).ping.remote())
    assert isinstance(error, ActorDiedError)
    assert told in str(error)


def test_a_stillborn_actor_gives_its_name_and_its_process_back() -> None:
    actor = Stillborn.options(name="short-lived").remote("raise")
    assert isinstance(failure(actor.ping.remote()), ActorDiedError)
    eventually(lambda: "short-lived" not in actors.list_named_actors(), what="the name is free")
    assert actors.get(Counter.options(name="short-lived").remote().add.remote(), timeout=PATIENCE) == 1


# -- names, nodes, options --------------------------------------------------------------------------------------


def test_a_taken_name_is_refused_by_remote_itself() -> None:
    first = Counter.options(name="taken").remote()
    with pytest.raises(ActorAlreadyExistsError, match="taken") as caught:
        Counter.options(name="taken").remote()
    assert isinstance(caught.value, ValueError)
    with pytest.raises(ActorAlreadyExistsError, match="taken"):
        Counter.options(name="taken", node=actors.nodes()[-1].name).remote()
    assert actors.get(first.add.remote(), timeout=PATIENCE) == 1


def test_one_of_many_at_once_gets_a_name() -> None:
    outcomes: list[object] = []

    def claim() -> None:
        try:
            outcomes.append(Counter.options(name="contested").remote())
        except ActorAlreadyExistsError as error:
            outcomes.append(error)

    threads = [threading.Thread(target=claim) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    (winner,) = [outcome for outcome in outcomes if isinstance(outcome, actors.ActorHandle)]
    assert len(outcomes) == 4
    assert actors.get_actor("contested") == winner


def test_an_unknown_name_is_told_with_those_there_are() -> None:
    there = Counter.options(name="there").remote()
    with pytest.raises(ValueError, match="nobody") as caught:
        actors.get_actor("nobody")
    assert "there" in str(caught.value)
    with pytest.raises(ValueError, match="there"):
        actors.get_actor("there", namespace="elsewhere")
    for nonsense in ("", None, 3):
        with pytest.raises((ValueError, TypeError), match="name"):
            actors.get_actor(nonsense)
    assert actors.get(there.add.remote(), timeout=PATIENCE) == 1


def test_an_unknown_node_is_told_with_those_there_are() -> None:
    names = [node.name for node in actors.nodes()]
    error = failure(Counter.options(node="nowhere").remote().add.remote())
    assert isinstance(error, PlacementError | ActorDiedError)
    assert all(name in str(error) for name in ["nowhere", *names])
    with pytest.raises(PlacementError, match="nowhere"):
        Counter.options(node="nowhere", name="named").remote()
    assert "named" not in actors.list_named_actors()


@pytest.mark.parametrize("option", ["placement_group", "max_calls"])
def test_an_option_that_is_not_honoured_is_refused_by_name(option: str) -> None:
    with pytest.raises(NotImplementedError, match=option):
        Counter.options(**{option: 1})
    with pytest.raises(NotImplementedError, match=option):
        actors.remote(**{option: 1})(Counter.cls)


def test_options_nobody_knows_and_values_nobody_can_mean() -> None:
    with pytest.raises(TypeError, match="nodes"):
        Counter.options(nodes="a")
    for name in ("node", "name", "namespace"):
        for value in ("", 3):
            with pytest.raises((TypeError, ValueError), match=name):
                Counter.options(**{name: value})
    for value in (0, -1, 1.5, "2", True):
        with pytest.raises((TypeError, ValueError), match="max_concurrency"):
            Counter.options(max_concurrency=value)
    with pytest.raises(ValueError, match="DEFAULT, SPREAD, PACK"):
        Counter.options(scheduling_strategy="spread")
    with pytest.raises(ValueError, match="name"):
        Counter.options(get_if_exists=True)
    with pytest.raises((TypeError, ValueError), match="get_if_exists"):
        Counter.options(name="a", get_if_exists="no")


def test_method_options_are_refused_by_name(wrong: actors.ActorHandle) -> None:
    for option, value in (("num_returns", -1), ("timeout", "soon"), ("unheard_of", 1)):
        with pytest.raises((ValueError, TypeError), match=option):
            wrong.fine.options(**{option: value}).remote(1)


@pytest.mark.parametrize("size", [0, -1, 1.5, "3", None, True], ids=repr)
def test_a_world_size_no_group_can_have(size: object) -> None:
    with pytest.raises((ValueError, TypeError), match="size"):
        Counter.group(size)


# -- init -------------------------------------------------------------------------------------------------------


def test_a_second_init_returns_the_same_cluster_or_says_what_is_different(cluster: actors.Cluster) -> None:
    assert actors.init(local_nodes=3) is cluster
    with pytest.raises(ActorsError, match="shutdown") as caught:
        actors.init(local_nodes=2)
    assert "3" in str(caught.value)
    with pytest.raises(ActorsError, match="shutdown"):
        actors.init(local_nodes=3, namespace="other")
    assert actors.init(local_nodes=2, ignore_reinit_error=True) is cluster
    assert actors.is_initialized()


@pytest.mark.parametrize(
    ("wrong_arguments", "named"),
    [
        ({"local_nodes": 0}, "local_nodes"),
        ({"local_nodes": -1}, "local_nodes"),
        ({"local_nodes": 1.5}, "local_nodes"),
        ({"local_nodes": "3"}, "local_nodes"),
        ({"local_nodes": True}, "local_nodes"),
        ({"local_nodes": 10**6}, "local_nodes"),
        ({"namespace": ""}, "namespace"),
        ({"timeout": 0}, "timeout"),
        ({"timeout": -1}, "timeout"),
        ({"timeout": "soon"}, "timeout"),
        ({"local_node": 3}, "local_node"),
        ({"expect_nodes": 0}, "is the number of nodes to wait for"),
        ({"num_cpus": "2"}, "num_cpus"),
        ({"address": 3}, "3"),
        ({"address": ""}, "address|init"),
    ],
    ids=repr,
)
def test_init_refuses_what_cannot_be(wrong_arguments: dict[str, object], named: str) -> None:
    with pytest.raises((TypeError, ValueError, NotImplementedError), match=named):
        actors.init(**wrong_arguments)


def test_expecting_more_nodes_than_this_machine_starts_is_told_at_once() -> None:
    with pytest.raises(actors.exceptions.ClusterTimeoutError, match=r"expect_nodes=3, but .* nobody joins it"):
        actors.init("local", expect_nodes=3)


def test_init_auto_wants_a_cluster_that_is_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ACTORS_HOME", str(tmp_path))  # of a device that is paired with none
    with pytest.raises(actors.exceptions.NoClusterError, match="actors join CODE"):
        actors.init("auto")


def test_init_inside_an_actor_is_refused(wrong: actors.ActorHandle) -> None:
    error = failure(wrong.init.remote())
    assert isinstance(error, ActorsError)
    assert "inside an actor" in str(error)


# -- cancel -----------------------------------------------------------------------------------------------------


def test_a_cancelled_call_says_so_and_the_next_ones_run() -> None:
    latch = Latch.remote()
    ref = latch.wait.remote()
    eventually(lambda: actors.get(latch.waiting.remote(), timeout=PATIENCE) == 1)
    actors.cancel(ref)
    assert isinstance(failure(ref), actors.exceptions.TaskCancelledError)
    assert actors.get(latch.waiting.remote(), timeout=PATIENCE) == 1


def test_a_mebibyte_of_words_in_an_error_arrives(wrong: actors.ActorHandle) -> None:
    @actors.remote
    class Talker:
        def talk(self) -> None:
            raise ValueError("x" * 2_000_000, np.zeros(300_000))

    error = failure(Talker.remote().talk.remote())
    assert isinstance(error, ValueError)
    assert len(error.args[0]) == 2_000_000
    assert error.args[1].shape == (300_000,)


class TwoWordsError(Exception):
    """Pickles, and cannot be unpickled: its `args` are not what its constructor takes."""

    def __init__(self, first: str, second: str) -> None:
        super().__init__(f"{first} {second}")


def test_what_cannot_be_unpickled_says_so(cluster: actors.Cluster) -> None:
    @actors.remote
    class Echo:
        def echo(self, value: Any) -> Any:
            return value

        def make(self, kind: Any) -> Any:
            return kind("a", "b")

    echo = Echo.remote()
    with pytest.raises(SerializationError, match="an argument was pickled, and cannot be unpickled where it is used"):
        actors.get(echo.echo.remote(TwoWordsError("a", "b")))
    with pytest.raises(SerializationError, match=r"the value was pickled, and .*missing 1 required positional arg"):
        actors.get(echo.make.remote(TwoWordsError))
    assert actors.get(echo.echo.remote(1)) == 1


def test_a_stream_says_what_it_is_and_cannot_be_passed(cluster: actors.Cluster) -> None:
    @actors.remote
    class Counter:
        def count(self, end: int) -> Any:
            yield from range(end)

        def take(self, value: Any) -> None:
            raise AssertionError(value)

    counter = Counter.remote()
    stream = counter.count.remote(2)
    assert "<ObjectRefGenerator of Counter(actor-" in repr(stream)
    with pytest.raises(SerializationError, match=r"argument 1 is a ObjectRefGenerator.*streams do not travel"):
        counter.take.remote(stream)
    assert actors.get(list(stream)) == [0, 1]


def test_a_trace_goes_to_a_path_alone(cluster: actors.Cluster) -> None:
    with pytest.raises(TypeError):
        actors.timeline(5)  # type: ignore[arg-type]
