"""What the service tells Prometheus at /metrics."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from prometheus_client import Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from serving.messages import UserFeatures

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4

requests = Histogram(
    "serving_request_seconds",
    "From a request's head to the last byte handed over",
    ["route", "status"],
    buckets=(0.0005, 0.001, 0.002, 0.003, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5),
)
in_flight = Gauge("serving_in_flight", "Requests that are being answered, one of many users as several")
refused = Counter("serving_refused", "Requests that got 503 because too many were being answered")
rows = Counter(
    "serving_rows", "Rows that were read, by what they are worth; the share of missing ones follows", ["view", "status"]
)
age = Histogram(
    "serving_feature_age_seconds",
    "Age of the rows that were read",
    ["view"],
    buckets=(60, 300, 600, 900, 1800, 3600, 7200, 21600, 86400, 7 * 86400, 30 * 86400, 365 * 86400),
)
probabilities = Histogram(
    "serving_probability", "Predicted probabilities", buckets=tuple(number / 20 for number in range(1, 21))
)
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


_row_counter, _age_histogram = cache(rows.labels), cache(age.labels)


def count_rows(users: Iterable[UserFeatures]) -> None:
    """Take note of what was read."""
    for user in users:
        for view, read in user.views.items():
            _row_counter(view, read.status).inc()
            if read.age_seconds is not None:
                _age_histogram(view).observe(read.age_seconds)


def count_probabilities(predicted: Sequence[float]) -> None:
    """Take note of what was predicted."""
    for probability in predicted:
        probabilities.observe(probability)


def exposition() -> bytes:
    """All of it, as Prometheus reads it."""
    return generate_latest()
