"""Late spans: a span of OpenTelemetry's SDK that is a note until somebody looks at it.

The SDK takes some 20 µs to make a span, and a call has two. Where spans leave a process in batches, nobody looks at one
before it is exported, on a thread of the exporter's: until then it is a ``traceparent``, two times, and what it will be
described by. Whoever does look (a method that sets an attribute of its span, or an exporter) finds the SDK's own span,
made in that moment. At an actor not even the ids are drawn before the answer is on its way, see `actors.lateserved`.
"""

# ruff: noqa: SLF001 - a span is made of what its tracer keeps, as the SDK itself makes one

from __future__ import annotations

import os
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Any

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SynchronousMultiSpanProcessor, Tracer, _Span
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.trace.sampling import ALWAYS_ON, DEFAULT_ON
from opentelemetry.trace import INVALID_SPAN, SpanContext, SpanKind, TraceFlags, get_current_span

from actors import traceids
from actors.runtime import current

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextvars import ContextVar

    from opentelemetry.context import Context

    Description = tuple[str, SpanKind, dict[str, Any]]
    Describe = Callable[..., Description]
    Roots = tuple[str, int]
    Parent = SpanContext | str | Roots | None
    Exit = tuple[deque[ReadableSpan], int, Callable[[ReadableSpan], None]]

METRICS = "OTEL_PYTHON_SDK_INTERNAL_METRICS_ENABLED"
"""Environment variable of the SDK's: it counts its own spans, as only its own way of making them does."""

MOST_ATTRIBUTES = 16  # a span of ours has fewer
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
    """See above. `LateSpans` alone makes it, past the constructor."""

    __slots__ = ("_end_time", "_note", "_start_time", "_traceparent")

    _traceparent: str | tuple[Roots, int]  # or what it follows from, and its place in that
    _note: tuple[LateSpans, Parent, Describe, tuple[Any, ...]] | None

    @property
    def traceparent(self) -> str:
        """Its ids and flags, as they travel."""
        known = self._traceparent
        if not isinstance(known, str):
            roots, place = known
            known = self._traceparent = traceids.of_call(*roots)[place]
        return known

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

    def _become(self, maker: LateSpans, parent: Parent, describe: Describe, facts: tuple[Any, ...]) -> None:
        tracer, began, ended = maker.tracer, self._start_time, self._end_time
        name, kind, attributes = describe(*facts)
        if type(parent) is tuple:
            parent = traceids.of_call(*parent)[0]
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
        describe_served: describes the span of a call at its actor, see `start`.
        here: holds the context of OpenTelemetry's that code runs in.

    Attributes:
        tracer: likewise.
        describe_served: likewise.
        here: likewise.
        few_attributes: whether the attributes of calls are within what the program allows, whatever they are.
        exits: where spans leave that have ended, of each of the program's processors: what waits in it, how many may
            wait until it is to be told of the next, and what tells it.
    """

    def __init__(self, tracer: Tracer, describe_served: Describe, here: ContextVar[Context]) -> None:
        self.describe_served = describe_served
        self.tracer = tracer
        limits = tracer._span_limits
        most = limits.max_span_attributes
        self.few_attributes = limits.max_span_attribute_length is None and (most is None or most >= MOST_ATTRIBUTES)
        self.exits: tuple[Exit, ...] = ()
        self._known: object = None  # the processors that were looked at
        self._processor = tracer.span_processor
        self._always = tracer.sampler is ALWAYS_ON
        self.here = here
        ids = tracer.id_generator
        if type(ids) is RandomIdGenerator:
            self._new_trace, self._new_span = traceids.new_trace, traceids.new_span
        else:
            self._new_span = lambda: f"{ids.generate_span_id():016x}"
            self._new_trace = lambda: f"00-{ids.generate_trace_id():032x}-{ids.generate_span_id():016x}"
        random = TraceFlags.RANDOM_TRACE_ID if ids.is_trace_id_random() else 0
        self._first = f"-{TraceFlags.SAMPLED | random:02x}"  # the flags of a trace that begins here
        self._roots = type(ids) is RandomIdGenerator and self._first == traceids.ROOT_FLAGS

    @classmethod
    def of(cls, tracer: object, describe_served: Describe, here: ContextVar[Context]) -> LateSpans | None:
        """Returns what makes late spans in a tracer's stead; None where only its own are the same to everybody."""
        if (
            not isinstance(tracer, Tracer)
            or not tracer._is_enabled()
            or not any(tracer.sampler is sampler for sampler in (DEFAULT_ON, ALWAYS_ON))
            or os.environ.get(METRICS, "").lower() == "true"
        ):
            return None
        return cls(tracer, describe_served, here)

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
        here, running = self.here.get(), current.get()
        if running is not None and (served := running.traced) is not None and served.here is here:
            return self.part(served.traceparent, time.time_ns(), describe, facts)
        if not here:  # of nothing
            return self.part("", time.time_ns(), describe, facts)
        around = get_current_span(here)
        if type(around) is LateSpan:
            return self.part(around.traceparent, time.time_ns(), describe, facts)
        if around is INVALID_SPAN or not (context := around.get_span_context()).is_valid:
            return self.part("", time.time_ns(), describe, facts)
        came = f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"
        return self.part(came, time.time_ns(), describe, facts, context)

    def roots(self) -> bool:
        """Whether a call that is made here begins a trace, of which nobody needs to be told the ids."""
        return not self.here.get() and self._roots and ((running := current.get()) is None or running.traced is None)

    def is_as_known(self) -> bool:
        """Whether its provider tells the same processors of its spans as when they were looked at."""
        return self._processor._span_processors is self._known

    def of_call(self, roots: Roots, place: int, began: int, describe: Describe, facts: tuple[Any, ...]) -> LateSpan:
        """Returns a span that has begun then, of a call that begins a trace.

        Args:
            roots: see `actors.traceids.of_call`.
            place: 0 for the part of its caller, 1 for that of its actor.
            began: when, in nanoseconds (epoch).
            describe: see `start`.
            facts: likewise.
        """
        span = _new(LateSpan)
        span._traceparent = (roots, place) if roots[0] and roots[1] else traceids.new_trace() + self._first
        span._note = (self, roots if place else None, describe, facts)
        span._start_time = began
        span._end_time = None
        return span

    def serves(self, came: str) -> bool:
        """Whether a call that comes with this ``traceparent`` can have a late span here."""
        if self._processor._span_processors is not self._known and not self._look():
            return False
        return came[-1] not in _UNSAMPLED or self._always

    def part(
        self, came: str, began: int, describe: Describe, facts: tuple[Any, ...], around: SpanContext | None = None
    ) -> LateSpan | None:
        """Returns a span that has begun then, of what has this ``traceparent``; None where that is in no sample."""
        if not came:
            traceparent = self._new_trace() + self._first
        elif came[-1] not in _UNSAMPLED:
            traceparent = f"{came[:36]}{self._new_span()}{came[52:]}"
        elif self._always:
            traceparent = f"{came[:36]}{self._new_span()}-{int(came[53:], 16) | TraceFlags.SAMPLED:02x}"
        else:
            return None
        span = _new(LateSpan)
        span._traceparent = traceparent
        span._note = (self, around or came or None, describe, facts)
        span._start_time = began
        span._end_time = None
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


def _exit(processor: Any) -> Exit:
    # Past `on_end`, which looks whether a span is in the sample, as all of ours are; and as long as the processor's
    # thread need not be woken past its `emit` too, which asks the system first whether this is a fork.
    inner = getattr(processor, "_batch_processor", None)
    emit = getattr(inner, "emit", processor.on_end)
    waiting, most = getattr(inner, "_queue", None), getattr(inner, "_max_export_batch_size", 0)
    return (waiting, most - 1, emit) if isinstance(waiting, deque) else (deque(), 0, emit)


def _context(traceparent: str, is_remote: bool, parent: SpanContext | None = None) -> SpanContext:
    trace, span, flags = int(traceparent[3:35], 16), int(traceparent[36:52], 16), int(traceparent[53:], 16)
    return SpanContext(trace, span, is_remote, TraceFlags(flags), parent.trace_state if parent is not None else None)
