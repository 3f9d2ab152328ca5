"""The drift report as one HTML page that needs nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from jinja2 import Environment

from batch.drift.plots import plot
from batch.drift.samples import health_in_words
from batch.drift.statistics import MEANINGS, SEVERITIES, THRESHOLDS, level_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    import polars as pl

PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Drift</title>
<meta name="viewport" content="width=device-width, initial-scale=1"><link rel="icon" href="data:,">
<style>
body { font: 15px/1.5 system-ui, sans-serif; max-width: 66rem; margin: 2rem auto; padding: 0 1rem; color: #222 }
table { border-collapse: collapse; margin: 1rem 0; width: 100% } td, th { padding: .35rem .6rem; text-align: left }
td, th { border-bottom: 1px solid #ddd; vertical-align: top } td.number { text-align: right; white-space: nowrap }
th.number { text-align: right } .none { color: #1b6e2e } .minor { color: #8a5a00; font-weight: 600 }
.major { color: #b00020; font-weight: 600 } .insufficient { color: #666 } .verdict { font-size: 1.25rem }
td.effects span { white-space: nowrap; margin-right: .6rem } figure { margin: 1.2rem 0 } img { width: 100% }
figcaption { font-size: 14px } code { background: #f4f4f4; padding: .1rem .3rem } .note { color: #555; font-size: 14px }
</style></head><body>
<h1>Drift</h1>
<p class="verdict {{ report.severity }}">{{ report.verdict }}</p>
<table><tr><th>reference</th><td>{{ report.reference.text }}</td></tr>
<tr><th>current</th><td>{{ report.current.text }}</td></tr></table>
<p>Each feature has one value a user in each period. It has drifted if the two distributions differ significantly
(p &lt; {{ report.p_threshold }}, corrected for the number of features) <b>and</b> by enough to matter:
<a href="#effects">see the effects</a>. <i>Insufficient data</i>: a part of it has too few values to say that it has
not drifted. The charts are <a href="#charts">below</a>.</p>
<table><tr><th>feature</th><th>drift</th><th>what changed</th><th>effects</th><th class="number">p</th>
<th class="number">users</th></tr>
{% for one in features %}
<tr><td><a href="#{{ one.feature }}">{{ one.feature }}</a></td><td class="{{ one.severity }}">{{ one.severity }}</td>
<td>{{ one.says }}</td>
<td class="effects">{% for name, value in one.effects.items() %}<span class="{{ level(name, value) }}">{{ name }}
{{ "%.3f" | format(value) }}</span> {% endfor %}</td>
<td class="number">{{ "%.2g" | format(one.p_adjusted) if one.effects }}</td>
<td class="number">{{ "{:,}".format(one.reference_rows) }}<br>now {{ "{:,}".format(one.current_rows) }}</td></tr>
{% endfor %}</table>
<h2>The stream</h2>
<ul>{% for says in health %}<li>{{ says }}</li>{% endfor %}</ul>
<table><tr><th>24 hours to</th><th class="number">events per hour</th><th class="number">late</th>
<th class="number">dead letters</th><th>features that differ from the reference (grey: insufficient data)</th></tr>
{% for day in report.history %}
<tr><td>{{ day.end[:16] | replace("T", " ") }}</td>
<td class="number">{{ "{:,.0f}".format(day.stream.events_per_hour) }}</td>
<td class="number">{{ "{:.2%}".format(day.stream.late_share) }}</td>
<td class="number">{{ "{:.2%}".format(day.stream.dead_letter_share) }}</td>
<td>{% for name, severity in day.severities.items() if severity != "none" %}
<span class="{{ severity }}">{{ name }}</span>{{ "" if loop.last else ", " }}{% else %}none{% endfor %}</td></tr>
{% endfor %}</table>
<h2 id="charts">Feature by feature</h2>
<p class="note">Left: how the users' values are distributed. Right: the largest effect of each day against the
reference, where 1 is the threshold of minor drift; a full mark is drift, a hollow one is none, a
grey one is insufficient data.</p>
{% for one in features %}
<figure id="{{ one.feature }}">
<figcaption><b>{{ one.feature }}</b>: <span class="{{ one.severity }}">{{ one.severity }}</span>
{{- "; " ~ one.says if one.says }}</figcaption>
{% if one.feature in plots %}<img alt="distribution and history of {{ one.feature }}"
src="data:image/svg+xml;base64,{{ plots[one.feature] }}">{% endif %}
</figure>
{% endfor %}
<h2 id="effects">Effects</h2>
<table><tr><th>effect</th><th>what it is</th><th class="number">minor from</th><th class="number">major from</th></tr>
{% for name, (minor, major) in thresholds.items() %}
<tr><td>{{ name }}</td><td>{{ meanings[name] }}</td><td class="number">{{ minor }}</td>
<td class="number">{{ major }}</td></tr>
{% endfor %}</table>
</body></html>
"""


def page(report: Mapping[str, Any], samples: Mapping[str, tuple[pl.Series, pl.Series]]) -> str:
    """The page: `samples` are each feature's values in the reference and in the current period."""
    features = sorted(report["features"], key=lambda one: -_rank(one["severity"]))
    history = report["history"]
    plots = {name: plot(name, *pair, history) for name, pair in samples.items() if min(map(len, pair))}
    return Environment(autoescape=True).from_string(PAGE).render(
        report=report,
        features=features,
        health=health_in_words(report["reference"]["stream"], report["current"]["stream"]),
        plots=plots,
        thresholds=THRESHOLDS,
        meanings=MEANINGS,
        level=lambda name, value: SEVERITIES[level_of(name, value)],
    )  # fmt: skip


def _rank(severity: str) -> int:
    """Drifted features come first, then those of which too little is known."""
    order = ("none", "insufficient data", "minor", "major")
    return order.index(severity)
