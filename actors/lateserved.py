"""Late parts of traces: a call's part at its actor, of which nothing is made while its caller waits.

What the method calls in turn, and what it asks OpenTelemetry for, find the call's span nevertheless: it is made then.
"""

# ruff: noqa: SLF001 - where OpenTelemetry keeps its contexts is known to itself

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from opentelemetry import context as contexts
from opentelemetry.context.contextvars_context import ContextVarsRuntimeContext
from opentelemetry.trace import Status, StatusCode, set_span_in_context

from actors.messages import ROOT, TRACEPARENT
from actors.runtime import current

if TYPE_CHECKING:
    from contextvars import ContextVar

    from opentelemetry.context import Context

    from actors.job import Job
    from actors.latespan import LateSpan, LateSpans

_making = threading.Lock()


class LateServed:
    """A call that runs here as part of a trace, of which nothing is made until it has been answered, or somebody looks.

    Args:
        maker: what makes spans here.
        job: the call.

    Attributes:
        here: the context of OpenTelemetry's that it began in. While that is the current one, its own is shown.
    """

    __slots__ = ("_context", "_job", "_maker", "_span", "here")

    def __init__(self, maker: LateSpans, job: Job) -> None:
        self._span: LateSpan | None = None  # until somebody looks, as the next
        self._context: Context | None = None
        self._maker = maker
        self._job: Job | None = job
        self.here = maker.here.get()

    @property
    def span(self) -> LateSpan:
        """Its span."""
        if self._span is None:
            with _making:
                if self._span is None:
                    self._span = self._made()
        return self._span

    def _made(self) -> LateSpan:
        job = self._job
        assert job is not None
        assert job.actor is not None
        facts = job.actor.spec, job.method, job.actor.node, job.started - job.arrived
        began = int(job.started * 1e9)
        if job.came == ROOT:
            roots = job.trace if type(job.trace) is tuple else job.roots  # of one that was answered
            return self._maker.of_call(roots, 1, began, self._maker.describe_served, facts)
        came = job.came if TRACEPARENT.fullmatch(job.came) is not None else ""  # from whoever wrote it
        span = self._maker.part(came, began, self._maker.describe_served, facts)
        assert span is not None
        return span

    @property
    def traceparent(self) -> str:
        """For the calls that it makes in turn."""
        return self.span.traceparent

    @property
    def context(self) -> Context:
        """The one that its code runs in."""
        if self._context is None:
            self._context = set_span_in_context(self.span, self.here)
        return self._context

    def failed(self, error: BaseException) -> None:
        """Its method has raised."""
        self.span.record_exception(error)
        self.span.set_status(Status(StatusCode.ERROR, f"{type(error).__name__}: {error}"))

    def end(self) -> None:
        """It is over."""
        self.span.end()
        self._job = None  # which has this


def context_of_calls() -> ContextVar[Context] | None:
    """Has OpenTelemetry find the span of the call that runs without being told of it; returns where it keeps contexts.

    Or None, where that is a way of its own. What a method has attached itself goes before.
    """
    kept = contexts._RUNTIME_CONTEXT
    if type(kept) is not ContextVarsRuntimeContext:
        return None
    known: ContextVar[Context] = kept._current_context

    def get_current() -> Context:
        here = known.get()
        running = current.get()
        if running is None or (served := running.traced) is None or served.here is not here:
            return here
        context: Context = served.context
        return context

    kept.get_current = get_current  # type: ignore[method-assign]
    return known
