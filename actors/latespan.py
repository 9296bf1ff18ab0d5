"""Late spans: a span of OpenTelemetry's SDK that is a note until somebody looks at it.

The SDK takes some 20 µs to make a span, and a call has two. Where spans leave a process in batches, nobody looks at one
before it is exported, on a thread of the exporter's: until then it is a ``traceparent``, two times, and what it will be
described by. Whoever does look (a method that sets an attribute of its span, or an exporter) finds the SDK's own span,
made in that moment. At an actor not even the ids are drawn before the answer is on its way, see `LateServed`.
"""

# ruff: noqa: SLF001 - a span is made of what its tracer keeps, as the SDK itself makes one

from __future__ import annotations

import os
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Any

from opentelemetry import context as contexts
from opentelemetry.context.contextvars_context import ContextVarsRuntimeContext
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SynchronousMultiSpanProcessor, Tracer, _Span
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.trace.sampling import ALWAYS_ON, DEFAULT_ON
from opentelemetry.trace import (
    INVALID_SPAN,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    get_current_span,
    set_span_in_context,
)

from actors.messages import TRACEPARENT
from actors.runtime import current

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextvars import ContextVar

    from opentelemetry.context import Context

    from actors.job import Job

    Description = tuple[str, SpanKind, dict[str, Any]]
    Describe = Callable[..., Description]
    Exit = tuple[deque[ReadableSpan], int, Callable[[ReadableSpan], None]]

METRICS = "OTEL_PYTHON_SDK_INTERNAL_METRICS_ENABLED"
"""Environment variable of the SDK's: it counts its own spans, as only its own way of making them does."""

MOST_ATTRIBUTES = 16  # a span of ours has fewer
DRAWN = 64  # ids that are drawn at once
_UNSAMPLED = frozenset("02468ace")  # last digits of flags that say that nobody records the trace
_making = threading.Lock()
_new = object.__new__  # a call of the class takes longer than all the rest


class _Awaited:
    """An attribute of the SDK's span that a late one has not: it is asked for where it is looked up on the class."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __get__(self, span: LateSpan | None, _: type) -> Any:
        return self if span is None else span.made(self._name)


class LateSpan(_Span):
    """See above. `LateSpans` alone makes it, past the constructor.

    Attributes:
        traceparent: its ids and flags, as they travel.
    """

    __slots__ = ("_end_time", "_note", "_start_time", "traceparent")

    traceparent: str
    _note: tuple[LateSpans, SpanContext | str | None, Describe, tuple[Any, ...]] | None

    def made(self, name: str) -> Any:
        """Returns an attribute that it does not have yet: the SDK's own constructor fills in everything."""
        if name == "_context":
            self._context = self._ids()
            return self._context
        with _making:
            if self._note is not None:
                self._become(*self._note)
                self._note = None
        return vars(self)[name]

    def _ids(self) -> SpanContext:
        parent = self._note[1] if self._note is not None else None
        return _context(self.traceparent, False, parent if isinstance(parent, SpanContext) else None)

    def _become(
        self, maker: LateSpans, parent: SpanContext | str | None, describe: Describe, facts: tuple[Any, ...]
    ) -> None:
        tracer, began, ended = maker.tracer, self._start_time, self._end_time
        name, kind, attributes = describe(*facts)
        around = _context(parent, kind is SpanKind.SERVER) if isinstance(parent, str) else parent
        common: dict[str, Any] = {
            "name": name, "context": self._ids(), "parent": around, "kind": kind, "resource": tracer.resource,
            "instrumentation_info": tracer.instrumentation_info,
            "instrumentation_scope": tracer._instrumentation_scope, "attributes": attributes,
        }  # fmt: skip
        if ended is not None and maker.few_attributes:  # nothing changes it any more
            ReadableSpan.__init__(self, **common, start_time=began, end_time=ended)
            self._lock = threading.Lock()
            return
        super().__init__(
            **common, sampler=tracer.sampler, span_processor=tracer.span_processor, limits=tracer._span_limits
        )
        self._start_time, self._end_time = began, ended

    def end(self, end_time: int | None = None) -> None:
        """See `opentelemetry.trace.Span`."""
        note = self._note
        if note is None or self._end_time is not None:
            super().end(end_time)
            return
        self._end_time = time.time_ns() if end_time is None else end_time
        for waiting, room, emit in note[0].exits:
            if len(waiting) < room:
                waiting.appendleft(self)
            else:
                emit(self)


def _await_all() -> None:
    sample = _Span("", SpanContext(1, 1, False), resource=Resource.get_empty())
    for name in vars(sample).keys() - {"_start_time", "_end_time"}:  # which a note has from the first
        setattr(LateSpan, name, _Awaited(name))


_await_all()  # not by `__getattr__`, for which Python takes longer to look up what is there


class LateSpans:
    """Makes them for one tracer.

    Args:
        tracer: the SDK's, which nobody else has.

    Attributes:
        tracer: likewise.
        here: holds the context of OpenTelemetry's that code runs in; None where something else does.
        few_attributes: whether the attributes of calls are within what the program allows, whatever they are.
        exits: where spans leave that have ended, of each of the program's processors: what waits in it, how many may
            wait until it is to be told of the next, and what tells it.
    """

    def __init__(self, tracer: Tracer) -> None:
        self.tracer = tracer
        limits = tracer._span_limits
        most = limits.max_span_attributes
        self.few_attributes = limits.max_span_attribute_length is None and (most is None or most >= MOST_ATTRIBUTES)
        self.exits: tuple[Exit, ...] = ()
        self._known: object = None  # the processors that were looked at
        self._processor = tracer.span_processor
        self._always = tracer.sampler is ALWAYS_ON
        self.here = _context_of_calls()
        ids = tracer.id_generator
        drawn = type(ids) is RandomIdGenerator
        self._new_trace = _trace_id if drawn else lambda: f"{ids.generate_trace_id():032x}"
        self._new_span = _span_id if drawn else lambda: f"{ids.generate_span_id():016x}"
        random = TraceFlags.RANDOM_TRACE_ID if ids.is_trace_id_random() else 0
        self._first = f"-{TraceFlags.SAMPLED | random:02x}"  # the flags of a trace that begins here

    @classmethod
    def of(cls, tracer: object) -> LateSpans | None:
        """Returns what makes late spans in a tracer's stead; None where only its own are the same to everybody."""
        if (
            not isinstance(tracer, Tracer)
            or not tracer._is_enabled()
            or not any(tracer.sampler is sampler for sampler in (DEFAULT_ON, ALWAYS_ON))
            or os.environ.get(METRICS, "").lower() == "true"
        ):
            return None
        return cls(tracer)

    def start(self, describe: Describe, facts: tuple[Any, ...]) -> LateSpan | None:
        """Returns a span that has begun: a part of what the code that runs here is part of.

        Args:
            describe: returns its name, its kind and its attributes, once they are wanted.
            facts: what that is given.

        Returns:
            It; or None where the tracer is to make it: somebody sees spans as they begin or end, or it is in no sample.
        """
        if self._processor._span_processors is not self._known and not self._look():
            return None
        around: SpanContext | str | None = None
        here = self.here.get() if self.here is not None else None
        if here is None:
            around, came = _around(get_current_span())
        elif (running := current.get()) is not None and (served := running.traced) is not None and served.here is here:
            came = around = served.traceparent
        else:
            around, came = _around(get_current_span(here)) if here else (None, "")
        return self.part(came, around, time.time_ns(), describe, facts)

    def serves(self, came: str) -> bool:
        """Whether a call that comes with this ``traceparent`` can have a late span here."""
        known = self._processor._span_processors is self._known or self._look()
        return known and self.here is not None and (self._always or came[-1] not in _UNSAMPLED)

    def served(self, job: Job, describe: Describe, facts: Callable[[Job], tuple[Any, ...]]) -> LateServed:
        """A call begins to run whose ``traceparent`` it `serves`."""
        return LateServed(self, job, describe, facts)

    def part(
        self, came: str, around: SpanContext | str | None, began: int, describe: Describe, facts: tuple[Any, ...]
    ) -> LateSpan | None:
        """Returns a span that has begun then, of what came with a ``traceparent``; None where that is in no sample."""
        span = _new(LateSpan)
        if not came:
            span.traceparent = f"00-{self._new_trace()}-{self._new_span()}{self._first}"
        elif came[-1] not in _UNSAMPLED:
            span.traceparent = f"{came[:36]}{self._new_span()}{came[52:]}"
        elif self._always:
            span.traceparent = f"{came[:36]}{self._new_span()}-{int(came[53:], 16) | TraceFlags.SAMPLED:02x}"
        else:
            return None
        span._note = (self, around, describe, facts)
        span._start_time, span._end_time = began, None
        return span

    def _look(self) -> bool:
        processor = self._processor
        known: tuple[Any, ...] = getattr(processor, "_span_processors", ())
        kinds = {type(processor), *map(type, known)}
        if kinds != {SynchronousMultiSpanProcessor, BatchSpanProcessor}:
            return False
        self.exits = tuple(map(_exit, known))
        self._known = known
        return True


class LateServed:
    """A call that runs here as part of a trace, of which nothing is made until it is over, or somebody looks.

    Args:
        maker: what makes spans here.
        job: the call.
        describe: returns the name of its span, its kind and its attributes.
        facts: returns what that is given.

    Attributes:
        here: the context of OpenTelemetry's that it began in. While that is the current one, its own is shown.
    """

    __slots__ = ("_context", "_describe", "_facts", "_job", "_maker", "_span", "here")

    def __init__(self, maker: LateSpans, job: Job, describe: Describe, facts: Callable[[Job], tuple[Any, ...]]) -> None:
        self._maker = maker
        self._job: Job | None = job
        self._describe, self._facts = describe, facts
        self._span: LateSpan | None = None
        self._context: Context | None = None
        assert maker.here is not None
        self.here: Context = maker.here.get()

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
        came = job.traceparent if TRACEPARENT.fullmatch(job.traceparent) is not None else ""  # from whoever wrote it
        span = self._maker.part(came, came or None, int(job.started * 1e9), self._describe, self._facts(job))
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


def _context_of_calls() -> ContextVar[Context] | None:
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


def _around(span: Any) -> tuple[SpanContext | str | None, str]:
    """Returns what a span's parts are parts of, and its ``traceparent``; empty where it is none."""
    if type(span) is LateSpan:
        return span.traceparent, span.traceparent
    if span is INVALID_SPAN or not (context := span.get_span_context()).is_valid:
        return None, ""
    return context, f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"


def _exit(processor: Any) -> Exit:
    # Past `on_end`, which looks whether a span is in the sample, as all of ours are; and as long as the processor's
    # thread need not be woken past its `emit` too, which asks the system first whether this is a fork.
    inner = getattr(processor, "_batch_processor", None)
    emit = getattr(inner, "emit", processor.on_end)
    waiting, most = getattr(inner, "_queue", None), getattr(inner, "_max_export_batch_size", 0)
    return (waiting, most - 1, emit) if isinstance(waiting, deque) else (deque(), 0, emit)


_drawn: list[str] = []  # ids of spans, that nobody has yet
os.register_at_fork(after_in_child=_drawn.clear)


# As the SDK's own generator draws them, in less time; that looks for the 0 that comes once in 2**64 times.
def _span_id() -> str:
    try:
        return _drawn.pop()
    except IndexError:
        text = os.urandom(8 * DRAWN).hex()
        _drawn.extend(text[at : at + 16] for at in range(16, len(text), 16))
        return text[:16]


def _trace_id() -> str:
    return _span_id() + _span_id()


def _context(traceparent: str, is_remote: bool, parent: SpanContext | None = None) -> SpanContext:
    trace, span, flags = int(traceparent[3:35], 16), int(traceparent[36:52], 16), int(traceparent[53:], 16)
    return SpanContext(trace, span, is_remote, TraceFlags(flags), parent.trace_state if parent is not None else None)
