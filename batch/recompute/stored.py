"""Stored feature rows of a range of windows, and the effective row among versions."""

from __future__ import annotations

import re
from datetime import datetime
from typing import TYPE_CHECKING

import polars as pl

from batch.recompute.archive import PARTITION, days_of, files_of
from feast_repo.declare.rows import CREATED, EVENT_TIME
from feast_repo.declare.stored import offline_columns
from feast_repo.stores.offline.parquet import despite_compaction, scan
from feast_repo.stores.offline.tables import day, features_folder

if TYPE_CHECKING:
    from pathlib import Path

    from feast_repo.declare.views import WindowedView

STREAM_FILE = re.compile(r"stream-p(?P<partition>\d+)-(?P<end>\w+)\.parquet")


def stored_rows(
    data_root: Path, view: WindowedView, first: int, last: int, *, reach: pl.DataFrame | None = None, every: int = 1
) -> pl.DataFrame:
    """All rows of windows `first` to `last` (indices), by any writer; null if a feature was not declared yet.

    With `every`, only windows with an index that is a multiple of it. With `reach` (see `archive.py`), the stream's
    files of windows beyond it are excluded: the stream writes them before it commits them, and they keep their own
    names until then.

    Raises:
        OSError: a file can't be read.
    """
    columns = offline_columns(view)

    def read() -> pl.DataFrame:
        files = stored_files(data_root, view, first, last, reach=reach, every=every)
        if not files:
            return pl.DataFrame(schema=columns)
        rows = scan(files, columns)
        end_ms = pl.col(EVENT_TIME).dt.epoch("ms")
        if every > 1:
            rows = rows.filter(end_ms % (every * view.slide_ms) == 0)
        return rows.filter(end_ms.is_between(first * view.slide_ms, last * view.slide_ms)).collect()

    return despite_compaction(read)


def stored_files(
    data_root: Path, view: WindowedView, first: int, last: int, *, reach: pl.DataFrame | None = None, every: int = 1
) -> list[Path]:
    """The files of `stored_rows`, which may also hold other windows of the same days."""
    folder = features_folder(data_root, view.name)
    days = [one for one in days_of(folder) if day(first * view.slide_ms) <= one <= day(last * view.slide_ms)]
    reaches = None if reach is None else dict(reach.select(PARTITION, "last").iter_rows())
    return [file for file in files_of(folder, days) if _is_wanted(file, view, reaches, every)]


def _is_wanted(file: Path, view: WindowedView, reaches: dict[int, int] | None, every: int) -> bool:
    """Decide by the stream's file names; a file of another name may hold any windows."""
    name = STREAM_FILE.fullmatch(file.name)
    if name is None:
        return True
    end_ms = round(datetime.strptime(name["end"], "%Y%m%dT%H%M%S%z").timestamp() * 1000)
    is_reached = reaches is None or end_ms <= reaches.get(int(name["partition"]), -1) * view.slide_ms
    return is_reached and end_ms % (every * view.slide_ms) == 0


def effective(view: WindowedView, rows: pl.DataFrame) -> pl.DataFrame:
    """The effective row for each user and window: the one created last."""
    return rows.sort(CREATED).unique((*view.join_keys, EVENT_TIME), keep="last", maintain_order=True)


def bits(column: str, dtype: pl.DataType) -> pl.Expr:
    """A column that compares equal only if it is bit-identical."""
    return pl.col(column).map_batches(_as_integers, pl.Int64) if dtype.is_float() else pl.col(column)


def _as_integers(values: pl.Series) -> pl.Series:
    integers = pl.Series(values.name, values.fill_null(0.0).to_numpy().view("int64"))
    return integers.set(values.is_null(), None)
