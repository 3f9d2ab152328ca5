"""Recomputation with Spark, for archives beyond one machine: the rule of `polars_engine.py` as Spark columns.

Tests require bit-identical results from both engines. Spark reads events and computes states; the driver takes those of
one chunk at a time.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
import sys
import tempfile
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import polars as pl

from batch.recompute.archive import CLOSINGS, DAYS, LATE, MISMATCHES, MOST_MISMATCHES, PARTITION, ArchiveError, Timeline
from feast_repo.declare.arrival import MOST_AHEAD_MS
from feast_repo.declare.panes import AFTER, PANE, WINDOW
from feast_repo.stores.offline.parquet import despite_compaction
from feast_repo.stores.offline.tables import event_columns

try:
    from pyspark.sql import SparkSession, Window, functions as F  # noqa: N812  (as Spark's own documentation has it)

    from batch.recompute.spark_vocabulary import SPARK, SQL_TYPES
except ImportError as error:
    MESSAGE = "Spark is not installed: pip install '.[spark]', or use --engine polars"
    raise ArchiveError(MESSAGE) from error

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping
    from pathlib import Path

    from pyspark.sql import Column, DataFrame

    from batch.recompute.archive import Chunk, Mode, Scope
    from feast_repo.declare.views import WindowedView


CONFIGURATION = {
    "spark.sql.session.timeZone": "UTC",
    "spark.sql.ansi.enabled": "false",  # sums wrap around, as in 64-bit integers everywhere else
    "spark.sql.caseSensitive": "true",
    "spark.sql.execution.arrow.pyspark.enabled": "true",
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
    "spark.log.level": "ERROR",
}
LOCAL = {
    "spark.driver.host": "127.0.0.1",
    "spark.driver.bindAddress": "127.0.0.1",
    "spark.driver.memory": "2g",
    "spark.sql.shuffle.partitions": str(os.cpu_count() or 1),
}
CHECKED_ON = {"pyspark": "4.3.0"}
"""The version whose private listing of folders is used here."""
FILE_IS_GONE = ("FileNotFound", "FILE_NOT_EXIST", "PATH_NOT_FOUND")
"""Texts that identify this error; its type depends on the step that fails."""


class SparkEngine:
    """Recomputes from any URL of events that Spark reads.

    Raises:
        ArchiveError: Spark can't start.
    """

    def __init__(self, events: str, master: str) -> None:
        self._events = events.rstrip("/")
        if shutil.which("java") is None and "JAVA_HOME" not in os.environ:
            message = "Spark needs Java 17: install it, or use --engine polars"
            raise ArchiveError(message)
        logging.getLogger("py4j").setLevel(logging.ERROR)
        self._mine = SparkSession.getActiveSession() is None
        builder = SparkSession.builder.appName("ml-feature-store")
        if "SPARK_ENV_LOADED" not in os.environ:  # spark-submit sets its own master
            builder = builder.master(master)
        for name, value in {**CONFIGURATION, **(LOCAL if master.startswith("local") else {})}.items():
            builder = builder.config(name, value)
        with tempfile.TemporaryFile() as log, _errors_into(log.fileno()):
            try:
                self._spark = builder.getOrCreate()
            except Exception as error:  # Spark's, Java's or the operating system's
                lines = str(error).splitlines()
                reason = next(
                    (line for line in lines if "Exception: " in line), lines[0] if lines else "no reason given"
                )
                message = f"Spark does not start with --master {master}: {reason.strip(' :')}"
                raise ArchiveError(message) from error

    def close(self) -> None:
        """End the session if it was started here."""
        if self._mine:
            self._spark.stop()

    def timeline(self, scope: Scope) -> Timeline:
        """Read the log once, ordered by Spark."""
        return despite_compaction(lambda: self._timeline(scope), FILE_IS_GONE)

    def windows(self, scope: Scope, chunk: Chunk, mode: Mode) -> pl.DataFrame:
        """The states of a chunk's windows."""
        view = scope.view
        types: dict[str, pl.DataType] = {
            PARTITION: pl.Int32(),
            **view.entity.schema,
            WINDOW: pl.Int64(),
            LATE: pl.Boolean(),
            **view.state_types,
        }
        rows = despite_compaction(lambda: _frame(self._windows(scope, chunk, mode)), FILE_IS_GONE)
        return rows.select(types.keys()).cast(pl.Schema(types))

    def _timeline(self, scope: Scope) -> Timeline:
        view = scope.view
        slide, lateness = F.lit(view.slide_ms), view.lateness_ms
        folders = self._folders(self._events)
        days = [day for day in folders if day >= scope.first_day]
        log = self._scan(scope, self._events, days).select(
            PARTITION,
            "offset",
            F.date_format("kafka_timestamp", "yyyy-MM-dd").alias("day"),
            F.unix_millis("kafka_timestamp").alias("kafka_ms"),
            "create_time",
            F.unix_millis("watermark").alias("watermark_ms"),
            F.unix_millis(_column(view.source.time)).alias("event_ms"),
        )
        log = log.dropDuplicates([PARTITION, "offset"]).persist()
        try:
            upto = Window.partitionBy(PARTITION).orderBy("offset")
            before = upto.rowsBetween(Window.unboundedPreceding, -1)
            told = F.greatest(F.col("event_ms") - lateness, F.col("watermark_ms"))
            bounded = F.least(F.col("kafka_ms"), told + lateness + MOST_AHEAD_MS)
            arrival = F.when(F.col("create_time"), bounded).otherwise(F.col("kafka_ms"))
            ordered = log.select(
                PARTITION,
                "offset",
                "watermark_ms",
                F.max(told).over(upto).alias("reached"),
                F.max(told).over(before).alias("seen"),
                F.max(arrival).over(upto).alias("latest"),
            ).persist()
            closings = ordered.groupBy(PARTITION, _floor(F.col("reached"), slide).alias(WINDOW)).agg(
                F.min("latest").alias("created_ms")
            )
            wrong = ordered.filter(self._is_wrong(scope, goes_back=len(days) < len(folders)))
            mismatched = wrong.count()
            first = wrong.orderBy(PARTITION, "offset").limit(MOST_MISMATCHES)
            mismatches = _frame(
                first.select(
                    PARTITION,
                    "offset",
                    F.col("watermark_ms").alias("archived_ms"),
                    F.col("seen").alias("recomputed_ms"),
                )
            )
            all_times = log.select("day", "event_ms")
            if scope.history is not None:
                url = local_url(scope.history)
                history = self._scan(scope, url, self._folders(url))
                all_times = all_times.unionByName(
                    history.select(
                        F.date_format("kafka_timestamp", "yyyy-MM-dd").alias("day"),
                        F.unix_millis(_column(view.source.time)).alias("event_ms"),
                    )
                )
            counts = all_times.groupBy("day", _floor(F.col("event_ms"), slide).alias(PANE)).agg(
                F.count("*").alias("rows")
            )
            result = Timeline(
                _frame(closings).cast(CLOSINGS).sort(PARTITION, WINDOW),  # type: ignore[arg-type]
                _frame(counts).cast(DAYS).sort("day", PANE),  # type: ignore[arg-type]
                mismatches.cast(MISMATCHES),  # type: ignore[arg-type]
                mismatched,
            )
            ordered.unpersist()
            return result
        finally:
            log.unpersist()

    def _is_wrong(self, scope: Scope, *, goes_back: bool) -> Column:
        archived, seen = F.col("watermark_ms"), F.col("seen")
        wrong = ~archived.eqNullSafe(seen)
        unseen_ms = scope.unseen_ms(goes_back=goes_back)
        return wrong if unseen_ms is None else wrong & ((archived < seen) | (archived > unseen_ms))

    def _windows(self, scope: Scope, chunk: Chunk, mode: Mode) -> DataFrame:
        view, events, slide = scope.view, scope.view.source, F.lit(scope.view.slide_ms)
        keys, end = [_column(name) for name in view.join_keys], F.col(f"`{PANE}`") + view.panes_per_window
        log = self._scan(scope, self._events, chunk.days)
        if scope.history is not None:
            url = local_url(scope.history)
            log = log.unionByName(self._scan(scope, url, chunk.days))
        start_ms, end_ms = scope.first_pane_ms(chunk.first), chunk.last * view.slide_ms
        event_ms = F.unix_millis(_column(events.time))
        log = _once(view, log.filter((event_ms >= start_ms) & (event_ms < end_ms)))
        placed = (
            log.filter(_column(events.key).isNotNull())
            .withColumn(events.time, event_ms)
            .withColumn(PANE, _floor(_column(events.time), slide))
            .withColumn(AFTER, F.coalesce(_floor(F.unix_millis("watermark"), slide), F.col(f"`{PANE}`")))
            .withColumn(AFTER, F.least(F.greatest(F.col(f"`{AFTER}`"), F.col(f"`{PANE}`")), end))
        )
        after, window = F.col(f"`{AFTER}`"), F.col(f"`{WINDOW}`")
        if mode == "as-seen":
            placed = placed.filter(after < end)
        panes = placed.groupBy(PARTITION, *keys, F.col(f"`{PANE}`"), after).agg(*view.lift(SPARK))
        first = F.greatest((after if mode == "as-seen" else F.col(f"`{PANE}`")) + 1, F.lit(chunk.first))
        last = F.least(end + 1, F.lit(chunk.last))
        is_expiry = window == end + 1
        spread = (
            panes.filter(first <= last)
            .withColumn(WINDOW, F.explode(F.sequence(first, last)))
            .withColumn(LATE, (window <= after) | (is_expiry & (after >= end)))
            .select(
                PARTITION,
                *keys,
                window,
                F.col(f"`{LATE}`"),
                *(
                    F.when(is_expiry, SPARK.literal(view.empty_state[name], dtype)).otherwise(_column(name)).alias(name)
                    for name, dtype in view.state_types.items()
                ),
            )
        )
        merged = spread.groupBy(PARTITION, *keys, window).agg(
            F.bool_or(F.col(f"`{LATE}`")).alias(LATE),
            *view.merge(SPARK),
        )
        bounds = self._reach(scope).select(PARTITION, "last")
        return merged.join(F.broadcast(bounds), PARTITION).filter(window <= F.col("last"))

    def _scan(self, scope: Scope, url: str, wanted: Collection[str]) -> DataFrame:
        """The archived records of some days, as far as the scope reaches."""
        columns = event_columns(scope.view.source)
        schema = sql_schema(columns)
        days = [day for day in self._folders(url) if day in wanted]
        if not days:
            return self._spark.createDataFrame([], schema)
        paths = [f"{url}/dt={day}" for day in days]
        # Not as a partitioned table: its column `dt` could hide a field of that name.
        log = self._spark.read.schema(schema).option("recursiveFileLookup", "true").parquet(*paths)
        bounds = self._reach(scope).select(PARTITION, "next_offset")
        return (
            log.join(F.broadcast(bounds), PARTITION).filter(F.col("offset") < F.col("next_offset")).drop("next_offset")
        )

    def _reach(self, scope: Scope) -> DataFrame:
        return self._spark.createDataFrame(scope.reach.rows(), f"`{PARTITION}` int, next_offset bigint, last bigint")

    def _folders(self, url: str) -> list[str]:
        """A table's days, listed by the file system of the URL."""
        machine: Any = self._spark._jvm  # noqa: SLF001  (PySpark has no listing of its own)
        path = machine.org.apache.hadoop.fs.Path(f"{url}/dt=*")
        system = path.getFileSystem(self._spark._jsc.hadoopConfiguration())  # noqa: SLF001
        return sorted(status.getPath().getName().removeprefix("dt=") for status in system.globStatus(path) or [])


def sql_schema(columns: Mapping[str, pl.DataType]) -> str:
    """Columns of a stored table as Spark declares them."""
    return ", ".join(f"`{name}` {SQL_TYPES[dtype]}" for name, dtype in columns.items())


def local_url(path: Path) -> str:
    """A local path as a URL for Spark, which would read some characters as wildcards.

    Raises:
        ArchiveError: the path has a colon, which Hadoop's file systems don't allow.
    """
    absolute = str(path.absolute())
    if ":" in absolute:
        message = f"Spark can't read a path with a colon, such as {absolute}: use --engine polars"
        raise ArchiveError(message)
    return "file://" + re.sub(r"([\[\]{}*?\\])", r"\\\1", absolute)


@contextmanager
def _errors_into(file: int) -> Iterator[None]:
    """Redirect Java's output, a page of warnings from its start; failures of jobs arrive as Python errors."""
    sys.stderr.flush()
    kept = os.dup(2)
    os.dup2(file, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def _frame(rows: DataFrame) -> pl.DataFrame:
    frame = pl.from_arrow(rows.toArrow())
    assert isinstance(frame, pl.DataFrame)  # noqa: S101  (a table with columns)
    return frame


def _column(name: str) -> Column:
    column: Column = SPARK.column(name)
    return column


def _floor(value: Column, step: Column) -> Column:
    """Integer division that rounds down, before 1970 too."""
    return ((value - F.pmod(value, step)) / step).cast("bigint")


def _once(view: WindowedView, log: DataFrame) -> DataFrame:
    """Each event once if declared so, and each record once in any case."""
    events = view.source
    if events.event_id is None:
        return log.dropDuplicates([PARTITION, "offset"])
    copies = Window.partitionBy(PARTITION, _column(events.event_id), _column(events.time)).orderBy("offset")
    return log.withColumn("#copy", F.row_number().over(copies)).filter(F.col("`#copy`") == 1).drop("#copy")
