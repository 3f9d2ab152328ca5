"""The parity report as one self-contained HTML page with plots."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from batch.recompute.rows import STORED
from feast_repo.declare.rows import EVENT_TIME
from feast_repo.pages import render

if TYPE_CHECKING:
    from collections.abc import Iterator

    from batch.parity.comparison import ParityComparison

TEMPLATE = Path(__file__).with_name("report.html")
WIDTH, HEIGHT, MOST_POINTS = 420, 70, 140
COLUMNS = ["compared", "equal", "different", "explained", "undeclared", "only_in_stream", "only_in_batch"]


def page(comparison: ParityComparison, report: dict[str, Any]) -> str:
    """The report as one HTML document."""
    return render(
        TEMPLATE,
        report=report,
        columns=[*COLUMNS, "largest_difference"],
        features=[
            (name, *(f"{count[column]:,}" for column in COLUMNS), f"{count['largest_difference']:g}")
            for name, count in report["features"].items()
        ],
        plots=list(_plots(comparison)),
        width=WIDTH,
        height=HEIGHT,
        online=_online(report["online"]),
    )


def _online(online: dict[str, Any] | None) -> list[tuple[str, str]]:
    if not online:
        return []
    counts = {
        "entities" if name == "users" else name: value for name, value in online.items() if isinstance(value, int)
    }
    ages = {f"age, {name} (s)": round(value) for name, value in online["age_seconds"].items()}
    return [(name.replace("_", " "), f"{value:,}") for name, value in {**counts, **ages}.items()]


@dataclass(frozen=True)
class Plot:
    """A small plot: bars, or lines by style, in units of the drawing."""

    caption: str
    bars: list[dict[str, str]] = field(default_factory=list)
    lines: dict[str, str] = field(default_factory=dict)


def _plots(comparison: ParityComparison) -> Iterator[Plot]:
    """Wrong rows by window end, and each feature's stored and recomputed mean."""
    if not comparison.series:
        return
    series = pl.concat(comparison.series).group_by(EVENT_TIME).sum().sort(EVENT_TIME)
    step = -(-len(series) // MOST_POINTS)
    points = series.group_by(pl.int_range(pl.len()) // step, maintain_order=True).agg(
        pl.col(EVENT_TIME).first(), pl.exclude(EVENT_TIME).sum()
    )
    times = points[EVENT_TIME].to_list()
    span = f"{times[0]:%Y-%m-%d %H:%M} to {times[-1]:%Y-%m-%d %H:%M} UTC"
    wrong = points["#wrong"].to_list()
    yield Plot(f"rows that differ, {span}; at most {max(wrong):,}", bars=_bars(wrong))
    for name in comparison.view.features:
        stored, recomputed = ((points[side] / points["#rows"]).to_list() for side in (STORED + name, name))
        low, high = min(*stored, *recomputed), max(*stored, *recomputed)
        yield Plot(
            f"{name}: mean, {low:.3g} to {high:.3g}; stored solid, recomputed dashed",
            lines={"stored": _points(stored, low, high), "recomputed": _points(recomputed, low, high)},
        )


def _bars(values: list[int]) -> list[dict[str, str]]:
    width, scale = WIDTH / len(values), HEIGHT / max(*values, 1)
    return [
        {
            "x": f"{at * width:.1f}",
            "y": f"{HEIGHT - value * scale:.1f}",
            "width": f"{max(width - 1, 1):.1f}",
            "height": f"{value * scale:.1f}",
        }
        for at, value in enumerate(values)
        if value
    ]


def _points(values: list[float], low: float, high: float) -> str:
    step, scale = WIDTH / max(len(values) - 1, 1), (HEIGHT - 4) / ((high - low) or 1.0)
    return " ".join(f"{at * step:.1f},{HEIGHT - 2 - (value - low) * scale:.1f}" for at, value in enumerate(values))
