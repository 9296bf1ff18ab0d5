"""The event stream: journal and state as they are alone, and what an observer sees of a running cluster."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from dataclasses import replace

import numpy as np
import pytest
from clusters import eventually
from hypothesis import given
from hypothesis import strategies as st

import actors
import actors.collective as col
from actors.events.event import ActorChanged, CallEnded, CollectivesEnded, GroupChanged, LogPrinted
from actors.events.journal import Journal
from actors.events.ledger import Ledger
from actors.events.recorder import Recorder
from actors.events.state import MOST_ENDED, State
from actors.events.tally import MOST_METHODS, OTHERS, Tally, merge
from actors.observer import Observer, Observers, find

# -- the journal -----------------------------------------------------------------------------------------------------


def line(text: str) -> LogPrinted:
    return LogPrinted(0.0, None, None, None, "here", 1, "stdout", text)


@given(st.integers(1, 9), st.integers(0, 30), st.integers(0, 40), st.integers(1, 10))
def test_a_journal_gives_what_came_after_a_number_and_says_what_is_missing(kept, count, number, most):
    journal = Journal(kept)
    for i in range(count):
        journal.add(line(str(i + 1)))
    found, last, missed = journal.after(number, most)
    first = max(number, count - kept) + 1
    assert [e.text for e in found] == [str(i) for i in range(first, min(first + most, count + 1))]
    assert missed == max(0, min(first - 1, count) - number)
    assert last == min(first - 1, count) + len(found)


def test_a_journal_wakes_whoever_waits_for_news_and_no_later_than_asked():
    async def story():
        journal = Journal()
        waits = asyncio.create_task(journal.news(0, 60))
        await asyncio.sleep(0)
        journal.add(line("x"))
        await asyncio.wait_for(waits, 5)
        await journal.news(0, 60)  # there is some already
        await journal.news(1, 0.01)  # nothing comes
        return journal.after(0)[0]

    assert [e.text for e in asyncio.run(story())] == ["x"]


# -- the state -------------------------------------------------------------------------------------------------------

LIFE = ActorChanged(0.0, "actor-1", "Counter", "c", "default", None, "PENDING_CREATION", restarts=True)
STORY = [
    LIFE,
    replace(LIFE, node="a", process="w1", pid=11),
    replace(LIFE, state="ALIVE", node="a", process="w1", pid=11),
    replace(LIFE, state="RESTARTING", reason="killed"),
    replace(LIFE, state="ALIVE", life=1, node="b", process="w2", pid=12),
    replace(LIFE, state="DEAD", life=1, reason="its last handle is gone"),
]


@given(st.permutations(STORY), st.lists(st.sampled_from(STORY), max_size=4))
def test_the_state_of_an_actor_does_not_depend_on_the_order_in_which_its_news_come(story, again):
    state = State([*story, *again])
    actor = state.actors["actor-1"]
    assert (actor.state, actor.life, actor.reason) == ("DEAD", 1, "its last handle is gone")


@pytest.mark.parametrize("count", range(1, len(STORY) + 1))
def test_each_chapter_is_seen_and_where_an_actor_was_is_not_forgotten(count):
    actor = State(STORY[:count]).actors["actor-1"]
    assert actor.state == STORY[count - 1].state
    assert actor.pid == (None, 11, 11, 11, 12, 12)[count - 1]


def test_a_state_can_be_made_again_from_its_events_and_forgets_the_oldest_dead():
    state = State()
    for i in range(MOST_ENDED + 5):
        state.apply(replace(LIFE, id=f"actor-{i}", state="DEAD"))
    state.apply(replace(LIFE, id="living", state="ALIVE"))
    for _ in range(3):
        state.apply(CollectivesEnded(1.0, "g", 0, "allreduce", 2, 100, 0.5, 0, "a"))
    assert len(state.actors) == MOST_ENDED + 1
    assert "actor-0" not in state.actors
    again = State(state.events())
    assert again.actors == state.actors
    assert (again.collectives["g", 0, "allreduce"].count, again.collectives["g", 0, "allreduce"].nbytes) == (6, 300)


@given(st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from(["x", None]), st.integers(0, 9), st.integers(0, 9))))
def test_what_processes_have_sent_is_counted_once_however_often_they_say_so(said):
    ledger, sums = Ledger(), {}
    for process, peer, sent, received in said:
        known = sums.setdefault((process, peer), [0, 0])
        known[0] += sent
        known[1] += received
        ledger.take(process, ((peer, "grpc", *known),))
        ledger.take(process, ((peer, "grpc", known[0] - sent, known[1] - received),))  # overtaken by the later one
        ledger.take(process, ())
    told = {peer: (sent, received) for peer, _, sent, received in ledger.total()}
    assert told == {
        peer: tuple(sum(both[i] for (_, who), both in sums.items() if who == peer) for i in (0, 1)) for _, peer in sums
    }


def test_tallies_of_ever_new_methods_are_bounded():
    into: dict = {}
    for i in range(MOST_METHODS + 50):
        tally = Tally()
        tally.add(0.0, 0.002)
        merge(into, {(f"m{i}", "ok"): tally})
    assert len(into) == MOST_METHODS + 1
    assert into[OTHERS, "ok"].count == 50
    assert into["m0", "ok"].buckets[2] == 1


def test_a_recorder_sends_one_report_for_many_calls_and_counts_those_it_does_not_tell(monkeypatch):
    class Around:
        def __init__(self):
            self.planned, self.reports = [], []

        def later(self, seconds, work):
            self.planned.append((seconds, work))

        def deliver(self, report):
            self.reports.append(report)

        def caller_of(self, session):
            return f"of {session}"

    class Job:
        key, method, arrived, started, trace = ("s", 1), "add", 1.0, 2.0, ""

    class Spec:
        id, class_name, task, host = "actor-1", "Counter", False, False

    around = Around()
    recorder = Recorder("worker-1", "here", around)
    for _ in range(1000):
        recorder.call_ended(Job(), Spec(), 0)
    assert len(around.planned) == 1
    around.planned[0][1]()
    (report,) = around.reports
    assert report.tallies["Counter.add", "ok"].count == 1000
    assert report.left_out + len(report.events) == 1000
    assert isinstance(report.events[0], CallEnded)
    assert report.events[0].caller == "of s"
    recorder.flush()
    assert len(around.reports) == 1, "nothing new is no report"


# -- a cluster -------------------------------------------------------------------------------------------------------


@actors.remote
class Counter:
    def __init__(self):
        self.n = 0

    def add(self, k):
        self.n += k
        return self.n

    def sleep(self, seconds):
        print("good night", flush=True)
        time.sleep(seconds)

    def fail(self):
        raise ValueError("no")

    def sum(self):
        return float(col.allreduce(np.ones(4, np.float32)).sum())

    def pid(self):
        return os.getpid()


@actors.remote
class Hasty:
    def __init__(self):
        os.kill(os.getpid(), signal.SIGKILL)

    def hello(self):
        return "hello"


@actors.remote
class Asker:
    def ask(self, other):
        return actors.get(other.sleep.remote(30))


def of_class(view, class_name, /, **only):
    return [
        actor
        for actor in view.actors(ended=True)
        if actor.class_name == class_name and all(getattr(actor, key) == value for key, value in only.items())
    ]


def test_a_life_is_told_from_its_making_to_its_end(cluster):
    observer = Observer.here()
    actor = Counter.options(name="observed").remote()
    pid = actors.get(actor.pid.remote())

    def living():
        return of_class(observer.view(), "Counter", name="observed", state="ALIVE")

    (seen,) = eventually(living)
    assert (seen.pid, seen.restarts, seen.life) == (pid, False, 0)
    os.kill(pid, signal.SIGKILL)
    (dead,) = eventually(lambda: of_class(observer.view(), "Counter", name="observed", state="DEAD"))
    assert "SIGKILL" in dead.reason
    told = [e.state for e in observer.past() if isinstance(e, ActorChanged) and e.id == seen.id]
    assert told.index("PENDING_CREATION") < told.index("ALIVE") < told.index("DEAD")


def test_one_that_ends_before_it_tells_anything_has_a_place_too(cluster):
    observer = Observer.here()
    hasty = Hasty.remote()
    with pytest.raises(actors.exceptions.ActorDiedError, match="SIGKILL"):
        actors.get(hasty.hello.remote())
    (dead,) = eventually(lambda: [one for one in of_class(observer.view(), "Hasty", state="DEAD") if one.reason])
    assert (dead.node, dead.pid is not None) == (actors.nodes()[0].name, True)


def test_a_group_is_broken_once_a_member_has_died_and_closed_once_all_have(cluster):
    observer = Observer.here()
    group = Counter.group(2)
    actors.get([member.pid.remote() for member in group])

    def fates():
        view = observer.view()
        return [view.fate(member) for member in view.state.groups.values() if member.id == group.id]

    eventually(lambda: fates() == [("OPEN", "")] * 2)  # both have told that they entered it
    actors.kill(group[1])
    eventually(lambda: {state for state, _ in fates()} == {"BROKEN"})
    ((_, why),) = set(fates())
    assert why.startswith("Counter[1] on node ")
    assert why.endswith(" has died")
    actors.kill(group[0])
    eventually(lambda: {state for state, _ in fates()} == {"CLOSED"})


def test_one_that_is_made_anew_is_alive_again_in_its_next_life(cluster):
    observer = Observer.here()
    actor = Counter.options(name="again", max_restarts=1).remote()
    os.kill(actors.get(actor.pid.remote()), signal.SIGKILL)
    (seen,) = eventually(lambda: of_class(observer.view(), "Counter", name="again", state="ALIVE", life=1))
    assert seen.pid == actors.get(actor.pid.remote())


@pytest.mark.parametrize("isolation", ["process", "thread"])
def test_calls_are_counted_and_told_with_who_called_and_how_they_ended(cluster, isolation):
    observer = Observer.here()
    actor = Counter.options(name=f"counted-{isolation}", isolation=isolation).remote()
    assert actors.get([actor.add.remote(1) for _ in range(5)])[-1] == 5
    with pytest.raises(ValueError, match="no"):
        actors.get(actor.fail.remote())

    def ended():
        (seen,) = of_class(observer.view(), "Counter", name=f"counted-{isolation}")
        calls = [e for e in observer.past() if isinstance(e, CallEnded) and e.actor == seen.id]
        return calls if len(calls) >= 7 else None

    calls = eventually(ended)
    assert sorted(call.method for call in calls) == ["__init__", *["add"] * 5, "fail"]
    assert {call.outcome for call in calls if call.method == "fail"} == {"raised"}
    assert {call.caller.partition("-")[0] for call in calls} == {"driver"}
    assert all(call.queued >= 0 and call.ran >= 0 for call in calls)
    assert observer.view().tallies["Counter.add", "ok"].count >= 5


def test_open_calls_say_what_they_wait_for_and_a_stack_where_code_stands(cluster):
    observer = Observer.here()
    sleeper, asker = Counter.options(name="sleeper").remote(), Asker.remote()
    waits = [asker.ask.remote(sleeper)]

    def asks():
        calls = [call for call in observer.view().calls if call.class_name == "Asker" and call.waits_for]
        return calls if any(call.method == "sleep" for call in observer.view().calls) else None

    (call,) = eventually(asks)
    assert (call.method, call.state) == ("ask", "RUNNING")
    assert call.waits_for[0].endswith(".sleep")
    waits.append(sleeper.add.remote(1))
    eventually(lambda: find("sleeper", [(observer, observer.view())])[1].state == "ALIVE")
    _, actor = find("sleeper", [(observer, observer.view())])
    eventually(lambda: observer.view().pending(actor.id) == 2)
    answered, stacks = observer.stack(actor)
    assert answered
    assert any(line.endswith("in sleep") for _, lines in stacks for line in lines)
    observer.end(actor)
    for ref in waits:
        with pytest.raises(actors.exceptions.ActorDiedError):
            actors.get(ref, timeout=30)


def test_groups_collectives_and_what_actors_print_are_in_the_stream(cluster):
    observer = Observer.here()
    group = Counter.options().group(2)
    assert actors.get(group.sum.remote()) == [8.0, 8.0]
    actors.get(group[0].sleep.remote(0))

    def told():
        past = observer.past()
        ends = [e for e in past if isinstance(e, CollectivesEnded) and e.group == group.id]
        printed = [e for e in past if isinstance(e, LogPrinted) and e.text == "good night" and e.class_name]
        return (past, ends) if len(ends) == 2 and printed else None

    past, ends = eventually(told)
    assert {(e.op, e.count, e.nbytes, e.failed) for e in ends} == {("allreduce", 1, 16, 0)}
    opened = [e for e in past if isinstance(e, GroupChanged) and e.id == group.id]
    assert {(e.rank, e.size, e.state) for e in opened} == {(0, 2, "OPEN"), (1, 2, "OPEN")}
    assert any("good night" in line[-1][2] for line in observer.logs(100))


def test_whoever_follows_is_woken_by_what_happens_on_any_node(cluster):
    observer = Observer.here()
    stream = observer.events(timeout=20.0)
    handles = [Counter.options(scheduling_strategy="SPREAD").remote() for _ in range(3)]
    actors.get([handle.pid.remote() for handle in handles])
    seen: set[str] = set()
    deadline = time.monotonic() + 30
    while len(seen) < 2 and time.monotonic() < deadline:
        found = next(stream)
        if found is not None and isinstance(found[1], ActorChanged) and found[1].node is not None:
            seen.add(found[1].node)
    assert len(seen) >= 2


def test_a_programs_own_cluster_is_found_from_outside(cluster):
    with Observers() as observers:
        ((observer, view),) = observers.views()
        assert observer.label.startswith(f"program {os.getpid()} (")
        assert {node.name for node in view.nodes} == {node.name for node in actors.nodes()}


def test_who_is_meant_by_a_word():
    class View:
        def __init__(self, all_):
            self._all = all_

        def actors(self, *, ended):
            return self._all

    one = replace(LIFE, id="actor-1234aa", name="one", state="ALIVE")
    two = replace(LIFE, id="actor-1234bb", name=None, state="ALIVE", class_name="Worker")
    found = [("observer", View([one, two]))]
    assert find("one", found)[1] is one
    assert find("1234b", found)[1] is two
    assert find("Worker", found)[1] is two
    with pytest.raises(LookupError, match="2 actors"):
        find("1234", found)
    with pytest.raises(LookupError, match="did you mean 'Worker'"):
        find("Wroker", found)
