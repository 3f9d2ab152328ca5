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


def stopped_in_words(findings: Sequence[Finding]) -> str:
    """The table rules that do not hold, with what was found; empty if all hold."""
    failed = [f"{one.rule.name} ({', not '.join([one.rule.says, *one.examples])})" for one in findings if one.stops]
    return f"Nothing is published, since a rule of the table does not hold: {', '.join(failed)}." if failed else ""


def broken_in_words(findings: Sequence[Finding]) -> str:
    """The most frequently broken row rules; empty if none is broken."""
    named = [
        f"{one.rule.name} ({one.rule.says}) in {len(one.broken):,}, such as {one.examples[0]}"
        if one.examples
        else f"{one.rule.name} ({one.rule.says}) in {len(one.broken):,}"
        for one in _most_broken(findings)
    ]
    return f"Most often broken: {'; '.join(named)}." if named else ""


def edits(findings: Sequence[Finding]) -> str:
    """What to edit if the data are right, for failed table rules and the row rules that are broken most often."""
    failed = [*(one for one in findings if one.stops), *_most_broken(findings)]
    declared = dict.fromkeys(one.rule.set_by for one in failed if one.rule.set_by)
    return f"If the data are right, change {' and '.join(map(str, declared))} in features.py." if declared else ""


def _most_broken(findings: Sequence[Finding]) -> list[Finding]:
    broken = (one for one in findings if one.rule.scope == "row" and not one.holds)
    return sorted(broken, key=lambda one: -len(one.broken))[:MOST_NAMED]


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
