"""Parquet files of history: columns of the declared types, validated by the same rules as messages.

Nothing is cast. A column of another type is refused with its name and type. A value outside the declared type (an
unsigned integer beyond signed 64 bits, a time between two milliseconds) is rejected as `type:<field>`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from batch.recompute.archive import ArchiveError
from feast_repo.codec.rules import Rules
from feast_repo.declare.fields import Integer, Timestamp
from feast_repo.stores.offline.foreign import check_whole

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from feast_repo.declare.events import EventStream
    from feast_repo.declare.fields import EventField

ROWS_AT_ONCE = 100_000
UNITS_IN_A_MS = {"ms": 1, "us": 1_000, "ns": 1_000_000}  # Parquet has no other units
HINT = "; pandas writes integers with gaps as double, use astype('Int64')"


def judged_rows(path: Path, events: EventStream, now_ms: int) -> Iterator[tuple[pl.DataFrame, pl.DataFrame]]:
    """A file's records with the declared fields, and its rejects with number, reason and value, part by part.

    A row counts as an event that arrives at `now_ms`. Text is a string column or a dictionary of strings. An integer
    column may have any width. A time is an integer (ms) or a timestamp of any unit and time zone; without a zone it is
    UTC. A column with only nulls may have any type. A reject's value is the row as JSON, with timestamps as their
    stored integers. Memory: part of a file.

    Raises:
        ArchiveError: the file lacks a required column, or has a duplicate column or one of another type.
        pyarrow.ArrowException, OSError: the file can't be read.
    """
    rules = Rules(events)
    with path.open("rb") as opened, pq.ParquetFile(opened) as file:
        fields = _fields(path, file.schema_arrow, events)
        number = 1
        for batch in file.iter_batches(ROWS_AT_ONCE, columns=[field.name for field in fields]):
            given = pl.DataFrame([_given(path, field, batch.column(field.name)) for field in fields])
            units = {field.name: getattr(batch.schema.field(field.name).type, "unit", "ms") for field in fields}
            columns, mistyped = _declared(events, given, units)
            verdict = _verdict(rules, columns.with_columns(pl.lit(now_ms).alias("kafka_timestamp")), mistyped)
            bad = verdict.is_not_null()
            rejects = given.select(
                pl.int_range(number, number + pl.len(), dtype=pl.Int64).alias("number"),
                verdict.alias("reason"),
                pl.struct(pl.all()).struct.json_encode().cast(pl.Binary).alias("value"),
            )
            yield columns.filter(~bad), rejects.filter(bad)
            number += len(given)


def _fields(path: Path, schema: pa.Schema, events: EventStream) -> list[EventField]:
    """The declared fields that the file has."""
    found = []
    for field in events.fields:
        places = schema.get_all_field_indices(field.name)
        if len(places) > 1:
            message = f"{path}: the column {field.name!r} is there {len(places)} times"
            raise ArchiveError(message)
        if places:
            _check_type(path, field, schema.field(places[0]).type)
            found.append(field)
        elif field.required:
            message = f"{path} lacks the column {field.name!r}"
            raise ArchiveError(message)
    return found


def _check_type(path: Path, field: EventField, held: pa.DataType) -> None:
    value_type = held.value_type if pa.types.is_dictionary(held) else held
    if isinstance(field, (Integer, Timestamp)):
        fits = pa.types.is_integer(held) or (isinstance(field, Timestamp) and pa.types.is_timestamp(held))
        wanted = "an integer (ms) or timestamp column" if isinstance(field, Timestamp) else "an integer column"
    else:
        fits = any(is_text(value_type) for is_text in (pa.types.is_string, pa.types.is_large_string))
        wanted = "a string column"
    if not (fits or pa.types.is_null(held)):
        hint = HINT if isinstance(field, Integer) and pa.types.is_floating(held) else ""
        message = f"{path}: the column {field.name!r} is {held}, but the declaration wants {wanted}{hint}"
        raise ArchiveError(message)


def _given(path: Path, field: EventField, column: pa.Array) -> pl.Series:
    """A column as stored; a timestamp as its stored integer."""
    check_whole(path, field.name, column)
    if pa.types.is_null(column.type):
        return pl.Series(field.name, [None] * len(column), dtype=field.dtype)
    if pa.types.is_timestamp(column.type):
        column = column.cast(pa.int64())  # Polars panics on some time zones
    elif not pa.types.is_integer(column.type):
        column = pc.cast(column, pa.large_string())
    return pl.Series(field.name, column)


def _declared(
    events: EventStream, given: pl.DataFrame, units: dict[str, str]
) -> tuple[pl.DataFrame, dict[str, pl.Series]]:
    """The declared columns, and a mask of mistyped values for each that has any; those values are 0."""
    columns, mistyped = [], {}
    for field in events.fields:
        if field.name not in given.columns:
            columns.append(pl.Series(field.name, [None] * len(given), dtype=field.dtype))
            continue
        column = given[field.name]
        if isinstance(field, (Integer, Timestamp)):
            value = _whole_ms(column, units[field.name]) if isinstance(field, Timestamp) else column
            value = value.cast(pl.Int64, strict=False)
            wrong = value.is_null() & column.is_not_null()
            if wrong.any():
                mistyped[field.name] = wrong
                value = value.zip_with(~wrong, pl.Series([0], dtype=pl.Int64))
            column = value
        columns.append(column.alias(field.name))
    return pl.DataFrame(columns), mistyped


def _whole_ms(stored: pl.Series, unit: str) -> pl.Series:
    """Milliseconds, or null if the time is not a whole number of them."""
    value, units = pl.col(stored.name), UNITS_IN_A_MS[unit]
    return stored.to_frame().select(pl.when(value % units == 0).then(value // units)).to_series()


def _verdict(rules: Rules, columns: pl.DataFrame, mistyped: dict[str, pl.Series]) -> pl.Series:
    """The first reason against each row: missing fields, then wrong types, then the other rules."""
    verdict = rules.judge(columns, None)
    for name, wrong in reversed(mistyped.items()):
        decides = wrong & ~verdict.str.starts_with("missing:").fill_null(value=False)
        verdict = verdict.zip_with(~decides, pl.Series([f"type:{name}"]))
    return verdict
