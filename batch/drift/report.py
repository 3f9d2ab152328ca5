"""The drift report as one self-contained HTML page."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from batch.drift.plots import plot
from batch.drift.samples import health_in_words
from batch.drift.statistics import MEANINGS, SEVERITIES, THRESHOLDS, level_of
from feast_repo.pages import render

if TYPE_CHECKING:
    from collections.abc import Mapping

    import polars as pl

TEMPLATE = Path(__file__).with_name("report.html")


def page(report: Mapping[str, Any], samples: Mapping[str, tuple[pl.Series, pl.Series]]) -> str:
    """The page. `samples` are each feature's values in the reference and in the current period."""
    features = sorted(report["features"], key=lambda one: -_rank(one["severity"]))
    history = report["history"]
    plots = {name: plot(name, *pair, history) for name, pair in samples.items() if min(map(len, pair))}
    return render(
        TEMPLATE,
        report=report,
        features=features,
        health=health_in_words(report["reference"]["stream"], report["current"]["stream"]),
        plots=plots,
        thresholds=THRESHOLDS,
        meanings=MEANINGS,
        level=lambda name, value: SEVERITIES[level_of(name, value)],
    )


def _rank(severity: str) -> int:
    """Sort drifted features first, then those with insufficient data."""
    order = ("none", "insufficient data", "minor", "major")
    return order.index(severity)
