"""Traces: one trace of OpenTelemetry's over a program, its actors and the calls between them; nothing where it is not.

What travels with a call is W3C's ``traceparent``. Of OpenTelemetry this needs the API alone: what records, and where
to, is the program's own affair; that the SDK's spans need not be made at once is known by `actors.latespan`.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from importlib import import_module
from typing import TYPE_CHECKING, Any

from actors import runtime
from actors.messages import CONSTRUCT, ROOT, TRACEPARENT
from actors.version import __version__

if TYPE_CHECKING:
    from collections.abc import Callable

    from actors.job import Job
    from actors.latespan import LateSpan, LateSpans
    from actors.opencall import OpenCall
    from actors.runtime import Running, Traced
    from actors.spec import ActorSpec, Construction

log = logging.getLogger(__name__)

SETUP = "ACTORS_TRACING"
"""Environment variable: ``module:function``, which is called once in each process of an actor that is traced."""

_ready: bool | None = None  # whether OpenTelemetry is here, once that was looked at


class _Source:
    """What makes spans, of one provider of theirs."""

    def __init__(self, api: Any, provider: Any) -> None:
        self.provider = provider
        self.api, self.context = api, import_module("opentelemetry.context")
        self._tracer = provider.get_tracer("actors", __version__)
        self.late_served: Callable[[LateSpans, Job], Traced]
        self.late = self._late_spans()
        self._names = vars(api)

    def _late_spans(self) -> LateSpans | None:
        if "opentelemetry.sdk.trace" not in sys.modules:
            return None
        try:
            from actors.lateserved import LateServed, context_of_calls
            from actors.latespan import LateSpans

            here = context_of_calls()
            late = LateSpans.of(self._tracer, _server, here) if here is not None else None
            self.late_served = LateServed
            return late
        except (ImportError, AttributeError):  # an SDK that is made in another way
            return None

    def is_in_use(self) -> bool:
        """Whether its provider is the program's."""
        # The first is what the second returns, in a fifth of the time.
        return self._names.get("_TRACER_PROVIDER") is self.provider or self.api.get_tracer_provider() is self.provider

    def part(self, describe: Callable[..., Any], *facts: Any) -> tuple[Any, str]:
        """Returns a span that has begun, a part of what the code that runs here is part of, and its ``traceparent``.

        Args:
            describe: returns its name, its kind and its attributes.
            facts: what that is given.
        """
        if self.late is not None and (late := self.late.start(describe, facts)) is not None:
            return late, late.traceparent
        return self._span(None, *describe(*facts))

    def serve(self, job: Job) -> Traced | None:
        """A call begins to run; returns its part of the trace that it came with, None where it came with none."""
        if self.late is not None and self.late.serves(job.came):
            return self.late_served(self.late, job)
        return Served(self, job) if TRACEPARENT.fullmatch(job.traceparent) is not None else None

    def served(self, came: str, name: str, kind: Any, attributes: dict[str, Any]) -> tuple[Any, str]:
        """Returns a span that has begun, a part of what another process has sent along, and its ``traceparent``."""
        api, flags = self.api, int(came[53:], 16)
        parent = api.SpanContext(int(came[3:35], 16), int(came[36:52], 16), True, api.TraceFlags(flags))
        return self._span(api.set_span_in_context(api.NonRecordingSpan(parent)), name, kind, attributes)

    def _span(self, around: Any, name: str, kind: Any, attributes: dict[str, Any]) -> tuple[Any, str]:
        span = self._tracer.start_span(name, context=around, kind=kind, attributes=attributes)
        return span, _parent_of(span)


_known: _Source | None = None
_late: LateSpans | None = None  # its late spans, while calls may begin traces with them


def _source() -> _Source | None:
    """Returns what makes spans where this program has loaded OpenTelemetry, and something that records; else None."""
    global _known  # noqa: PLW0603 - one a process, as its provider is
    known = _known
    if known is not None and known.is_in_use():
        return known
    api = sys.modules.get("opentelemetry.trace")
    if api is None:
        return None
    provider = api.get_tracer_provider()
    if isinstance(provider, api.ProxyTracerProvider):
        return None
    _known = _Source(api, provider)
    return _known


def begin(call: OpenCall, running: Running | None) -> None:
    """A call is made in ``running``: it is part of the trace that this code is part of, or begins one."""
    global _late  # noqa: PLW0603 - one a process, as its provider is
    late = _late
    if late is not None and late.roots():
        call.span, call.trace = (late, time.time_ns()), ROOT
        return
    source = _source()
    if source is None:
        call.trace = running.traceparent if running is not None else ""
        return
    call.span, call.trace = source.part(_client, call.line.label, call.method)
    if source.late is not None and source.late.is_as_known():
        _late = source.late


def sent(call: OpenCall) -> None:
    """A call that begins a trace is on its way: its span is made while its answer is waited for."""
    global _late  # noqa: PLW0603 - as above
    span = call.span
    if type(span) is not tuple:  # the answer was quicker
        return
    late = span[0]
    call.span = _root(call, *span)
    if not late.is_as_known() or _known is None or _known.late is not late or not _known.is_in_use():
        _late = None


def begin_making(class_name: str) -> tuple[Any, str]:
    """An actor is made; returns its span, None where there is none, and the ``traceparent`` for its constructor."""
    source = _source()
    return (None, passed_on()) if source is None else source.part(_client, class_name, "__init__")


def begin_batch(service: str, method: str, count: int) -> tuple[Batch | None, str]:
    """Calls are made together: they are one part of a trace; returns it, None for none, and their ``traceparent``."""
    source = _source()
    if source is None:
        return None, passed_on()
    span, parent = source.part(_client, service, method, count)
    return Batch(span, count), parent


def _client(label: str, method: str, count: int = 0) -> tuple[str, Any, dict[str, Any]]:
    """Describes the part of a call, or of several together, at who makes it."""
    service = label.partition("(")[0]
    more = {"actors.calls": count} if count else {}
    kind = sys.modules["opentelemetry.trace"].SpanKind.CLIENT
    return f"{service}.{method}", kind, {"rpc.system": "actors", "rpc.service": service, "rpc.method": method, **more}


def _server(spec: ActorSpec, called: str, node: str, queued: float) -> tuple[str, Any, dict[str, Any]]:
    """Describes the part of a call at who answers it."""
    method = "__init__" if called == CONSTRUCT else called
    kind = sys.modules["opentelemetry.trace"].SpanKind.SERVER
    return f"{spec.class_name}.{method}", kind, {
        "rpc.system": "actors", "rpc.service": spec.class_name, "rpc.method": method, "actors.actor.id": spec.id,
        "actors.node": node, "process.pid": os.getpid(), "actors.queue_seconds": max(0.0, queued),
    }  # fmt: skip


def passed_on() -> str:
    """Returns the ``traceparent`` for calls that get no span of their own; empty outside of a trace."""
    if _source() is not None:
        return _parent_of(sys.modules["opentelemetry.trace"].get_current_span())
    running = runtime.running()
    return running.traceparent if running is not None else ""


def _parent_of(span: Any) -> str:
    context = span.get_span_context()
    if not context.is_valid:
        return ""
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"


def call_answered(call: OpenCall, error: str | None) -> None:
    """A call that has a span has had its answer."""
    span, call.span = call.span, None
    answered(_root(call, *span) if type(span) is tuple else span, error)


def name_root(call: OpenCall) -> None:
    """The trace that a call begins has the ids that follow from where it was sent, if they know that there."""
    span = call.span
    if type(span) is tuple:
        call.span = span = _root(call, *span)
    if span is not None:
        call.trace = span.traceparent


def _root(call: OpenCall, late: LateSpans, began: int) -> LateSpan:
    roots = call.peer.roots if call.peer is not None else "", call.asked
    return late.of_call(roots, 0, began, _client, (call.line.label, call.method))


def answered(span: Any, error: str | None) -> None:
    """A call that has a span has had its answer."""
    if error is not None:
        api = sys.modules["opentelemetry.trace"]
        span.set_status(api.Status(api.StatusCode.ERROR, error))
    span.end()


class Batch:
    """The span of calls that were made together; to each of them it is its own.

    Args:
        span: that ends with the last of them.
        count: how many they are.
    """

    def __init__(self, span: Any, count: int) -> None:
        self._span = span
        self._open = count

    def set_status(self, status: Any) -> None:
        """One of them did not give its value."""
        self._span.set_status(status)

    def end(self) -> None:
        """One of them has had its answer."""
        self._open -= 1
        if not self._open:
            self._span.end()


class Served:
    """A call that runs here as part of a trace, as the SDK makes spans; see also `actors.latespan.LateServed`."""

    __slots__ = ("_source", "_span", "_token", "context", "traceparent")
    here = None  # see there: its context is attached

    def __init__(self, source: _Source, job: Job) -> None:
        self._source = source
        self._span, self.traceparent = source.served(job.traceparent, *_server(*_facts(job)))
        self.context = source.api.set_span_in_context(self._span)
        self._token = source.context.attach(self.context)

    def failed(self, error: BaseException) -> None:
        """Its method has raised."""
        self._span.record_exception(error)
        api = self._source.api
        self._span.set_status(api.Status(api.StatusCode.ERROR, f"{type(error).__name__}: {error}"))

    def end(self) -> None:
        """It is over. On the thread, or in the task, that it ran in."""
        self._source.context.detach(self._token)
        self._span.end()


def serve(job: Job) -> Traced | None:
    """A call begins to run; returns its part of the trace that it came with, if any."""
    known = _known
    if known is not None and (late := known.late) is not None and job.came == ROOT and _ready and late.is_as_known():
        return known.late_served(late, job)
    if not job.came or not (_ready or _set_up()):
        return None
    source = _source()
    if source is not None:
        return source.serve(job)
    if TRACEPARENT.fullmatch(job.traceparent) is not None:  # what it calls in turn is part of what called it
        job.trace = job.traceparent[3:52]
    return None


def _facts(job: Job) -> tuple[Any, ...]:
    """Returns what `_server` is given."""
    assert job.actor is not None
    return job.actor.spec, job.method, job.actor.node, job.started - job.arrived


def serve_making(job: Job, construction: Construction) -> Traced | None:
    """A constructor begins to run: the first is part of the trace in which its actor was asked for."""
    job.came = "" if construction.spec.life else construction.trace
    return serve(job)


def _set_up() -> bool:
    """Has this process record, once, as its user wants it; returns whether OpenTelemetry is here."""
    global _ready  # noqa: PLW0603 - once a process
    if _ready is None:
        module, _, function = os.environ.get(SETUP, "").partition(":")
        if module:
            try:
                getattr(import_module(module), function)()
            except Exception as error:  # the program's own; its calls run all the same
                log.warning("%s=%s:%s failed, so nothing is recorded here: %r", SETUP, module, function, error)
        try:
            import opentelemetry.trace
        except ImportError:
            _ready = False
        else:
            _ready = bool(opentelemetry.trace)
    return _ready
