"""Traces: one trace of OpenTelemetry's over a program, its actors and the calls between them; nothing where it is not.

What travels with a call is W3C's ``traceparent``. The one module that knows OpenTelemetry, of which it needs the API
alone: what records, and where to, is the program's own affair.
"""

from __future__ import annotations

import logging
import os
import re
import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

from actors import runtime
from actors.version import __version__

if TYPE_CHECKING:
    from actors.job import Job
    from actors.opencall import OpenCall

log = logging.getLogger(__name__)

SETUP = "ACTORS_TRACING"
"""Environment variable: ``module:function``, which is called once in each process of an actor that is traced."""

_PARENT = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})")
_ready = False


def _api() -> Any:
    """Returns OpenTelemetry's API where this program has loaded it, and something that records; else None."""
    api = sys.modules.get("opentelemetry.trace")
    if api is None or isinstance(api.get_tracer_provider(), api.ProxyTracerProvider):
        return None
    return api


def begin(call: OpenCall) -> None:
    """A call is made: it is part of the trace that this code is part of, or begins one."""
    api = _api()
    if api is None:
        call.trace = passed_on()
        return
    service = call.line.label.partition("(")[0]
    span = api.get_tracer("actors", __version__).start_span(
        f"{service}.{call.method}",
        kind=api.SpanKind.CLIENT,
        attributes={"rpc.system": "actors", "rpc.service": service, "rpc.method": call.method},
    )
    call.span = span
    call.trace = _parent_of(span)


def passed_on() -> str:
    """Returns the ``traceparent`` for calls that get no span of their own; empty outside of a trace."""
    api = _api()
    if api is not None:
        return _parent_of(api.get_current_span())
    running = runtime.running()
    return running.traceparent if running is not None else ""


def _parent_of(span: Any) -> str:
    context = span.get_span_context()
    if not context.is_valid:
        return ""
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{int(context.trace_flags):02x}"


def answered(span: Any, error: str | None) -> None:
    """A call that has a span has had its answer."""
    if error is not None:
        api = sys.modules["opentelemetry.trace"]
        span.set_status(api.Status(api.StatusCode.ERROR, error))
    span.end()


class Served:
    """A call that runs here as part of a trace."""

    def __init__(self, job: Job, found: re.Match[str]) -> None:
        from opentelemetry import context, trace

        parent = trace.SpanContext(
            int(found[1], 16), int(found[2], 16), is_remote=True, trace_flags=trace.TraceFlags(int(found[3], 16))
        )
        actor = job.actor
        assert actor is not None
        around = trace.set_span_in_context(trace.NonRecordingSpan(parent))
        self._trace, self._context = trace, context
        self._span = trace.get_tracer("actors", __version__).start_span(
            f"{actor.spec.class_name}.{job.method}",
            context=around,
            kind=trace.SpanKind.SERVER,
            attributes={
                "rpc.system": "actors", "rpc.service": actor.spec.class_name, "rpc.method": job.method,
                "actors.actor.id": actor.spec.id, "actors.node": actor.node, "process.pid": os.getpid(),
                "actors.queue_seconds": max(0.0, job.started - job.arrived),
            },
        )  # fmt: skip
        self._token = context.attach(trace.set_span_in_context(self._span, around))
        own = self._span.get_span_context()
        job.trace = f"{own.trace_id:032x}-{own.span_id:016x}"

    def failed(self, error: BaseException) -> None:
        """Its method has raised."""
        self._span.record_exception(error)
        self._span.set_status(self._trace.Status(self._trace.StatusCode.ERROR, f"{type(error).__name__}: {error}"))

    def end(self) -> None:
        """It is over. On the thread, or in the task, that it ran in."""
        self._context.detach(self._token)
        self._span.end()


def serve(job: Job) -> Served | None:
    """A call begins to run; returns its part of the trace that it came with, if any."""
    if not job.traceparent:
        return None
    found = _PARENT.fullmatch(job.traceparent)
    if found is None or not _set_up():
        return None
    return Served(job, found)


def _set_up() -> bool:
    """Has this process record, once, as its user wants it; returns whether OpenTelemetry is here."""
    global _ready  # noqa: PLW0603 - once a process
    if not _ready:
        _ready = True
        module, _, function = os.environ.get(SETUP, "").partition(":")
        if module:
            try:
                getattr(import_module(module), function)()
            except Exception as error:  # the program's own; its calls run all the same
                log.warning("%s=%s:%s failed, so nothing is recorded here: %r", SETUP, module, function, error)
    try:
        import opentelemetry.trace
    except ImportError:
        return False
    return bool(opentelemetry.trace)
