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
LATER = pl.duration(microseconds=1)


def beside_stored(view: WindowedView, rows: pl.DataFrame, stored: pl.DataFrame) -> pl.DataFrame:
    """Recomputed rows, each with the effective stored row of its user and window in columns prefixed with STORED."""
    keys = [*view.join_keys, EVENT_TIME]
    held = effective(view, stored).rename({name: STORED + name for name in stored.columns if name not in keys})
    return rows.join(held, on=keys, how="left", maintain_order="left")


def lacking(view: WindowedView, beside: pl.DataFrame) -> pl.DataFrame:
    """The rows that are not stored, or are stored without a feature that was declared later.

    The latter are created, and count as served, 1 us after the stored ones, so joins prefer them.
    """
    without = pl.any_horizontal(
        pl.lit(value=False), *(pl.col(STORED + name).is_null() & pl.col(name).is_not_null() for name in view.features)
    )
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
