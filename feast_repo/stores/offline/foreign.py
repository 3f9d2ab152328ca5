"""Reads Parquet files from other writers. Whatever they hold, the result is rows or a one-line error.

Polars panics on some valid Parquet, which `except Exception` doesn't catch: unnamed time zones, wide decimals, times
beyond the calendar. So Arrow reads the file and hands over only what Polars can certainly hold.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from feast_repo.errors import RefusedError

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

READABLE = (
    pa.types.is_null,
    pa.types.is_boolean,
    pa.types.is_integer,
    pa.types.is_float32,
    pa.types.is_float64,
    pa.types.is_decimal128,
    pa.types.is_string,
    pa.types.is_large_string,
    pa.types.is_timestamp,
)
FIRST_S, LAST_S = (round(datetime(*day, tzinfo=UTC).timestamp()) for day in ((1, 1, 2), (9999, 12, 30)))
"""Between these bounds a time fits Python's calendar in every time zone."""
UNITS_IN_A_S = {"s": 1, "ms": 1_000, "us": 1_000_000}


class ForeignFileError(RefusedError, ValueError):
    """A file can't be read; the message names the file, and the column and type if only that is at fault."""


def read_foreign(path: Path, wanted: Collection[str]) -> pl.DataFrame:
    """The wanted columns that a Parquet file has. Times with a time zone are converted to UTC.

    Raises:
        ForeignFileError: it is not a complete Parquet file, or a column has a type other than text, number, Boolean or
            time, is duplicated, or holds text that is not UTF-8 or times beyond the calendar.
        OSError: it can't be opened.
    """
    with path.open("rb") as opened:
        try:
            with pq.ParquetFile(opened) as file:
                schema = file.schema_arrow
                names = [name for name in dict.fromkeys(schema.names) if name in wanted]
                for name in names:
                    _check(path, schema, name)
                table = file.read(names)
        except (pa.ArrowException, OSError) as error:
            message = f"{path} can't be read: {str(error).partition(chr(10))[0]}"
            raise ForeignFileError(message) from error
    return pl.DataFrame([pl.Series(name, _known(path, name, table.column(name))) for name in names])


def check_whole(path: Path, name: str, column: pa.Array | pa.ChunkedArray) -> None:
    """Look at every value: libraries that meet a damaged one later end the process, or make one up.

    Raises:
        ForeignFileError: the column is damaged.
    """
    try:
        column.validate(full=True)
    except pa.ArrowInvalid as error:
        message = f"{path}: the column {name!r} is damaged: {error}"
        raise ForeignFileError(message) from error


def _check(path: Path, schema: pa.Schema, name: str) -> None:
    if len(places := schema.get_all_field_indices(name)) > 1:
        message = f"{path}: the column {name!r} is there {len(places)} times"
        raise ForeignFileError(message)
    held = schema.field(places[0]).type
    value = held.value_type if pa.types.is_dictionary(held) else held
    if not any(is_readable(value) for is_readable in READABLE):
        message = f"{path}: the column {name!r} is {held}; write it as text, a number, a Boolean or a timestamp"
        raise ForeignFileError(message)


def _known(path: Path, name: str, column: pa.ChunkedArray) -> pa.ChunkedArray:
    """A column in a form that Polars can hold."""
    check_whole(path, name, column)
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if pa.types.is_timestamp(column.type) and column.type.tz is not None:
        column = column.cast(pa.timestamp(column.type.unit, "UTC"))
    if pa.types.is_timestamp(column.type) and column.type.unit != "ns":  # 64-bit ns are always within the calendar
        stored = pc.min_max(column.cast(pa.int64())).as_py()
        each = UNITS_IN_A_S[column.type.unit]
        if stored["min"] is not None and not FIRST_S * each <= stored["min"] <= stored["max"] <= LAST_S * each:
            message = f"{path}: the column {name!r} has a time that is not within the years 1 to 9999"
            raise ForeignFileError(message)
    return column
