"""The findings of a check as one self-contained HTML page."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from feast_repo.pages import render

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from batch.quality.validation import Finding

TEMPLATE = Path(__file__).with_name("report.html")
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
    """The most frequently broken row rules, and what to edit if the data are right; empty if none is broken."""
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
        text += f" If the data are right, change {' and '.join(map(str, edits))} in features.py."
    return text


def finding_rows(findings: Sequence[Finding]) -> list[dict[str, Any]]:
    """Findings for JSON."""
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
    return render(TEMPLATE, report=report, parts=GATE if "good" in report else MONITOR)
