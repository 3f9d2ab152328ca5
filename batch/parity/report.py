"""The parity report as one HTML page with plots that needs nothing else."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any

import polars as pl

from batch.recompute.rows import STORED
from batch.recompute.stored import TIME

if TYPE_CHECKING:
    from collections.abc import Sequence

    from batch.parity.comparison import Comparison

WIDTH, HEIGHT, MOST_POINTS = 420, 70, 140
STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; color: #222 }
table { border-collapse: collapse; margin: 1rem 0 } th, td { padding: .25rem .7rem; border-bottom: 1px solid #ddd }
td + td, th + th { text-align: right }
td { white-space: nowrap } .bad { color: #b00020; font-weight: 600 } .good { color: #1b6e2e }
figure { display: inline-block; margin: .5rem 1rem .5rem 0 } figcaption { font-size: 13px; color: #555 }
svg { background: #fafafa; border: 1px solid #eee } .stream { stroke: #1f6feb } .batch { stroke: #e36209 }
polyline { fill: none; stroke-width: 1.5 } .batch { stroke-dasharray: 4 3 } rect { fill: #b00020 }
"""


def page(comparison: Comparison, report: dict[str, Any]) -> str:
    """The report as one HTML document."""
    verdict = '<p class="bad">They differ.</p>'
    if report["holds"]:
        late = f"They differ in {report['rows']['explained']:,} rows, and late events explain every one."
        says = late if report["rows"]["explained"] else "Stream and batch agree."
        verdict = f'<p class="good">{says}</p>'
    title = f"Parity of {report['view']}: {report['mode']}"
    span = f"window ends from {report['start'] or 'the first'} to before {report['end'] or 'the last closed'}"
    columns = ("compared", "equal", "different", "explained", "undeclared", "only_in_stream", "only_in_batch")
    features = _table(
        ("feature", *columns, "largest_difference"),
        [
            (name, *(f"{count[column]:,}" for column in columns), f"{count['largest_difference']:g}")
            for name, count in report["features"].items()
        ],
    )
    figures = (
        f"<p>{report['rows']['recomputed']:,} rows recomputed with {escape(report['engine'])}, {escape(span)}; "
        f"{report['rows']['unexplained']:,} unexplained. Made at {escape(report['made_at'])}.</p>"
    )
    parts = [
        f"<h1>{escape(title)}</h1>{verdict}",
        figures,
        features,
        "<h2>By window end</h2>",
        _plots(comparison),
        _examples("Rows that differ", report["examples"]),
    ]
    if report["watermarks"]["mismatched"]:
        count = report["watermarks"]["mismatched"]
        parts.append(f'<p class="bad">{count:,} archived watermarks differ from those of the records.</p>')
        parts.append(_examples("Watermarks", report["watermarks"]["examples"]))
    if users := report["in_two_partitions"]:
        parts.append(f'<p class="bad">Users in two partitions: {escape(", ".join(users[:50]))}</p>')
    if online := report["online"]:
        counts = {name: value for name, value in online.items() if isinstance(value, int)}
        ages = {f"age, {name} (s)": round(value) for name, value in online["age_seconds"].items()}
        rows = [(name.replace("_", " "), f"{value:,}") for name, value in {**counts, **ages}.items()]
        parts += ["<h2>Online</h2>", _table(("users", ""), rows), _examples("Rows", online["examples"])]
    head = f'<meta charset="utf-8"><title>{escape(title)}</title><style>{STYLE}</style>'
    return f'<!doctype html><html lang="en"><head>{head}</head><body>{"".join(parts)}</body></html>\n'


def _table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    head = "".join(f"<th>{escape(name.replace('_', ' '))}</th>" for name in header)
    body = "".join(f"<tr>{''.join(f'<td>{escape(str(cell))}</td>' for cell in row)}</tr>" for row in rows)
    return f"<table><tr>{head}</tr>{body}</table>"


def _examples(title: str, examples: list[dict[str, Any]]) -> str:
    if not examples:
        return ""
    return f"<h3>{escape(title)}</h3>" + _table(tuple(examples[0]), [tuple(one.values()) for one in examples])


def _plots(comparison: Comparison) -> str:
    """Wrong rows by window end; and each feature's mean, stored and recomputed."""
    if not comparison.series:
        return "<p>No windows.</p>"
    series = pl.concat(comparison.series).group_by(TIME).sum().sort(TIME)
    step = -(-len(series) // MOST_POINTS)
    points = series.group_by(pl.int_range(pl.len()) // step, maintain_order=True).agg(
        pl.col(TIME).first(), pl.exclude(TIME).sum()
    )
    times = points[TIME].to_list()
    span = f"{times[0]:%Y-%m-%d %H:%M} to {times[-1]:%Y-%m-%d %H:%M} UTC"
    wrong = points["#wrong"].to_list()
    top = max(*wrong, 1)
    width = WIDTH / len(wrong)
    bars = "".join(
        f'<rect x="{at * width:.1f}" y="{HEIGHT - value / top * HEIGHT:.1f}" width="{max(width - 1, 1):.1f}" '
        f'height="{value / top * HEIGHT:.1f}"/>'
        for at, value in enumerate(wrong)
        if value
    )
    figures = [_figure(f"rows that differ, {span}; at most {max(wrong):,}", bars)]
    for name in comparison.view.features:
        means = [(points[side] / points["#rows"]).to_list() for side in (STORED + name, name)]
        low, high = min(map(min, means)), max(map(max, means))
        lines = "".join(
            f'<polyline class="{style}" points="{_points(values, low, high)}"/>'
            for style, values in zip(("stream", "batch"), means, strict=True)
        )
        figures.append(_figure(f"{name}: mean, {low:.3g} to {high:.3g}; stored solid, recomputed dashed", lines))
    return "".join(figures)


def _points(values: list[float], low: float, high: float) -> str:
    step, scale = WIDTH / max(len(values) - 1, 1), (HEIGHT - 4) / ((high - low) or 1.0)
    return " ".join(f"{at * step:.1f},{HEIGHT - 2 - (value - low) * scale:.1f}" for at, value in enumerate(values))


def _figure(caption: str, content: str) -> str:
    size = f'viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}"'
    return f'<figure><svg {size} role="img">{content}</svg><figcaption>{escape(caption)}</figcaption></figure>'
