"""A picture of a feature's two distributions and its drift by day."""

from __future__ import annotations

import base64
import io
from datetime import datetime
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from batch.drift.statistics import MANY_ZEROS, in_figures

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

BLUE, ORANGE, GREY = "#1f6feb", "#e36209", "#666"
COLOURS = {"none": "#1b6e2e", "minor": "#c98a00", "major": "#b00020", "insufficient data": GREY}
MOST_BARS = 15
"""The most categories, or distinct numbers, to show as single bars."""
BINS = 30
SHOWN = 0.99
"""Numbers are shown up to this quantile, because a few entities are extremely active."""


def plot(name: str, reference: pl.Series, current: pl.Series, history: Sequence[Mapping[str, Any]]) -> str:
    """An SVG in base64. `history` is the report's, of which the feature's own part is shown."""
    from matplotlib.figure import Figure  # noqa: PLC0415  (takes a second, and is an extra)

    figure = Figure(figsize=(10, 2.6), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    for axes in (left, right):
        axes.tick_params(labelsize=8)
        axes.spines[["top", "right"]].set_visible(False)
    _distributions(left, reference.drop_nulls(), current.drop_nulls())
    _history(right, name, history)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg")
    return base64.b64encode(buffer.getvalue()).decode()


def _distributions(axes: Any, reference: pl.Series, current: pl.Series) -> None:
    of = "entities"
    if reference.dtype.is_numeric():
        values = [one.cast(pl.Float64).drop_nans().to_numpy() for one in (reference, current)]
        others = [one[one != 0] for one in values]
        zeros = [1 - len(rest) / max(len(one), 1) for one, rest in zip(values, others, strict=True)]
        if max(zeros) >= MANY_ZEROS and any(map(len, others)):
            values, of = others, "entities that are not zero"
        which = _numbers(axes, values)
    else:
        counts = [dict(one.cast(pl.String).value_counts().iter_rows()) for one in (reference, current)]
        shares = [{key: count / max(sum(one.values()), 1) for key, count in one.items()} for one in counts]
        names = sorted({*shares[0], *shares[1]}, key=lambda name: -max(one.get(name, 0.0) for one in shares))
        which = f"the {MOST_BARS} most frequent" if len(names) > MOST_BARS else ""
        _bars(axes, names[:MOST_BARS], shares)
    axes.set_ylabel(f"share of {of}", fontsize=8)
    axes.set_xlabel(which, fontsize=8)
    if axes.has_data():
        axes.legend(fontsize=8, frameon=False)


def _numbers(axes: Any, values: Sequence[np.ndarray]) -> str:
    """Plot two numeric distributions; returns a note for the horizontal axis."""
    both = np.concatenate(values)
    if not len(both):
        return "no values"
    high = float(np.quantile(both, SHOWN))
    values = [np.minimum(one, high) for one in values]
    distinct = np.unique(np.concatenate(values))
    beyond = f"the last bar has all from {in_figures(high)}" if high < both.max() else ""
    if len(distinct) <= MOST_BARS:
        shares = [{number: float(np.sum(one == number)) / max(len(one), 1) for number in distinct} for one in values]
        _bars(axes, list(distinct), shares)
    else:
        low = float(both.min())
        bins = np.linspace(low, high, BINS + 1)
        if not (distinct % 1).any():  # equally many whole numbers per bin, or bars would fluctuate
            step = -(-(high - low + 1) // BINS)
            bins = np.arange(low, high + step + 1, step) - 0.5
        for one, label, colour in zip(values, ("reference", "current"), (BLUE, ORANGE), strict=True):
            weights = np.full(len(one), 1 / max(len(one), 1))
            axes.hist(one, bins=bins, weights=weights, histtype="stepfilled", alpha=0.25, color=colour)
            axes.hist(one, bins=bins, weights=weights, histtype="step", linewidth=1.4, label=label, color=colour)
    return beyond


def _bars(axes: Any, names: Sequence[Any], shares: Sequence[Mapping[Any, float]]) -> None:
    places = np.arange(len(names))
    for number, (one, label, colour) in enumerate(zip(shares, ("reference", "current"), (BLUE, ORANGE), strict=False)):
        heights = [one.get(name, 0.0) for name in names]
        axes.bar(places + 0.4 * number - 0.2, heights, 0.4, label=label, color=colour)
    axes.set_xticks(places, [name if isinstance(name, str) else f"{name:.3g}" for name in names], fontsize=8)


def _history(axes: Any, name: str, history: Sequence[Mapping[str, Any]]) -> None:
    if not history:
        axes.set_axis_off()
        return
    places = range(len(history))
    levels = [day["levels"].get(name, np.nan) for day in history]
    axes.axhline(1, color=GREY, linestyle=":", linewidth=1)
    axes.plot(places, levels, color=GREY, linewidth=1)
    for place, level, day in zip(places, levels, history, strict=True):
        severity = day["severities"].get(name, "insufficient data")
        colour = COLOURS[severity]
        axes.plot(place, level, "o", color=colour, markerfacecolor="white" if severity == "none" else colour)
    days = [f"{datetime.fromisoformat(day['end']):%d %b}" for day in history]
    every = -(-len(days) // 7)
    axes.set_xticks(list(places)[::-every][::-1], days[::-every][::-1], fontsize=8)
    axes.set_xlim(-0.5, max(len(history), 2) - 0.5)
    axes.set_ylim(0, 1.1 * np.nanmax([1.4, *levels]))
    axes.set_ylabel("effect / minor threshold", fontsize=8)
    axes.set_xlabel("24 hours to", fontsize=8)
