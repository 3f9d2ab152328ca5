"""The gate of user profiles: publishes good rows, quarantines broken ones, and stops everything on a doubtful table."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import polars as pl

from batch.quality.publication import publish_profiles
from batch.quality.quarantine import RULES, VIEW, keep
from batch.quality.rules import LEAST_SHARE_OF_PUBLISHED, profile_suite, profile_table_suite
from batch.quality.validation import ROW, Batch, Finding, validate
from feast_repo.declare.events import UTC_MICROSECONDS
from feast_repo.declare.views import CREATED, EVENT_TIME, offline_columns
from feast_repo.features import user_click_features
from feast_repo.stores.offline.files import data_files, day_folders
from feast_repo.stores.offline.parquet import day_folder, scan
from feast_repo.stores.offline.tables import features_folder

if TYPE_CHECKING:
    from pathlib import Path

    from batch.quality.candidate import Candidate

KEY = VIEW.join_keys[0]


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


def check(candidate: Candidate, time: datetime, docs: Path, *, least_rows: int, days: float | None) -> Gated:
    """Check the rows against all rules; nothing is published.

    Raises:
        QualityError: a rule can't be checked.
    """
    rows = profile_suite(VIEW, user_click_features.source)
    table = profile_table_suite(VIEW, least_rows=least_rows, most_days_old=days)
    found = validate([Batch(rows, candidate.frame(), KEY)], docs / "rows")
    broken = pl.DataFrame(
        [(row, one.rule.name) for one in found for row in one.broken],
        schema={ROW: pl.Int64, RULES: pl.String},
        orient="row",
    ).group_by(ROW, maintain_order=True).agg(pl.col(RULES).str.join(","))  # fmt: skip
    figures = {
        ROW: [0],
        "good_rows": [candidate.rows - len(broken)],
        "broken_share": [len(broken) / max(candidate.rows, 1)],
        "days_old": [(datetime.now(UTC) - time).total_seconds() / 86_400],
    }
    found += validate([Batch(table, pl.DataFrame(figures).to_pandas())], docs / "table")
    return Gated(found, candidate.rows, broken)


def gate(candidate: Candidate, time: datetime, root: Path, docs: Path, *, least: int | None, days: float) -> Gated:
    """Check a candidate; unless a table rule fails, publish its good rows and quarantine the broken ones.

    Raises:
        QualityError: a rule can't be checked; nothing is published.
        OSError: DATA_ROOT is not writable.
    """
    if least is None:
        least = max(1, int(LEAST_SHARE_OF_PUBLISHED * len(published(root, newest_time(root)))))
    gated = check(candidate, time, docs, least_rows=least, days=days)
    if gated.blocked:
        return gated
    files = []
    if len(gated.broken):  # first: a crash between the two loses no row
        files.append(keep(root, time, candidate.only(gated.broken)))
    files += publish_profiles(candidate.without(gated.broken), time, root)
    return replace(gated, files=files)


def replay(candidate: Candidate, time: datetime, root: Path, docs: Path) -> Gated:
    """Add repaired rows to the rows published at their time, all or none; existing users are replaced.

    Raises:
        QualityError: a rule can't be checked; nothing is published.
        OSError: DATA_ROOT is not writable.
    """
    gated = check(candidate, time, docs, least_rows=1, days=None)
    if gated.blocked or len(gated.broken):
        return gated
    mended = candidate.without(gated.broken).collect()
    held = published(root, time).select(mended.columns)
    rows = pl.concat([held.join(mended, on=KEY, how="anti"), mended]).sort(KEY)
    newest = newest_time(root)
    files = publish_profiles(rows, time, root)
    if newest is not None and newest > time:  # the CSV shows the newest profiles
        publish_profiles(published(root, newest).select(mended.columns), newest, root)
    return replace(gated, files=files)


def newest_time(root: Path) -> datetime | None:
    """The time from which the newest published profiles are valid."""
    by_day = map(data_files, reversed(day_folders(features_folder(root, VIEW.name))))
    last = next(filter(None, by_day), [])
    if not last:
        return None
    time = scan(last).select(pl.col(EVENT_TIME).max()).collect().item()
    return time if isinstance(time, datetime) else None


def published(root: Path, time: datetime | None) -> pl.DataFrame:
    """The published rows of a time, one per user."""
    folder, columns = features_folder(root, VIEW.name), offline_columns(VIEW)
    files = [] if time is None else data_files(day_folder(folder, f"{time:%Y-%m-%d}"))
    if not files:
        return pl.DataFrame(schema=columns)
    rows = scan(files, columns)
    held = rows.filter(pl.col(EVENT_TIME) == pl.lit(time).cast(UTC_MICROSECONDS)).collect()
    return held.sort(CREATED, KEY).unique(KEY, keep="last", maintain_order=True)
