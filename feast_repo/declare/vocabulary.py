"""The words that aggregates and conditions are written in; each engine says once what they mean in its expressions.

    Count.lift:  {"": on.count(where)}
    on = POLARS: pl.len()
    on = SPARK:  F.count(F.lit(1))          # batch/recompute/spark_vocabulary.py

Terms are expressions of the engine: of Polars or of Spark. Both have Python's operators for arithmetic, comparison
and logic, so these need no words. Every word means exactly the same in every engine; a property test holds them to it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import polars as pl

if TYPE_CHECKING:
    from feast_repo.declare.values import Value

Term: TypeAlias = Any
"""An expression of an engine: `pl.Expr`, or Spark's `Column`."""


class Vocabulary(Protocol):
    """One engine's words. Those from `count` on aggregate: they take the rows of a group to one value."""

    def column(self, name: str) -> Term:
        """A column by its literal name."""

    def literal(self, value: Value, dtype: pl.DataType) -> Term:
        """A constant of that type."""

    def when(self, condition: Term, value: Term) -> Term:
        """The value where the condition holds, else null."""

    def or_else(self, value: Term, fallback: Term) -> Term:
        """The fallback where the value is null."""

    def is_null(self, value: Term) -> Term:
        """Whether there is no value."""

    def shifted(self, value: Term, bits: int) -> Term:
        """A 64-bit integer divided by 2**bits, rounded down."""

    def count(self, condition: Term | None = None) -> Term:
        """The number of rows, or of those for which the condition holds (Int64)."""

    def sum(self, values: Term) -> Term:
        """The sum of 64-bit integers modulo 2**64, nulls left out; 0 without any."""

    def least(self, values: Term) -> Term:
        """The smallest value, nulls left out; null without any. Strings compare by code points."""

    def greatest(self, values: Term) -> Term:
        """The greatest value, nulls left out; null without any. Strings compare by code points."""

    def distinct(self, values: Term) -> Term:
        """The values as a sorted list without repetition, nulls left out; empty without any."""

    def union(self, lists: Term) -> Term:
        """The elements of lists as one sorted list without repetition; empty without any."""


class _Polars:
    """The words as Polars expressions."""

    def column(self, name: str) -> pl.Expr:
        return pl.col(name)

    def literal(self, value: Value, dtype: pl.DataType) -> pl.Expr:
        return pl.lit(value, dtype)

    def when(self, condition: pl.Expr, value: pl.Expr) -> pl.Expr:
        return pl.when(condition).then(value)

    def or_else(self, value: pl.Expr, fallback: pl.Expr) -> pl.Expr:
        return value.fill_null(fallback)

    def is_null(self, value: pl.Expr) -> pl.Expr:
        return value.is_null()

    def shifted(self, value: pl.Expr, bits: int) -> pl.Expr:
        return value.floordiv(2**bits)

    def count(self, condition: pl.Expr | None = None) -> pl.Expr:
        return (pl.len() if condition is None else condition.sum()).cast(pl.Int64)

    def sum(self, values: pl.Expr) -> pl.Expr:
        return values.sum()

    def least(self, values: pl.Expr) -> pl.Expr:
        return values.min()

    def greatest(self, values: pl.Expr) -> pl.Expr:
        return values.max()

    def distinct(self, values: pl.Expr) -> pl.Expr:
        return values.drop_nulls().unique().sort()

    def union(self, lists: pl.Expr) -> pl.Expr:
        return lists.list.explode(keep_nulls=False, empty_as_null=False).unique().sort()


POLARS: Vocabulary = _Polars()
