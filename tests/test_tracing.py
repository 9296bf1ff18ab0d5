"""Traces: one over a program, its actors and nested calls, as OpenTelemetry's SDK records it; none where it is off."""

from __future__ import annotations

import json

import pytest
from clusters import succeed

SETUP = """
    from opentelemetry import trace
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    exporter = InMemorySpanExporter()

    def setup():
        provider = TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(exporter))
        trace.set_tracer_provider(provider)

    def plain():
        return [
            {
                "name": span.name, "kind": span.kind.name, "trace": f"{span.context.trace_id:032x}",
                "id": f"{span.context.span_id:016x}",
                "parent": f"{span.parent.span_id:016x}" if span.parent else None,
                "status": span.status.status_code.name,
                "attributes": {key: str(value) for key, value in span.attributes.items()},
                "events": [event.name for event in span.events],
            }
            for span in exporter.get_finished_spans()
        ]
"""

PROGRAM = """
    import json, os, sys, time
    os.environ["PYTHONPATH"] = os.getcwd()
    os.environ["ACTORS_TRACING"] = "recording:setup"
    import actors
    from actors.events import CallEnded
    from actors.observer import Observer

    actors.init("local", local_nodes=2)

    @actors.remote
    class Inner:
        def work(self, x):
            if x < 0:
                raise ValueError("negative")
            return x + 1
        def spans(self):
            import recording
            return recording.plain()

    @actors.remote
    class Outer:
        def __init__(self, inner):
            self.inner = inner
        async def ask(self, x):
            return await self.inner.work.remote(x)
        def spans(self):
            import recording
            return recording.plain()

    @actors.remote
    def twice(x):
        return 2 * x

    inner = Inner.remote()
    outer = Outer.remote(inner)
    actors.get(inner.work.remote(0))  # before anything records: no trace
    import recording
    recording.setup()
    from opentelemetry import trace
    with trace.get_tracer("mine").start_as_current_span("whole"):
        assert actors.get(outer.ask.remote(1)) == 2
        assert actors.get(inner.work.map([1, 2])) == [2, 3]
        assert actors.get(twice.remote(4)) == 8
        try:
            actors.get(inner.work.remote(-1))
        except ValueError:
            pass
    found = []
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        found = recording.plain() + actors.get(inner.spans.remote()) + actors.get(outer.spans.remote())
        if sum(span["name"] == "Inner.work" and span["kind"] == "SERVER" for span in found) >= 4:
            break
        time.sleep(0.05)
    calls = []
    while not any(call.trace for call in calls) and time.monotonic() < deadline:
        calls = [e for e in Observer.here().past() if isinstance(e, CallEnded) and e.method == "work"]
    print("spans", json.dumps(found))
    print("traces", json.dumps([call.trace for call in calls]))
"""


def test_one_trace_goes_from_the_program_through_actors_to_nested_calls():
    pytest.importorskip("opentelemetry.sdk", reason="opentelemetry-sdk is not installed")
    lines = succeed(PROGRAM, beside={"recording.py": SETUP})
    said = {line.partition(" ")[0]: line.partition(" ")[2] for line in lines}
    spans = json.loads(said["spans"])
    (whole,) = [span for span in spans if span["name"] == "whole"]
    traced = [span for span in spans if span["trace"] == whole["trace"]]
    by_id = {span["id"]: span for span in traced}

    def ancestry(span):
        names = [f"{span['kind']} {span['name']}"]
        while span["parent"]:
            span = by_id[span["parent"]]
            names.append(f"{span['kind']} {span['name']}")
        return names

    served = [span for span in traced if (span["name"], span["kind"]) == ("Inner.work", "SERVER")]
    assert len(served) == 4, "the call before there was a trace is in none"
    chains = {tuple(ancestry(span)) for span in served}
    assert (
        "SERVER Inner.work", "CLIENT Inner.work", "SERVER Outer.ask", "CLIENT Outer.ask", "INTERNAL whole",
    ) in chains  # fmt: skip
    assert ("SERVER Inner.work", "INTERNAL whole") in chains, "calls of a batch hang on what made it"
    (failed,) = [span for span in served if span["status"] == "ERROR"]
    assert failed["events"] == ["exception"]
    assert by_id[failed["parent"]]["status"] == "ERROR"
    attributes = failed["attributes"]
    assert (attributes["rpc.service"], attributes["rpc.method"]) == ("Inner", "work")
    assert attributes.keys() >= {"rpc.system", "actors.actor.id", "actors.node", "process.pid"}
    assert any(span["name"] == "task.twice" and span["kind"] == "CLIENT" for span in traced)
    events = [trace for trace in json.loads(said["traces"]) if trace]
    assert {trace.partition("-")[0] for trace in events} == {whole["trace"]}, "events say which trace they are of"


def test_without_a_recorder_no_call_carries_anything_and_nothing_is_loaded():
    succeed("""
        import sys
        import actors
        from actors import tracing

        actors.init("local")

        @actors.remote
        class Actor:
            def loaded(self):
                return [name for name in sys.modules if name.startswith("opentelemetry")]
            def parent(self):
                from actors import runtime
                return runtime.running().traceparent

        actor = Actor.remote()
        assert actors.get(actor.loaded.remote()) == []
        assert actors.get(actor.parent.remote()) == ""
        assert tracing.passed_on() == ""
    """)


def test_a_setup_that_fails_is_told_and_the_call_runs(tmp_path):
    pytest.importorskip("opentelemetry.sdk", reason="opentelemetry-sdk is not installed")
    lines = succeed(
        """
        import os
        os.environ["ACTORS_TRACING"] = "nowhere:setup"
        import recording
        recording.setup()
        import actors
        actors.init("local")

        @actors.remote
        class Actor:
            def two(self):
                return 2

        print("got", actors.get(Actor.remote().two.remote()))
        """,
        beside={"recording.py": SETUP},
    )
    assert "got 2" in lines
