"""What OpenTelemetry's spans take of a processor, piece by piece: ``python benchmarks/spans.py``.

First the SDK's own, as for any program: ids, start, attributes, end, context. Then what this package does for a call
that begins a trace, at its caller and at its actor. Each in a tight loop, by the processor's time of its thread, so
that what else the machine does hardly counts.
"""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from opentelemetry import context, trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator

from actors import tracing
from actors.job import Job
from actors.messages import ROOTED, Call
from actors.serialize import dumps

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

AT_ONCE = 400  # fewer than the SDK exports together, so that no turn pays for that
TURNS = 60


class Nowhere(SpanExporter):
    """Takes spans and does nothing with them."""

    def export(self, spans: Sequence[Any]) -> SpanExportResult:
        """See the SDK's."""
        return SpanExportResult.SUCCESS


def took(what: Callable[[int], object], provider: TracerProvider) -> float:
    """Returns what a step takes, in microseconds: the least of many turns."""
    least = float("inf")
    for _ in range(TURNS):
        begun = time.thread_time_ns()
        for number in range(AT_ONCE):
            what(number)
        least = min(least, time.thread_time_ns() - begun)
        provider.force_flush()
    return least / AT_ONCE / 1000


def of_the_sdk(provider: TracerProvider) -> dict[str, Callable[[int], object]]:
    """Returns steps of the SDK's."""
    tracer, unheard, ids = provider.get_tracer("a"), TracerProvider().get_tracer("b"), RandomIdGenerator()
    nothing, facts = context.Context(), {"rpc.system": "actors", "rpc.service": "Echo", "rpc.method": "echo"}
    inside = trace.set_span_in_context(unheard.start_span("around"))
    return {
        "ids of a trace and a span": lambda _: (ids.generate_trace_id(), ids.generate_span_id()),
        "start": lambda _: unheard.start_span("Echo.echo", context=nothing),
        "start with three attributes": lambda _: unheard.start_span("Echo.echo", context=nothing, attributes=facts),
        "… and end": lambda _: unheard.start_span("Echo.echo", context=nothing, attributes=facts).end(),
        "… told to a batch": lambda _: tracer.start_span("Echo.echo", context=nothing, attributes=facts).end(),
        "attach and detach a context": lambda _: context.detach(context.attach(inside)),
    }


def of_a_call() -> dict[str, Callable[[int], object]]:
    """Returns what is done about a call, from its making on, without and with its part of a trace."""
    line, peer = SimpleNamespace(label="Echo(actor-1)"), SimpleNamespace(roots="driver-1 session-1")
    visitor = SimpleNamespace(process="driver-1", session="session-1", minor=99)
    actor = SimpleNamespace(spec=SimpleNamespace(class_name="Echo", id="actor-1"), node="desk")
    payload = dumps(())

    def call(number: int) -> Any:
        return SimpleNamespace(line=line, method="echo", peer=peer, asked=number + 1, span=None, trace="")

    def traced_call(number: int) -> None:
        one: Any = call(number)
        tracing.begin(one, None)
        tracing.sent(one)
        tracing.call_answered(one, None)

    def job(number: int) -> Job:
        one = Job(Call(number + 1, "actor-1", "echo", payload, ROOTED), visitor, "Echo(actor-1)")  # type: ignore[arg-type]
        one.actor, one.started = actor, one.arrived  # type: ignore[assignment]
        return one

    def traced_job(number: int) -> None:
        one = job(number)
        served = one.traced = tracing.serve(one)
        one.trace = one.roots
        assert served is not None
        served.end()

    return {"caller": traced_call, "caller, without": call, "actor": traced_job, "actor, without": job}


def main() -> None:
    """Measures and tells."""
    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(Nowhere()))
    trace.set_tracer_provider(provider)
    print(f"microseconds of a processor, the least of {TURNS} turns of {AT_ONCE}")
    for name, step in of_the_sdk(provider).items():
        print(f"  the SDK: {name:<32} {took(step, provider):6.2f}")
    steps = {name: took(step, provider) for name, step in of_a_call().items()}
    for side in ("caller", "actor"):
        print(f"  a call that begins a trace, at its {side:<7} {steps[side] - steps[f'{side}, without']:6.2f}")
    provider.shutdown()


if __name__ == "__main__":
    main()
