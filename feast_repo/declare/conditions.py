"""Conditions on the fields of an event.

(field("event_type") == "purchase") & (field("price_cents") > 1000)
"""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import polars as pl

from feast_repo.declare.fields import Choice

if TYPE_CHECKING:
    from collections.abc import Callable

    from feast_repo.declare.events import EventStream
    from feast_repo.declare.vocabulary import Term, Vocabulary

Scalar: TypeAlias = str | int

COMPARISONS: dict[str, Callable[[Any, Any], Any]] = {
    "==": operator.eq,
    "!=": operator.ne,
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
}
"""Comparisons by symbol; they apply to the terms of every engine and to plain values alike."""


@dataclass(frozen=True)
class Comparison:
    """One field compared with a constant; a null field compares as false."""

    column: str
    symbol: str
    value: Scalar

    def __and__(self, other: Condition) -> Both:
        """Both conditions hold."""
        return Both(self, other)

    def columns(self) -> frozenset[str]:
        """The event fields that this condition reads."""
        return frozenset({self.column})

    def problem(self, source: EventStream) -> str | None:
        """Why it can't be asked of the stream's events: another type, or a value that the field never has."""
        declared = source.by_name[self.column]
        if declared.dtype.is_integer() != isinstance(self.value, int):
            return f"{self}: the field is of type {declared.dtype}"
        if isinstance(declared, Choice) and self.value not in declared.values:
            return f"{self}: {self.column!r} never has that value; declared are {list(declared.values)}"
        return None

    def holds(self, on: Vocabulary) -> Term:
        """The condition as a Boolean term that is never null."""
        value = on.literal(self.value, pl.Int64() if isinstance(self.value, int) else pl.String())
        compared = COMPARISONS[self.symbol](on.column(self.column), value)
        return on.or_else(compared, on.literal(value=False, dtype=pl.Boolean()))

    def __str__(self) -> str:
        """The condition as it would be written in a declaration."""
        return f"{self.column} {self.symbol} {self.value!r}"


@dataclass(frozen=True)
class Both:
    """Two conditions that must both hold."""

    left: Condition
    right: Condition

    def __and__(self, other: Condition) -> Both:
        """All conditions hold."""
        return Both(self, other)

    def columns(self) -> frozenset[str]:
        """The event fields that these conditions read."""
        return self.left.columns() | self.right.columns()

    def problem(self, source: EventStream) -> str | None:
        """Why one of them can't be asked of the stream's events."""
        return self.left.problem(source) or self.right.problem(source)

    def holds(self, on: Vocabulary) -> Term:
        """The condition as a Boolean term that is never null."""
        return self.left.holds(on) & self.right.holds(on)

    def __str__(self) -> str:
        """The condition as it would be written in a declaration."""
        return f"({self.left}) & ({self.right})"


Condition: TypeAlias = Comparison | Both


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
