"""Types for the columns of a CSV, so that no value is lost.

Join keys have their declared type. event_timestamp is ISO 8601 text and becomes UTC with microseconds, or nanoseconds
if a time has more than six decimal places; without a zone it is UTC. Another column is Boolean, Int64 or Float64 if all
of its values are exactly that, so `007`, or a number with more digits than a Float64 has, leaves its column as text. An
empty value is null; in a column of text, `""` is empty text.
"""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING

import polars as pl
import pyarrow as pa
import pyarrow.csv as pacsv

from feast_repo.codec.instants import all_instants
from feast_repo.declare.rows import EVENT_TIME
from feast_repo.errors import RefusedError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

_BOOLEAN, _INTEGER = r"^(?i:true|false)$", r"^(?:0|-?[1-9][0-9]{0,18})$"
_NUMBER = r"^(?:-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?|NaN|-?inf)$"
_PLAIN_NUMBER = r"^-?[0-9.]*$"
_ZONE, _FRACTION = r"(?:[Zz]|[+-][0-9]{2}(?::?[0-9]{2})?)$", r"[:0-9]\.([0-9]+)"
_MOST_DIGITS = 15
"""Each decimal number with so many digits comes back from a Float64."""
_NS_IN_A_MS, _DIGITS_OF_NS = 1_000_000, 9
_NS_MS = (2**63 - 1) // _NS_IN_A_MS - 1
"""From 1970, nanoseconds of 64 bits reach so many milliseconds."""
_SHOWN = 60


class OwnRowsError(RefusedError):
    """A file's rows can't get features; the message names the file, the column and, if one is at fault, the row."""


def read_csv(path: Path, keys: Mapping[str, pl.DataType], check_names: Callable[[Sequence[str]], None]) -> pa.Table:
    """The file's columns with types; `check_names` judges the header before the rest is read.

    Raises:
        OwnRowsError: a join key or a time can't be read; rows are counted from 1, without the header.
        pa.ArrowException: it is no CSV with one value per column in each row.
        OSError: it can't be opened.
    """
    read, parse = pacsv.ReadOptions(use_threads=False), pacsv.ParseOptions(newlines_in_values=True)
    with pacsv.open_csv(path, read, parse) as header:
        names = header.schema.names
    check_names(names)
    convert = pacsv.ConvertOptions(
        column_types=dict.fromkeys(names, pa.string()),
        null_values=[""],
        strings_can_be_null=True,
        quoted_strings_can_be_null=False,
    )
    text = pl.DataFrame(pacsv.read_csv(path, read, parse, convert))
    typed = []
    for column in text:
        if column.name == EVENT_TIME:
            typed.append(_times(path, column))
        elif column.name in keys:
            typed.append(column if keys[column.name] == pl.String else _integers(path, column))
        else:
            typed.append(_plain(column))
    return pl.DataFrame(typed).to_arrow(compat_level=pl.CompatLevel.oldest())


def _times(path: Path, text: pl.Series) -> pl.Series:
    text = text.replace("", None)
    zoned = pl.select(pl.when(text.str.contains(_ZONE)).then(text).otherwise(text + "Z")).to_series()
    milliseconds = all_instants(zoned.alias(text.name))
    _check(path, text, milliseconds, "is no ISO 8601 time: write it like 2026-03-01T12:00:00Z")
    fraction = text.str.extract(_FRACTION).fill_null("").str.pad_end(_DIGITS_OF_NS, "0").cast(pl.Int64)
    below = fraction % _NS_IN_A_MS
    if (below % 1000 == 0).all():
        return (milliseconds * 1000 + below // 1000).cast(pl.Datetime("us", "UTC"))
    inside = pl.select(pl.when(milliseconds.is_between(-_NS_MS, _NS_MS)).then(milliseconds)).to_series()
    _check(path, text, inside, "is beyond the years 1678 to 2261, which a column with nanoseconds can hold")
    return (milliseconds * _NS_IN_A_MS + below).cast(pl.Datetime("ns", "UTC"))


def _integers(path: Path, text: pl.Series) -> pl.Series:
    text = text.replace("", None)
    numbers = pl.select(pl.when(text.str.contains(_INTEGER)).then(text)).to_series().cast(pl.Int64, strict=False)
    _check(path, text, numbers, "is not an integer of 64 bits, as this join key is: write it without point or quotes")
    return numbers.alias(text.name)


def _check(path: Path, text: pl.Series, values: pl.Series, what: str) -> None:
    wrong = (text.is_not_null() & values.is_null()).arg_true()
    if len(wrong):
        shown = repr(text[wrong[0]])
        shown = shown if len(shown) <= _SHOWN else f"{shown[:_SHOWN]}..."
        message = f"{path}: row {wrong[0] + 1}, column {text.name!r}: {shown} {what}"
        raise OwnRowsError(message)


def _plain(text: pl.Series) -> pl.Series:
    values = text.drop_nulls()
    if values.is_empty():
        return text
    if values.str.contains(_BOOLEAN).all():
        return text.str.to_lowercase() == "true"
    if values.str.contains(_INTEGER).all():
        numbers = text.cast(pl.Int64, strict=False)
        return text if numbers.null_count() > text.null_count() else numbers
    if values.str.contains(_NUMBER).all() and _all_exact(values):
        return text.cast(pl.Float64)
    return text


def _all_exact(values: pl.Series) -> bool:
    """Whether each number is the one that its Float64 is written as."""
    digits = values.str.replace_all(r"[-.]", "").str.strip_chars_start("0").str.len_chars()
    certain = values.str.contains(_PLAIN_NUMBER) & (digits <= _MOST_DIGITS)
    certain |= values == values.cast(pl.Float64).cast(pl.String)
    return all(
        text in {"NaN", "inf", "-inf"} or Decimal(text) == Decimal(repr(float(text)))
        for text in values.filter(~certain)
    )
