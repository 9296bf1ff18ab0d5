"""What Prometheus scrapes: the cluster as metrics. The one module that knows prometheus_client."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from actors.events.tally import BOUNDARIES
from actors.version import __version__

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from actors.events import ClusterView

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def exposition(view: ClusterView) -> str:
    """Returns a cluster in Prometheus's text format.

    Raises:
        ImportError: prometheus-client is not installed.
    """
    from prometheus_client import CollectorRegistry, generate_latest
    from prometheus_client.registry import Collector

    class Cluster(Collector):
        def collect(self) -> Iterable[Any]:
            return families(view)

    registry = CollectorRegistry(auto_describe=False)
    registry.register(Cluster())
    text: str = generate_latest(registry).decode()
    return text


def families(view: ClusterView) -> Iterator[Any]:
    """Returns the metrics of a cluster: those of its own, then those that programs count."""
    yield from _nodes(view)
    yield from _actors(view)
    yield from _calls(view)
    yield from _bytes(view)
    yield from _collectives(view)
    yield from _own(view)


def _nodes(view: ClusterView) -> Iterator[Any]:
    from prometheus_client.core import GaugeMetricFamily, InfoMetricFamily

    yield InfoMetricFamily("actors_build", "Version of mlx-actors that tells this.", {"version": __version__})
    devices = GaugeMetricFamily("actors_devices", "Devices of the cluster, by whether they answer.", labels=["state"])
    devices.add_metric(["alive"], len(view.nodes))
    devices.add_metric(["silent"], len(view.silent))
    yield devices
    memory = GaugeMetricFamily(
        "actors_device_memory_bytes", "Memory of a device: in all, in use, of our processes, of the shared arena.",
        labels=["device", "kind"],
    )  # fmt: skip
    load = GaugeMetricFamily("actors_device_load", "Load of a device over the last minute.", labels=["device"])
    trip = GaugeMetricFamily(
        "actors_link_round_trip_seconds", "Time to another device and back.", labels=["device", "peer"]
    )
    for node in view.nodes:
        rss = sum(process.rss for process in node.processes)
        for kind, value in (("total", node.memory), ("used", node.memory_used), ("actors", rss), ("arena", node.arena)):
            memory.add_metric([node.name, kind], value)
        load.add_metric([node.name], node.load)
        for peer, seconds in node.peers:
            if seconds is not None:
                trip.add_metric([node.name, peer], seconds)
    yield from (memory, load, trip)


def _actors(view: ClusterView) -> Iterator[Any]:
    from prometheus_client.core import GaugeMetricFamily

    counts: dict[tuple[str, str], int] = {}
    for actor in view.actors(ended=True):
        key = (actor.node or "", actor.state)
        counts[key] = counts.get(key, 0) + 1
    actors = GaugeMetricFamily("actors_actors", "Actors, by node and state.", labels=["device", "state"])
    for (node, state), count in sorted(counts.items()):
        actors.add_metric([node, state], count)
    yield actors
    waiting = GaugeMetricFamily("actors_open_calls", "Calls that wait or run, by node.", labels=["device", "state"])
    for node_view in view.nodes:
        for state in ("QUEUED", "RUNNING"):
            number = sum(call.state == state for call in node_view.calls)
            waiting.add_metric([node_view.name, state.lower()], number)
    yield waiting


def _calls(view: ClusterView) -> Iterator[Any]:
    from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily

    total = CounterMetricFamily("actors_calls", "Calls that are over.", labels=["method", "outcome"])
    took = HistogramMetricFamily(
        "actors_call_duration_seconds", "Time from a call's arrival to its answer.", labels=["method"]
    )
    queued = CounterMetricFamily("actors_call_queue_seconds", "Time that calls waited at actors.", labels=["method"])
    by_method: dict[str, tuple[list[int], float, float]] = {}
    for (method, outcome), tally in sorted(view.tallies.items()):
        total.add_metric([method, outcome], tally.count)
        buckets, duration, wait = by_method.get(method, ([0] * len(tally.buckets), 0.0, 0.0))
        both = [mine + theirs for mine, theirs in zip(buckets, tally.buckets, strict=True)]
        by_method[method] = (both, duration + tally.queued + tally.ran, wait + tally.queued)
    for method, (buckets, duration, wait) in by_method.items():
        took.add_metric([method], _cumulative(BOUNDARIES, buckets), duration)
        queued.add_metric([method], wait)
    yield from (total, took, queued)


def _bytes(view: ClusterView) -> Iterator[Any]:
    from prometheus_client.core import CounterMetricFamily

    labels = ["device", "peer", "path"]
    sent = CounterMetricFamily(
        "actors_sent_bytes", "Bytes that processes of a device have sent, to which.", labels=labels
    )
    received = CounterMetricFamily("actors_received_bytes", "Bytes that they have received, from which.", labels=labels)
    for node in view.nodes:
        sums: dict[tuple[str, str], list[int]] = {}
        for peer, path, out, back in node.carried:  # devices that are gone have one name together
            both = sums.setdefault((peer, path), [0, 0])
            both[0] += out
            both[1] += back
        for (peer, path), both in sorted(sums.items()):
            sent.add_metric([node.name, peer, path], both[0])
            received.add_metric([node.name, peer, path], both[1])
    yield from (sent, received)


def _collectives(view: ClusterView) -> Iterator[Any]:
    from prometheus_client.core import CounterMetricFamily

    sums: dict[str, list[float]] = {}
    for done in view.state.collectives.values():
        if done.rank == 0:
            known = sums.setdefault(done.op, [0, 0, 0.0])
            known[0] += done.count
            known[1] += done.nbytes
            known[2] += done.seconds
    named = (
        ("actors_collectives", "Collectives that rank 0 took part in."),
        ("actors_collective_bytes", "Bytes that rank 0 brought to them."),
        ("actors_collective_seconds", "Time that rank 0 was in them."),
    )
    for place, (name, text) in enumerate(named):
        family = CounterMetricFamily(name, text, labels=["op"])
        for op, values in sorted(sums.items()):
            family.add_metric([op], values[place])
        yield family
    tokens = CounterMetricFamily("actors_tokens", "Tokens that models have made.", labels=["model"])
    made: dict[str, int] = {}
    for model in view.state.tokens.values():
        made[model.model] = made.get(model.model, 0) + model.tokens
    for name, count in sorted(made.items()):
        tokens.add_metric([name], count)
    yield tokens


def _own(view: ClusterView) -> Iterator[Any]:
    """What programs count by `actors.util.metrics`: over all processes counters and histograms are added up."""
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

    merged: dict[str, tuple[Any, dict[tuple[str, ...], Any]]] = {}
    for readings in (reading for node in view.nodes for reading in node.readings):
        for reading in readings:  # type: ignore[attr-defined]
            first, series = merged.setdefault(reading.name, (reading, {}))
            if (first.kind, first.boundaries) != (reading.kind, reading.boundaries):
                continue  # two programs mean different things by one name: the first one counts
            for one in reading.series:
                key = tuple(f"{name}={value}" for name, value in sorted(one.tags.items()))
                known = series.get(key)
                series[key] = one if known is None or reading.kind == "gauge" else _sum(known, one)
    taken = set(_RESERVED)
    for name, (reading, series) in sorted(merged.items()):
        plain = re.sub(r"_total$", "", name) if reading.kind == "counter" else name
        if plain in taken or not series:
            continue
        taken.add(plain)
        labels = sorted(next(iter(series.values())).tags)
        text = reading.description or f"{reading.kind} of the program's own"
        if reading.kind == "histogram":
            histogram = HistogramMetricFamily(plain, text, labels=labels)
            for one in series.values():
                histogram.add_metric(_values(one, labels), _cumulative(reading.boundaries, one.buckets), one.value)
            yield histogram
        else:
            kind = CounterMetricFamily if reading.kind == "counter" else GaugeMetricFamily
            family = kind(plain, text, labels=labels)
            for one in series.values():
                family.add_metric(_values(one, labels), one.value)
            yield family


_RESERVED = ("actors_build", "actors_devices", "actors_calls", "actors_tokens", "actors_actors", "actors_open_calls",
             "actors_device_memory_bytes", "actors_call_duration_seconds", "actors_sent_bytes",
             "actors_received_bytes")  # fmt: skip


def _values(series: Any, labels: list[str]) -> list[str]:
    return [series.tags.get(label, "") for label in labels]


def _sum(one: Any, other: Any) -> Any:
    from dataclasses import replace

    buckets = tuple(a + b for a, b in zip(one.buckets, other.buckets, strict=True))
    return replace(one, value=one.value + other.value, count=one.count + other.count, buckets=buckets)


def _cumulative(boundaries: Iterable[float], buckets: Iterable[int]) -> list[tuple[str, float]]:
    """Returns a histogram's buckets as Prometheus has them: each counts all below its upper end."""
    total = 0
    found = []
    for end, count in zip([*map(str, boundaries), "+Inf"], buckets, strict=True):
        total += count
        found.append((end, float(total)))
    return found
