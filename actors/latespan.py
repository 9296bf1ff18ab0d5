"""Late spans: a span of OpenTelemetry's SDK that is a note until somebody looks at it.

The SDK takes some 20 µs to make a span, and a call has two. Where spans leave a process in batches, nobody looks at one
before it is exported, on a thread of the exporter's: until then it is a ``traceparent``, two times, and what it will be
described by. Whoever does look (a method that sets an attribute of its span, or an exporter) finds the SDK's own span,
made in that moment.
"""

# ruff: noqa: SLF001 - a span is made of what its tracer keeps, as the SDK itself makes one

from __future__ import annotations

import os
import threading
import time
from random import getrandbits
from typing import TYPE_CHECKING, Any

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SynchronousMultiSpanProcessor, Tracer, _Span
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.trace.sampling import ALWAYS_ON, DEFAULT_ON
from opentelemetry.trace import INVALID_SPAN, SpanContext, SpanKind, TraceFlags, get_current_span

if TYPE_CHECKING:
    from collections.abc import Callable

    Description = tuple[str, SpanKind, dict[str, Any]]

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
    """See above. `LateSpans` alone makes it, past the constructor.

    Attributes:
        traceparent: its ids and flags, as they travel.
    """

    traceparent: str
    _note: tuple[LateSpans, SpanContext | str | None, Callable[..., Description], tuple[Any, ...]] | None

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
        self,
        maker: LateSpans,
        parent: SpanContext | str | None,
        describe: Callable[..., Description],
        facts: tuple[Any, ...],
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
        for emit in note[0].emits:
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
        few_attributes: whether the attributes of calls are within what the program allows, whatever they are.
        emits: what takes spans that have ended, of each of the program's processors.
    """

    def __init__(self, tracer: Tracer) -> None:
        self.tracer = tracer
        limits = tracer._span_limits
        most = limits.max_span_attributes
        self.few_attributes = limits.max_span_attribute_length is None and (most is None or most >= MOST_ATTRIBUTES)
        self.emits: tuple[Callable[[ReadableSpan], None], ...] = ()
        self._known: object = None  # the processors that were looked at
        self._always = tracer.sampler is ALWAYS_ON
        ids = tracer.id_generator
        drawn = type(ids) is RandomIdGenerator
        self._new_trace = _trace_id if drawn else lambda: f"{ids.generate_trace_id():032x}"
        self._new_span = _span_id if drawn else lambda: f"{ids.generate_span_id():016x}"
        random = TraceFlags.RANDOM_TRACE_ID if ids.is_trace_id_random() else 0
        self._first = f"{TraceFlags.SAMPLED | random:02x}"  # the flags of a trace that begins here

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

    def start(self, came: str, describe: Callable[..., Description], facts: tuple[Any, ...]) -> LateSpan | None:
        """Returns a span that has begun.

        Args:
            came: the ``traceparent`` whose it is a part; empty for what the code that runs here is part of.
            describe: returns its name, its kind and its attributes, once they are wanted.
            facts: what that is given.

        Returns:
            It; or None where the tracer is to make it: somebody sees spans as they begin or end, or it is in no sample.
        """
        processor = self.tracer.span_processor
        known = getattr(processor, "_span_processors", None)
        if known is not self._known and not self._look_at(processor, known):
            return None
        parent: SpanContext | str | None = came or None
        if not came:
            around = get_current_span()
            if type(around) is LateSpan:
                parent = came = around.traceparent
            elif around is not INVALID_SPAN and (context := around.get_span_context()).is_valid:
                parent, came = context, f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"
        if not came:
            traceparent = f"00-{self._new_trace()}-{self._new_span()}-{self._first}"
        elif came[-1] not in _UNSAMPLED:
            traceparent = f"{came[:36]}{self._new_span()}{came[52:]}"
        elif self._always:
            traceparent = f"{came[:36]}{self._new_span()}-{int(came[53:], 16) | TraceFlags.SAMPLED:02x}"
        else:
            return None
        span = _new(LateSpan)
        span._note = (self, parent, describe, facts)
        span.traceparent = traceparent
        span._end_time = None
        span._start_time = time.time_ns()
        return span

    def _look_at(self, processor: object, known: Any) -> bool:
        kinds = {type(processor), *map(type, known or ())}
        if kinds != {SynchronousMultiSpanProcessor, BatchSpanProcessor}:
            return False
        # Past `on_end`, which looks whether a span is in the sample, as all of ours are.
        inner = [getattr(one, "_batch_processor", None) for one in known]
        self.emits = tuple(getattr(each, "emit", one.on_end) for each, one in zip(inner, known, strict=True))
        self._known = known
        return True


# As the SDK's own generator draws them, in half the time; that looks for the 0 that comes once in 2**64 times.
def _trace_id() -> str:
    return getrandbits(128).to_bytes(16, "big").hex()


def _span_id() -> str:
    return getrandbits(64).to_bytes(8, "big").hex()


def _context(traceparent: str, is_remote: bool, parent: SpanContext | None = None) -> SpanContext:
    trace, span, flags = int(traceparent[3:35], 16), int(traceparent[36:52], 16), int(traceparent[53:], 16)
    return SpanContext(trace, span, is_remote, TraceFlags(flags), parent.trace_state if parent is not None else None)
