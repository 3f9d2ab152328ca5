"""Candidate tables with Spark, for files beyond one machine's memory, with the rules of `candidate.py`.

Spark reads, casts, checks and splits the file. The driver holds only the broken rows; good rows reach it as files and
are published from there without being held in memory.
"""

from __future__ import annotations

import re
import shutil
import tempfile
import weakref
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl
from py4j.protocol import Py4JError
from pyspark.errors import PySparkException
from pyspark.sql import SparkSession, functions as F  # noqa: N812  (as Spark's own documentation has it)

from batch.quality.candidate import check_columns, kind_of, one_time, types_of
from batch.quality.rules import EXACT, GIVEN, NO_FRACTION, READABLE, UNREADABLE, unique_numbers
from batch.quality.validation import ROW, QualityError
from batch.recompute.spark_engine import local_url
from feast_repo.declare.rows import EVENT_TIME
from feast_repo.stores.offline.files import data_files
from feast_repo.stores.offline.parquet import scan

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pyspark.sql import Column, DataFrame

    from feast_repo.declare.batch_views import BatchView


PATTERN = re.compile(r"[\[\]{}*?\\,]")
TYPES = {"Int64": "bigint", "Float64": "double", "Bool": "boolean"}


class SparkCandidate:
    """A candidate for the running Spark session. `scratch` is a folder that Spark must reach, for handing over files.

    Raises:
        QualityError: the file is of another format, damaged, lacks a column, or names more than one time.
        OSError: it can't be opened.
    """

    def __init__(self, path: Path, view: BatchView, scratch: Path) -> None:
        self._path, self._view, self._scratch = path, view, scratch
        spark = SparkSession.getActiveSession()
        assert spark is not None  # noqa: S101  (opened by the command)
        self._spark = spark
        kind = kind_of(path)
        with self._told():
            reader = self._spark.read.option("recursiveFileLookup", "true")  # otherwise a folder `dt=...` adds a column
            # As in Polars: quotes are doubled, and a line break within quotes belongs to the value.
            csv = {"header": "true", "escape": '"', "multiLine": "true", "mode": "FAILFAST"}
            if kind == "csv":
                raw = reader.options(**csv).csv(local_url(self._plain(path)))
            else:
                raw = reader.parquet(local_url(path))
            check_columns(path, view, raw.columns)
            numbers = {name for name, dtype in raw.dtypes if dtype in {"float", "double"}}
            given = {
                name: F.when(~F.isnan(name), F.col(name)) if name in numbers else F.col(name) for name in types_of(view)
            }
            texts = [value.cast("string").alias(name) for name, value in given.items()]
            times = (
                raw.select(F.col(EVENT_TIME).cast("string")).distinct().limit(2) if EVENT_TIME in raw.columns else None
            )
            self.time = None if times is None else one_time(path, [value for (value,) in times.collect()])
            numbered = raw.select(F.monotonically_increasing_id().alias(ROW), *texts)
            # One task reads a CSV file, because it can't be split at a line break within quotes.
            self._text = numbered.repartition(self._spark.sparkContext.defaultParallelism).persist()
            self.rows = self._text.count()

    def _plain(self, path: Path) -> Path:
        """The path, or a link to it if Spark would take the path for a pattern.

        Spark expands the path of a multi-line CSV file twice, so escaping doesn't help. Workers on other machines don't
        see the link.
        """
        if PATTERN.search(str(path.resolve())) is None:
            return path
        folder = tempfile.mkdtemp()
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        link = Path(folder, "table.csv")
        link.symlink_to(path.resolve())
        return link

    def frame(self) -> Any:
        """The rules' input for Spark."""
        return self._typed(self._text, given=True).persist()

    def without(self, broken: pl.DataFrame) -> pl.LazyFrame:
        """The good rows with declared types, in file order."""
        folder = tempfile.mkdtemp(dir=self._scratch)
        with self._told():
            good = self._text.join(F.broadcast(self._frame(broken.select(ROW))), ROW, "left_anti").orderBy(ROW)
            self._typed(good).drop(ROW).write.mode("overwrite").parquet(folder)
        return scan(data_files(Path(folder)))

    def only(self, broken: pl.DataFrame) -> pl.DataFrame:
        """The broken rows, as text."""
        with self._told():
            rows = pl.from_arrow(self._text.join(F.broadcast(self._frame(broken)), ROW).orderBy(ROW).toArrow())
        assert isinstance(rows, pl.DataFrame)  # noqa: S101  (a table with columns)
        return rows.drop(ROW)

    def _typed(self, text: DataFrame, *, given: bool = False) -> DataFrame:
        columns, exact = [F.col(ROW)], unique_numbers(self._view)
        for name, value_type in types_of(self._view).items():
            value = _value(name, value_type)
            is_text = given and name in self._view.join_keys
            columns.append((value.cast("string") if is_text else value).alias(name))
            if given and value_type in READABLE:
                columns.append(F.col(name).alias(name + GIVEN))
                columns.append(F.when(value.isNull(), F.col(name)).alias(name + UNREADABLE))
            if given and name in exact:
                columns.append(value.cast("string").alias(name + EXACT))
        return text.select(*columns)

    def _frame(self, rows: pl.DataFrame) -> DataFrame:
        return self._spark.createDataFrame(rows.to_arrow(compat_level=pl.CompatLevel.oldest()))

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except (PySparkException, Py4JError) as error:  # Spark's own words, and Java's
            lines = str(error).strip().splitlines()
            causes = [line.partition(": ")[2] for line in lines if line.startswith("Caused by: ")]
            message = f"{self._path} can't be read: {(causes or lines)[-1 if causes else 0]}"
            raise QualityError(message) from error


def _value(name: str, value_type: str) -> Column:
    column = F.col(name)
    if value_type not in READABLE:
        return column
    number = F.regexp_replace(column, NO_FRACTION, "") if value_type == "Int64" else column
    # Only readable text is cast: Spark's strict cast fails on other text, and trims what Polars does not.
    value = F.when(column.rlike(READABLE[value_type]), number).cast(TYPES[value_type])
    return value if value_type == "Bool" else F.when(F.abs(value) < float("inf"), value)
