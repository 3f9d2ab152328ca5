"""Fields of an event: how each is written, its rules, and its column.

    Text("card", path="payment.card.number", max_length=19)
    Timestamp("at", format="iso8601", earliest_ms=YEAR_2000_MS, max_ahead_ms=300_000)

A column always has the field's own `name`, wherever the value stands in a message.
"""

from __future__ import annotations

import re
from dataclasses import KW_ONLY, dataclass, field
from itertools import permutations
from typing import TYPE_CHECKING, ClassVar, Literal, TypeAlias, get_args

import polars as pl

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

INT64_MIN, INT64_MAX = -(2**63), 2**63 - 1
MOST_SCALE = 18
"""More decimal places leave no room for a whole number in 64 bits."""

TimeFormat: TypeAlias = Literal["ms", "s", "us", "iso8601"]


@dataclass(frozen=True)
class _Field:
    """What all fields have. `path`: the names of the objects around the value, then its own name; by default `name`.

    A string is split at its dots; a tuple is taken as it is, for names that hold a dot.
    """

    name: str
    _: KW_ONLY
    path: str | tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        """Refuse a declaration that contradicts itself.

        Raises:
            ValueError: a path has a component that can't be the name of a member.
        """
        if self.path is not None and not (self.components and all(map(is_name, self.components))):
            self._refuse(f"{self.path!r} can't be the path of a field")

    @property
    def components(self) -> tuple[str, ...]:
        """The path as names of members, the outermost first."""
        if self.path is None:
            return (self.name,)
        return tuple(self.path.split(".")) if isinstance(self.path, str) else self.path

    def _refuse(self, problem: str) -> None:
        message = f"field {self.name!r}: {problem}"
        raise ValueError(message)


@dataclass(frozen=True)
class Text(_Field):
    """A string; lengths count Unicode characters."""

    required: bool = False
    min_length: int = 0
    max_length: int | None = None
    dtype: ClassVar[pl.DataType] = pl.String()


@dataclass(frozen=True)
class Choice(_Field):
    """A string from a fixed set; anything else is rejected with the reason `unknown_<name>`.

    `foreign` translates the producer's names into ours; our own names are accepted, too. A message with a value in
    `ignore`, as the producer writes it, is counted and otherwise ignored, whatever else it holds.
    """

    values: tuple[str, ...]
    required: bool = True
    foreign: Mapping[str, str] = field(default_factory=dict, hash=False)
    ignore: tuple[str, ...] = ()
    dtype: ClassVar[pl.DataType] = pl.String()

    def __post_init__(self) -> None:
        """Refuse a declaration that contradicts itself.

        Raises:
            ValueError: a foreign name translates into no value, or a name has two meanings.
        """
        super().__post_init__()
        if unknown := sorted(set(self.foreign.values()) - set(self.values)):
            self._refuse(f"foreign names translate into {unknown}, which are no values")
        if both := sorted(self.foreign.keys() & set(self.values)):
            self._refuse(f"{both} are both foreign names and values")
        if both := sorted(set(self.ignore) & {*self.values, *self.foreign}):
            self._refuse(f"{both} are both ignored and accepted")


@dataclass(frozen=True)
class Integer(_Field):
    """A signed 64-bit integer; below the minimum (which can only be 0) it is rejected as `negative:<name>`.

    `from_string`: a string that holds such a number is accepted, too.
    """

    required: bool = False
    non_negative: bool = False
    from_string: bool = False
    dtype: ClassVar[pl.DataType] = pl.Int64()


@dataclass(frozen=True)
class Decimal(_Field):
    """An exact decimal number, from a JSON number or a string that holds one; 19.99 with scale 2 is the integer 1999.

    A number with more decimal places than `scale` is rejected as `precision:<name>`, zeros at the end aside; below the
    minimum (which can only be 0) as `negative:<name>`.
    """

    scale: int
    required: bool = False
    non_negative: bool = False
    dtype: ClassVar[pl.DataType] = pl.Int64()

    def __post_init__(self) -> None:
        """Refuse a declaration that contradicts itself.

        Raises:
            ValueError: the scale is out of range.
        """
        super().__post_init__()
        if not 0 <= self.scale <= MOST_SCALE:
            self._refuse(f"scale={self.scale} is not from 0 to {MOST_SCALE}")


@dataclass(frozen=True)
class Bool(_Field):
    """`true` or `false`; nothing else stands for them."""

    required: bool = False
    dtype: ClassVar[pl.DataType] = pl.Boolean()


@dataclass(frozen=True)
class Timestamp(_Field):
    """An instant from `earliest_ms` to the message's Kafka timestamp plus `max_ahead_ms`; its column is epoch ms UTC.

    `format`: an integer of that unit since 1970, or a string of ISO 8601 with a time zone, which is refused as
    `timezone:<name>` if it has none. Digits below a millisecond are cut off, towards the past.
    """

    earliest_ms: int
    max_ahead_ms: int
    format: TimeFormat = "ms"
    required: ClassVar[bool] = True
    dtype: ClassVar[pl.DataType] = pl.Int64()

    def __post_init__(self) -> None:
        """Refuse a declaration that contradicts itself.

        Raises:
            ValueError: there is no such format.
        """
        super().__post_init__()
        if self.format not in get_args(TimeFormat):
            self._refuse(f"format={self.format!r} is none of {', '.join(get_args(TimeFormat))}")


EventField: TypeAlias = Text | Choice | Integer | Decimal | Bool | Timestamp


def is_name(name: object) -> bool:
    """Whether this can be the name of a member of a JSON object."""
    return isinstance(name, str) and bool(name) and name.isprintable() and not re.search(r'["\\]', name)


def problem_of_paths(fields: Iterable[EventField]) -> str | None:
    """Why the paths can't all lead to a value, if that is so: where one field has its value, another has an object."""
    for one, other in permutations(fields, 2):
        if len(one.components) < len(other.components) and one.components == other.components[: len(one.components)]:
            return (
                f"field {other.name!r}: its path {'.'.join(other.components)!r} leads through the value of field "
                f"{one.name!r}"
            )
    return None
