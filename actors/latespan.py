"""Late spans: a span of OpenTelemetry's SDK that is a note until somebody looks at it.

The SDK takes some 20 µs to make a span, and a call has two. Where spans leave a process in batches, nobody looks at one
before it is exported, on a thread of the exporter's: until then it is a name, two ids and two times. Whoever does look
(a method that sets an attribute of its span, or an exporter) finds the SDK's own span, made in that moment.
"""

# ruff: noqa: SLF001 - a span is made of what its tracer keeps, as the SDK itself makes one

from __future__ import annotations

import os
import threading
import time
from typing import TYPE_CHECKING, Any

from opentelemetry.sdk.trace import ReadableSpan, SynchronousMultiSpanProcessor, Tracer, _Span
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ALWAYS_ON, DEFAULT_ON
from opentelemetry.trace import SpanContext, SpanKind, TraceFlags, get_current_span

if TYPE_CHECKING:
    from collections.abc import Callable

METRICS = "OTEL_PYTHON_SDK_INTERNAL_METRICS_ENABLED"
"""Environment variable of the SDK's: it counts its own spans, as only its own way of making them does."""

MOST_ATTRIBUTES = 16  # a span of ours has fewer
_making = threading.Lock()
_SAMPLED = TraceFlags(TraceFlags.SAMPLED)


class LateSpan(_Span):
    """See above.

    Args:
        maker: by which it is made.
        name: of the span.
        context: its ids.
        parent: whose it is a part, if anybody's.
        attributes: returns its attributes, once they are wanted.
    """

    def __init__(  # noqa: PLR0917 - made for each call, and quickly
        self,
        maker: LateSpans,
        name: str,
        kind: SpanKind,
        context: SpanContext,
        parent: SpanContext | None,
        attributes: Callable[[], dict[str, Any]],
    ) -> None:
        # What is not here is asked for by `__getattr__`, which has the SDK's own constructor fill in everything.
        self._note = (maker, name, kind, parent, attributes)
        self._context = context
        self._start_time = time.time_ns()
        self._end_time = None

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        with _making:
            note = self.__dict__.get("_note")
            if note is not None:
                self._become(*note)
                del self._note
        return object.__getattribute__(self, name)

    def _become(
        self,
        maker: LateSpans,
        name: str,
        kind: SpanKind,
        parent: SpanContext | None,
        attributes: Callable[[], dict[str, Any]],
    ) -> None:
        tracer, began, ended = maker.tracer, self._start_time, self._end_time
        common: dict[str, Any] = {
            "name": name, "context": self._context, "parent": parent, "kind": kind, "resource": tracer.resource,
            "instrumentation_info": tracer.instrumentation_info,
            "instrumentation_scope": tracer._instrumentation_scope, "attributes": attributes(),
        }  # fmt: skip
        if ended is not None and maker.few_attributes:  # nothing changes it any more
            ReadableSpan.__init__(self, **common)
            self._lock = threading.Lock()
        else:
            super().__init__(
                **common, sampler=tracer.sampler, span_processor=tracer.span_processor, limits=tracer._span_limits
            )
        self._start_time, self._end_time = began, ended

    def end(self, end_time: int | None = None) -> None:
        """See `opentelemetry.trace.Span`."""
        note = self.__dict__.get("_note")
        if note is None or self._end_time is not None:
            super().end(end_time)
            return
        self._end_time = time.time_ns() if end_time is None else end_time
        note[0].tracer.span_processor.on_end(self)


class LateSpans:
    """Makes them for one tracer.

    Args:
        tracer: the SDK's, which nobody else has.

    Attributes:
        tracer: likewise.
        few_attributes: whether the attributes of calls are within what the program allows, whatever they are.
    """

    def __init__(self, tracer: Tracer) -> None:
        self.tracer = tracer
        limits = tracer._span_limits
        most = limits.max_span_attributes
        self.few_attributes = limits.max_span_attribute_length is None and (most is None or most >= MOST_ATTRIBUTES)
        self._known: object = None  # the processors that were looked at

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

    def start(
        self, name: str, kind: SpanKind, parent: SpanContext | None, attributes: Callable[[], dict[str, Any]]
    ) -> LateSpan | None:
        """Returns a span that has begun.

        Args:
            name: of it.
            kind: whether it is the caller's or the actor's.
            parent: whose it is a part; None for what the code that runs here is part of.
            attributes: see `LateSpan`.

        Returns:
            It; or None where the tracer is to make it: somebody sees spans as they begin or end, or it is in no sample.
        """
        processor = self.tracer.span_processor
        known = getattr(processor, "_span_processors", None)
        if known is not self._known:
            kinds = {type(processor), *map(type, known or ())}
            if kinds != {SynchronousMultiSpanProcessor, BatchSpanProcessor}:
                return None
            self._known = known
        generator = self.tracer.id_generator
        if parent is None:
            parent = get_current_span().get_span_context()
        if not parent.is_valid:
            trace, flags, state, parent = generator.generate_trace_id(), _SAMPLED, None, None
            if generator.is_trace_id_random():
                flags = TraceFlags(flags | TraceFlags.RANDOM_TRACE_ID)
        elif not parent.trace_flags & _SAMPLED and self.tracer.sampler is not ALWAYS_ON:
            return None
        else:
            trace, flags, state = parent.trace_id, parent.trace_flags, parent.trace_state
        context = SpanContext(trace, generator.generate_span_id(), False, flags, state)
        return LateSpan(self, name, kind, context, parent, attributes)
