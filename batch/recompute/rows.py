"""Selects the rows that batch adds to the stored ones, and writes them to files."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from batch.recompute.archive import LATE, PARTITION
from batch.recompute.stored import bits, effective
from feast_repo.declare.rows import CREATED, EVENT_TIME, SERVED
from feast_repo.declare.stored import offline_columns
from feast_repo.stores.offline.parquet import day_folder, publish, scan
from feast_repo.stores.offline.tables import features_folder, windows_file

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path

    from feast_repo.declare.views import WindowedView

STORED = "#stored:"
"""Prefix of stored columns beside recomputed ones."""
NULL_AS_SEEN = "#null_as_seen:"
"""Prefix of columns that mark a feature as null in the row as seen, which is then its value and no gap."""
LATER = pl.duration(microseconds=1)


def beside_stored(view: WindowedView, rows: pl.DataFrame, stored: pl.DataFrame) -> pl.DataFrame:
    """Recomputed rows, each with the effective stored row of its user and window in columns prefixed with STORED."""
    keys = [*view.join_keys, EVENT_TIME]
    held = effective(view, stored).rename({name: STORED + name for name in stored.columns if name not in keys})
    return rows.join(held, on=keys, how="left", maintain_order="left")


def may_be_null(view: WindowedView) -> list[str]:
    """The features whose value is null if no event matches, such as `Min`: there null need not mean undeclared."""
    return [name for name, default in view.defaults.items() if default is None]


def with_nulls_as_seen(view: WindowedView, rows: pl.DataFrame, as_seen: pl.DataFrame) -> pl.DataFrame:
    """Rows of the complete truth with a NULL_AS_SEEN column for each feature that may be null."""
    keys = [PARTITION, *view.join_keys, EVENT_TIME]
    marks = [pl.col(name).is_null().alias(NULL_AS_SEEN + name) for name in may_be_null(view)]
    unmarked = rows.drop((NULL_AS_SEEN + name for name in may_be_null(view)), strict=False)
    marked = unmarked.join(as_seen.select(*keys, *marks), on=keys, how="left", maintain_order="left")
    return marked.with_columns(pl.col(NULL_AS_SEEN + name).fill_null(value=False) for name in may_be_null(view))


def null_as_seen(name: str, rows: pl.DataFrame) -> pl.Expr:
    """Whether a feature is marked as null in the row as seen; false without such marks."""
    return pl.col(NULL_AS_SEEN + name) if NULL_AS_SEEN + name in rows.columns else pl.lit(value=False)


def lacking(view: WindowedView, beside: pl.DataFrame) -> pl.DataFrame:
    """The rows that are not stored, or are stored without a feature that was declared later.

    The latter are created, and count as served, 1 us after the stored ones, so joins prefer them. What NULL_AS_SEEN
    columns mark, if `beside` has them, is not lacking.
    """
    gaps = (
        pl.col(STORED + name).is_null() & pl.col(name).is_not_null() & ~null_as_seen(name, beside)
        for name in view.features
    )
    without = pl.any_horizontal(pl.lit(value=False), *gaps)
    created = pl.max_horizontal(CREATED, pl.col(STORED + CREATED) + LATER)
    is_new = pl.col(STORED + CREATED).is_null()
    return beside.filter(is_new | without).with_columns(
        pl.when(is_new).then(CREATED).otherwise(created).alias(CREATED), _served_with_stored()
    )


def differing(view: WindowedView, beside: pl.DataFrame) -> pl.DataFrame:
    """The rows that are not stored, or stored with another value."""
    return beside.filter(pl.col(STORED + CREATED).is_null() | is_different(view))


def is_different(view: WindowedView) -> pl.Expr:
    """Whether a feature is stored with another value."""
    types = offline_columns(view)
    return pl.any_horizontal(
        pl.lit(value=False),
        *(bits(name, types[name]).ne_missing(bits(STORED + name, types[name])) for name in view.features),
    )


def overruling(view: WindowedView, beside: pl.DataFrame, reaches_back_to: datetime) -> pl.DataFrame:
    """The rows of windows that begin before a time, of which the stream did not see all events and counted fewer."""
    reaches_back = pl.col(EVENT_TIME) - view.window < pl.lit(reaches_back_to)
    partial = beside.filter(reaches_back & pl.col(LATE) & pl.col(STORED + CREATED).is_not_null() & is_different(view))
    return partial.with_columns(
        pl.max_horizontal(CREATED, pl.col(STORED + CREATED) + LATER).alias(CREATED), _served_with_stored()
    )


def _served_with_stored() -> pl.Expr:
    """The served time of a row that replaces a stored one: no earlier than the stored row's."""
    return (pl.col(STORED + SERVED) + LATER).alias(SERVED)


def add_rows(data_root: Path, view: WindowedView, writer: str, rows: pl.DataFrame) -> int:
    """Add rows to a writer's files, one per day, named after its first and last window; returns how many.

    Rows in such a file stay there, so rows of earlier runs keep recording what was known when.

    Raises:
        OSError: the disk is full or not writable; files that were already written stay.
    """
    columns = pl.Schema(offline_columns(view))
    folder = features_folder(data_root, view.name)
    rows = rows.with_columns(writer=pl.lit(writer)).select(columns.keys()).cast(columns)
    for (date,), added in rows.group_by(pl.col(EVENT_TIME).dt.date(), maintain_order=True):
        ends = added.select(pl.col(EVENT_TIME).min().alias("first"), pl.col(EVENT_TIME).max().alias("last")).row(0)
        name = windows_file(writer, *(round(end.timestamp() * 1000) for end in ends))
        path = day_folder(folder, str(date)) / name
        table = added
        if path.exists():
            table = pl.concat([scan(path, columns).collect(), added]).unique()
        publish(path, table.sort(*view.join_keys, EVENT_TIME, CREATED))
    return len(rows)


def in_two_partitions(view: WindowedView, rows: pl.DataFrame) -> pl.DataFrame:
    """Entities (join keys, sorted) with events in more than one partition: there was more than one partitioner."""
    partitions = rows.group_by(view.join_keys).agg(pl.col(PARTITION).n_unique())
    return partitions.filter(pl.col(PARTITION) > 1).select(view.join_keys).sort(view.join_keys)


def named(entities: pl.DataFrame) -> list[str]:
    """Entities in words: the values of their join keys."""
    return [", ".join(map(str, entity)) for entity in entities.iter_rows()]
