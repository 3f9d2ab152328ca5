"""Candidate tables of a batch view: read as text to lose nothing, then cast to the declared types.

Text that is not a value of the declared type becomes null beside the original text, and a rule reports it. This module
works in memory; `spark.py` does the same with Spark for larger tables.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Protocol

import polars as pl

from batch.quality.rules import EXACT, GIVEN, NO_FRACTION, READABLE, UNREADABLE, unique_numbers
from batch.quality.validation import ROW, QualityError
from feast_repo.declare.rows import EVENT_TIME
from feast_repo.declare.values import POLARS_TYPES
from feast_repo.stores.offline.foreign import ForeignFileError, read_foreign

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from feast_repo.declare.batch_views import BatchView
    from feast_repo.declare.values import ValueType


class Candidate(Protocol):
    """Rows to be published, and the one `time` that they name, if any."""

    time: datetime | None

    @property
    def rows(self) -> int:
        """How many there are."""

    def frame(self) -> Any:
        """The rules' input for pandas or Spark: ROW, keys as text, features; columns GIVEN, UNREADABLE and EXACT."""

    def without(self, broken: pl.DataFrame) -> pl.LazyFrame:
        """The rows that are not in `broken`, with declared types: join keys and features."""

    def only(self, broken: pl.DataFrame) -> pl.DataFrame:
        """The rows of `broken` as text, with its columns besides ROW."""


class MemoryCandidate:
    """A candidate in memory, from a CSV or Parquet file.

    Raises:
        QualityError: it is of another format, damaged, lacks a column, or names more than one time.
        OSError: it can't be read.
    """

    def __init__(self, path: Path, view: BatchView) -> None:
        self._view = view
        needed = list(types_of(view))
        try:
            if kind_of(path) == "csv":
                raw = pl.read_csv(path, infer_schema=False, glob=False)
                raw = raw.with_columns(pl.all().replace("", None))  # quoted or not, an empty value is null
            else:
                raw = read_foreign(path, (*needed, EVENT_TIME))
            check_columns(path, view, raw.columns)
            numbers = [name for name in needed if raw.schema[name].is_float()]
            text = raw.with_columns(pl.col(numbers).fill_nan(None)).select(pl.col(needed).cast(pl.String))
        except pl.exceptions.PolarsError as error:
            message = f"{path} can't be read: {str(error).partition(chr(10))[0]}"
            raise QualityError(message) from error
        except ForeignFileError as error:
            raise QualityError(str(error)) from error
        self.time = one_time(path, raw[EVENT_TIME].unique().to_list()) if EVENT_TIME in raw.columns else None
        self._text = text.with_row_index(ROW).cast({ROW: pl.Int64})

    @property
    def rows(self) -> int:
        """How many there are."""
        return len(self._text)

    def frame(self) -> Any:
        """The rules' input for pandas."""
        typed, read = self._typed(self._text), parsed(self._view)
        given = self._text.select(pl.col(read).name.suffix(GIVEN))
        unreadable = self._text.select(
            pl.when(typed[name].is_null()).then(pl.col(name)).alias(name + UNREADABLE) for name in read
        )
        keyed = typed.cast(dict.fromkeys(self._view.join_keys, pl.String))  # pandas has no integers beside nulls
        return keyed.hstack(exact(self._view, typed)).hstack(given).hstack(unreadable).to_pandas()

    def without(self, broken: pl.DataFrame) -> pl.LazyFrame:
        """The good rows with declared types."""
        good = self._text.join(broken, on=ROW, how="anti", maintain_order="left")
        return self._typed(good).drop(ROW).lazy()

    def only(self, broken: pl.DataFrame) -> pl.DataFrame:
        """The broken rows, as text."""
        return self._text.join(broken, on=ROW, how="inner", maintain_order="left").drop(ROW)

    def _typed(self, text: pl.DataFrame) -> pl.DataFrame:
        return text.select(ROW, *(value_of(name, kind).alias(name) for name, kind in types_of(self._view).items()))


def kind_of(path: Path) -> str:
    """`csv` or `parquet`.

    Raises:
        QualityError: it is neither.
        OSError: it can't be opened.
    """
    with path.open("rb"):
        pass
    if path.suffix not in {".csv", ".parquet"}:
        message = f"{path} is neither .csv nor .parquet"
        raise QualityError(message)
    return path.suffix.removeprefix(".")


def types_of(view: BatchView) -> dict[str, ValueType]:
    """The columns that a candidate must have: join keys and features, with their types."""
    return {**view.entity.join_keys, **view.value_types}


def check_columns(path: Path, view: BatchView, columns: Sequence[str]) -> None:
    """Refuse a file without a needed column.

    Raises:
        QualityError: it lacks one.
    """
    if missing := [name for name in types_of(view) if name not in columns]:
        message = f"{path} lacks the columns {', '.join(missing)}"
        raise QualityError(message)


def one_time(path: Path, values: Iterable[Any]) -> datetime | None:
    """The time that all rows name, parsed from text if needed; None without values.

    Raises:
        QualityError: they name more than one time, or a value that is not a time.
    """
    try:
        times = {one if isinstance(one, datetime) else datetime.fromisoformat(one) for one in values}
        if not times:
            return None
        (time,) = times
    except (TypeError, ValueError) as error:
        message = f"{path}: {EVENT_TIME} must be the same ISO 8601 time in all rows"
        raise QualityError(message) from error
    return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)


def parsed(view: BatchView) -> list[str]:
    """The columns that are no text, whose values are read from text."""
    return [name for name, value_type in types_of(view).items() if value_type in READABLE]


def exact(view: BatchView, typed: pl.DataFrame) -> pl.DataFrame:
    """The columns with EXACT, of rows with declared types."""
    return typed.select(pl.col(unique_numbers(view)).cast(pl.String).name.suffix(EXACT))


def value_of(name: str, value_type: ValueType) -> pl.Expr:
    """A column of text as the declared type; null where it is no value of it."""
    column = pl.col(name)
    if value_type not in READABLE:
        return column
    readable = column.str.contains(READABLE[value_type])
    if value_type == "Bool":
        return pl.when(readable).then(column.str.to_lowercase() == "true")
    number = column.str.replace(NO_FRACTION, "") if value_type == "Int64" else column
    value = number.cast(POLARS_TYPES[value_type], strict=False)
    return pl.when(readable & value.is_finite()).then(value)
