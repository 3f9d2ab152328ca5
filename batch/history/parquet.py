"""Parquet files of history: columns of the declared types, validated by the same rules as messages.

Nothing is cast. A column of another type is refused with its name and type. A value outside the declared type (an
unsigned integer beyond signed 64 bits, a time between two milliseconds) is rejected as `type:<field>`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from batch.recompute.archive import ArchiveError
from feast_repo.codec.forms import IGNORED, Form, Forms, Ticks, corrected, form_of
from feast_repo.codec.rules import Rules
from feast_repo.declare.fields import Bool, Decimal, Integer, Timestamp
from feast_repo.stores.offline.foreign import check_whole

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from feast_repo.codec.forms import Value
    from feast_repo.declare.events import EventStream
    from feast_repo.declare.fields import EventField

ROWS_AT_ONCE = 100_000
HINT = "; pandas writes integers with gaps as double, use astype('Int64')"
NOT_FLOORED = {"s", "ms"}
"""Formats of times that can't name anything less than a millisecond in JSON, so it is a wrong type here, too."""


@dataclass(frozen=True)
class _Column:
    """The column of a declared field in a file: where it is, and how its values are written. No place: it lacks it."""

    field: EventField
    form: Form
    place: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The path, as Parquet writes it."""
        return ".".join(self.place)


def judged_rows(path: Path, events: EventStream, now_ms: int) -> Iterator[tuple[pl.DataFrame, pl.DataFrame, int]]:
    """A file's records with the declared fields, its rejects with number, reason and value, and how many are ignored.

    They come part by part. A row counts as an event that arrives at `now_ms`. A path leads through structs. Text is a
    string column or a dictionary of strings. An integer column may have any width. A time is a timestamp of any unit
    and time zone (without a zone it is UTC), or what its format declares: integers or strings. A decimal is a column of
    decimals, integers or strings. A column with only nulls may have any type. A reject's value is the row as JSON, with
    timestamps as their stored integers and decimals as strings. Memory: part of a file.

    Raises:
        ArchiveError: the file lacks a required column, or has a duplicate column or one of another type.
        pyarrow.ArrowException, OSError: the file can't be read.
    """
    rules = Rules(events)
    with path.open("rb") as opened, pq.ParquetFile(opened) as file:
        columns = [_column(path, field, file.schema_arrow) for field in events.fields]
        names = sorted({column.name for column in columns if column.place})
        forms = Forms(events, {column.field.name: column.form for column in columns})
        number = 1
        for batch in file.iter_batches(ROWS_AT_ONCE, columns=names):
            stored = {column.field.name: _stored(path, column, batch) for column in columns}
            values, reasons = _read(forms, stored)
            verdict = rules.judge(values.with_columns(pl.lit(now_ms).alias("kafka_timestamp")), None)
            verdict = verdict.scatter(list(reasons), list(reasons.values()))
            bad = verdict.ne(IGNORED).fill_null(value=False)
            rejects = pl.DataFrame(
                [
                    number + bad.arg_true().cast(pl.Int64).alias("number"),
                    verdict.filter(bad).alias("reason"),
                    _as_json(columns, {name: held.filter(bad) for name, held in stored.items()}).alias("value"),
                ]
            )
            records = values.filter(verdict.is_null())
            yield records, rejects, len(batch) - len(records) - len(rejects)
            number += len(batch)


def _column(path: Path, field: EventField, schema: pa.Schema) -> _Column:
    """Where a declared field is in a file."""
    held: pa.DataType = pa.struct(schema)
    name = ".".join(field.components)
    for depth, component in enumerate(field.components):
        if pa.types.is_null(held):
            return _Column(field, form_of(field), field.components[:depth])
        if not pa.types.is_struct(held):
            on_the_way = ".".join(field.components[:depth])
            message = f"{path}: the column {on_the_way!r} is {held}, but the declaration wants {name!r} in it"
            raise ArchiveError(message)
        places = held.get_all_field_indices(component)
        if len(places) > 1:
            message = f"{path}: the column {name!r} is there {len(places)} times"
            raise ArchiveError(message)
        if not places:
            if field.required:
                message = f"{path} lacks the column {name!r}"
                raise ArchiveError(message)
            return _Column(field, form_of(field))
        held = held.field(places[0]).type
    return _Column(field, _form(path, field, held), field.components)


def _form(path: Path, field: EventField, held: pa.DataType) -> Form:
    """How a column of this type writes the values of a field."""
    form = form_of(field)
    value_type = held.value_type if pa.types.is_dictionary(held) else held
    is_text = pa.types.is_string(value_type) or pa.types.is_large_string(value_type)
    is_integer = pa.types.is_integer(held)
    match field:
        case Timestamp(format=unit):
            if pa.types.is_timestamp(held):
                return Ticks(held.unit, whole=unit in NOT_FLOORED)
            fits = is_text if unit == "iso8601" else is_integer
            wanted = f"{'a string' if unit == 'iso8601' else f'an integer ({unit})'} or timestamp column"
        case Integer(from_string=from_string):
            fits = is_integer or (is_text and from_string)
            wanted = "an integer or string column" if from_string else "an integer column"
        case Decimal():
            fits = is_integer or is_text or pa.types.is_decimal(held)
            wanted = "a decimal, integer or string column"
        case Bool():
            fits, wanted = pa.types.is_boolean(held), "a boolean column"
        case _:
            fits, wanted = is_text, "a string column"
    if not (fits or pa.types.is_null(held)):
        hint = HINT if isinstance(field, Integer) and pa.types.is_floating(held) else ""
        name = ".".join(field.components)
        message = f"{path}: the column {name!r} is {held}, but the declaration wants {wanted}{hint}"
        raise ArchiveError(message)
    return form


def _stored(path: Path, column: _Column, batch: pa.RecordBatch) -> pl.Series:
    """A column as stored; timestamps as their stored integers, decimals as strings."""
    name = column.field.name
    if not column.place:
        return pl.Series(name, [None] * len(batch), dtype=column.form.given)
    held: pa.Array = batch.column(column.place[0])
    for component in column.place[1:]:
        held = pc.struct_field(held, held.type.get_field_index(component))  # null within null structs, too
    check_whole(path, column.name, held)
    if pa.types.is_null(held.type):
        return pl.Series(name, [None] * len(batch), dtype=column.form.given)
    if pa.types.is_timestamp(held.type):
        held = held.cast(pa.int64())  # Polars panics on some time zones
    elif not (pa.types.is_integer(held.type) or pa.types.is_boolean(held.type)):
        held = pc.cast(held, pa.large_string())
    return pl.Series(name, held)


def _read(forms: Forms, stored: dict[str, pl.Series]) -> tuple[pl.DataFrame, dict[int, str]]:
    """The values of stored columns, and reasons by row."""
    written = pl.DataFrame([column.cast(forms[name].given, strict=False) for name, column in stored.items()])
    values, unsure = forms.convert(written)
    for name, column in stored.items():
        if written[name].null_count() > column.null_count():
            unsure.update((written[name].is_null() & column.is_not_null()).arg_true().to_list())
    settled: dict[int, dict[str, Value]] = {}
    reasons = dict.fromkeys(forms.ignored(written), IGNORED)
    for row in sorted(unsure):
        held = ((name, column[row]) for name, column in stored.items())
        outcome = forms.settle({name: value for name, value in held if value is not None})
        if isinstance(outcome, str):
            reasons[row] = outcome
        else:
            settled[row] = outcome
    return corrected(values, settled), reasons


def _as_json(columns: list[_Column], stored: dict[str, pl.Series]) -> pl.Series:
    """The rows as JSON, with the file's own names."""
    found = {column.place: pl.lit(stored[column.field.name]) for column in columns if column.place}
    return pl.select(_nested(found).struct.json_encode().cast(pl.Binary)).to_series()


def _nested(found: dict[tuple[str, ...], pl.Expr]) -> pl.Expr:
    members: dict[str, dict[tuple[str, ...], pl.Expr]] = {}
    for place, values in found.items():
        members.setdefault(place[0], {})[place[1:]] = values
    return pl.struct((inner[()] if () in inner else _nested(inner)).alias(name) for name, inner in members.items())
