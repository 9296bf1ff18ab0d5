"""What references and handles refer to lives while anyone has one, anywhere; its memory is given back after."""

from __future__ import annotations

import copy
import gc
import os
import pickle
import signal
from typing import Any

import cloudpickle
import numpy as np
import psutil
import pytest

import actors
from actors import get, runtime
from tests.clusters import Counter, Latch, eventually, failure, is_gone, succeed

pytestmark = pytest.mark.usefixtures("cluster")

MEGABYTE = 1 << 20


@actors.remote
class Shelf:
    """Keeps whatever it is given."""

    def __init__(self, *things: Any) -> None:
        self.things = list(things)

    def take(self, thing: Any) -> None:
        self.things.append(thing)

    def give(self) -> Any:
        return self.things[-1]

    def pass_on(self, other: Any) -> None:
        """Gives what it has to another, and has it no more."""
        get(other.take.remote(self.things.pop()))

    def drop(self) -> None:
        self.things.clear()
        gc.collect()

    def add(self) -> list[int]:
        return get([thing.add.remote() for thing in self.things])

    def read(self) -> Any:
        """The value of the reference that it was given in a list."""
        return get(self.things[-1][0])

    def put(self, value: Any) -> Any:
        return [actors.put(value)]

    def ask(self, latch: Any) -> Any:
        return [latch.wait.remote("mortal")]

    def make(self) -> Any:
        """A child, which it does not keep."""
        return Counter.remote()

    def keep_child(self) -> int:
        self.things.append(Counter.remote())
        return get(self.things[-1].pid.remote())

    def fail_with(self, thing: Any) -> None:
        raise BurdenError(thing)

    def kept(self) -> int:
        return kept_for_others()

    def values(self) -> int:
        return values_here()

    def used(self) -> int:
        gc.collect()
        return psutil.Process().memory_info().rss

    def pid(self) -> int:
        return os.getpid()


class BurdenError(Exception):
    """Carries something."""


def kept_for_others() -> int:
    """Things of this process that are kept because others refer to them."""
    process = runtime.joined()
    assert process is not None
    return len(process.holdings)


def values_here() -> int:
    """Values of this process, and those of others that it knows."""
    process = runtime.joined()
    assert process is not None
    return len(process.keeper)


def all_is_given_back() -> None:
    if "ACTORS_TEST_RAY" in os.environ:
        return  # Ray keeps its own accounts
    gc.collect()
    eventually(lambda: kept_for_others() == 0 and values_here() == 0, what="nothing is kept")


def pid_of(counter: Any) -> int:
    pid: int = get(counter.pid.remote())
    return pid


# -- values ---------------------------------------------------------------------------------------------------------


def test_a_value_ends_with_its_last_reference() -> None:
    all_is_given_back()
    ref = actors.put(1)
    other = copy.copy(ref)
    assert values_here() == 1
    del ref
    assert get(other) == 1
    del other
    assert values_here() == 0
    get(Counter.remote().add.remote())
    eventually(lambda: values_here() == 0)


def test_a_value_lives_while_another_process_refers_to_it() -> None:
    shelf = Shelf.remote()
    get(shelf.take.remote([actors.put("kept")]))  # the reference here is gone by now
    assert kept_for_others() == 1
    assert get(shelf.read.remote()) == "kept"
    get(shelf.drop.remote())
    all_is_given_back()


def test_the_memory_of_values_is_given_back() -> None:
    shelf = Shelf.remote()
    process = psutil.Process()
    get(shelf.take.remote([actors.put(np.zeros(MEGABYTE))]))  # whatever is allocated once is by now
    get(shelf.read.remote())
    get(shelf.drop.remote())
    all_is_given_back()
    before, before_there = process.memory_info().rss, get(shelf.used.remote())
    for _ in range(30):
        get(shelf.take.remote([actors.put(np.ones(MEGABYTE))]))  # 8 MiB
        assert float(get(shelf.read.remote())[0]) == 1
        get(shelf.drop.remote())
    all_is_given_back()
    assert process.memory_info().rss - before < 80 * MEGABYTE
    assert get(shelf.used.remote()) - before_there < 80 * MEGABYTE


def test_a_reference_that_is_dropped_while_it_travels() -> None:
    latch, shelf = Latch.remote(), Shelf.remote()
    ref = actors.put("on its way")
    done = shelf.take.remote([ref])
    queued = shelf.take.remote([ref, latch.wait.remote()])
    del ref
    late = shelf.read.remote()
    assert get(late) == "on its way"
    get([done, queued, latch.open.remote()])
    get(shelf.drop.remote())
    del done, queued, late
    all_is_given_back()


def test_a_reference_in_a_call_that_waits_for_its_arguments() -> None:
    latch, shelf = Latch.remote(), Shelf.remote()
    slow = latch.wait.remote("slow")
    done = Shelf.remote(slow, [actors.put("waits too")]).read.remote()
    gc.collect()
    assert not actors.wait([done], timeout=0.05)[0]
    get(latch.open.remote())
    assert get(done) == "waits too"
    get(shelf.drop.remote())
    del done, slow
    all_is_given_back()


def test_references_in_references() -> None:
    shelf = Shelf.remote()
    inner = actors.put("innermost")
    outer = actors.put([actors.put([inner])])
    del inner
    get(shelf.take.remote([outer]))
    del outer
    gc.collect()
    middle = get(shelf.read.remote())[0]
    get(shelf.drop.remote())
    (innermost,) = get(middle)
    del middle
    assert get(innermost) == "innermost"
    del innermost
    all_is_given_back()


def test_a_value_that_nobody_opens_gives_back_what_it_mentions() -> None:
    shelf = Shelf.remote()
    unread = shelf.put.remote("never read")
    actors.wait([unread])
    assert get(shelf.kept.remote()) == 1
    assert get(shelf.values.remote()) == 1
    del unread
    eventually(lambda: get(shelf.kept.remote()) == 0 and get(shelf.values.remote()) == 0)


def test_a_reference_that_a_method_returns() -> None:
    shelf = Shelf.remote()
    (ref,) = get(shelf.put.remote("made there"))
    assert get(ref) == "made there"
    assert get(shelf.kept.remote()) == 1
    del ref
    eventually(lambda: get(shelf.kept.remote()) == 0)
    all_is_given_back()


def test_a_borrowed_reference_is_passed_on_and_outlives_its_borrower() -> None:
    first, second = Shelf.remote(), Shelf.remote()
    ref = actors.put("passed on")
    get(first.take.remote([ref]))
    del ref
    get(first.pass_on.remote(second))
    del first
    assert get(second.read.remote()) == "passed on"
    get(second.drop.remote())
    all_is_given_back()


def test_a_reference_that_comes_home() -> None:
    shelf = Shelf.remote()
    get(shelf.take.remote([actors.put("home")]))
    ref = get(shelf.give.remote())[0]
    get(shelf.drop.remote())
    eventually(lambda: kept_for_others() == 0)
    assert get(ref) == "home"
    del ref
    all_is_given_back()


def test_one_value_many_readers() -> None:
    shelves = [Shelf.remote() for _ in range(3)]
    ref = actors.put(np.arange(MEGABYTE))
    get([shelf.take.remote([ref]) for shelf in shelves for _ in range(3)])
    del ref
    for shelf in shelves:
        assert int(get(shelf.read.remote())[-1]) == MEGABYTE - 1
        assert get(shelf.values.remote()) == 1  # fetched once, shared by all that refers to it there
    get(shelves[0].drop.remote())
    get(shelves[1].drop.remote())
    assert kept_for_others() == 1
    get(shelves[2].drop.remote())
    all_is_given_back()


def test_ten_thousand_references_in_one_list() -> None:
    shelf = Shelf.remote()
    get(shelf.take.remote([actors.put(number) for number in range(10_000)]))
    eventually(lambda: kept_for_others() == 10_000)
    assert get(shelf.read.remote()) == 0
    get(shelf.drop.remote())
    all_is_given_back()


def test_a_large_message_keeps_what_it_mentions() -> None:
    shelf = Shelf.remote()
    done = shelf.take.remote([actors.put("beside it"), np.zeros(4 * MEGABYTE)])
    assert get(shelf.read.remote()) == "beside it"
    get([done, shelf.drop.remote()])
    del done
    all_is_given_back()


def test_a_reference_in_several_values_and_in_a_stream() -> None:
    @actors.remote
    class Maker:
        @actors.method(num_returns=2)
        def pair(self) -> Any:
            return [actors.put("left")], [actors.put("right")]

        def stream(self) -> Any:
            for number in range(3):
                yield [actors.put(number)]

        def kept(self) -> int:
            return kept_for_others()

    maker = Maker.remote()
    left, right = maker.pair.remote()
    assert [get(get(left)[0]), get(get(right)[0])] == ["left", "right"]
    assert [get(get(item)[0]) for item in maker.stream.remote()] == [0, 1, 2]
    del left, right
    gc.collect()
    eventually(lambda: get(maker.kept.remote()) == 0)


def test_a_value_whose_owner_is_gone_is_lost() -> None:
    latch, shelf = Latch.remote(), Shelf.remote()
    (ref,) = get(shelf.ask.remote(latch))  # not there yet, so that it cannot have been fetched
    actors.kill(shelf)
    assert isinstance(failure(ref, within=10), actors.exceptions.ObjectLostError)


def test_what_is_pickled_by_hand_is_kept() -> None:
    """Nobody can know where the bytes go."""
    data = succeed("""
        import actors, cloudpickle, gc
        from actors import runtime
        with actors.init():
            data = cloudpickle.dumps([actors.put("by hand")])
            gc.collect()
            print(actors.get(cloudpickle.loads(data)[0]))
    """)
    assert data == ["by hand"]


# -- actors ---------------------------------------------------------------------------------------------------------


def test_an_actor_ends_with_its_last_handle() -> None:
    counter = Counter.remote()
    pid = pid_of(counter)
    other = copy.deepcopy([counter])[0]
    del counter
    assert get(other.add.remote()) == 1
    ref = other.add.remote()
    assert get(ref) == 2
    del other
    eventually(lambda: is_gone(pid), what="the actor has ended")  # its results are still referred to
    assert get(ref) == 2


def test_an_actor_answers_what_it_accepted_before_it_ends() -> None:
    latch = Latch.remote()
    shelf = Shelf.remote()
    pid = get(shelf.pid.remote())
    slow = latch.wait.remote("slow")
    answers = [shelf.take.remote(slow), shelf.give.remote()]
    del shelf
    gc.collect()
    assert actors.wait(answers, num_returns=2, timeout=0.2)[1] != []
    assert not is_gone(pid)
    get(latch.open.remote())
    assert get(answers) == [None, "slow"]
    eventually(lambda: is_gone(pid))


def test_an_actor_without_a_handle_is_constructed_and_answers() -> None:
    assert get(Counter.remote(5).add.remote()) == 6
    values = Shelf.remote().values.remote()
    assert get(values) == 0


def test_a_handle_in_another_actor_keeps_the_actor() -> None:
    shelf, counter = Shelf.remote(), Counter.remote()
    pid = pid_of(counter)
    shelf.take.remote(counter)  # fire and forget
    del counter
    gc.collect()
    assert get(shelf.add.remote()) == [1]
    assert not is_gone(pid)
    get(shelf.drop.remote())
    eventually(lambda: is_gone(pid))


def test_a_handle_passed_on_by_one_that_ends() -> None:
    first, second, counter = Shelf.remote(), Shelf.remote(), Counter.remote()
    pid = pid_of(counter)
    get(first.take.remote(counter))
    del counter
    passed = first.pass_on.remote(second)
    del first
    get(passed)
    assert get(second.add.remote()) == [1]
    assert not is_gone(pid)
    get(second.drop.remote())
    eventually(lambda: is_gone(pid))


def test_a_handle_in_a_value() -> None:
    counter = Counter.remote()
    pid = pid_of(counter)
    ref = actors.put({"counter": counter})
    del counter
    gc.collect()
    assert get(get(ref)["counter"].add.remote()) == 1
    del ref
    eventually(lambda: is_gone(pid))


def test_a_handle_in_an_exception() -> None:
    shelf, counter = Shelf.remote(), Counter.remote()
    pid = pid_of(counter)
    error = failure(shelf.fail_with.remote(counter))
    del counter
    assert isinstance(error, BurdenError)
    assert get(error.args[0].add.remote()) == 1
    del error
    gc.collect()
    eventually(lambda: is_gone(pid))


def test_a_handle_in_the_closure_of_a_class() -> None:
    def make() -> tuple[Any, int]:
        counter = Counter.remote()

        @actors.remote
        class Closed:
            def add(self) -> int:
                value: int = get(counter.add.remote())
                return value

        return Closed.remote(), pid_of(counter)

    closed, pid = make()
    gc.collect()
    assert get(closed.add.remote()) == 1
    assert not is_gone(pid)
    del closed
    gc.collect()
    eventually(lambda: is_gone(pid))


def test_arguments_are_not_kept_after_the_call() -> None:
    """Neither those of the constructor, which the actor was made by, nor those of the last call."""

    class Careless:
        def __init__(self, *_: Any) -> None:
            pass

        def look_at(self, _: Any) -> None:
            pass

    for kind in (Careless, type("Awaited", (Careless,), {"pause": Latch.cls.wait})):
        given = [Counter.remote() for _ in range(2)]
        pids = get([counter.pid.remote() for counter in given])
        careless = actors.remote(kind).remote(given[0])
        get(careless.look_at.remote(given[1]))
        given.clear()
        eventually(lambda pids=pids: all(is_gone(pid) for pid in pids))
        get(careless.look_at.remote(None))


def test_a_handle_in_a_constructor() -> None:
    counter = Counter.remote()
    pid = pid_of(counter)
    shelf = Shelf.remote(counter)
    del counter
    gc.collect()
    assert get(shelf.add.remote()) == [1]
    del shelf
    eventually(lambda: is_gone(pid))


def test_a_child_whose_handle_is_given_away() -> None:
    shelf = Shelf.remote()
    child = get(shelf.make.remote())
    pid = pid_of(child)
    assert get(child.add.remote()) == 1
    del child
    eventually(lambda: is_gone(pid))


def test_children_end_with_the_last_handle_of_their_parent() -> None:
    parent = Shelf.remote()
    child = get(parent.keep_child.remote())
    assert not is_gone(child)
    del parent
    eventually(lambda: is_gone(child))


def test_an_actor_that_has_a_handle_of_its_own_ends() -> None:
    shelf = Shelf.remote()
    pid = get(shelf.pid.remote())
    get(shelf.take.remote(shelf))
    back = get(shelf.give.remote())
    assert back == shelf
    del shelf
    assert get(back.pid.remote()) == pid
    del back
    eventually(lambda: is_gone(pid))


def test_a_holder_that_is_killed_gives_back_what_it_held() -> None:
    counter, value = Counter.remote(), actors.put("held")
    shelf = Shelf.remote()
    holder, pid = get(shelf.pid.remote()), pid_of(counter)
    get(shelf.take.remote([counter, value]))
    del counter, value
    gc.collect()
    assert kept_for_others() == 2
    os.kill(holder, signal.SIGKILL)
    eventually(lambda: is_gone(pid), within=15)
    all_is_given_back()


def test_get_if_exists_makes_a_new_one_while_the_last_still_ends() -> None:
    for _ in range(10):
        counter = Counter.options(name="again and again", get_if_exists=True).remote()
        assert get(counter.add.remote()) == 1
        del counter


def test_a_name_is_free_for_the_next_while_the_last_still_ends() -> None:
    for _ in range(5):
        counter = Counter.options(name="once more").remote()
        assert get(counter.add.remote()) == 1
        del counter
    kept = Counter.options(name="once more").remote()
    with pytest.raises(actors.exceptions.ActorAlreadyExistsError):
        Counter.options(name="once more").remote()
    assert get(kept.add.remote()) == 1


def test_a_name_alone_keeps_no_actor() -> None:
    counter = Counter.options(name="held by name").remote()
    pid = pid_of(counter)
    found = actors.get_actor("held by name")
    del counter
    assert get(found.add.remote()) == 1
    del found
    eventually(lambda: is_gone(pid))
    with pytest.raises(ValueError, match="no actor is named 'held by name'"):
        actors.get_actor("held by name")


def test_a_name_is_found_from_another_process_and_counts_there() -> None:
    @actors.remote
    class Finder:
        def find(self) -> None:
            self.found = actors.get_actor("found elsewhere")

        def add(self) -> int:
            value: int = get(self.found.add.remote())
            return value

        def lose(self) -> None:
            del self.found

    finder = Finder.remote()
    counter = Counter.options(name="found elsewhere").remote()
    pid = pid_of(counter)
    get(finder.find.remote())
    del counter
    gc.collect()
    assert get(finder.add.remote()) == 1
    assert not is_gone(pid)
    get(finder.lose.remote())
    eventually(lambda: is_gone(pid))


def test_a_group_ends_with_its_handles() -> None:
    group = Counter.group(2)
    pids = get(group.pid.remote())
    first = group[0]
    del group
    eventually(lambda: is_gone(pids[1]))
    assert get(first.add.remote()) == 1
    del first
    eventually(lambda: is_gone(pids[0]))


def test_an_actor_that_is_killed_is_not_retired_as_well() -> None:
    counter = Counter.remote()
    pid = pid_of(counter)
    actors.kill(counter)
    del counter
    eventually(lambda: is_gone(pid))
    all_is_given_back()


# -- where there is no cluster any more -----------------------------------------------------------------------------


def test_references_may_end_after_the_cluster_and_with_the_program() -> None:
    printed = succeed("""
        import actors, os, sys, threading

        @actors.remote
        class Giver:
            def give(self):
                return [actors.put(1)]

        for _ in range(2):
            with actors.init():
                giver = Giver.remote()
                kept = [giver, actors.put(1), actors.get(giver.give.remote())]
                actors.get(giver.give.remote())
            del giver, kept[0]
            thread = threading.Thread(target=kept.clear)
            thread.start()
            thread.join()
        actors.init()
        giver = Giver.remote()
        last = [giver, actors.get(giver.give.remote())]  # end with the interpreter
        last.append(last)
        if (child := os.fork()) == 0:
            del giver, last[:]
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        assert actors.get(actors.get(giver.give.remote())[0]) == 1
        print("well")
    """)
    assert printed == ["well"]


def test_a_handle_can_be_pickled_by_hand_and_by_its_equals() -> None:
    counter = Counter.remote()
    for module in (pickle, cloudpickle):
        again = module.loads(module.dumps(counter))
        assert again == counter
        assert get(again.add.remote()) > 0
    actors.kill(counter)  # what was pickled by hand keeps it
