"""What is told to other tools: a trace that Perfetto opens, logs as JSON."""

from __future__ import annotations

import json
import logging
import time
from itertools import pairwise

import pytest
from clusters import eventually, succeed

import actors
from actors.events.event import CallEnded
from actors.events.view import ClusterView
from actors.jsonlog import JsonFormatter
from actors.perfetto import traced

# -- Chrome's trace format -------------------------------------------------------------------------------------------


def check_trace(events):
    """Holds a trace to what Chrome's format says of the kinds of events that are used."""
    open_flows: dict[int, float] = {}
    slices: dict[tuple[int, int], list[tuple[float, float]]] = {}
    for event in events:
        assert isinstance(event["pid"], int)
        assert isinstance(event["tid"], int)
        assert isinstance(event["ts"], int | float)
        assert event["ts"] >= 0
        match event["ph"]:
            case "M":
                assert event["name"] == "process_name"
                assert isinstance(event["args"]["name"], str)
            case "X":
                assert event["name"]
                assert event["cat"]
                assert event["dur"] >= 0
                slices.setdefault((event["pid"], event["tid"]), []).append((event["ts"], event["ts"] + event["dur"]))
            case "s":
                assert event["id"] not in open_flows
                open_flows[event["id"]] = event["ts"]
            case "f":
                assert event["bp"] == "e"
                assert open_flows.pop(event["id"]) <= event["ts"]
            case other:
                raise AssertionError(f"a kind of event that was not meant: {other}")
    assert open_flows == {}, "an arrow without a head"
    named = {event["pid"] for event in events if event["ph"] == "M"}
    assert {event["pid"] for event in events} == named
    for lane in slices.values():
        lane.sort()
        for (_, end), (begin, _) in pairwise(lane):
            assert end <= begin + 1, "two calls over each other in one lane"


def call(at, ran, queued=0.0, actor="a", process="w1", caller="d", node="here"):
    return CallEnded(at, actor, "C", "m", caller, queued, ran, "ok", node, process, 1)


def test_calls_at_the_same_time_have_lanes_of_their_own_and_clocks_are_brought_in_line():
    calls = [
        call(10.0, 5.0),
        call(9.0, 3.0),
        call(20.0, 1.0),
        call(111.0, 2.0, 1.0, process="w2", caller="w1", node="b"),
    ]
    events = traced(calls, ClusterView(()), {"here": 0.0, "b": 100.0})
    check_trace(events)
    ran = [event for event in events if event["ph"] == "X" and event["cat"] == "call"]
    assert len({(event["pid"], event["tid"]) for event in ran}) == 3
    (there,) = [event for event in ran if event["ts"] == 9.0e6]
    arrows = [event for event in events if event["ph"] == "s" and event["ts"] == 8.0e6]
    assert arrows, "the call that another one made begins 1 s before it runs, at who made it"
    assert there["args"]["queued_ms"] == 1000.0


def test_a_program_writes_its_own_trace(tmp_path):
    @actors.remote
    class Adder:
        def add(self, x):
            return x + 1

    @actors.remote
    class Asker:
        def ask(self, adder):
            return actors.get(adder.add.remote(1))

    with actors.init("local"):
        adder, asker = Adder.remote(), Asker.remote()
        actors.get([asker.ask.remote(adder) for _ in range(3)])
        path = tmp_path / "trace.json"

        def written():
            events = actors.timeline(path)
            names = [event["name"] for event in events]
            return events if names.count("Adder.add") == names.count("Asker.ask") == 3 else None

        events = eventually(written)
        assert json.loads(path.read_text())["traceEvents"] == events
        check_trace(events)
        asked = next(event for event in events if event["name"] == "Asker.ask")
        arrows = [event for event in events if event["ph"] == "s" and event["pid"] == asked["pid"]]
        assert len(arrows) == 3, "each nested call is an arrow from the call that made it"
        with pytest.raises(OSError, match="nowhere"):
            actors.timeline(tmp_path / "nowhere" / "trace.json")
    with pytest.raises(actors.exceptions.NoClusterError):
        actors.timeline(path)


# -- logs ------------------------------------------------------------------------------------------------------------


def test_a_record_is_one_line_of_json_with_its_exception_and_what_was_given():
    try:
        raise ValueError("no")
    except ValueError as error:
        info = (type(error), error, error.__traceback__)
    record = logging.LogRecord("mine", logging.ERROR, "f.py", 1, "it is %s\nso", ("bad",), info)
    record.step, record.thing = 7, object()
    line = JsonFormatter().format(record)
    assert "\n" not in line
    said = json.loads(line)
    assert (said["level"], said["logger"], said["message"], said["step"]) == ("ERROR", "mine", "it is bad\nso", 7)
    assert said["exception"].endswith("ValueError: no")
    assert said["thing"].startswith("<object")
    assert abs(time.time() - record.created) < 60


def test_actors_log_as_json_where_that_is_asked_for_and_say_who_they_are():
    lines = succeed("""
        import logging, os
        os.environ["ACTORS_LOG"] = "json"
        import actors
        actors.init("local", log_to_driver=False)

        @actors.remote
        class Talker:
            def talk(self):
                logging.getLogger("talk").info("hello", extra={"step": 3})

        talker = Talker.options(name="talker").remote()
        actors.get(talker.talk.remote())
        from actors.observer import Observer
        found = []
        while not found:
            found = [line[-1][2] for line in Observer.here().logs(100) if '"hello"' in line[-1][2]]
        print("said", found[0])
    """)
    said = json.loads(next(line for line in lines if line.startswith("said "))[5:])
    assert (said["message"], said["class"], said["method"], said["step"]) == ("hello", "Talker", "talk", 3)
    assert said["actor"].startswith("actor-")
    assert said["node"]
