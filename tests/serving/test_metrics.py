"""What Prometheus reads is what was counted."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from prometheus_client import CollectorRegistry, Histogram
from prometheus_client.exposition import generate_latest

from serving.metrics import Histograms, Tallies

if TYPE_CHECKING:
    from prometheus_client.registry import Collector


def shown(collector: Collector) -> dict[str, float]:
    registry = CollectorRegistry()
    registry.register(collector)
    lines = generate_latest(registry).decode().splitlines()
    pairs = (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    return {name: float(value) for name, value in pairs if "_created" not in name}


def test_histograms_are_those_of_the_library() -> None:
    bounds = (0.5, 1, 2.5)
    ours = Histograms("some_seconds", "Text", bounds, ["place"], registry=None)
    theirs = Histogram("some_seconds", "Text", ["place"], buckets=bounds, registry=None)
    for value in (-1.0, 0.5, 0.5000001, 1, 2.5, 2.6, 1e9):
        for place in ("here", "there"):
            ours.observe(value, place)
            theirs.labels(place).observe(value)
    assert shown(ours) == pytest.approx(shown(theirs))


def test_tallies() -> None:
    tallies = Tallies("some_rows", "Text", ["view", "status"], registry=None)
    for status in ("fresh", "missing", "fresh"):
        tallies.inc("a", status)
    assert shown(tallies) == {
        'some_rows_total{status="fresh",view="a"}': 2,
        'some_rows_total{status="missing",view="a"}': 1,
    }
