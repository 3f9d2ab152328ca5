"""The service's Prometheus metrics at /metrics."""

from __future__ import annotations

from bisect import bisect_left
from itertools import accumulate
from math import inf
from typing import TYPE_CHECKING

from prometheus_client import REGISTRY, Counter, Gauge, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.metrics_core import CounterMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from prometheus_client import CollectorRegistry, Metric

    from serving.messages import EntityFeatures

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4


class Tallies(Collector):
    """A labelled counter for the event loop's thread only: a lock per row would cost more than reading the row."""

    def __init__(
        self, name: str, text: str, labels: Sequence[str], *, registry: CollectorRegistry | None = REGISTRY
    ) -> None:
        self._family = name, text, labels
        self._counts: dict[tuple[str, ...], int] = {}
        if registry is not None:
            registry.register(self)

    def inc(self, *labels: str) -> None:
        """Increment by one."""
        self._counts[labels] = self._counts.get(labels, 0) + 1

    def collect(self) -> Iterator[Metric]:
        """As Prometheus has it."""
        name, text, names = self._family
        family = CounterMetricFamily(name, text, labels=names)
        for labels, count in self._counts.items():
            family.add_metric(labels, count)
        yield family


class Histograms(Collector):
    """Labelled histograms for the event loop's thread only."""

    def __init__(
        self,
        name: str,
        text: str,
        bounds: Sequence[float],
        labels: Sequence[str] = (),
        *,
        registry: CollectorRegistry | None = REGISTRY,
    ) -> None:
        self._family, self._bounds = (name, text, labels), bounds
        self._counts: dict[tuple[str, ...], list[int]] = {}
        self._sums: dict[tuple[str, ...], float] = {}
        if registry is not None:
            registry.register(self)

    def observe(self, value: float, *labels: str) -> None:
        """Observe a value."""
        counts = self._counts.get(labels)
        if counts is None:
            counts = self._counts[labels] = [0] * (len(self._bounds) + 1)
            self._sums[labels] = 0.0
        counts[bisect_left(self._bounds, value)] += 1
        self._sums[labels] += value

    def collect(self) -> Iterator[Metric]:
        """As Prometheus has it."""
        name, text, names = self._family
        family = HistogramMetricFamily(name, text, labels=names)
        bounds = [*map(str, map(float, self._bounds)), "+Inf"]
        for labels, counts in self._counts.items():
            family.add_metric(labels, list(zip(bounds, accumulate(counts), strict=True)), self._sums[labels])
        yield family


requests = Histograms(
    "serving_request_seconds",
    "Time from a request's headers to the last byte of the response",
    (0.0005, 0.001, 0.002, 0.003, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5),
    ["route", "status"],
)
rows = Tallies("serving_rows", "Rows read, by status; the share of missing rows follows from it", ["view", "status"])
age = Histograms(
    "serving_feature_age_seconds",
    "Age of the rows read",
    (60, 300, 600, 900, 1800, 3600, 7200, 21600, 86400, 7 * 86400, 30 * 86400, 365 * 86400),
    ["view"],
)
freshness = Gauge(
    "serving_freshness_seconds",
    "Age from which on values are stale: of the last closed window if a stream writes the view, else of the row",
    ["service", "view"],
)
probabilities = Histograms(
    "serving_probability", "Predicted probabilities", tuple(number / 20 for number in range(1, 21)), ["service"]
)
in_flight = Gauge("serving_in_flight", "Requests in progress; a request with many entities counts as several")
refused = Counter("serving_refused", "Requests rejected with 503 because too many were in progress")
ready = Gauge("serving_ready", "1 if this part, which predictions need, is available", ["part"])
_model = Gauge("serving_model", "1 for the model version that is served", ["service", "version"])
_served: dict[str, str] = {}
scores_lost = Counter("serving_scores_lost", "Predictions that could not be stored for drift reports")


def serve_model(service: str, version: str) -> None:
    """Record the model that a service predicts with."""
    before = _served.get(service, version)
    if before != version:
        _model.labels(service, before).set(0)
    _served[service] = version
    _model.labels(service, version).set(1)


def serve_freshness(service: str, limits_ms: Mapping[str, int | None]) -> None:
    """Record from which age on the values of each view are stale; None for never."""
    for view, limit_ms in limits_ms.items():
        freshness.labels(service, view).set(inf if limit_ms is None else limit_ms / 1000)


def count_rows(entities: Iterable[EntityFeatures]) -> None:
    """Count the rows read."""
    for entity in entities:
        for view, read in entity.views.items():
            rows.inc(view, read.status)
            if read.age_seconds is not None:
                age.observe(read.age_seconds, view)


def count_probabilities(service: str, predicted: Sequence[float]) -> None:
    """Count the predicted probabilities of a service."""
    for probability in predicted:
        probabilities.observe(probability, service)


def exposition() -> bytes:
    """All metrics in Prometheus's text format."""
    return generate_latest()
