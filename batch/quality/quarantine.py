"""The quarantine: rows of batch views that broke a rule, as text with the names of the rules, and exported for repair.

`DATA_ROOT/quarantine/<view>/dt=YYYY-MM-DD/`, by the time from which the rows would have been valid.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import polars as pl

from batch.quality.candidate import types_of, value_of
from batch.quality.validation import QualityError
from batch.recompute.archive import days_of, files_of
from feast_repo.declare.events import UTC_MICROSECONDS
from feast_repo.declare.rows import EVENT_TIME
from feast_repo.stores.offline.parquet import day_folder, publish, scan

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path

    from batch.quality.publication import BatchTable
    from feast_repo.declare.batch_views import BatchView

RULES = "rules"
"""The column with the names of the rules that a row breaks, joined by commas."""


@dataclass(frozen=True)
class Exported:
    """The number of exported rows of one time, without entities `published_since`; `other_times` have more rows."""

    time: datetime
    rows: int
    published_since: int
    other_times: list[datetime]


def keep(root: Path, view: BatchView, time: datetime, rows: pl.DataFrame) -> Path:
    """Keep broken rows. The file name depends on the content, so no run replaces another run's rows.

    Raises:
        OSError: DATA_ROOT is not writable.
    """
    digest = hashlib.blake2b(rows.write_csv().encode(), digest_size=4).hexdigest()
    path = day_folder(_folder(root, view), f"{time:%Y-%m-%d}") / f"{time:%Y%m%dT%H%M%S%fZ}-{digest}.parquet"
    publish(path, rows.with_columns(pl.lit(time).cast(UTC_MICROSECONDS).alias(EVENT_TIME)))
    return path


def export(table: BatchTable, file: Path, *, time: datetime, rule: str | None) -> Exported:
    """Write a time's quarantined rows (with `rule`: those that break it) to a new .csv or .parquet file for repair.

    Entities with a published row of that time are left out: they were repaired or delivered again.

    Raises:
        QualityError: there are no such rows, or the file has another suffix.
        FileExistsError: the file already exists.
        OSError: a file can't be read or written.
    """
    held = _read(table.data_root, table.view)
    of_time = held.filter(pl.col(EVENT_TIME) == time)
    if rule is not None:
        of_time = of_time.filter(pl.col(RULES).str.split(",").list.contains(rule))
    keys = [value_of(name, value_type) for name, value_type in table.view.entity.join_keys.items()]
    published = table.published(time).select(table.keys)
    rows = of_time.join(published, left_on=keys, right_on=table.keys, how="anti", maintain_order="left")
    if rows.is_empty():
        of_rule = "" if rule is None else f" that break {rule}"
        message = f"the quarantine has no rows of {time.isoformat()}{of_rule} that are not published since"
        raise QualityError(message)
    if file.suffix not in {".csv", ".parquet"}:
        message = f"{file} is neither .csv nor .parquet"
        raise QualityError(message)
    with file.open("xb") as output:
        if file.suffix == ".csv":
            rows.write_csv(output, datetime_format="%Y-%m-%dT%H:%M:%S%.6fZ")
        else:
            rows.write_parquet(output)
    others = sorted(set(held[EVENT_TIME].to_list()) - {time})
    return Exported(time, len(rows), len(of_time) - len(rows), others)


def newest_time(root: Path, view: BatchView) -> datetime:
    """The newest time with quarantined rows.

    Raises:
        QualityError: there are none.
        OSError: a file can't be read.
    """
    time: datetime | None = _read(root, view)[EVENT_TIME].max()  # type: ignore[assignment]  # a column of times
    if time is None:
        message = f"{_folder(root, view)} holds no rows: none broke a rule"
        raise QualityError(message)
    return time


def _folder(root: Path, view: BatchView) -> Path:
    return root / "quarantine" / view.name


def _read(root: Path, view: BatchView) -> pl.DataFrame:
    names = list(types_of(view))
    columns = pl.Schema({**dict.fromkeys([*names, RULES], pl.String()), EVENT_TIME: UTC_MICROSECONDS})
    folder = _folder(root, view)
    rows = scan(files_of(folder, days_of(folder)), columns)
    return rows.unique(maintain_order=True).collect()  # a repeated run has kept the same rows again
