"""Conditions on the fields of an event.

(field("event_type") == "purchase") & ~field("coupon").is_null()

A condition holds or does not; there is no third answer. Where a field is absent (null), every comparison with it is
false, so `field("price") != 5` needs a price, and `~(field("price") == 5)` holds without one.
"""

from __future__ import annotations

import operator
from abc import ABC, abstractmethod
from dataclasses import dataclass, fields
from functools import reduce
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

import polars as pl

from feast_repo.declare.fields import Choice

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from feast_repo.declare.events import EventStream
    from feast_repo.declare.vocabulary import Term, Vocabulary

Scalar: TypeAlias = str | int | bool

COMPARISONS: dict[str, Callable[[Any, Any], Any]] = {
    "==": operator.eq,
    "!=": operator.ne,
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
}
"""Comparisons by symbol; they apply to the terms of every engine and to plain values alike."""

TYPES: dict[type, pl.DataType] = {bool: pl.Boolean(), int: pl.Int64(), str: pl.String()}
"""The type of the fields that a constant can be compared with."""


class Condition(ABC):
    """A condition on an event, as a dataclass: its fields are its parameters."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    def __and__(self, other: Condition) -> Condition:
        """Both conditions hold."""
        return Both(self, other)

    def __or__(self, other: Condition) -> Condition:
        """At least one of them holds."""
        return Either(self, other)

    def __invert__(self) -> Condition:
        """The condition does not hold."""
        return Not(self)

    @property
    def meaning(self) -> dict[str, Any]:
        """What it is, for JSON: the kind and its parameters."""
        told = {one.name: getattr(self, one.name) for one in fields(self)}
        parameters = {name: value.meaning if isinstance(value, Condition) else value for name, value in told.items()}
        return {"kind": type(self).__name__, **parameters}

    @abstractmethod
    def columns(self) -> frozenset[str]:
        """The event fields that this condition reads."""

    @abstractmethod
    def problem(self, source: EventStream) -> str | None:
        """Why it can't be asked of the stream's events, whose fields it knows: another type, an impossible value."""

    @abstractmethod
    def holds(self, on: Vocabulary) -> Term:
        """The condition as a Boolean term that is never null."""

    @abstractmethod
    def __str__(self) -> str:
        """The condition as it would be written in a declaration."""


class _OfOneField(Condition):
    column: str

    def columns(self) -> frozenset[str]:
        """The event field that this condition reads."""
        return frozenset({self.column})

    def _problem_of(self, value: Scalar, source: EventStream) -> str | None:
        """Why a constant can't be compared with the field."""
        declared = source.by_name[self.column]
        if TYPES[type(value)] != declared.dtype:
            return f"{self}: the field is of type {declared.dtype}"
        if isinstance(declared, Choice) and value not in declared.values:
            return f"{self}: {self.column!r} never has that value; declared are {list(declared.values)}"
        return None

    def _compared(self, on: Vocabulary, symbol: str, value: Scalar) -> Term:
        compared = COMPARISONS[symbol](on.column(self.column), on.literal(value, TYPES[type(value)]))
        return on.or_else(compared, on.literal(value=False, dtype=pl.Boolean()))


@dataclass(frozen=True)
class Comparison(_OfOneField):
    """One field compared with a constant; strings by code points."""

    column: str
    symbol: str
    value: Scalar

    @property
    def meaning(self) -> dict[str, Any]:
        """Without the kind, as in states that were stored before there were others."""
        return {"column": self.column, "symbol": self.symbol, "value": self.value}

    def problem(self, source: EventStream) -> str | None:
        """Why it can't be asked of the stream's events."""
        if isinstance(self.value, bool) and self.symbol not in {"==", "!="}:
            return f"{self}: true and false have no order"
        return self._problem_of(self.value, source)

    def holds(self, on: Vocabulary) -> Term:
        """Whether the field is there and compares so."""
        return self._compared(on, self.symbol, self.value)

    def __str__(self) -> str:
        """Such as `price > 5`."""
        return f"{self.column} {self.symbol} {self.value!r}"


@dataclass(frozen=True)
class OneOf(_OfOneField):
    """One field that has one of several values."""

    column: str
    values: tuple[Scalar, ...]

    def problem(self, source: EventStream) -> str | None:
        """Why it can't be asked of the stream's events."""
        if not self.values:
            return f"{self}: no value is named"
        return next((found for value in self.values if (found := self._problem_of(value, source))), None)

    def holds(self, on: Vocabulary) -> Term:
        """Whether the field is there and has one of the values."""
        return reduce(operator.or_, (self._compared(on, "==", value) for value in self.values))

    def __str__(self) -> str:
        """Such as `currency in ('EUR', 'USD')`."""
        return f"{self.column} in ({', '.join(map(repr, self.values))})"


@dataclass(frozen=True)
class Absent(_OfOneField):
    """One field that an event lacks."""

    column: str

    def problem(self, source: EventStream) -> str | None:
        """Why it can't be asked: the field is always there."""
        return f"{self}: the field is required" if source.by_name[self.column].required else None

    def holds(self, on: Vocabulary) -> Term:
        """Whether the field is null."""
        return on.is_null(on.column(self.column))

    def __str__(self) -> str:
        """Such as `coupon is null`."""
        return f"{self.column} is null"


@dataclass(frozen=True)
class _OfTwo(Condition):
    left: Condition
    right: Condition
    mark: ClassVar[str]

    def columns(self) -> frozenset[str]:
        """The event fields that they read."""
        return self.left.columns() | self.right.columns()

    def problem(self, source: EventStream) -> str | None:
        """Why one of them can't be asked of the stream's events."""
        return self.left.problem(source) or self.right.problem(source)

    def __str__(self) -> str:
        """Such as `(price > 5) & (price < 9)`."""
        return f"({self.left}) {self.mark} ({self.right})"


class Both(_OfTwo):
    """Two conditions that must both hold."""

    mark = "&"

    @property
    def meaning(self) -> dict[str, Any]:
        """Without the kind, as in states that were stored before there were others."""
        return {"left": self.left.meaning, "right": self.right.meaning}

    def holds(self, on: Vocabulary) -> Term:
        """Whether both hold."""
        return self.left.holds(on) & self.right.holds(on)


class Either(_OfTwo):
    """Two conditions of which at least one must hold."""

    mark = "|"

    def holds(self, on: Vocabulary) -> Term:
        """Whether one of them holds."""
        return self.left.holds(on) | self.right.holds(on)


@dataclass(frozen=True)
class Not(Condition):
    """A condition that must not hold."""

    negated: Condition

    def columns(self) -> frozenset[str]:
        """The event fields that it reads."""
        return self.negated.columns()

    def problem(self, source: EventStream) -> str | None:
        """Why it can't be asked of the stream's events."""
        return self.negated.problem(source)

    def holds(self, on: Vocabulary) -> Term:
        """Whether it does not hold."""
        return ~self.negated.holds(on)

    def __str__(self) -> str:
        """Such as `~(price > 5)`."""
        return f"~({self.negated})"


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

    def __gt__(self, value: Scalar) -> Comparison:
        """Greater than a constant."""
        return Comparison(self.name, ">", value)

    def __ge__(self, value: Scalar) -> Comparison:
        """Greater than or equal to a constant."""
        return Comparison(self.name, ">=", value)

    def __lt__(self, value: Scalar) -> Comparison:
        """Less than a constant."""
        return Comparison(self.name, "<", value)

    def __le__(self, value: Scalar) -> Comparison:
        """Less than or equal to a constant."""
        return Comparison(self.name, "<=", value)

    def is_in(self, values: Iterable[Scalar]) -> OneOf:
        """Equal to one of several constants."""
        return OneOf(self.name, tuple(values))

    def is_null(self) -> Absent:
        """Absent from the event."""
        return Absent(self.name)


def field(name: str) -> Field:
    """Name a field of the event in a condition."""
    return Field(name)
