"""Aggregates that only tests know, whose states are of other types than those of the shipped ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import polars as pl

from feast_repo.declare.algebra import Aggregate

if TYPE_CHECKING:
    from collections.abc import Mapping

    from feast_repo.declare.conditions import Condition
    from feast_repo.declare.values import Value, ValueType
    from feast_repo.declare.vocabulary import Term, Vocabulary


@dataclass(frozen=True)
class Greatest(Aggregate):
    """The greatest string of a field; null without events that have it."""

    column: str
    where: Condition | None = None
    value_type: ClassVar[ValueType] = "String"
    state: ClassVar[Mapping[str, pl.DataType]] = {"": pl.String()}
    empty: ClassVar[Mapping[str, Value]] = {"": None}

    def columns(self) -> frozenset[str]:
        return frozenset({self.column}) | super().columns()

    def lift(self, on: Vocabulary) -> Mapping[str, Term]:
        return {"": on.greatest(self.selected(on, self.column))}

    def merge(self, on: Vocabulary, state: Mapping[str, str]) -> Mapping[str, Term]:
        return {"": on.greatest(on.column(state[""]))}


@dataclass(frozen=True)
class _Set(Aggregate):
    """The different values of a field, sorted."""

    column: str
    where: Condition | None = None
    empty: ClassVar[Mapping[str, Value]] = {"set": []}

    def columns(self) -> frozenset[str]:
        return frozenset({self.column}) | super().columns()

    def lift(self, on: Vocabulary) -> Mapping[str, Term]:
        return {"set": on.distinct(self.selected(on, self.column))}

    def merge(self, on: Vocabulary, state: Mapping[str, str]) -> Mapping[str, Term]:
        return {"set": on.union(on.column(state["set"]))}

    def finish(self, state: Mapping[str, str]) -> pl.Expr:
        return pl.col(state["set"])


class Strings(_Set):
    """The different values of a field of text."""

    value_type: ClassVar[ValueType] = "List(String)"
    state: ClassVar[Mapping[str, pl.DataType]] = {"set": pl.List(pl.String())}


class Integers(_Set):
    """The different values of an integer field."""

    value_type: ClassVar[ValueType] = "List(Int64)"
    state: ClassVar[Mapping[str, pl.DataType]] = {"set": pl.List(pl.Int64())}


@dataclass(frozen=True)
class Ever(Aggregate):
    """Whether there was any event."""

    where: Condition | None = None
    value_type: ClassVar[ValueType] = "Bool"
    state: ClassVar[Mapping[str, pl.DataType]] = {"": pl.Boolean()}
    empty: ClassVar[Mapping[str, Value]] = {"": False}

    def lift(self, on: Vocabulary) -> Mapping[str, Term]:
        return {"": on.count(None if self.where is None else self.where.holds(on)) > 0}

    def merge(self, on: Vocabulary, state: Mapping[str, str]) -> Mapping[str, Term]:
        return {"": on.greatest(on.column(state[""]))}
