"""The feature algebra: the building blocks of windowed features.

    features = {
        "view_count": Count(where=field("event_type") == "view"),
        "revenue_cents": Sum("price_cents", where=field("event_type") == "purchase"),
        "cart_rate": Ratio("cart_count", "view_count"),
    }

Every aggregate is a commutative monoid over exact values, so the order of events, the size of batches and the number of
workers never change a result. It declares its state as typed columns and is computed in three steps:

    lift    events          -> the state of a pane
    merge   states          -> the state of their union
    finish  a window's state -> the feature

Lift and merge are written once, in the words of `vocabulary.py`, which every engine knows. Engines return states;
`finish` is Polars for all of them. So a new aggregate is one class here, and at most a new word.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field as dataclass_field, fields, replace
from typing import TYPE_CHECKING, Any, ClassVar

import polars as pl

from feast_repo.declare.about import ABOUT, Described
from feast_repo.declare.conditions import Condition, field
from feast_repo.declare.fields import Decimal, Integer
from feast_repo.declare.values import POLARS_TYPES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from feast_repo.declare.events import EventStream
    from feast_repo.declare.values import Value, ValueType
    from feast_repo.declare.vocabulary import Term, Vocabulary

__all__ = ["STATE_MARK", "Aggregate", "Count", "Feature", "Max", "Mean", "Min", "Ratio", "Sum", "field", "state_column"]

STATE_MARK = "#"
"""Between a feature's name, which has none, and that of a part of its state."""

NUMBERS: tuple[ValueType, ...] = ("Int64", "Float64")
ORDERED: tuple[ValueType, ...] = ("Int64", "String")
"""The types whose values have an order that all engines share."""
HALF = 32
"""Bits of the lower part of a value."""


@dataclass(frozen=True, kw_only=True)
class Feature(Described, ABC):
    """What a windowed view can hold: an `Aggregate` of events, or what is derived from other features of the view."""

    @property
    @abstractmethod
    def value_type(self) -> ValueType:
        """The type of the feature."""

    @property
    @abstractmethod
    def formula(self) -> str:
        """What it is, in words."""

    def bound(self, source: EventStream) -> Feature:  # noqa: ARG002
        """The feature over the events of a stream, whose fields may decide its type."""
        return self

    @abstractmethod
    def problem(self, source: EventStream, features: Mapping[str, Feature]) -> str | None:
        """Why it can't be computed from the stream's events and the other features of its view."""

    @abstractmethod
    def finish(self, state: Mapping[str, str]) -> pl.Expr:
        """A window's state to the feature; `state` gives the column of each part of the state.

        Features derived from others read those by their names.
        """

    def is_never_negative(self, source: EventStream, features: Mapping[str, Feature]) -> bool:  # noqa: ARG002
        """Whether it is a number that is 0 or more by its definition."""
        return False


class Aggregate(Feature):
    """A commutative monoid over events, as a dataclass: `merge` is associative and commutative, `empty` is neutral.

    Its fields are its parameters; that of the event's field it reads, if it reads one, is `column`.
    """

    __dataclass_fields__: ClassVar[dict[str, Any]]
    where: Condition | None

    @property
    @abstractmethod
    def state(self) -> Mapping[str, pl.DataType]:
        """The type of each part of the state, by name; the one part of a simple state has the name ""."""

    @property
    @abstractmethod
    def empty(self) -> Mapping[str, Value]:
        """The state of no events."""

    @abstractmethod
    def lift(self, on: Vocabulary) -> Mapping[str, Term]:
        """Events to the state of each group."""

    @abstractmethod
    def merge(self, on: Vocabulary, state: Mapping[str, str]) -> Mapping[str, Term]:
        """States to the state of their union, in each group; `state` gives the column of each part."""

    def finish(self, state: Mapping[str, str]) -> pl.Expr:
        """The state itself, if it is one column."""
        return pl.col(state[""])

    @property
    def meaning(self) -> list[Any]:
        """What determines the meaning of its stored state, for JSON: what it is of what."""
        told = {one.name: getattr(self, one.name) for one in fields(self) if one.name not in ABOUT}
        return [type(self).__name__, {**told, "where": None if self.where is None else self.where.meaning}]

    @property
    def formula(self) -> str:
        """Such as `sum of price_cents where event_type == 'purchase'`."""
        of = getattr(self, "column", "events")
        return f"{type(self).__name__.lower()} of {of}" + ("" if self.where is None else f" where {self.where}")

    def columns(self) -> frozenset[str]:
        """The event fields that it reads."""
        return frozenset() if self.where is None else self.where.columns()

    def problem(self, source: EventStream, features: Mapping[str, Feature]) -> str | None:  # noqa: ARG002
        """Why it can't be computed: an unknown field, or a condition that can't be asked."""
        if unknown := self.columns() - source.schema.keys():
            return f"unknown event fields {sorted(unknown)}; declared are {sorted(source.schema)}"
        return None if self.where is None else self.where.problem(source)

    def selected(self, on: Vocabulary, column: str) -> Term:
        """A field of the events, null in those that don't meet the condition."""
        return on.column(column) if self.where is None else on.when(self.where.holds(on), on.column(column))


@dataclass(frozen=True)
class Count(Aggregate):
    """The number of events, or of those that meet a condition."""

    where: Condition | None = None
    value_type: ClassVar[ValueType] = "Int64"
    state: ClassVar[Mapping[str, pl.DataType]] = {"": pl.Int64()}
    empty: ClassVar[Mapping[str, Value]] = {"": 0}

    def lift(self, on: Vocabulary) -> Mapping[str, Term]:
        """Count the events."""
        return {"": on.count(None if self.where is None else self.where.holds(on))}

    def merge(self, on: Vocabulary, state: Mapping[str, str]) -> Mapping[str, Term]:
        """Add the counts."""
        return {"": on.sum(on.column(state[""]))}

    def is_never_negative(self, source: EventStream, features: Mapping[str, Feature]) -> bool:  # noqa: ARG002
        """It never is."""
        return True


@dataclass(frozen=True)
class _OfField(Aggregate):
    """An aggregate of one field of the selected events."""

    column: str
    where: Condition | None = None

    def columns(self) -> frozenset[str]:
        """The event fields that it reads."""
        return frozenset({self.column}) | super().columns()

    def is_never_negative(self, source: EventStream, features: Mapping[str, Feature]) -> bool:  # noqa: ARG002
        """As the field is declared."""
        column = source.by_name[self.column]
        return isinstance(column, Integer | Decimal) and column.non_negative


class _OfInteger(_OfField):
    def problem(self, source: EventStream, features: Mapping[str, Feature]) -> str | None:
        """Why it can't be computed: as for all aggregates, or the field is no integer."""
        if self.column in source.schema and not source.schema[self.column].is_integer():
            return f"{type(self).__name__} needs an integer field, and {self.column!r} is none"
        return super().problem(source, features)


class Sum(_OfInteger):
    """The sum of an integer field; 0 without events. Exact modulo 2**64, like the 64-bit integer it is stored in."""

    value_type: ClassVar[ValueType] = "Int64"
    state: ClassVar[Mapping[str, pl.DataType]] = {"": pl.Int64()}
    empty: ClassVar[Mapping[str, Value]] = {"": 0}

    def lift(self, on: Vocabulary) -> Mapping[str, Term]:
        """Add the values."""
        return {"": on.sum(self.selected(on, self.column))}

    def merge(self, on: Vocabulary, state: Mapping[str, str]) -> Mapping[str, Term]:
        """Add the sums."""
        return {"": on.sum(on.column(state[""]))}


class Mean(_OfInteger):
    """The mean of an integer field; null without events that have it.

    The sum is exact for any 64-bit values of up to 2**31 events in a window, and divided once: nothing depends on the
    order of the events, and nothing cancels out. It is held in two parts, the values' upper and lower 32 bits.
    """

    value_type: ClassVar[ValueType] = "Float64"
    state: ClassVar[Mapping[str, pl.DataType]] = {"high": pl.Int64(), "low": pl.Int64(), "count": pl.Int64()}
    empty: ClassVar[Mapping[str, Value]] = {"high": 0, "low": 0, "count": 0}

    def lift(self, on: Vocabulary) -> Mapping[str, Term]:
        """Add the parts of the values, and count the values."""
        values = self.selected(on, self.column)
        high = on.shifted(values, HALF)
        low = values - high * on.literal(2**HALF, pl.Int64())
        return {"high": on.sum(high), "low": on.sum(low), "count": on.count(~on.is_null(values))}

    def merge(self, on: Vocabulary, state: Mapping[str, str]) -> Mapping[str, Term]:
        """Add each."""
        return {part: on.sum(on.column(column)) for part, column in state.items()}

    def finish(self, state: Mapping[str, str]) -> pl.Expr:
        """Put the sum together, and divide it."""
        high, low, count = (pl.col(state[part]) for part in ("high", "low", "count"))
        total = high.cast(pl.Int128) * 2**HALF + low.cast(pl.Int128)
        return pl.when(count > 0).then(total.cast(pl.Float64) / count.cast(pl.Float64))


@dataclass(frozen=True)
class _Extreme(_OfField):
    """The first or last value in the order of a field's type. `of` is that type, as the view's events have it."""

    of: ValueType = dataclass_field(default="Int64", kw_only=True, repr=False)
    empty: ClassVar[Mapping[str, Value]] = {"": None}

    @property
    def value_type(self) -> ValueType:
        """The field's type."""
        return self.of

    @property
    def state(self) -> Mapping[str, pl.DataType]:
        """The value."""
        return {"": POLARS_TYPES[self.of]}

    @property
    def meaning(self) -> list[Any]:
        """As for all; of an integer field as it was before there were others."""
        kind, told = super().meaning
        return [kind, {name: value for name, value in told.items() if (name, value) != ("of", "Int64")}]

    def bound(self, source: EventStream) -> Feature:
        """Of the type that the field has."""
        fitting = [kind for kind in ORDERED if POLARS_TYPES[kind] == source.schema.get(self.column)]
        return replace(self, of=fitting[0] if fitting else ORDERED[0])

    def problem(self, source: EventStream, features: Mapping[str, Feature]) -> str | None:
        """Why it can't be computed: as for all aggregates, or the field's values have no order."""
        if self.column in source.schema and source.schema[self.column] != POLARS_TYPES[self.of]:
            return f"{type(self).__name__} needs an integer or text field, and {self.column!r} is none"
        return super().problem(source, features)


class Min(_Extreme):
    """The smallest value of an integer or text field (by code points); null without events that have it."""

    def lift(self, on: Vocabulary) -> Mapping[str, Term]:
        """The smallest value."""
        return {"": on.least(self.selected(on, self.column))}

    def merge(self, on: Vocabulary, state: Mapping[str, str]) -> Mapping[str, Term]:
        """The smallest of them."""
        return {"": on.least(on.column(state[""]))}


class Max(_Extreme):
    """The greatest value of an integer or text field (by code points); null without events that have it."""

    def lift(self, on: Vocabulary) -> Mapping[str, Term]:
        """The greatest value."""
        return {"": on.greatest(self.selected(on, self.column))}

    def merge(self, on: Vocabulary, state: Mapping[str, str]) -> Mapping[str, Term]:
        """The greatest of them."""
        return {"": on.greatest(on.column(state[""]))}


@dataclass(frozen=True)
class Ratio(Feature):
    """One feature of the same view divided by another, computed once per window from exact numbers.

    0.0 if the denominator is 0 or either side is null. Both sides are aggregates, so a ratio needs no state of its own.
    """

    numerator: str
    denominator: str
    value_type: ClassVar[ValueType] = "Float64"

    @property
    def formula(self) -> str:
        """The two features that are divided."""
        return f"{self.numerator} / {self.denominator}"

    def problem(self, source: EventStream, features: Mapping[str, Feature]) -> str | None:  # noqa: ARG002
        """Why it can't be computed: a side is no aggregate of this view, or no number."""
        sides = {name: features.get(name) for name in (self.numerator, self.denominator)}
        if unknown := sorted(name for name, side in sides.items() if not isinstance(side, Aggregate)):
            return f"unknown aggregates {unknown}; a ratio names two aggregates of the same view"
        for name, side in sides.items():
            if side is not None and side.value_type not in NUMBERS:
                return f"a ratio divides numbers, and {name!r} is of type {side.value_type}"
        return None

    def finish(self, state: Mapping[str, str]) -> pl.Expr:  # noqa: ARG002
        """Divide the two features."""
        numerator, denominator = (pl.col(name).cast(pl.Float64) for name in (self.numerator, self.denominator))
        return pl.when(denominator != 0).then(numerator / denominator).fill_null(0.0)

    def is_never_negative(self, source: EventStream, features: Mapping[str, Feature]) -> bool:
        """Whether neither side can be negative."""
        return all(features[name].is_never_negative(source, features) for name in (self.numerator, self.denominator))


def state_column(feature: str, part: str) -> str:
    """The column that holds a part of a feature's state: `views`, or `mean#sum` and `mean#count`."""
    return f"{feature}{STATE_MARK}{part}" if part else feature
