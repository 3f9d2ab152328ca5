"""What came of a training, as one HTML page that needs nothing else."""

from __future__ import annotations

import base64
import io
from datetime import datetime
from typing import TYPE_CHECKING, Any

import numpy as np
from jinja2 import Environment

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy.typing as npt

BINS = 10
PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Model {{ card.version }}</title>
<style>
body { font: 15px/1.5 system-ui, sans-serif; max-width: 58rem; margin: 2rem auto; padding: 0 1rem; color: #222 }
table { border-collapse: collapse; margin: 1rem 0 } td, th { padding: .3rem .9rem .3rem 0; text-align: left }
td, th { border-bottom: 1px solid #ddd } img { width: 100% } .verdict { font-size: 1.2rem } .bad { color: #b00020 }
figcaption { font-size: 13px; color: #555 } figure { margin: 1rem 0 }
</style></head><body>
<h1>Model {{ card.version }}</h1>
<p class="verdict{{ "" if good_enough else " bad" }}">{{ verdict }}</p>
<p>The model gives the probability that a user buys within the next hour. It was made from
{{ "{:,}".format(card.training_rows) }} rows, {{ card.training_start | minute }} to {{ card.training_end | minute }},
and judged by {{ "{:,}".format(card.holdout_rows) }} later ones, {{ card.holdout_start | minute }} to
{{ card.holdout_end | minute }}.</p>
<table><tr><th>on the later rows</th>{% for name in columns %}<th>{{ name }}</th>{% endfor %}</tr>
{% for metric in card.metrics %}
<tr><td>{{ metric | replace("_", " ") }}</td>
{% for one in columns.values() %}<td>{{ "%.4f" | format(one[metric]) }}</td>{% endfor %}</tr>
{% endfor %}</table>
<p>Log loss and Brier score: less is better. ROC AUC: 0.5 is chance, 1 is perfect. The baseline always says how often
users bought in the rows that the model was made from.</p>
<h2>Calibration</h2>
<figure><img alt="predicted against observed" src="data:image/svg+xml;base64,{{ plot }}">
<figcaption>Left: tenths of the later rows by predicted probability; on the dotted line, users buy as often as
predicted. Right: how often each probability was predicted.</figcaption></figure>
<h2>Features</h2>
<table><tr><th>feature</th><th>type</th><th>categories</th></tr>
{% for one in card.features %}
<tr><td>{{ one.view }}:{{ one.name }}</td><td>{{ one.type }}</td>
<td>{{ (one.categories or []) | join(", ") }}</td></tr>
{% endfor %}</table>
</body></html>
"""


def page(
    card: Any,
    columns: Mapping[str, Mapping[str, float]],
    verdict: str,
    truth: npt.NDArray[np.bool_],
    probability: npt.NDArray[Any],
    *,
    good_enough: bool,
) -> str:
    """The page: `columns` are the metrics by whose they are, `truth` and `probability` [rows] of the rows held out."""
    environment = Environment(autoescape=True)
    environment.filters["minute"] = lambda text: f"{datetime.fromisoformat(text):%Y-%m-%d %H:%M} UTC"
    template = environment.from_string(PAGE)
    plot = _calibration(truth, probability)
    return template.render(card=card, columns=columns, verdict=verdict, good_enough=good_enough, plot=plot)


def _calibration(truth: npt.NDArray[np.bool_], probability: npt.NDArray[Any]) -> str:
    from matplotlib.figure import Figure  # noqa: PLC0415  (an extra, and slow to import)

    order = np.argsort(probability, kind="stable")
    bins = [part for part in np.array_split(order, BINS) if len(part)]
    predicted = [float(probability[part].mean()) for part in bins]
    observed = [float(truth[part].mean()) for part in bins]
    figure = Figure(figsize=(10, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    most = min(1.0, max(*predicted, *observed, 0.01) * 1.1)
    left.plot([0, most], [0, most], linestyle=":", color="#888")
    left.plot(predicted, observed, marker="o", color="#1f6feb")
    left.set_xlabel("predicted")
    left.set_ylabel("observed share of buyers")
    right.hist(probability, bins=40, color="#1f6feb")
    right.set_xlabel("predicted probability")
    right.set_ylabel("rows")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg")
    return base64.b64encode(buffer.getvalue()).decode()
