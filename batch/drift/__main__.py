"""Drift of stored features between two periods, with a report for people and an exit code for programs.

    python -m batch.drift                                             # the last day against the day before
    python -m batch.drift --reference 2026-01-01 2026-01-08 --current 2026-02-01 2026-02-08

Exits with 1 if a feature has drifted by at least `--fail-on`. If there is too little data to rule drift out, the report
says `insufficient data`; that is not a failure.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.progress import track
from rich.table import Table

from batch.drift.samples import PREDICTION, Period, health_in_words, stream_health, values_of
from batch.drift.statistics import DEFAULT_P, SEVERITIES, THRESHOLDS, Drift, Severity, compare, judge
from batch.recompute.archive import reach_of
from batch.report_files import stem, write_report
from feast_repo.commands import Command, instant, number
from feast_repo.settings import StreamSettings
from feast_repo.stores.offline.tables import progress_folder
from feast_repo.stores.progress import ProgressRecord

if TYPE_CHECKING:
    import argparse
    from collections.abc import Collection, Sequence
    from pathlib import Path

    import polars as pl

    from feast_repo.declare.services import FeatureService
    from feast_repo.declare.views import WindowedView

    Samples = dict[str, tuple[pl.Series, pl.Series]]

DAY = timedelta(days=1)
MOST_DAYS = 14
"""Of the history."""


def samples_of(
    data_root: Path,
    service: FeatureService,
    reference: Period,
    current: Period,
    *,
    services: Collection[FeatureService] = (),
) -> Samples:
    """Values of every feature of a service in both periods, and of its predictions if there are any; see `values_of`.

    Raises:
        OSError: a file can't be read.
    """
    before, now = (values_of(data_root, service, period, services=services) for period in (reference, current))
    return {name: (before[name], now[name]) for name in now if name != PREDICTION or len(before[name]) + len(now[name])}


def drift_of(samples: Samples, p_threshold: float) -> list[Drift]:
    """Each feature's drift."""
    return judge([compare(name, *pair) for name, pair in samples.items()], p_threshold)


def _closed_until(data_root: Path, view: WindowedView) -> datetime | None:
    """The window end after the last one that the stream has closed in a partition."""
    reach = reach_of(view, ProgressRecord(progress_folder(data_root, view.source)).load())
    last = max(reach["last"].to_list(), default=None)
    return None if last is None else datetime.fromtimestamp(0, tz=UTC) + (last + 1) * view.slide


def _periods(
    options: argparse.Namespace, command: Command, data_root: Path, service: FeatureService
) -> tuple[Period, Period]:
    if options.current is None:
        ends = [_closed_until(data_root, view) for view in service.windowed]
        end = max(filter(None, ends), default=None)
        if end is None:
            command.error(f"{data_root} has no progress record: run the stream first, or name --current")
        current = Period(end - DAY, end)
    else:
        current = Period(*options.current)
    length = current.end - current.start
    reference = (
        Period(current.start - length, current.start) if options.reference is None else Period(*options.reference)
    )
    for name, period in (("--current", current), ("--reference", reference)):
        if period.start >= period.end:
            command.error(f"{name}: the start must be before the end")
    return reference, current


def _history(
    data_root: Path,
    service: FeatureService,
    services: Collection[FeatureService],
    samples: Samples,
    current: Period,
    p_threshold: float,
) -> list[dict[str, Any]]:
    """Each feature's largest effect on each of the last days, as a multiple of the threshold of minor drift.

    It starts with the first day that has windowed features, and compares each day with the same reference.
    """
    windowed = [name for view in service.windowed for name in view.features]
    days: list[dict[str, Any]] = []
    ends = [current.end - number * DAY for number in reversed(range(MOST_DAYS))]
    for end in track(ends, description="day by day", console=Console(stderr=True), transient=True):
        day = Period(end - DAY, end)
        now = values_of(data_root, service, day, services=services)
        if not days and not any(len(now[name]) for name in windowed or now):
            continue
        drifts = drift_of({name: (before, now[name]) for name, (before, _) in samples.items()}, p_threshold)
        levels = {
            one.feature: max(effect / THRESHOLDS[name][0] for name, effect in one.effects.items())
            for one in drifts
            if one.effects
        }
        severities = {one.feature: one.severity for one in drifts}
        days.append({**_period(data_root, service, day), "levels": levels, "severities": severities})
    return days


def _report(
    data_root: Path,
    service: FeatureService,
    services: Collection[FeatureService],
    reference: Period,
    current: Period,
    p_threshold: float,
) -> tuple[dict[str, Any], Samples]:
    samples = samples_of(data_root, service, reference, current, services=services)
    drifts = drift_of(samples, p_threshold)
    severity, verdict = verdict_of(drifts)
    return {
        "service": service.name,
        "reference": _period(data_root, service, reference),
        "current": _period(data_root, service, current),
        "p_threshold": p_threshold,
        "severity": severity,
        "verdict": verdict,
        "features": [asdict(one) for one in drifts],
        "history": _history(data_root, service, services, samples, current, p_threshold),
    }, samples


def verdict_of(drifts: Sequence[Drift]) -> tuple[Severity, str]:
    """The overall severity and a sentence: nothing has drifted only if every feature could be judged."""
    drifted = [f"{one.feature} ({one.severity})" for one in drifts if one.drifted]
    untold = [one.feature for one in drifts if one.severity == "insufficient data"]
    told = [one.severity for one in drifts if one.severity != "insufficient data"]
    severity: Severity = max(told, key=SEVERITIES.index, default="none")
    if severity == "none" and untold:
        severity = "insufficient data"
    if drifted:
        verdict = f"Drifted: {', '.join(drifted)}."
    elif told:
        verdict = "Nothing has drifted, as far as there is enough data." if untold else "Nothing has drifted."
    else:
        verdict = "Nothing can be told."
    return severity, verdict + (f" Insufficient data: {', '.join(untold)}." if untold else "")


def _period(data_root: Path, service: FeatureService, period: Period) -> dict[str, Any]:
    return {
        "start": period.start.isoformat(),
        "end": period.end.isoformat(),
        "text": str(period),
        "stream": stream_health(data_root, service.windowed, period),
    }


def _print(report: dict[str, Any], file: Path) -> None:
    table = Table(
        "feature",
        "severity",
        "what changed",
        "p",
        title=f"{report['current']['text']} against {report['reference']['text']}",
    )
    colours = {"none": "green", "minor": "yellow", "major": "red"}
    for one in report["features"]:
        colour = colours.get(one["severity"], "dim")
        p = f"{one['p_adjusted']:.2g}" if one["effects"] else ""
        table.add_row(one["feature"], f"[{colour}]{one['severity']}[/]", escape(one["says"]), p)
    console = Console()
    console.print(table)
    for says in health_in_words(report["reference"]["stream"], report["current"]["stream"]):
        console.print(says, highlight=False)
    console.print(report["verdict"], markup=False)
    sys.stdout.write(f"{file}\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    command = Command("python -m batch.drift", "Compare a service's features and predictions in two periods.")
    bounds: dict[str, Any] = {"nargs": 2, "type": instant, "metavar": ("START", "END")}
    command.add_argument("--current", **bounds, help="ISO 8601 UTC (default: the last day)")
    command.add_argument("--reference", **bounds, help="(default: the period of equal length just before)")
    command.add_argument("--p-threshold", type=number(above=0.0, maximum=1.0), default=DEFAULT_P, help="(%(default)s)")
    command.add_argument("--fail-on", choices=["minor", "major", "never"], default="major", help="exit 1 (%(default)s)")
    command.add_choice("service")
    command.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    options = command.parse_args(arguments)
    settings = command.settings(StreamSettings)
    service = command.chosen(settings.catalog.service, options.service)
    reference, current = _periods(options, command, settings.data_root, service)
    with command.telling(settings.data_root):
        report, samples = _report(
            settings.data_root, service, settings.catalog.services, reference, current, options.p_threshold
        )
        from batch.drift.report import page  # noqa: PLC0415  (plots take a second to import)

        name = f"{stem('drift', service, settings.catalog.services)}-{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
        *_, file = write_report(settings.data_root / "reports", name, report, page(report, samples))
    if options.json:
        sys.stdout.write(json.dumps({**report, "file": str(file)}) + "\n")
    else:
        _print(report, file)
    failing = () if options.fail_on == "never" else SEVERITIES[SEVERITIES.index(options.fail_on) :]
    return int(report["severity"] in failing)


if __name__ == "__main__":
    sys.exit(main())
