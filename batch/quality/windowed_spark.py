"""The results of `windowed.py`, computed by Spark from the files, for data larger than memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import polars as pl
from pyspark.sql import SparkSession, functions as F  # noqa: N812  (as Spark's own documentation has it)

from batch.quality.rules import OFF_GRID, VERSION
from batch.quality.validation import ROW
from batch.quality.windowed import HOUR
from batch.recompute.spark_engine import FILE_IS_GONE, local_url, sql_schema
from batch.recompute.spark_vocabulary import SPARK
from batch.recompute.stored import stored_files
from feast_repo.declare.rows import CREATED, EVENT_TIME
from feast_repo.declare.stored import offline_columns
from feast_repo.stores.offline.parquet import despite_compaction

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path

    from feast_repo.declare.views import WindowedView


def spark_frames(
    view: WindowedView, data_root: Path, first: int, last: int, start: datetime, reach: pl.DataFrame
) -> tuple[Any, int, pl.DataFrame]:
    """The rules' input from `start` on, its row count, and `hours_of` for windows `first` to `last` (indices).

    Raises:
        OSError: a file can't be read.
    """
    return despite_compaction(lambda: _frames(view, data_root, first, last, start, reach), FILE_IS_GONE)


def _frames(
    view: WindowedView, data_root: Path, first: int, last: int, start: datetime, reach: pl.DataFrame
) -> tuple[Any, int, pl.DataFrame]:
    spark = SparkSession.getActiveSession()
    assert spark is not None  # noqa: S101  (opened by the command)
    columns = offline_columns(view)
    files = [local_url(file) for file in stored_files(data_root, view, first, last, reach=reach)]
    if not files:
        return None, 0, pl.DataFrame(schema={"hour": columns[EVENT_TIME], "rows": pl.Int64, "windows": pl.Int64})
    end_ms, end_us = F.unix_millis(EVENT_TIME), F.unix_micros(EVENT_TIME)
    every = spark.read.schema(sql_schema(columns)).option("recursiveFileLookup", "true").parquet(*files)
    floats = [name for name, dtype in columns.items() if dtype.is_float()]  # pandas can't tell NaN from missing
    numbers = {name: F.when(~F.isnan(name), F.col(name)) for name in floats}
    stored = every.withColumns(numbers).filter(end_ms.between(first * view.slide_ms, last * view.slide_ms))
    hour = F.date_trunc("hour", EVENT_TIME) if view.slide <= HOUR else F.col(EVENT_TIME)
    hours = stored.groupBy(hour.alias("hour")).agg(
        F.count_distinct(*view.join_keys, EVENT_TIME).alias("rows"), F.count_distinct(EVENT_TIME).alias("windows")
    )
    optional = {name: default for name, default in view.defaults.items() if default is not None}
    declared = stored.groupBy(F.col(EVENT_TIME).alias("#of")).agg(
        *(F.count(name).alias(f"#{name}") for name in optional)
    )
    version = F.when(F.col("writer") == "stream", 0).otherwise(F.unix_micros(CREATED))
    rows = (
        stored.filter(F.col(EVENT_TIME) >= F.lit(start))
        .join(F.broadcast(declared), F.col(EVENT_TIME).eqNullSafe(F.col("`#of`")))
        .withColumns(
            {
                name: F.when(F.col(f"`#{name}`") == 0, SPARK.literal(empty, columns[name])).otherwise(F.col(name))
                for name, empty in optional.items()
            }
        )
        .withColumn(OFF_GRID, end_us % (view.slide_ms * 1000))
        .withColumn(VERSION, version)
        .withColumn(ROW, F.monotonically_increasing_id())
        .select(ROW, *(name for name in columns if name != CREATED), OFF_GRID, VERSION)
        .persist()
    )
    counted = pl.DataFrame(hours.toArrow()).with_columns(pl.col("hour").cast(columns[EVENT_TIME]))
    return rows, rows.count(), counted
