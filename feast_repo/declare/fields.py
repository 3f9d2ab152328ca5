"""Fields of an event: the type, rules and column of each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, TypeAlias

import polars as pl

INT64_MIN, INT64_MAX = -(2**63), 2**63 - 1


@dataclass(frozen=True)
class Text:
    """A string; lengths count Unicode characters."""

    name: str
    required: bool = False
    min_length: int = 0
    max_length: int | None = None
    dtype: ClassVar[pl.DataType] = pl.String()


@dataclass(frozen=True)
class Choice:
    """A string from a fixed set; anything else is rejected with the reason `unknown_<name>`."""

    name: str
    values: tuple[str, ...]
    required: bool = True
    dtype: ClassVar[pl.DataType] = pl.String()


@dataclass(frozen=True)
class Integer:
    """A signed 64-bit integer; below the minimum (which can only be 0) it is rejected as `negative:<name>`."""

    name: str
    required: bool = False
    non_negative: bool = False
    dtype: ClassVar[pl.DataType] = pl.Int64()


@dataclass(frozen=True)
class Timestamp:
    """Epoch milliseconds in UTC, from `earliest_ms` to the message's Kafka timestamp plus `max_ahead_ms`."""

    name: str
    earliest_ms: int
    max_ahead_ms: int
    required: ClassVar[bool] = True
    dtype: ClassVar[pl.DataType] = pl.Int64()


EventField: TypeAlias = Text | Choice | Integer | Timestamp
