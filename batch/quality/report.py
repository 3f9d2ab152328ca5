"""What a check found, as one HTML page that needs nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from jinja2 import Environment

from batch.quality.rules import THIS_FILE

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from batch.quality.validation import Finding

PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Quality of {{ report.table }}</title>
<meta name="viewport" content="width=device-width, initial-scale=1"><link rel="icon" href="data:,">
<style>
body { font: 15px/1.5 system-ui, sans-serif; max-width: 66rem; margin: 2rem auto; padding: 0 1rem; color: #222 }
table { border-collapse: collapse; margin: 1rem 0; width: 100% } th, td { padding: .3rem .7rem; text-align: left }
th, td { border-bottom: 1px solid #ddd; vertical-align: top } .count { text-align: right } td.broken { color: #b00020 }
.bad { color: #b00020; font-weight: 600 } .good { color: #1b6e2e } .verdict { font-size: 1.25rem }
code { background: #f4f4f4; padding: .1rem .3rem; overflow-wrap: anywhere } .note { color: #555; font-size: 14px }
</style></head><body>
<h1>Quality of {{ report.table }}</h1>
<p class="verdict {{ 'good' if report.holds else 'bad' }}">{{ report.verdict }}</p>
<p>{{ "{:,}".format(report.rows) }} rows were checked with {{ report.engine }} at {{ report.made_at }}
{%- if report.start %}, of windows that end from {{ report.start }} to before {{ report.end }}{% endif %}.
{% if report.quarantined and report.holds %}Rows that break a rule are kept in quarantine, with the names of the rules.
Write them to a file with <code>python -m batch.quality export FILE</code>, mend it, and publish it with
<code>python -m batch.quality replay FILE</code>.{% endif %}</p>
{% for scope, title, note in parts %}
{% set rules = report.findings | selectattr("scope", "equalto", scope) | sort(attribute="holds") %}
{% if rules %}
<h2>{{ title }}</h2>
<p class="note">{{ note }}</p>
<table><tr><th>rule</th><th>what must hold</th><th>held</th><th class="count">broken</th><th>for example</th></tr>
{% for one in rules %}
<tr><td><code>{{ one.rule }}</code></td><td>{{ one.says }}</td>
<td class="{{ 'good' if one.holds else 'bad' }}">{{ "yes" if one.holds else "no" }}</td>
<td class="count {{ '' if one.holds else 'broken' }}">{{ "{:,}".format(one.broken) }}</td>
<td>{{ one.examples | join("; ") }}</td></tr>
{% endfor %}</table>
{% endif %}{% endfor %}
{% if report.files %}<h2>Files</h2>
<ul>{% for file in report.files %}<li><code>{{ file }}</code></li>{% endfor %}</ul>{% endif %}
</body></html>
"""
GATE = (
    (
        "table",
        "Rules of the table",
        "If one does not hold, nothing is published, and what is published stays as it was.",
    ),
    ("row", "Rules of each row", "A row that breaks one is kept apart; the others are published."),
)
MONITOR = (
    ("table", "Rules of the table", "The stream has published these rows already: this page tells, and stops nothing."),
    ("row", "Rules of each row", "The rows that break one are still there; their values are beside the rule."),
)


MOST_NAMED = 3


def broken_in_words(findings: Sequence[Finding]) -> str:
    """The row rules that are broken most often, and what to edit where the data are right; empty if none is."""
    broken = sorted(
        (one for one in findings if one.rule.scope == "row" and not one.holds), key=lambda one: -len(one.broken)
    )
    if not broken:
        return ""
    named = [
        f"{one.rule.name} ({one.rule.says}) in {len(one.broken):,}, such as {one.examples[0]}"
        if one.examples
        else f"{one.rule.name} ({one.rule.says}) in {len(one.broken):,}"
        for one in broken[:MOST_NAMED]
    ]
    text = f"Most often broken: {'; '.join(named)}."
    if edits := dict.fromkeys(one.rule.set_by for one in broken[:MOST_NAMED] if one.rule.set_by):
        text += f" If the data are right, change {' and '.join(map(str, edits))} in {THIS_FILE}."
    return text


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
    return (
        Environment(autoescape=True)
        .from_string(PAGE)
        .render(report=report, parts=GATE if "good" in report else MONITOR)
    )
