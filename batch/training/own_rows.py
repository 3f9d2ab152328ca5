"""A file of rows to join features to: in each an entity and an exact time, and whatever else belongs to it.

A Parquet file keeps the types of its columns, and the time zones of their times. A CSV has no types: `own_csv.py` says
which its columns get.
"""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from batch.training.own_csv import OwnRowsError, read_csv
from feast_repo.declare.rows import EVENT_TIME
from feast_repo.stores.offline.foreign import FIRST_S, LAST_S, UNITS_IN_A_S
from feast_repo.stores.offline.parquet import whole_file
from feast_repo.stores.offline.ticks import common_unit, ticks

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from feast_repo.declare.services import FeatureService

ROWS_A_PART = 250_000
"""So many rows of the columns beside keys and times are in memory, and in a row group of the result."""
CSV, PARQUET = ".csv", ".parquet"
_TEXT = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)


@dataclass(frozen=True)
class OwnRows:
    """An open file. `asked`: its join keys and event_timestamp (UTC, us or ns), in its order, with its nulls.

    `positive`: how many rows have the service's label; None without a Boolean column of its name.
    """

    path: Path
    asked: pl.DataFrame
    positive: int | None
    content: pq.ParquetFile | pa.Table

    def write(self, path: Path, features: pl.DataFrame) -> None:
        """Write the file's columns unchanged, and then the features of each row, as one Parquet file.

        Raises:
            OwnRowsError: the file is damaged.
            OSError: the disk is full or not writable.
        """
        added = features.to_arrow(compat_level=pl.CompatLevel.oldest())
        own = _schema(self.content)
        schema = pa.schema([*own, *added.schema], own.metadata)
        written = 0
        with whole_file(path) as file, pq.ParquetWriter(file, schema, compression="zstd") as writer:
            for part in _parts(self.path, self.content):
                beside = added.slice(written, len(part))
                writer.write_table(pa.table([*part.columns, *beside.columns], schema=schema))
                written += len(part)


@contextmanager
def own_rows(path: Path, service: FeatureService) -> Iterator[OwnRows]:
    """Open a Parquet file or a CSV, and read what a service's features are joined to.

    Raises:
        OwnRowsError: it is neither, or damaged, or has no rows; it lacks a join key or event_timestamp, or has it in
            another type; it has a column twice, or one with a feature's name.
        OSError: it can't be opened.
    """
    with path.open("rb") as file:
        is_empty = not file.read(1)
    kind = path.suffix.lower()
    if kind not in {CSV, PARQUET}:
        message = f"{path} is neither {CSV} nor {PARQUET}"
        raise OwnRowsError(message)
    if is_empty:
        raise _without_rows(path, service)
    with ExitStack() as stack:
        with _readable(path):
            content: pq.ParquetFile | pa.Table
            if kind == CSV:
                content = read_csv(path, service.schema, lambda names: _check_names(path, names, service))
            else:
                content = stack.enter_context(pq.ParquetFile(path))
        schema = _schema(content)
        _check_names(path, schema.names, service)
        asked = pl.DataFrame(
            [
                *(_key(path, name, dtype, _column(path, content, name)) for name, dtype in service.schema.items()),
                _times(path, _column(path, content, EVENT_TIME)),
            ]
        )
        if asked.is_empty():
            raise _without_rows(path, service)
        positive = None
        if service.label is not None and service.label.name in schema.names:
            name = service.label.name
            if pa.types.is_boolean(schema.field(name).type):
                positive = pc.sum(_column(path, content, name)).as_py() or 0
        yield OwnRows(path, asked, positive, content)


def _without_rows(path: Path, service: FeatureService) -> OwnRowsError:
    return OwnRowsError(f"{path} has no rows: each needs {_needed(service)}")


def _needed(service: FeatureService) -> str:
    return f"the join keys of service {service.name!r} ({', '.join(service.schema)}) and the time {EVENT_TIME}"


def _check_names(path: Path, names: Sequence[str], service: FeatureService) -> None:
    lacking = [name for name in (*service.schema, EVENT_TIME) if name not in names]
    features = {name for view in service.views for name in view.features}
    if lacking:
        message = (
            f"{path} lacks the column {', '.join(map(repr, lacking))}: a row needs {_needed(service)}; the file has "
            f"{', '.join(map(repr, names))}"
        )
    elif twice := [name for name in dict.fromkeys(names) if names.count(name) > 1]:
        message = f"{path}: the column {twice[0]!r} is there {names.count(twice[0])} times: rename all but one"
    elif taken := [name for name in names if name in features]:
        message = (
            f"{path}: the column {taken[0]!r} has the name of a feature of service {service.name!r}, which is added: "
            "rename it or leave it out"
        )
    else:
        return
    raise OwnRowsError(message)


def _key(path: Path, name: str, dtype: pl.DataType, column: pa.ChunkedArray) -> pl.Series:
    """A join key in its declared type; an integer that does not fit in it is no entity's, so it is null."""
    held = column.type
    value = held.value_type if pa.types.is_dictionary(held) else held
    is_text = dtype == pl.String
    fits = any(is_so(value) for is_so in _TEXT) if is_text else pa.types.is_integer(value)
    if not (fits or pa.types.is_null(value)):
        message = (
            f"{path}: the column {name!r} is {held}, but this join key is {dtype}: write it as "
            f"{'text' if is_text else 'integers'}"
        )
        raise OwnRowsError(message)
    if value != held:
        column = column.cast(value)
    return pl.Series(name, pl.from_arrow(column)).cast(dtype, strict=False)


def _times(path: Path, column: pa.ChunkedArray) -> pl.Series:
    """The times in UTC: in nanoseconds if the column is, else in microseconds. Without a zone they are UTC."""
    held = column.type
    if pa.types.is_null(held):
        return pl.Series(EVENT_TIME, [None] * len(column), pl.Datetime("us", "UTC"))
    if not pa.types.is_timestamp(held):
        message = f"{path}: the column {EVENT_TIME!r} is {held}: write it as a timestamp, without a zone in UTC"
        raise OwnRowsError(message)
    if held.unit != "ns":  # 64-bit ns are always within the calendar
        each = UNITS_IN_A_S[held.unit]
        stored = pl.Series(pl.from_arrow(column.cast(pa.int64())))
        beyond = (~stored.is_between(FIRST_S * each, LAST_S * each)).arg_true()
        if len(beyond):
            message = f"{path}: row {beyond[0] + 1}, column {EVENT_TIME!r}: the time is not within the years 1 to 9999"
            raise OwnRowsError(message)
    unit = common_unit([held])
    return ticks(column, unit, EVENT_TIME).cast(pl.Datetime(unit, "UTC"))  # type: ignore[arg-type]


def _schema(content: pq.ParquetFile | pa.Table) -> pa.Schema:
    return content.schema if isinstance(content, pa.Table) else content.schema_arrow


def _column(path: Path, content: pq.ParquetFile | pa.Table, name: str) -> pa.ChunkedArray:
    if isinstance(content, pa.Table):
        return content[name]
    with _readable(path):
        column = content.read([name])[name]
        column.validate(full=True)
    return column


def _parts(path: Path, content: pq.ParquetFile | pa.Table) -> Iterator[pa.Table]:
    """All columns, in parts of `ROWS_A_PART` rows."""
    if isinstance(content, pa.Table):
        for start in range(0, len(content), ROWS_A_PART):
            yield content.slice(start, ROWS_A_PART)
        return
    batches, waiting = content.iter_batches(ROWS_A_PART), []
    while True:
        with _readable(path):
            if (batch := next(batches, None)) is not None:
                batch.validate(full=True)
        if batch is not None:
            waiting.append(batch)
        if waiting and (batch is None or sum(map(len, waiting)) >= ROWS_A_PART):
            yield pa.Table.from_batches(waiting)
            waiting = []
        if batch is None:
            return


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Arrow's errors as one line; the operating system's have a number and pass."""
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        message = f"{path} can't be read: {str(error).partition(chr(10))[0]}"
        raise OwnRowsError(message) from error
