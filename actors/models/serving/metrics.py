"""What is counted, in Prometheus' text form."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

import prometheus_client
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

import actors
from actors.version import __version__

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from prometheus_client.metrics_core import Metric

_SECONDS: Final = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"


class Metrics:
    """The counters of one server.

    Args:
        model: its name.
        status: of the model, as `ShardedModel.status` gives it; empty where there is none yet.
    """

    def __init__(self, model: str, status: Callable[[], Mapping[str, object]]) -> None:
        prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]
        registry = CollectorRegistry()
        build = Gauge("actors_build_info", "The version that runs, as a label.", ["version"], registry=registry)
        build.labels(__version__).set(1)
        self.requests = Counter(
            "actors_requests", "Requests by what became of them.", ["endpoint", "outcome"], registry=registry
        )
        self.seconds = Histogram(
            "actors_request_duration_seconds", "Seconds from a request to the end of its answer.", ["endpoint"],
            buckets=_SECONDS, registry=registry,
        )  # fmt: skip
        self.first = Histogram(
            "actors_time_to_first_token_seconds", "Seconds from a request to the first piece of its answer.",
            ["model"], buckets=_SECONDS, registry=registry,
        )  # fmt: skip
        self.tokens = Counter("actors_tokens", "Tokens written.", ["model"], registry=registry).labels(model)
        self.prompt_tokens = Counter(
            "actors_prompt_tokens", "Tokens of the prompts that were answered.", ["model"], registry=registry
        ).labels(model)
        self._first = self.first.labels(model)
        registry.register(_Devices())
        registry.register(_Load(model, status))
        self._registry = registry

    def first_token(self, began: float) -> None:
        """Notes that the first piece of an answer that was asked for then is there."""
        self._first.observe(time.monotonic() - began)

    def ended(self, endpoint: str, outcome: str, began: float) -> None:
        """Notes what became of a request."""
        self.requests.labels(endpoint, outcome).inc()
        self.seconds.labels(endpoint).observe(time.monotonic() - began)

    def text(self) -> bytes:
        """All of them as they are now."""
        return generate_latest(self._registry)


class _Devices(Collector):
    """The devices there are, asked for when somebody wants to know."""

    def collect(self) -> Iterable[Metric]:
        nodes = actors.nodes()
        devices = GaugeMetricFamily("actors_devices", "Devices of the cluster.", labels=["state"])
        devices.add_metric(["alive"], sum(node.alive for node in nodes))
        devices.add_metric(["gone"], sum(not node.alive for node in nodes))
        yield devices
        memory = GaugeMetricFamily(
            "actors_device_memory_bytes", "Memory of each device that is alive.", labels=["device", "kind"]
        )
        for node in nodes:
            if node.alive and isinstance(total := node.device.get("memory"), int):
                memory.add_metric([node.name, "total"], total)
        yield memory


class _Load(Collector):
    """What the model has to do."""

    def __init__(self, model: str, status: Callable[[], Mapping[str, object]]) -> None:
        self._model = model
        self._status = status

    def collect(self) -> Iterator[Metric]:
        status = self._status()
        for key, name, text in (
            ("running", "actors_model_requests_running", "Requests whose answers are being written."),
            ("waiting", "actors_model_requests_waiting", "Requests that wait for their turn."),
            ("kv_tokens", "actors_model_cached_tokens", "Tokens whose keys and values are kept."),
        ):
            value = status.get(key, 0)
            assert isinstance(value, int | float)
            gauge = GaugeMetricFamily(name, text, labels=["model"])
            gauge.add_metric([self._model], value)
            yield gauge
        draft = status.get("draft")
        if isinstance(draft, dict):
            for key, name, text in (
                ("guessed", "actors_model_draft_tokens", "Tokens that the draft model guessed."),
                ("right", "actors_model_draft_accepted_tokens", "Guesses that were right."),
            ):
                counter = CounterMetricFamily(name, text, labels=["model"])
                counter.add_metric([self._model], draft[key])
                yield counter
