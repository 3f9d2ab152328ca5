"""The words of the algebra (`feast_repo/declare/vocabulary.py`) as Spark's columns.

Sums wrap around as in 64-bit integers everywhere else, which `spark.sql.ansi.enabled = false` sees to.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl
from pyspark.sql import functions as F  # noqa: N812  (as Spark's own documentation has it)

from feast_repo.declare.events import UTC_MICROSECONDS

if TYPE_CHECKING:
    from pyspark.sql import Column

    from feast_repo.declare.values import Value
    from feast_repo.declare.vocabulary import Vocabulary

SQL_TYPES: dict[pl.DataType, str] = {
    pl.String(): "string",
    pl.Int32(): "int",
    pl.Int64(): "bigint",
    pl.Float64(): "double",
    pl.Boolean(): "boolean",
    pl.List(pl.Int64()): "array<bigint>",
    pl.List(pl.String()): "array<string>",
    UTC_MICROSECONDS: "timestamp",
}


class _Spark:
    """The words as Spark's columns."""

    def column(self, name: str) -> Column:
        return F.col("`" + name.replace("`", "``") + "`")

    def literal(self, value: Value, dtype: pl.DataType) -> Column:
        return F.lit(value).cast(SQL_TYPES[dtype])

    def when(self, condition: Column, value: Column) -> Column:
        return F.when(condition, value)

    def or_else(self, value: Column, fallback: Column) -> Column:
        return F.coalesce(value, fallback)

    def is_null(self, value: Column) -> Column:
        return value.isNull()

    def shifted(self, value: Column, bits: int) -> Column:
        return F.shiftright(value, bits)

    def count(self, condition: Column | None = None) -> Column:
        return F.count(F.lit(1) if condition is None else F.when(condition, 1))

    def sum(self, values: Column) -> Column:
        return F.coalesce(F.sum(values), F.lit(0).cast("bigint"))

    def least(self, values: Column) -> Column:
        return F.min(values)

    def greatest(self, values: Column) -> Column:
        return F.max(values)

    def distinct(self, values: Column) -> Column:
        return F.sort_array(F.collect_set(values))

    def union(self, lists: Column) -> Column:
        return F.sort_array(F.array_distinct(F.flatten(F.collect_list(lists))))


SPARK: Vocabulary = _Spark()
