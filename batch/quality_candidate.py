"""Candidate tables of a batch view: read as text, so that nothing is lost, then given the declared types.

Text that is no value of the declared type becomes null beside the text itself, and a rule tells. Polars reads and
types in memory; Spark does the same for the check, and the driver takes the rows once to publish them.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import polars as pl

from batch.quality_rules import GIVEN, READABLE
from batch.quality_validation import ROW, QualityError
from feast_repo.algebra import POLARS_TYPES

if TYPE_CHECKING:
    from pathlib import Path

    from feast_repo.views import BatchView

TIME = "event_timestamp"


@dataclass(frozen=True)
class Candidate:
    """Rows that want to be published: ROW, join key and features as text; and the one time they name, if any."""

    text: pl.DataFrame
    time: datetime | None


def read_candidate(path: Path, view: BatchView) -> Candidate:
    """Read a CSV or Parquet file.

    Raises:
        QualityError: it is of another kind, damaged, lacks a column, or names more than one time.
        OSError: it can't be read.
    """
    needed = [view.entity.join_key, *view.features]
    try:
        if path.suffix == ".csv":
            raw = pl.read_csv(path, infer_schema=False)
        elif path.suffix == ".parquet":
            raw = pl.read_parquet(path, hive_partitioning=False)
        else:
            message = f"{path} is neither .csv nor .parquet"
            raise QualityError(message)
        if missing := [name for name in needed if name not in raw.columns]:
            message = f"{path} lacks the columns {', '.join(missing)}"
            raise QualityError(message)
        numbers = [name for name in needed if raw.schema[name].is_float()]
        text = raw.with_columns(pl.col(numbers).fill_nan(None)).select(pl.col(needed).cast(pl.String))
    except pl.exceptions.PolarsError as error:
        message = f"{path} can't be read: {str(error).partition(chr(10))[0]}"
        raise QualityError(message) from error
    time = _one_time(path, raw[TIME].unique().to_list()) if TIME in raw.columns and len(raw) else None
    return Candidate(text.with_row_index(ROW).cast({ROW: pl.Int64}), time)


def _one_time(path: Path, values: list[Any]) -> datetime:
    try:
        times = {one if isinstance(one, datetime) else datetime.fromisoformat(one) for one in values}
        (time,) = times
    except (TypeError, ValueError) as error:
        message = f"{path}: {TIME} must be the same ISO 8601 time in all rows"
        raise QualityError(message) from error
    return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)


def typed(view: BatchView, text: pl.DataFrame) -> pl.DataFrame:
    """Rows with the declared types: ROW, join key, features; null where the text is no such value."""
    values = [_value(name, view.value_types[name]).alias(name) for name in view.features]
    return text.select(ROW, view.entity.join_key, *values)


def _value(name: str, value_type: str) -> pl.Expr:
    column = pl.col(name)
    if value_type not in READABLE:
        return column
    number = column.str.replace(r"\.0*$", "") if value_type == "Int64" else column
    readable = column.str.contains(READABLE[value_type])
    return pl.when(readable).then(number).cast(POLARS_TYPES[value_type], strict=False)  # type: ignore[index]


def pandas_frame(view: BatchView, text: pl.DataFrame) -> Any:
    """What the rules see, for pandas."""
    given = text.select(pl.col(name).alias(name + GIVEN) for name in _numeric(view))
    return typed(view, text).hstack(given).to_pandas()


def spark_frame(view: BatchView, text: pl.DataFrame) -> Any:
    """What the rules see, for the running Spark session, typed by Spark."""
    from pyspark.sql import SparkSession, functions as F  # noqa: N812, PLC0415  (an extra)

    spark = SparkSession.getActiveSession()
    if spark is None:
        message = "Spark has ended: start the command again"
        raise QualityError(message)
    # An Arrow table is what Spark takes without a Python loop over its rows.
    columns = [F.col(ROW), F.col(view.entity.join_key)]
    for name, value_type in view.value_types.items():
        column = F.col(name)
        if value_type in READABLE:
            number = F.regexp_replace(column, r"\.0*$", "") if value_type == "Int64" else column
            readable = F.when(column.rlike(READABLE[value_type]), number)
            columns.append(readable.cast("bigint" if value_type == "Int64" else "double").alias(name))
            columns.append(column.alias(name + GIVEN))
        else:
            columns.append(column)
    return spark.createDataFrame(text.to_arrow(compat_level=pl.CompatLevel.oldest())).select(*columns).persist()


def _numeric(view: BatchView) -> list[str]:
    return [name for name, value_type in view.value_types.items() if value_type in READABLE]
