"""Quality gates: which rows may be published, and whether published rows can be trusted.

    python -m batch.quality gate --input new.csv     # publish the good rows, quarantine the broken ones
    python -m batch.quality export broken.csv        # quarantined rows, for repair
    python -m batch.quality replay broken.csv        # publish them once they are repaired
    python -m batch.quality monitor                  # check the stream's rows, which are already published

`monitor` is about a windowed view, the others about a batch view; `--view` says which if there are several. Exits with
1 if `gate` or `replay` published nothing, or if `monitor` finds a broken rule. `profiles` and `clicks` are the shop's
words for `gate` and `monitor`.
"""

from __future__ import annotations

import json
import sys
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import polars as pl
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from batch.lock import only_batch_writer
from batch.quality import quarantine
from batch.quality.candidate import MemoryCandidate
from batch.quality.gate import Gated, gate, replay
from batch.quality.publication import BatchTable
from batch.quality.report import broken_in_words, edits, finding_rows, page, stopped_in_words
from batch.quality.rules import LEAST_ROWS_TO_COMPARE, RATIO, volume_suite, windowed_suite
from batch.quality.validation import Batch, QualityError, validate
from batch.quality.windowed import DAY, hours_of, row_frame, volume_frame
from batch.recompute.recomputation import scope_of
from batch.recompute.stored import stored_rows
from batch.report_files import stem, write_report
from feast_repo.commands import Command, instant, integer, number
from feast_repo.declare.rows import EVENT_TIME
from feast_repo.declare.views import WindowedView
from feast_repo.settings import StreamSettings

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator, Sequence

    from batch.quality.candidate import Candidate
    from batch.quality.validation import Finding
    from feast_repo.declare.batch_views import BatchView
    from feast_repo.declare.catalog import Catalog

MOST_ROWS = 10**12


def _action(actions: Any, name: str, description: str, *, also: str | None = None) -> Command:
    """`also`: an older name of the action, which it does not have in reports."""
    aliases = [] if also is None else [also]
    action: Command = actions.add_parser(name, aliases=aliases, help=description, description=description)
    action.set_defaults(action=name)
    action.add_choice("view")
    action.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    action.set_defaults(engine="pandas")
    return action


def _engines(action: Command) -> None:
    action.add_argument(
        "--engine", choices=["pandas", "spark"], default="pandas", help="engine for the checks (%(default)s)"
    )
    action.add_argument("--master", default="local[*]", help="Spark master (%(default)s)")


def _parser() -> Command:
    command = Command("python -m batch.quality", "Check data against rules derived from the declarations.")
    actions = command.add_subparsers(dest="action", required=True, metavar="gate|export|replay|monitor")
    table = _action(actions, "gate", "Gate a table of a batch view, and publish its good rows.", also="profiles")
    table.add_argument(
        "--input", type=Path, help=".csv or .parquet (default: what is published, in DATA_ROOT/profiles)"
    )
    table.add_argument(
        "--time", type=instant, help="when they become valid, ISO 8601 UTC (default: as the file says, or now)"
    )
    table.add_argument(
        "--least-rows",
        type=integer(0, MOST_ROWS),
        help="minimum of good rows (default: as declared, or half of the published)",
    )
    table.add_argument("--most-days-old", type=number(), help="age of the rows in days (default: as declared, or 2)")
    _engines(table)
    out = _action(actions, "export", "Write quarantined rows to a file for repair.")
    out.add_argument("file", type=Path, metavar="FILE", help="a new .csv or .parquet file, which replay reads")
    out.add_argument(
        "--time", type=instant, help="rows that would be valid from then on, ISO 8601 UTC (default: the newest)"
    )
    out.add_argument("--rule", help="only rows that break this rule, as the report names it")
    again = _action(actions, "replay", "Gate repaired rows of the quarantine, and publish them if all are good.")
    again.add_argument("file", type=Path, metavar="FILE", help="the exported file, repaired")
    rows = _action(actions, "monitor", "Look at the features that the stream has stored.", also="clicks")
    rows.add_argument("--start", type=instant, help="first window end, ISO 8601 UTC (default: the last 24 hours)")
    rows.add_argument("--end", type=instant, help="window ends before this, ISO 8601 UTC")
    _engines(rows)
    return command


def _gate_table(options: argparse.Namespace, table: BatchTable, docs: Path) -> dict[str, Any]:
    with only_batch_writer(table.data_root), _candidate(options, options.input or table.csv, table) as candidate:
        time = options.time or candidate.time or (table.newest_time() if options.input is None else None)
        time = time or datetime.now(UTC)  # later than the published rows: the online store keeps the latest row
        gated = gate(candidate, time, table, docs, least=options.least_rows, days=options.most_days_old)
    published = f"{gated.good:,} rows are published, {len(gated.broken):,} are in quarantine."
    verdict = stopped_in_words(gated.findings) or published
    return _gated_report(table.view, gated, verdict, holds=not gated.blocked)


def _export(options: argparse.Namespace, table: BatchTable) -> int:
    time = options.time or quarantine.newest_time(table.data_root, table.view)
    found = quarantine.export(table, options.file, time=time, rule=options.rule)
    if options.json:
        others = [one.isoformat() for one in found.other_times]
        told = {**asdict(found), "time": time.isoformat(), "other_times": others, "file": str(options.file)}
        sys.stdout.write(json.dumps(told) + "\n")
        return 0
    lines = [f"{found.rows:,} rows of {time.isoformat()} in {options.file}; mend their values, then replay the file"]
    if found.published_since:
        lines.append(f"{found.published_since:,} more are left out: they are published since")
    if found.other_times:
        times = ", ".join(one.isoformat() for one in found.other_times)
        lines.append(f"there are rows of other times: --time {times}")
    sys.stdout.write("\n".join(lines) + "\n")
    return 0


@contextmanager
def _candidate(options: argparse.Namespace, path: Path, table: BatchTable) -> Iterator[Candidate]:
    if options.engine == "pandas":
        yield MemoryCandidate(path, table.view)
        return
    from batch.quality.spark import SparkCandidate  # noqa: PLC0415  (an extra)

    # On the target's disk, which has room for it.
    with TemporaryDirectory(dir=table.data_root, prefix=".gate-") as scratch:
        yield SparkCandidate(path, table.view, Path(scratch))


def _replay(options: argparse.Namespace, table: BatchTable, docs: Path) -> dict[str, Any]:
    candidate = MemoryCandidate(options.file, table.view)
    if candidate.time is None:
        message = f"{options.file} has no rows, or no event_timestamp: mend a copy of the quarantined file"
        raise QualityError(message)
    with only_batch_writer(table.data_root):
        gated = replay(candidate, candidate.time, table, docs)
    holds = bool(gated.files)
    broken = f"Nothing is published: {len(gated.broken):,} of {gated.rows:,} rows are still broken."
    verdict = f"{gated.good:,} mended rows are published." if holds else stopped_in_words(gated.findings) or broken
    return _gated_report(table.view, gated, verdict, holds=holds)


def _gated_report(view: BatchView, gated: Gated, verdict: str, *, holds: bool) -> dict[str, Any]:
    verdict = " ".join(filter(None, [verdict, broken_in_words(gated.findings), edits(gated.findings)]))
    return {
        "table": view.name,
        "rows": gated.rows,
        "holds": holds,
        "verdict": verdict,
        "good": gated.good,
        "quarantined": len(gated.broken),
        "findings": finding_rows(gated.findings),
        "files": [str(file) for file in gated.files],
    }


def _monitor(options: argparse.Namespace, root: Path, view: WindowedView, docs: Path) -> dict[str, Any]:
    reach = scope_of(root, view, None, None).reach
    if reach.is_empty():
        message = f"{root} has no progress record: run the stream first, or correct DATA_ROOT"
        raise QualityError(message)
    slide = timedelta(milliseconds=view.slide_ms)
    end = options.end or datetime.fromtimestamp(0, tz=UTC) + (max(reach["last"].to_list()) + 1) * slide
    start = options.start or end - DAY
    bounds = _index(view, start - DAY), _index(view, end) - 1
    if options.engine == "spark":
        from batch.quality.windowed_spark import spark_frames  # noqa: PLC0415  (an extra)

        frame, rows, hours = spark_frames(view, root, *bounds, start, reach)
    else:
        stored = stored_rows(root, view, *bounds, reach=reach)
        held = row_frame(view, stored.filter(pl.col(EVENT_TIME) >= start))
        frame, rows, hours = held.to_pandas(), len(held), hours_of(view, stored)
    if not rows:
        message = f"{view.name} has no rows from {start.isoformat()} to before {end.isoformat()}"
        raise QualityError(message)
    findings = validate([Batch(windowed_suite(view), frame, view.join_keys)], docs / "rows")
    volume = volume_frame(view, hours, start, end)
    if not volume.is_empty():
        figures = volume.select("row", pl.col("hour").cast(pl.String), RATIO).to_pandas()
        findings += validate([Batch(volume_suite(view), figures, ("hour",))], docs / "volume")
    holds = all(one.holds for one in findings)
    return {
        "table": view.name,
        "rows": rows,
        "holds": holds,
        "verdict": _monitor_verdict(findings, compared=not volume.is_empty()),
        "start": start.isoformat(),
        "end": end.isoformat(),
        "hours_compared": len(volume),
        "findings": finding_rows(findings),
        "files": [],
    }


def _monitor_verdict(findings: Sequence[Finding], *, compared: bool) -> str:
    failed = [one.rule.name for one in findings if not one.holds]
    verdict = f"Rules that do not hold: {', '.join(failed)}." if failed else "All rules hold."
    if compared:
        return verdict
    least = f"{LEAST_ROWS_TO_COMPARE:,} rows on the day before"
    return f"{verdict} The volume was not compared: no full hour of the range has all windows and {least}."


def _index(view: WindowedView, time: datetime) -> int:
    return -(-round(time.timestamp() * 1000) // view.slide_ms)


def _print(report: dict[str, Any]) -> None:
    table = Table("rule", "held", "broken", "for example", title=f"{report['table']}: {report['rows']:,} rows")
    for one in report["findings"]:
        held = "[green]yes[/]" if one["holds"] else "[red]NO[/]"
        table.add_row(one["rule"], held, f"{one['broken']:,}", escape("; ".join(one["examples"][:3])))
    console = Console()
    console.print(table)
    console.print(report["verdict"], style="green" if report["holds"] else "red", markup=False)
    for file in report["files"]:
        sys.stdout.write(f"{file}\n")


def _checked(
    options: argparse.Namespace, root: Path, catalog: Catalog, view: BatchView | WindowedView, docs: Path
) -> dict[str, Any]:
    with ExitStack() as stack:
        if options.engine == "spark":
            from batch.recompute.spark_engine import SparkEngine  # noqa: PLC0415  (an extra)

            stack.callback(SparkEngine("", options.master).close)
        stack.enter_context(Console(stderr=True).status(f"checking {options.action}"))
        if isinstance(view, WindowedView):
            return _monitor(options, root, view, docs)
        table = BatchTable(root, catalog, view)
        return (_gate_table if options.action == "gate" else _replay)(options, table, docs)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    command = _parser()
    options = command.parse_args(arguments)
    settings = command.settings(StreamSettings)
    root, catalog, now = settings.data_root, settings.catalog, datetime.now(UTC)
    with command.telling(root):
        try:
            if options.action == "export":
                return _export(options, BatchTable(root, catalog, catalog.batch_view(options.view)))
            is_stream = options.action == "monitor"
            view = catalog.view(options.view) if is_stream else catalog.batch_view(options.view)
            what = stem(options.action, view, catalog.windowed if is_stream else catalog.batch)
            name = f"{what}-{now:%Y%m%dT%H%M%SZ}"
            folder = root / "reports" / "quality"
            docs = folder / name
            report = _checked(options, root, catalog, view, docs)
            report |= {"engine": options.engine, "made_at": now.isoformat(timespec="seconds")}
            report["files"] += [str(file) for file in write_report(folder, name, report, page(report))]
            report["files"] += [str(file) for file in sorted(docs.glob("*/index.html"))]
        except FileExistsError as error:
            command.error(f"{error.filename} exists already: name another file")
    if options.json:
        sys.stdout.write(json.dumps(report) + "\n")
    else:
        _print(report)
    return 0 if report["holds"] else 1


if __name__ == "__main__":
    sys.exit(main())
