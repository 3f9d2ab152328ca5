"""The gate of batch views: publishes good rows, quarantines broken ones, and stops everything on a doubtful table."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import polars as pl

from batch.quality.candidate import exact
from batch.quality.quarantine import RULES, keep
from batch.quality.rules import LEAST_SHARE_OF_PUBLISHED, MOST_DAYS_OLD, batch_suite, joined_suite, table_suite
from batch.quality.validation import ROW, Batch, Finding, validate

if TYPE_CHECKING:
    from pathlib import Path

    from batch.quality.candidate import Candidate
    from batch.quality.publication import BatchTable

DAY = timedelta(days=1)


@dataclass(frozen=True)
class Gated:
    """The gate's result. `broken` has the ROW of each broken row and the names of the RULES that it breaks."""

    findings: list[Finding]
    rows: int
    broken: pl.DataFrame
    files: list[Path] = field(default_factory=list)

    @property
    def good(self) -> int:
        """The number of rows that break no rule."""
        return self.rows - len(self.broken)

    @property
    def blocked(self) -> bool:
        """Whether a table rule failed."""
        return any(one.stops for one in self.findings)


def check(
    candidate: Candidate,
    time: datetime,
    table: BatchTable,
    docs: Path,
    *,
    least_rows: int,
    days: float | None,
    beside: int = 0,
) -> Gated:
    """Check the rows against all rules; nothing is published. They join `beside` published rows.

    Raises:
        QualityError: a rule can't be checked.
    """
    view = table.view
    rows = batch_suite(view, (one.source for one in table.catalog.windowed if one.entity == view.entity))
    whole = table_suite(view, least_rows=least_rows, most_days_old=days)
    found = validate([Batch(rows, candidate.frame(), view.join_keys)], docs / "rows")
    broken = _broken(found)
    figures = {
        ROW: [0],
        "good_rows": [candidate.rows - len(broken) + beside],
        "broken_share": [len(broken) / max(candidate.rows, 1)],
        "days_old": [(datetime.now(UTC) - time) / DAY],
    }
    found += validate([Batch(whole, pl.DataFrame(figures).to_pandas())], docs / "table")
    return Gated(found, candidate.rows, broken)


def _broken(findings: list[Finding]) -> pl.DataFrame:
    return pl.DataFrame(
        [(row, one.rule.name) for one in findings for row in one.broken],
        schema={ROW: pl.Int64, RULES: pl.String},
        orient="row",
    ).group_by(ROW, maintain_order=True).agg(pl.col(RULES).str.join(","))  # fmt: skip


def gate(
    candidate: Candidate, time: datetime, table: BatchTable, docs: Path, *, least: int | None, days: float | None
) -> Gated:
    """Check a candidate; unless a table rule fails, publish its good rows and quarantine the broken ones.

    `least` rows and `days` of age override what the view declares. Without either, `least` is half of the published
    rows, and `days` is MOST_DAYS_OLD.

    Raises:
        QualityError: a rule can't be checked; nothing is published.
        OSError: DATA_ROOT is not writable.
    """
    if least is None:
        least = table.view.rows[0]
    if least is None:
        least = max(1, int(LEAST_SHARE_OF_PUBLISHED * len(table.published(table.newest_time()))))
    if days is None:
        days = MOST_DAYS_OLD if table.view.max_age is None else table.view.max_age / DAY
    gated = check(candidate, time, table, docs, least_rows=least, days=days)
    if gated.blocked:
        return gated
    files = []
    if len(gated.broken):  # first: a crash between the two loses no row
        files.append(keep(table.data_root, table.view, time, candidate.only(gated.broken)))
    files += table.publish(candidate.without(gated.broken), time)
    return replace(gated, files=files)


def replay(candidate: Candidate, time: datetime, table: BatchTable, docs: Path) -> Gated:
    """Add repaired rows to the rows published at their time, all or none; existing entities are replaced.

    Raises:
        QualityError: a rule can't be checked; nothing is published.
        OSError: DATA_ROOT is not writable.
    """
    mended = candidate.without(_broken([])).collect()
    held = table.published(time).select(mended.columns)
    beside = held.join(mended, on=table.keys, how="anti")
    least = 1 if len(held) else table.view.rows[0] or 1  # what is published once was enough, and does not become fewer
    gated = check(candidate, time, table, docs, least_rows=least, days=None, beside=len(beside))
    if gated.blocked or len(gated.broken):
        return gated
    gated = _joined(gated, mended, beside, table, docs)
    if len(gated.broken):
        return gated
    rows = pl.concat([beside, mended]).sort(table.keys)
    newest = table.newest_time()
    files = table.publish(rows, time)
    if newest is not None and newest > time:  # the CSV shows the newest rows
        table.publish(table.published(newest).select(mended.columns), newest)
    return replace(gated, files=files)


def _joined(gated: Gated, mended: pl.DataFrame, beside: pl.DataFrame, table: BatchTable, docs: Path) -> Gated:
    """The result with the rules of `joined_suite` on mended rows and those beside them."""
    suite = joined_suite(table.view)
    if not suite.rules:
        return gated
    rows = pl.concat([mended, beside])
    rows = rows.hstack(exact(table.view, rows)).with_row_index(ROW).cast({ROW: pl.Int64})
    found = []
    for one in validate([Batch(suite, rows.to_pandas(), table.view.join_keys)], docs / "joined"):
        broken = tuple(row for row in one.broken if row < len(mended))
        found.append(replace(one, broken=broken, holds=not broken))
    return replace(gated, findings=[*gated.findings, *found], broken=_broken(found))
