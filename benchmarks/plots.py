"""Plots that show one thing each. They are `Figure`s without pyplot, so nothing is global and no display is needed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

from benchmarks.rounds import Spread

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from matplotlib.axes import Axes

OURS, OTHERS, SPREAD = "#1f6feb", "#9aa4af", "#24292f"
OTHER_LINES = ("#d1661f", "#57606a", "#2f8132")
PLAIN = FuncFormatter(lambda value, _: f"{value:,.10g}")


def bars(found: Mapping[str, Sequence[float]], unit: str, ours: Sequence[str]) -> Figure:
    """A bar each: the median, its value, and a line from the least to the greatest; `ours` stand out."""
    figure, axes = _empty(height=0.6 + 0.5 * len(found))
    spreads = [Spread.of(values) for values in found.values()]
    axes.barh(
        list(found),
        [one.median for one in spreads],
        color=[OURS if name in ours else OTHERS for name in found],
        height=0.6,
        xerr=[[one.median - one.least for one in spreads], [one.most - one.median for one in spreads]],
        error_kw={"ecolor": SPREAD, "elinewidth": 1.2},
    )
    for place, one in enumerate(spreads):
        text = f"{one.median:,.0f}" if one.median >= 100 else f"{one.median:.3g}"  # noqa: PLR2004  (three digits)
        axes.annotate(text, (one.most, place), xytext=(6, 0), textcoords="offset points", va="center", fontsize="small")
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    axes.margins(x=0.15)
    axes.set_xlim(left=0)
    axes.xaxis.set_major_locator(MaxNLocator(4))
    axes.xaxis.set_major_formatter(PLAIN)
    axes.set_xlabel(unit)
    return figure


def growth(
    found: Mapping[str, Mapping[float, Sequence[float]]], x_unit: str, y_unit: str, ours: Sequence[str]
) -> Figure:
    """A line each over sizes, both axes logarithmic, with a thin line of slope 1: what grows so is linear."""
    figure, axes = _empty(height=4)
    others = iter(OTHER_LINES)
    for name, points in found.items():
        sizes = sorted(points)
        middle = [Spread.of(points[size]).median for size in sizes]
        color = OURS if name in ours else next(others)
        axes.plot(sizes, middle, color=color, marker="o", label=name)
        axes.plot(sizes, [middle[0] * size / sizes[0] for size in sizes], color=color, linewidth=0.7, linestyle=":")
    axes.set_xscale("log")
    axes.set_yscale("log")
    every = sorted({size for points in found.values() for size in points})
    axes.set_xticks(every)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(PLAIN)
        axis.set_minor_formatter(NullFormatter())
    axes.set_xlabel(x_unit)
    axes.set_ylabel(y_unit)
    axes.plot([], [], color=SPREAD, linewidth=0.7, linestyle=":", label="linear from the first size")
    axes.legend(frameon=False, fontsize="small")
    return figure


def shares(found: Mapping[str, Sequence[float]], unit: str) -> Figure:
    """For each, which share of the values is at most so much."""
    figure, axes = _empty(height=3.5)
    for (name, values), color in zip(found.items(), (OURS, *OTHER_LINES), strict=False):
        axes.ecdf(values, color=color, label=name)
    axes.set_xlim(left=0)
    axes.set_xlabel(unit)
    axes.set_ylabel("share")
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0%}"))
    axes.legend(frameon=False, fontsize="small", loc="lower right")
    return figure


def _empty(height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(7.5, height), layout="constrained")
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="both", color="#d0d7de", linewidth=0.5)
    axes.set_axisbelow(True)
    return figure, axes
