"""What the service tells Prometheus at /metrics."""

from __future__ import annotations

from bisect import bisect_left
from itertools import accumulate
from typing import TYPE_CHECKING

from prometheus_client import REGISTRY, Counter, Gauge, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.metrics_core import CounterMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from prometheus_client import CollectorRegistry, Metric

    from serving.messages import UserFeatures

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4


class Tallies(Collector):
    """A counter by labels, for the event loop's thread alone: locks for each row would cost more than reading it."""

    def __init__(
        self, name: str, text: str, labels: Sequence[str], *, registry: CollectorRegistry | None = REGISTRY
    ) -> None:
        self._family = name, text, labels
        self._counts: dict[tuple[str, ...], int] = {}
        if registry is not None:
            registry.register(self)

    def inc(self, *labels: str) -> None:
        """Count one."""
        self._counts[labels] = self._counts.get(labels, 0) + 1

    def collect(self) -> Iterator[Metric]:
        """As Prometheus has it."""
        name, text, names = self._family
        family = CounterMetricFamily(name, text, labels=names)
        for labels, count in self._counts.items():
            family.add_metric(labels, count)
        yield family


class Histograms(Collector):
    """Histograms by labels, for the event loop's thread alone."""

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
        """Count a value."""
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
    "From a request's head to the last byte handed over",
    (0.0005, 0.001, 0.002, 0.003, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5),
    ["route", "status"],
)
rows = Tallies(
    "serving_rows", "Rows that were read, by what they are worth; the share of missing ones follows", ["view", "status"]
)
age = Histograms(
    "serving_feature_age_seconds",
    "Age of the rows that were read",
    (60, 300, 600, 900, 1800, 3600, 7200, 21600, 86400, 7 * 86400, 30 * 86400, 365 * 86400),
    ["view"],
)
probabilities = Histograms(
    "serving_probability", "Predicted probabilities", tuple(number / 20 for number in range(1, 21))
)
in_flight = Gauge("serving_in_flight", "Requests that are being answered, one of many users as several")
refused = Counter("serving_refused", "Requests that got 503 because too many were being answered")
ready = Gauge("serving_ready", "1 if a part that predictions need is there", ["part"])
_model = Gauge("serving_model", "1 for the version of the model that is served", ["version"])
_versions: set[str] = set()
scores_lost = Counter("serving_scores_lost", "Predictions that could not be kept for drift reports")


def serve_model(version: str) -> None:
    """Take note of the model that is served."""
    for other in _versions - {version}:
        _model.labels(other).set(0)
    _versions.add(version)
    _model.labels(version).set(1)


def count_rows(users: Iterable[UserFeatures]) -> None:
    """Take note of what was read."""
    for user in users:
        for view, read in user.views.items():
            rows.inc(view, read.status)
            if read.age_seconds is not None:
                age.observe(read.age_seconds, view)


def count_probabilities(predicted: Sequence[float]) -> None:
    """Take note of what was predicted."""
    for probability in predicted:
        probabilities.observe(probability)


def exposition() -> bytes:
    """All of it, as Prometheus reads it."""
    return generate_latest()
