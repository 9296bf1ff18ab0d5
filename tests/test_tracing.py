"""Traces: one over a program, its actors and nested calls, as OpenTelemetry's SDK records it; none where it is off."""

from __future__ import annotations

import contextvars
import json
import re
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

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

    def in_batches_of_another_make():
        import opentelemetry.sdk.trace
        del opentelemetry.sdk.trace.SynchronousMultiSpanProcessor  # a name that the SDK keeps for itself
        in_batches()

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


@pytest.mark.parametrize(
    "how",
    [
        "setup",
        pytest.param("in_batches", marks=pytest.mark.slow),
        pytest.param("in_batches_of_another_make", marks=pytest.mark.slow),
    ],
)
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
    late = "LateSpan" in {span["type"] for span in traced}
    assert late == (how == "in_batches"), "spans are notes until they are exported, where the SDK lets them"
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


class Recorded:
    """A provider of the SDK's whose spans leave in batches, and what makes ours for it. A context manager."""

    def __init__(self, **options):
        sdk = pytest.importorskip("opentelemetry.sdk.trace", reason="opentelemetry-sdk is not installed")
        from opentelemetry import trace
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

        from actors import tracing

        self._exporter = InMemorySpanExporter()
        self.provider = sdk.TracerProvider(**options)
        self.provider.add_span_processor(BatchSpanProcessor(self._exporter))
        self.source = tracing._Source(trace, self.provider)

    def call(self, came=""):
        """Records the two parts of a call; returns its traceparents and the spans that were exported."""
        from opentelemetry import context

        from actors import tracing

        token = context.attach(self._around(came))
        try:
            span, parent = self.source.part(tracing._client, "Echo(actor-7)", "echo")
            served = self.source.serve(self.job(parent))
            own = served.traceparent
            served.end()
            span.end()
        finally:
            context.detach(token)
        return parent, own, self.flushed()

    def flushed(self):
        """Returns all spans that have ended."""
        self.provider.force_flush()
        return self._exporter.get_finished_spans()

    @staticmethod
    def _around(came):
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        return TraceContextTextMapPropagator().extract({"traceparent": came})

    @staticmethod
    def job(traceparent):
        job = SimpleNamespace(came=traceparent, traceparent=traceparent, method="echo", trace="", arrived=time.time())
        job.started = job.arrived
        job.actor = SimpleNamespace(node="desk", spec=SimpleNamespace(id="actor-7", class_name="Echo"))
        return job

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.provider.shutdown()


def _told(span):
    told = json.loads(span.to_json())
    assert told["start_time"] <= told["end_time"]
    return {**told, "start_time": "", "end_time": ""}


def test_late_spans_are_exported_as_the_sdks_own():
    with Recorded() as late, Recorded() as plain:
        plain.source.late = None
        own = plain.provider.id_generator
        root, served, exported = late.call()
        trace, ids = int(root[3:35], 16), [int(root[36:52], 16), int(served[36:52], 16)]
        plain.source._tracer.id_generator = SimpleNamespace(
            generate_trace_id=lambda: trace, generate_span_id=iter(ids).__next__,
            is_trace_id_random=own.is_trace_id_random,
        )  # fmt: skip
        told = plain.call()
    assert (root, served) == told[:2]
    assert [type(span).__name__ for span in exported] == ["LateSpan", "LateSpan"]
    assert "LateSpan" not in {type(span).__name__ for span in told[2]}
    assert list(map(_told, exported)) == list(map(_told, told[2]))
    assert exported[0].parent.is_remote
    assert exported[0].parent.span_id == exported[1].context.span_id


def test_a_trace_that_nobody_records_gets_no_spans_unless_all_are_wanted():
    sampling = pytest.importorskip("opentelemetry.sdk.trace.sampling", reason="opentelemetry-sdk is not installed")
    came = f"00-{5:032x}-{6:016x}-00"
    with Recorded() as some, Recorded(sampler=sampling.ALWAYS_ON) as all_:
        parent, own, exported = some.call(came)
        assert exported == ()
        assert {text[:36] for text in (parent, own)} == {came[:36]}
        assert {text[-2:] for text in (parent, own)} == {"00"}
        parent, own, exported = all_.call(came)
        assert len(exported) == 2
        assert {text[-2:] for text in (parent, own)} == {"01"}
        assert {span.context.trace_id for span in exported} == {5}


def test_ids_come_from_the_programs_own_generator():
    ids = pytest.importorskip("opentelemetry.sdk.trace.id_generator", reason="opentelemetry-sdk is not installed")

    class Counting(ids.RandomIdGenerator):
        span = 0

        def generate_trace_id(self):
            return 77

        def generate_span_id(self):
            self.span += 1
            return self.span

    with Recorded(id_generator=Counting()) as recorded:
        parent, own, exported = recorded.call()
    assert (parent[3:52], own[3:52]) == (f"{77:032x}-{1:016x}", f"{77:032x}-{2:016x}")
    assert sorted(span.context.span_id for span in exported) == [1, 2]


def test_a_processor_that_sees_spans_as_they_begin_gets_the_sdks_own():
    sdk = pytest.importorskip("opentelemetry.sdk.trace", reason="opentelemetry-sdk is not installed")
    began = []

    class Watching(sdk.SpanProcessor):
        def on_start(self, span, parent_context=None):
            began.append(span.name)

    with Recorded() as recorded:
        recorded.call()
        recorded.provider.add_span_processor(Watching())
        *_, exported = recorded.call()
    assert began == ["Echo.echo", "Echo.echo"]
    assert sorted(type(span).__name__ == "LateSpan" for span in exported) == [False, False, True, True]


class Served:
    """A job that runs here as part of a trace, whose code is that of a `with` block."""

    def __init__(self, recorded, came):
        self.job = recorded.job(came)
        self._recorded = recorded

    def __enter__(self):
        from actors.runtime import current

        self._token = current.set(self.job)
        self.job.traced = self._recorded.source.serve(self.job)
        return self.job.traced

    def __exit__(self, *_):
        from actors.runtime import current

        self.job.traced.end()
        current.reset(self._token)


def test_what_a_method_opens_hangs_below_its_call_though_its_span_is_late():
    pytest.importorskip("opentelemetry.sdk", reason="opentelemetry-sdk is not installed")
    from opentelemetry import baggage, context, trace

    from actors import tracing

    came = f"00-{5:032x}-{6:016x}-01"
    with Recorded() as recorded:
        outside = context.attach(baggage.set_baggage("of", "the process"))
        try:
            with Served(recorded, came) as served:
                mine = recorded.provider.get_tracer("mine")
                with mine.start_as_current_span("own") as own:
                    inner, _ = recorded.source.part(tracing._client, "Echo", "echo")
                    inner.end()
                    seen = context.get_current()
                assert trace.get_current_span() is served.span, "and again when that is over"
                assert baggage.get_baggage("of") == "the process"
                with ThreadPoolExecutor() as threads:
                    assert threads.submit(trace.get_current_span).result() is trace.INVALID_SPAN
                    copied = contextvars.copy_context()
                    assert threads.submit(copied.run, trace.get_current_span).result() is served.span
                nested, parent = recorded.source.part(tracing._client, "Echo", "echo")
                nested.end()
            assert trace.get_current_span() is trace.INVALID_SPAN
        finally:
            context.detach(outside)
        exported = recorded.flushed()
    assert trace.get_current_span(seen) is own
    by_id = {span.context.span_id: span for span in exported}
    call = by_id[int(served.traceparent[36:52], 16)]
    assert (call.parent.span_id, call.context.trace_id) == (6, 5)
    assert by_id[own.context.span_id].parent.span_id == call.context.span_id
    assert by_id[inner.context.span_id].parent.span_id == own.context.span_id
    assert by_id[int(parent[36:52], 16)].parent.span_id == call.context.span_id


@pytest.mark.slow
def test_a_call_that_goes_again_after_a_death_is_the_same_part_of_its_trace(tmp_path):
    pytest.importorskip("opentelemetry.sdk", reason="opentelemetry-sdk is not installed")
    mark = tmp_path / "came"
    succeed(
        f"""
        import os, time
        import recording
        recording.in_batches()
        import actors
        actors.init("local", num_cpus=2)

        @actors.remote(max_restarts=1, max_task_retries=1)
        class Actor:
            def came(self):
                from actors import runtime
                return runtime.running().came
            def die(self, mark):
                from actors import runtime
                if not os.path.exists(mark):
                    with open(mark, "w") as file:
                        file.write(runtime.running().traceparent)
                    os._exit(3)
                return runtime.running().came

        actor = Actor.remote()
        for _ in range(100):  # the first go to a process that has not been met
            if (came := actors.get(actor.came.remote())) == "+":
                break
            time.sleep(0.05)
        assert came == "+", came
        again = actors.get(actor.die.remote({str(mark)!r}))
        assert again == open({str(mark)!r}).read(), again
        (died,) = [span for span in recording.plain() if span["name"] == "Actor.die"]
        assert again == f"00-{{died['trace']}}-{{died['id']}}-03", died
        """,
        beside={"recording.py": SETUP},
    )


def test_both_ends_of_a_call_that_begins_a_trace_name_it_alike_and_nothing_of_it_travels():
    from actors import tracing
    from actors.job import Job
    from actors.messages import ROOTED, Call, Payload

    with Recorded() as recorded:
        assert recorded.source.late is not None
        recorded.call()  # its processors were looked at
        late, peer = recorded.source.late, SimpleNamespace(roots="process-1 session-2")
        assert late.roots()
        call = SimpleNamespace(peer=peer, asked=7, line=SimpleNamespace(label="Echo(actor-7)"), method="echo")
        visitor = SimpleNamespace(process="process-1", session="session-2")
        job = Job(Call(7, "actor-7", "echo", Payload(b""), ROOTED), visitor, "")
        job.actor, job.started = recorded.job("").actor, time.time()
        served = recorded.source.serve(job)
        nested = served.traceparent
        served.end()
        tracing._root(call, late, time.time_ns()).end()
        served, made = recorded.flushed()[-2:]
    assert served.context.trace_id == made.context.trace_id == int(nested[3:35], 16)
    assert (served.parent.span_id, served.parent.is_remote) == (made.context.span_id, True)
    assert made.parent is None
    assert served.context.span_id == int(nested[36:52], 16) != made.context.span_id
    assert job.traceparent == f"00-{made.context.trace_id:032x}-{made.context.span_id:016x}-03"


def test_who_does_not_know_what_a_trace_follows_from_is_sent_it():
    from actors.messages import ROOT, TRACEPARENT
    from actors.opencall import OpenCall
    from actors.traceids import of_call

    with Recorded() as recorded:
        recorded.call()

        def begun(roots):
            line = SimpleNamespace(label="Echo(actor-7)", hold=None, take_back=lambda call: None)
            call = OpenCall(line, "echo", SimpleNamespace(nbytes=0), [])
            call.span, call.trace = (recorded.source.late, time.time_ns()), ROOT
            call.peer = SimpleNamespace(roots=roots)
            return call

        older, newer = begun(""), begun("process-1 session-2")
        assert TRACEPARENT.fullmatch(older.terms().trace)
        assert older.terms().trace == older.span.traceparent
        assert newer.terms().trace == ROOT
        newer.asked = 7
        newer._again()
        assert newer.terms().trace == newer.span.traceparent == of_call("process-1 session-2", 7)[0]
        newer.span.end()
        assert [span.name for span in recorded.flushed()[2:]] == ["Echo.echo"]


def test_a_traceparent_that_is_none_begins_a_trace_of_its_own():
    with Recorded() as recorded:
        with Served(recorded, "00-rubbish") as served:
            pass
        (span,) = recorded.flushed()
    assert span.parent is None
    assert f"{span.context.trace_id:032x}" == served.traceparent[3:35]


def test_a_late_call_that_raised_says_so_and_lets_go_of_its_job():
    with Recorded() as recorded:
        with Served(recorded, f"00-{5:032x}-{6:016x}-01") as served:
            served.failed(ValueError("negative"))
        (span,) = recorded.flushed()
        assert served._job is None, "which has it, and its arguments"
    assert (span.status.status_code.name, span.status.description) == ("ERROR", "ValueError: negative")
    assert [event.name for event in span.events] == ["exception"]


def test_ids_are_drawn_anew_in_a_child_and_never_twice():
    from actors import traceids

    spans = [traceids.new_span() for _ in range(200)]
    traces = [traceids.new_trace() for _ in range(200)]
    assert len({*spans}) == len({trace[:35] for trace in traces}) == 200
    assert all(re.fullmatch("[0-9a-f]{16}", span) for span in spans)
    assert all(re.fullmatch("00-[0-9a-f]{32}-[0-9a-f]{16}", trace) for trace in traces)
    traceids._forked()
    assert not traceids._spans
    assert not traceids._traces
