"""Prometheus sees how old the last durable window of each view is, and how old it may be."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from feast_repo.declare.catalog import Catalog
from feast_repo.features import catalog, purchase_prediction, user_click_features as clicks
from feast_repo.stores.progress import Progress
from stream import metrics
from stream.epoch import Epoch

SLIDE_S = clicks.slide_ms / 1000


def value(gauge: object, *labels: str) -> float:
    return float(gauge.labels(*labels)._value.get())  # type: ignore[attr-defined]  # noqa: SLF001


def test_the_last_durable_window_of_each_partition() -> None:
    longer = replace(clicks, name="longer", slide=6 * clicks.slide, push_source="longer")
    watermark_ms = 7 * clicks.slide_ms + 1
    advanced = [Progress("topic", 3, 1, watermark_ms), Progress("topic", 4, 1, None)]
    metrics.count("clickstream", [clicks, longer], Epoch({}), advanced)
    assert value(metrics.closed_end, clicks.name, "3") == 7 * SLIDE_S
    assert value(metrics.closed_end, "longer", "3") == 6 * SLIDE_S
    told = {sample.labels["partition"] for metric in metrics.closed_end.collect() for sample in metric.samples}
    assert "4" not in told  # before the first record no window is closed


def test_how_old_values_may_be() -> None:
    metrics.serve_freshness(catalog)
    assert value(metrics.freshness, clicks.name) == 13 * 60  # slide, lateness and a minute
    metrics.serve_freshness(Catalog(services=(replace(purchase_prediction, freshness=timedelta(minutes=12)),)))
    assert value(metrics.freshness, clicks.name) == 720
