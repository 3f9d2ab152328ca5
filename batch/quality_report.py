"""What a check found, as one HTML page that needs nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from jinja2 import Environment

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from batch.quality_validation import Finding

PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Quality of {{ report.table }}</title>
<style>
body { font: 15px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; color: #222 }
table { border-collapse: collapse; margin: 1rem 0; width: 100% } th, td { padding: .3rem .7rem; text-align: left }
th, td { border-bottom: 1px solid #ddd; vertical-align: top } td.count { text-align: right }
.bad { color: #b00020; font-weight: 600 } .good { color: #1b6e2e } .verdict { font-size: 1.2rem }
code { background: #f4f4f4; padding: .1rem .3rem }
</style></head><body>
<h1>Quality of {{ report.table }}</h1>
<p class="verdict {{ 'good' if report.holds else 'bad' }}">{{ report.verdict }}</p>
<p>{{ "{:,}".format(report.rows) }} rows checked by {{ report.engine }} at {{ report.made_at }}.</p>
{% for scope, title in (("table", "Rules of the table"), ("row", "Rules of each row")) %}
{% set rules = report.findings | selectattr("scope", "equalto", scope) | list %}
{% if rules %}
<h2>{{ title }}</h2>
<table><tr><th>rule</th><th>what must hold</th><th>held</th><th>broken</th><th>for example</th></tr>
{% for one in rules %}
<tr><td><code>{{ one.rule }}</code></td><td>{{ one.says }}</td>
<td class="{{ 'good' if one.holds else 'bad' }}">{{ "yes" if one.holds else "no" }}</td>
<td class="count">{{ "{:,}".format(one.broken) }}</td><td>{{ one.examples | join("; ") }}</td></tr>
{% endfor %}</table>
{% endif %}{% endfor %}
</body></html>
"""


def finding_rows(findings: Sequence[Finding]) -> list[dict[str, Any]]:
    """Findings as JSON has them."""
    return [
        {
            "rule": one.rule.name,
            "says": one.rule.says,
            "scope": one.rule.scope,
            "holds": one.holds,
            "broken": len(one.broken),
            "examples": one.examples,
        }
        for one in findings
    ]


def page(report: Mapping[str, Any]) -> str:
    """The report as one HTML document."""
    return Environment(autoescape=True).from_string(PAGE).render(report=report)
