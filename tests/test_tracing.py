"""Traces: one over a program, its actors and nested calls, as OpenTelemetry's SDK records it; none where it is off."""

from __future__ import annotations

import json

import pytest
from clusters import succeed

SETUP = """
    from opentelemetry import trace
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    exporter = InMemorySpanExporter()
    provider = TracerProvider()

    def setup():
        provider.add_span_processor(SimpleSpanProcessor(exporter))
        trace.set_tracer_provider(provider)

    def in_batches():
        provider.add_span_processor(BatchSpanProcessor(exporter))
        trace.set_tracer_provider(provider)

    def plain():
        assert provider.force_flush()
        return [
            {
                "name": span.name, "kind": span.kind.name, "trace": f"{span.context.trace_id:032x}",
                "id": f"{span.context.span_id:016x}",
                "parent": f"{span.parent.span_id:016x}" if span.parent else None,
                "status": span.status.status_code.name,
                "type": type(span).__name__, "resource": dict(span.resource.attributes)["telemetry.sdk.name"],
                "attributes": {key: str(value) for key, value in span.attributes.items()},
                "events": [event.name for event in span.events],
            }
            for span in exporter.get_finished_spans()
        ]
"""

PROGRAM = """
    import json, os, sys, time
    os.environ["PYTHONPATH"] = os.getcwd()
    os.environ["ACTORS_TRACING"] = "recording:" + HOW
    import actors
    from actors.events import CallEnded
    from actors.observer import Observer

    actors.init("local", local_nodes=2)

    @actors.remote
    class Inner:
        def work(self, x):
            if x < 0:
                raise ValueError("negative")
            trace = sys.modules.get("opentelemetry.trace")
            if x == 1 and trace is not None:  # the span of this call is the method's own to write to
                trace.get_current_span().set_attribute("of.the.method", "noted")
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
    class Broken:
        def __init__(self):
            raise RuntimeError("it is broken")
        def two(self):
            return 2

    @actors.remote
    def twice(x):
        return 2 * x

    inner = Inner.remote()
    outer = Outer.remote(inner)
    actors.get(inner.work.remote(0))  # before anything records: no trace
    import recording
    getattr(recording, HOW)()
    from opentelemetry import trace
    with trace.get_tracer("mine").start_as_current_span("whole"):
        assert actors.get(outer.ask.remote(1)) == 2
        assert actors.get(inner.work.map([1, 2])) == [2, 3]
        assert actors.get(twice.remote(4)) == 8
        made = Outer.remote(inner)
        assert actors.get(made.ask.remote(6)) == 7
        broken = Broken.remote()
        kept = Inner.options(lifetime="detached", name="kept").remote()
        for wrong in (lambda: inner.work.remote(-1), broken.two.remote, lambda: inner.work.map([-2, 3])):
            try:
                actors.get(wrong())
            except (ValueError, actors.exceptions.ActorDiedError):
                pass
    found = []
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        them = (inner, outer, made, kept)
        found = recording.plain() + sum(actors.get([each.spans.remote() for each in them]), [])
        works = sum(span["name"] == "Inner.work" and span["kind"] == "SERVER" for span in found)
        makings = sum(span["name"].endswith("__init__") for span in found)
        ids = {span["id"] for span in found}
        if works >= 7 and makings >= 5 and all(span["parent"] in {None, *ids} for span in found):
            break
        time.sleep(0.05)
    calls = []
    while not any(call.trace for call in calls) and time.monotonic() < deadline:
        calls = [e for e in Observer.here().past() if isinstance(e, CallEnded) and e.method == "work"]
    print("spans", json.dumps(found))
    print("traces", json.dumps([call.trace for call in calls]))
"""


@pytest.mark.parametrize("how", ["setup", pytest.param("in_batches", marks=pytest.mark.slow)])
def test_one_trace_goes_from_the_program_through_actors_to_nested_calls(how):
    pytest.importorskip("opentelemetry.sdk", reason="opentelemetry-sdk is not installed")
    lines = succeed(PROGRAM.replace("HOW", repr(how)), beside={"recording.py": SETUP})
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
    assert len(served) == 7, "the call before there was a trace is in none"
    chains = {tuple(ancestry(span)) for span in served}
    assert (
        "SERVER Inner.work", "CLIENT Inner.work", "SERVER Outer.ask", "CLIENT Outer.ask", "INTERNAL whole",
    ) in chains  # fmt: skip
    batches = {id: span for id, span in by_id.items() if "actors.calls" in span["attributes"]}
    assert sorted((span["attributes"]["actors.calls"], span["status"]) for span in batches.values()) == [
        ("2", "ERROR"), ("2", "UNSET"),
    ]  # fmt: skip
    for id, batch in batches.items():
        assert ancestry(batch) == ["CLIENT Inner.work", "INTERNAL whole"]
        parts = [span for span in served if span["parent"] == id]
        assert len(parts) == 2
        assert ("ERROR" in {part["status"] for part in parts}) == (batch["status"] == "ERROR")
    assert [span["attributes"].get("of.the.method") for span in served].count("noted") == 2
    made = [span for span in traced if span["name"].endswith("__init__")]
    assert sorted((span["kind"], span["name"], span["status"]) for span in made) == [
        ("CLIENT", "Broken.__init__", "ERROR"), ("CLIENT", "Inner.__init__", "UNSET"),
        ("CLIENT", "Outer.__init__", "UNSET"),
        ("SERVER", "Inner.__init__", "UNSET"), ("SERVER", "Outer.__init__", "UNSET"),
    ]  # fmt: skip
    assert {tuple(ancestry(span)[1:]) for span in made if span["kind"] == "SERVER"} == {
        ("CLIENT Inner.__init__", "INTERNAL whole"), ("CLIENT Outer.__init__", "INTERNAL whole"),
    }  # fmt: skip
    assert {span["resource"] for span in traced} == {"opentelemetry"}
    if how == "in_batches":
        assert "LateSpan" in {span["type"] for span in traced}, "spans are notes until they are exported"
    (failed, _) = sorted(
        (span for span in served if span["status"] == "ERROR"), key=lambda span: span["parent"] in batches
    )
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
