"""The drift report as one HTML page that needs nothing else."""

from __future__ import annotations

import base64
import io
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
from jinja2 import Environment

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Drift</title>
<style>
body { font: 15px/1.5 system-ui, sans-serif; max-width: 66rem; margin: 2rem auto; padding: 0 1rem; color: #222 }
table { border-collapse: collapse; margin: 1rem 0; width: 100% } td, th { padding: .3rem .6rem; text-align: left }
td, th { border-bottom: 1px solid #ddd } .none { color: #1b6e2e } .minor { color: #9a6700; font-weight: 600 }
.major { color: #b00020; font-weight: 600 } figure { display: inline-block; margin: .5rem; width: 31rem }
figcaption { font-size: 13px; color: #555 } img { width: 100% } .verdict { font-size: 1.2rem }
</style></head><body>
<h1>Drift</h1>
<p class="verdict {{ report.severity }}">{{ report.verdict }}</p>
<p>{{ report.reference.text }} is compared with {{ report.current.text }}, one value a user.
A feature has drifted if the difference is significant (p &lt; {{ report.p_threshold }}, corrected for the number of
features) and large enough to matter.</p>
<table><tr><th>feature</th><th>severity</th><th>what changed</th><th>effects</th><th>p</th><th>users</th></tr>
{% for one in report.features %}
<tr><td>{{ one.feature }}</td><td class="{{ one.severity }}">{{ one.severity }}</td><td>{{ one.says }}</td>
<td>{% for name, value in one.effects.items() %}{{ name }} {{ "%.3f" | format(value) }} {% endfor %}</td>
<td>{{ "%.2g" | format(one.p_adjusted) }}</td>
<td>{{ "{:,}".format(one.reference_rows) }}, now {{ "{:,}".format(one.current_rows) }}</td></tr>
{% endfor %}</table>
<h2>The stream</h2>
<table><tr><th></th><th>reference</th><th>current</th></tr>
{% for name, value in report.reference.stream.items() %}
<tr><td>{{ name | replace("_", " ") }}</td><td>{{ "{:,.4g}".format(value) }}</td>
<td>{{ "{:,.4g}".format(report.current.stream[name]) }}</td></tr>
{% endfor %}</table>
<h2>Distributions</h2>
{% for name, image in plots.items() %}
<figure><img alt="{{ name }}" src="data:image/svg+xml;base64,{{ image }}"><figcaption>{{ name }}</figcaption></figure>
{% endfor %}
{% if history %}
<h2>Day by day, against the reference</h2>
<figure style="width: 62rem">
<img alt="largest effect of each feature by day" src="data:image/svg+xml;base64,{{ history }}">
<figcaption>each feature's largest effect, as a multiple of the threshold of minor drift</figcaption></figure>
{% endif %}
</body></html>
"""
MOST_CATEGORIES = 15
BLUE, ORANGE = "#1f6feb", "#e36209"


def page(report: Mapping[str, Any], samples: Mapping[str, tuple[pl.Series, pl.Series]]) -> str:
    """The page: `samples` are each feature's values in the reference and in the current period."""
    plots = {name: _distribution(*pair) for name, pair in samples.items() if min(map(len, pair))}
    history = _history(report["history"]) if len(report["history"]) > 1 else None
    return Environment(autoescape=True).from_string(PAGE).render(report=report, plots=plots, history=history)


def _distribution(reference: pl.Series, current: pl.Series) -> str:
    figure = _figure(5, 2.4)
    axes = figure.subplots()
    pairs = ((reference, "reference", BLUE), (current, "current", ORANGE))
    if reference.dtype.is_numeric():
        values = [one.drop_nulls().cast(pl.Float64).to_numpy() for one, _, _ in pairs]
        both = np.concatenate(values)
        low, high = (float(one) for one in np.quantile(both, [0.0, 0.99]))
        bins = np.linspace(low, high if high > low else low + 1, 30)
        for one, (_, label, colour) in zip(values, pairs, strict=True):
            weights = np.full(len(one), 1 / max(len(one), 1))
            axes.hist(np.clip(one, bins[0], bins[-1]), bins=bins, weights=weights, alpha=0.5, label=label, color=colour)
    else:
        shares = [
            dict(one.drop_nulls().cast(pl.String).value_counts(normalize=True).iter_rows()) for one, _, _ in pairs
        ]
        names = sorted({*shares[0], *shares[1]}, key=lambda name: -shares[0].get(name, 0.0))[:MOST_CATEGORIES]
        for number, (_, label, colour) in enumerate(pairs):
            places = [place + 0.4 * number for place in range(len(names))]
            axes.bar(places, [shares[number].get(name, 0.0) for name in names], 0.4, label=label, color=colour)
        axes.set_xticks([place + 0.2 for place in range(len(names))], names, fontsize=8)
    axes.set_ylabel("share of users", fontsize=8)
    axes.tick_params(labelsize=8)
    axes.legend(fontsize=8, frameon=False)
    return _encoded(figure)


def _history(days: Sequence[Mapping[str, Any]]) -> str:
    figure = _figure(10, 3)
    axes = figure.subplots()
    for name in days[-1]["levels"]:
        axes.plot([day["day"] for day in days], [day["levels"].get(name) for day in days], marker="o", label=name)
    axes.axhline(1, color="#888", linestyle=":")
    axes.tick_params(labelsize=8)
    axes.legend(fontsize=7, frameon=False, ncols=2, loc="center left", bbox_to_anchor=(1, 0.5))
    return _encoded(figure)


def _figure(width: float, height: float) -> Any:
    from matplotlib.figure import Figure  # noqa: PLC0415  (takes a second, and is an extra)

    return Figure(figsize=(width, height), layout="constrained")


def _encoded(figure: Any) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg")
    return base64.b64encode(buffer.getvalue()).decode()
