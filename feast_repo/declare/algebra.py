"""The feature algebra: the building blocks of windowed features.

Every aggregate is a commutative monoid over exact values (64-bit integers, minima, maxima), so the order of events, the
size of batches and the number of workers never change a result. It is computed in three steps, each one expression:
rows -> pane, panes -> window, window -> feature.

    features = {
        "view_count": Count(where=field("event_type") == "view"),
        "revenue_cents": Sum("price_cents", where=field("event_type") == "purchase"),
        "cart_rate": Ratio("cart_count", "view_count"),
    }
"""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeAlias

import polars as pl

if TYPE_CHECKING:
    from collections.abc import Callable

Scalar: TypeAlias = str | int
ValueType: TypeAlias = Literal["Int64", "Float64", "String"]

POLARS_TYPES: dict[ValueType, pl.DataType] = {"Int64": pl.Int64(), "Float64": pl.Float64(), "String": pl.String()}

COMPARISONS: dict[str, Callable[[Any, Any], Any]] = {
    "==": operator.eq,
    "!=": operator.ne,
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
}
"""Comparisons by symbol; they apply to Polars expressions, Spark columns and plain values alike."""


@dataclass(frozen=True)
class Comparison:
    """One field compared with a constant; a null field compares as false."""

    column: str
    symbol: str
    value: Scalar

    def __and__(self, other: Predicate) -> Both:
        """Both conditions hold."""
        return Both(self, other)

    def columns(self) -> frozenset[str]:
        """The event fields that this condition reads."""
        return frozenset({self.column})

    def comparisons(self) -> tuple[Comparison, ...]:
        """The single comparisons in it."""
        return (self,)

    def polars(self) -> pl.Expr:
        """The condition as a Boolean expression without nulls."""
        condition: pl.Expr = COMPARISONS[self.symbol](pl.col(self.column), pl.lit(self.value))
        return condition.fill_null(value=False)

    def __str__(self) -> str:
        """The condition as it would be written in a declaration."""
        return f"{self.column} {self.symbol} {self.value!r}"


@dataclass(frozen=True)
class Both:
    """Two conditions that must both hold."""

    left: Predicate
    right: Predicate

    def __and__(self, other: Predicate) -> Both:
        """All conditions hold."""
        return Both(self, other)

    def columns(self) -> frozenset[str]:
        """The event fields that these conditions read."""
        return self.left.columns() | self.right.columns()

    def comparisons(self) -> tuple[Comparison, ...]:
        """The single comparisons in them."""
        return (*self.left.comparisons(), *self.right.comparisons())

    def polars(self) -> pl.Expr:
        """The condition as a Boolean expression without nulls."""
        return self.left.polars() & self.right.polars()

    def __str__(self) -> str:
        """The condition as it would be written in a declaration."""
        return f"({self.left}) & ({self.right})"


Predicate: TypeAlias = Comparison | Both


@dataclass(frozen=True, eq=False)
class Field:
    """A field of the event, to be compared with a constant: `field("event_type") == "view"`."""

    name: str

    __hash__ = None  # type: ignore[assignment]  # comparing builds a condition, so a field can't be a dict key

    def __eq__(self, value: Scalar) -> Comparison:  # type: ignore[override]
        """Equal to a constant."""
        return Comparison(self.name, "==", value)

    def __ne__(self, value: Scalar) -> Comparison:  # type: ignore[override]
        """Present and different from a constant."""
        return Comparison(self.name, "!=", value)

    def __gt__(self, value: int) -> Comparison:
        """Greater than a constant."""
        return Comparison(self.name, ">", value)

    def __ge__(self, value: int) -> Comparison:
        """Greater than or equal to a constant."""
        return Comparison(self.name, ">=", value)

    def __lt__(self, value: int) -> Comparison:
        """Less than a constant."""
        return Comparison(self.name, "<", value)

    def __le__(self, value: int) -> Comparison:
        """Less than or equal to a constant."""
        return Comparison(self.name, "<=", value)


def field(name: str) -> Field:
    """Name a field of the event in a condition."""
    return Field(name)


@dataclass(frozen=True)
class Count:
    """The number of events, or of those that meet a condition."""

    where: Predicate | None = None
    value_type: ClassVar[ValueType] = "Int64"
    empty: ClassVar[int | None] = 0

    def columns(self) -> frozenset[str]:
        """The event fields that this aggregate reads."""
        return frozenset() if self.where is None else self.where.columns()

    def pane(self) -> pl.Expr:
        """Events to one value per group."""
        return (pl.len() if self.where is None else self.where.polars().sum()).cast(pl.Int64)

    def merge(self, name: str) -> pl.Expr:
        """Values of panes to the value of their union."""
        return pl.col(name).sum()


@dataclass(frozen=True)
class _OfColumn:
    """An aggregate of one integer field of the selected events."""

    column: str
    where: Predicate | None = None
    value_type: ClassVar[ValueType] = "Int64"

    def columns(self) -> frozenset[str]:
        """The event fields that this aggregate reads."""
        return frozenset({self.column}) | (frozenset() if self.where is None else self.where.columns())

    def _selected(self) -> pl.Expr:
        return pl.col(self.column) if self.where is None else pl.when(self.where.polars()).then(pl.col(self.column))


class Sum(_OfColumn):
    """The sum of an integer field; 0 without events. Exact modulo 2**64, like the 64-bit integer it is stored in."""

    empty: ClassVar[int | None] = 0

    def pane(self) -> pl.Expr:
        """Events to one value per group."""
        return self._selected().sum()

    def merge(self, name: str) -> pl.Expr:
        """Values of panes to the value of their union."""
        return pl.col(name).sum()


class Min(_OfColumn):
    """The smallest value of an integer field; null without events that have it."""

    empty: ClassVar[int | None] = None

    def pane(self) -> pl.Expr:
        """Events to one value per group."""
        return self._selected().min()

    def merge(self, name: str) -> pl.Expr:
        """Values of panes to the value of their union."""
        return pl.col(name).min()


class Max(_OfColumn):
    """The greatest value of an integer field; null without events that have it."""

    empty: ClassVar[int | None] = None

    def pane(self) -> pl.Expr:
        """Events to one value per group."""
        return self._selected().max()

    def merge(self, name: str) -> pl.Expr:
        """Values of panes to the value of their union."""
        return pl.col(name).max()


@dataclass(frozen=True)
class Ratio:
    """One feature of the same view divided by another, computed once per window from exact integers.

    0.0 if the denominator is 0 or either side is null. Both sides are features, so a ratio needs no state of its own.
    """

    numerator: str
    denominator: str
    value_type: ClassVar[ValueType] = "Float64"
    empty: ClassVar[float | None] = 0.0

    def final(self) -> pl.Expr:
        """Features of a window to the ratio."""
        numerator, denominator = (pl.col(name).cast(pl.Float64) for name in (self.numerator, self.denominator))
        return pl.when(denominator != 0).then(numerator / denominator).fill_null(0.0)


Aggregate: TypeAlias = Count | Sum | Min | Max
Feature: TypeAlias = Aggregate | Ratio
