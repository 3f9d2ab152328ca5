"""Feature values as of each row of an entity frame: the point-in-time join of Feast's views.

For each view the answering rows are computed (see `point_in_time.py`), and their values are taken unchanged from Arrow.
The result has the entity frame's rows in order, its columns unchanged, and then the features view by view.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
from feast.feature_view import DUMMY_ENTITY_ID
from feast.infra.offline_stores.offline_utils import infer_event_timestamp_from_entity_df

from feast_repo.declare.rows import SERVED
from feast_repo.stores.offline.point_in_time import NONE, Rows, answers
from feast_repo.stores.offline.source_columns import is_ours, stored_columns
from feast_repo.stores.offline.source_reader import read_rows
from feast_repo.stores.offline.ticks import EPOCH, NANOSECONDS, common_unit, ticks, to_ticks

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from feast import FeatureView
    from numpy.typing import NDArray

EVENT_TIMESTAMP = "event_timestamp"
FIRST, LAST = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)


@dataclass(frozen=True)
class Asked:
    """The rows to find features for, and the name of their time column."""

    table: pa.Table
    time: str

    def span(self) -> tuple[datetime, datetime] | None:
        """The first and the last time, rounded outwards to microseconds; None without times."""
        unit = common_unit([self.table[self.time].type])
        times = ticks(self.table[self.time], unit, self.time)
        if times.null_count() == len(times):
            return None
        per_microsecond = NANOSECONDS["us"] // NANOSECONDS[unit]
        return _time(int(times.min()) // per_microsecond), _time(-(-int(times.max()) // per_microsecond))  # type: ignore[arg-type]


class ViewHistory:
    """One view's part in a join: the requested features, and the names of its columns in its source."""

    def __init__(self, view: FeatureView, refs: Sequence[str], *, full_names: bool, as_served: bool = False) -> None:
        source = view.batch_source
        if source is None:
            message = f"feature view {view.name!r} has no batch source, so it has no history"
            raise ValueError(message)
        self.name, self.source, self.ttl = str(view.name), source, view.ttl or None
        asked_as = f"{view.projection.name_to_use()}:"
        features = [ref.removeprefix(asked_as) for ref in refs if ref.startswith(asked_as)]
        prefix = f"{view.projection.name_alias or view.name}__" if full_names else ""
        # By column of the entity frame, and by column of the result: the view's own name of it.
        names = [field.name for field in view.entity_columns if field.name != DUMMY_ENTITY_ID]
        self.keys = {view.projection.join_key_map.get(name, name): name for name in names}
        self.features = {prefix + name: name for name in features}
        self._stored_as = {own: stored for stored, own in source.field_mapping.items()}
        self.time = source.timestamp_field
        # A stream that was down creates rows by the log's times but serves them only once it is back.
        served = [SERVED] if as_served and is_ours(source) and SERVED in stored_columns(source) else []
        self.known = [source.created_timestamp_column, *served] if source.created_timestamp_column else []

    def read(self, repo_path: Path | str | None, span: tuple[datetime, datetime]) -> pa.Table:
        """The rows that can matter for times in this span, under the view's own names."""
        try:
            first = span[0] - self.ttl if self.ttl else FIRST
        except OverflowError:
            first = FIRST
        own = list(dict.fromkeys([*self.keys.values(), *self.features.values(), self.time, *self.known]))
        stored = [self._stored_as.get(name, name) for name in own]
        time = self._stored_as.get(self.time, self.time)
        table = read_rows(self.source, repo_path, stored, time, first, span[1])
        return table.select(list(dict.fromkeys(stored))).rename_columns(own)

    def answering(self, asked: Asked, stored: pa.Table, *, as_known: bool) -> NDArray[np.int64]:
        """For each requested row, the number of the stored row that answers it, or `NONE`.

        Raises:
            ValueError: a join key is missing or of another type, or a time column is not of times.
        """
        unit = common_unit([asked.table[asked.time].type, *(stored[name].type for name in (self.time, *self.known))])
        known = [ticks(stored[name], unit, name) for name in self.known]
        pairs = {own: self._comparable(asked, theirs, stored[own]) for theirs, own in self.keys.items()}
        return answers(
            Rows({own: pair[0] for own, pair in pairs.items()}, ticks(asked.table[asked.time], unit, asked.time)),
            Rows(
                {own: pair[1] for own, pair in pairs.items()},
                ticks(stored[self.time], unit, self.time),
                pl.select(pl.max_horizontal(known)).to_series() if known else None,
            ),
            ttl=to_ticks(self.ttl, unit) if self.ttl else None,
            as_known=as_known,
        )

    def _comparable(self, asked: Asked, column: str, stored: pa.ChunkedArray) -> tuple[pl.Series, pl.Series]:
        if column not in asked.table.column_names:
            message = (
                f"entity_df has no column {column!r}, a join key of feature view {self.name!r}; it has "
                f"{', '.join(asked.table.column_names)}"
            )
            raise ValueError(message)
        offered = asked.table[column]
        pair = comparable(offered, stored)
        if pair is None:
            message = (
                f"entity_df column {column!r} is of type {offered.type}, but join key {column!r} of feature view "
                f"{self.name!r} is of type {stored.type}: convert the column first"
            )
            raise ValueError(message)
        return pair


def comparable(offered: pa.ChunkedArray, stored: pa.ChunkedArray) -> tuple[pl.Series, pl.Series] | None:
    """Two key columns losslessly cast to one type; None if there is no such type. Text that is no number is null."""
    left, right = offered.type, stored.type
    if pa.types.is_null(left):
        offered, left = offered.cast(right), right
    if pa.types.is_null(right):
        stored, right = stored.cast(left), left
    if pa.types.is_timestamp(left) and pa.types.is_timestamp(right):
        unit = common_unit([left, right])
        return ticks(offered, unit, ""), ticks(stored, unit, "")
    first, second = (pl.Series(pl.from_arrow(_plain(column))) for column in (offered, stored))
    if first.dtype == second.dtype and not first.dtype.is_float():
        return first, second
    if not (first.dtype.is_numeric() and second.dtype.is_numeric()):
        return None
    if first.dtype.is_float() and second.dtype.is_float():
        return first.cast(pl.Float64).fill_nan(None), second.cast(pl.Float64).fill_nan(None)
    return _integer(first), _integer(second)


def _integer(numbers: pl.Series) -> pl.Series:
    if not numbers.dtype.is_float():
        return numbers.cast(pl.Int64, strict=False)
    whole = numbers.cast(pl.Int64, strict=False)
    return pl.select(pl.when(whole.cast(pl.Float64) == numbers).then(whole)).to_series()


def _plain(column: pa.ChunkedArray) -> pa.ChunkedArray:
    return column.cast(column.type.value_type) if pa.types.is_dictionary(column.type) else column


def taken(column: pa.ChunkedArray, rows: NDArray[np.int64]) -> pa.ChunkedArray:
    """The values of these rows; null for `NONE`."""
    return column.combine_chunks().take(pa.array(rows, mask=rows == NONE))


def as_of_each_row(
    asked: Asked, views: Sequence[ViewHistory], repo_path: Path | str | None, *, as_known: bool
) -> pa.Table:
    """The requested rows with the features of all views.

    Raises:
        FileNotFoundError: a view's files are missing.
        ValueError: keys or names don't fit.
    """
    span = asked.span() or (EPOCH, EPOCH)
    table = asked.table
    for view in views:
        stored = view.read(repo_path, span)
        table = _with_features(table, view, stored, view.answering(asked, stored, as_known=as_known))
    return table


def as_of_one_time(
    time: datetime, views: Sequence[ViewHistory], repo_path: Path | str | None, *, as_known: bool
) -> pa.Table:
    """Each entity with a live row at a time (aware), with its features as of then.

    Raises:
        FileNotFoundError: a view's files are missing.
        ValueError: the views don't all have the same join keys.
    """
    keys = list(next((view.keys for view in views if view.keys), {}))
    if others := [view.name for view in views if view.keys and set(view.keys) != set(keys)]:
        message = f"without entity_df all views need the join keys {', '.join(keys)}; {', '.join(others)} have others"
        raise ValueError(message)
    stored = {view.name: view.read(repo_path, (time, time)) for view in views}
    entities = [
        pl.DataFrame(stored[view.name].select([view.keys[key] for key in keys]).rename_columns(keys))
        for view in views
        if view.keys
    ]
    table = pa.table({EVENT_TIMESTAMP: pa.array([time], pa.timestamp("ns", "UTC"))})
    if entities:
        known = pl.concat(entities, how="vertical_relaxed").unique(maintain_order=True).drop_nulls()
        times = pa.repeat(table[EVENT_TIMESTAMP][0], len(known))
        table = pa.table({EVENT_TIMESTAMP: times, **{key: _like(known[key], stored, views, key) for key in keys}})
    asked, answered = Asked(table, EVENT_TIMESTAMP), np.zeros(len(table), np.bool_)
    for view in views:
        rows = view.answering(asked, stored[view.name], as_known=as_known)
        table = _with_features(table, view, stored[view.name], rows)
        answered |= rows != NONE
    return table.filter(pa.array(answered))


def _like(
    values: pl.Series, stored: Mapping[str, pa.Table], views: Sequence[ViewHistory], key: str
) -> pa.ChunkedArray | pa.Array:
    """Keys cast to the type that the first view uses."""
    view = next(view for view in views if view.keys)
    return values.to_arrow(compat_level=pl.CompatLevel.oldest()).cast(stored[view.name][view.keys[key]].type)


def _with_features(table: pa.Table, view: ViewHistory, stored: pa.Table, rows: NDArray[np.int64]) -> pa.Table:
    for name, own in view.features.items():
        if name in table.column_names:
            message = f"{name!r} is a column of entity_df or of another view already: ask with full_feature_names=True"
            raise ValueError(message)
        table = table.append_column(name, taken(stored[own], rows))
    return table


def _time(microseconds: int) -> datetime:
    """A time clamped to the range of datetime."""
    try:
        return EPOCH + timedelta(microseconds=microseconds)
    except OverflowError:
        return FIRST if microseconds < 0 else LAST


def asked_of(entities: Any) -> Asked:
    """The request in a Pandas frame, or in DuckDB SQL that returns one; times may be text, in any time zone.

    Raises:
        ValueError: it is neither, has no time column, or DuckDB can't run it.
    """
    if isinstance(entities, str):
        return _asked_of_sql(entities)
    if not isinstance(entities, pd.DataFrame):
        message = f"entity_df is a {type(entities).__name__}: give a Pandas DataFrame, SQL for DuckDB, or None"
        raise ValueError(message)  # noqa: TRY004  (Feast's own error for this)
    time = infer_event_timestamp_from_entity_df(dict(zip(entities.columns, entities.dtypes, strict=True)))
    if not pd.api.types.is_datetime64_any_dtype(entities[time]):
        entities = entities.assign(**{time: pd.to_datetime(entities[time], utc=True)})
    return Asked(pa.Table.from_pandas(entities, preserve_index=False).replace_schema_metadata(), time)


def _asked_of_sql(query: str) -> Asked:
    try:
        with duckdb.connect() as connection:
            table = connection.sql(query).to_arrow_table()
    except (duckdb.Error, AttributeError) as error:  # what gives no rows is None
        reason = " ".join(str(error).split("\n\n", 1)[0].split())
        message = f"entity_df: DuckDB can't run the SQL: {reason}"
        raise ValueError(message) from error
    dtypes = table.schema.empty_table().to_pandas().dtypes
    time = infer_event_timestamp_from_entity_df(dict(dtypes))
    place, times = table.column_names.index(time), table[time]
    times = times.cast(pa.timestamp(times.type.unit if pa.types.is_timestamp(times.type) else "us", "UTC"))
    return Asked(table.set_column(place, time, times), time)
