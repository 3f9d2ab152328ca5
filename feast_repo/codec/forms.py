"""How the values of a field are written, and what they become: the same for every codec.

A codec gives a form the values as they are written: one by one as JSON has them, or as a column. Of a column only usual
values are converted, all at once; where the result is null, `value` decides.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Protocol, TypeAlias

import msgspec
import polars as pl

from feast_repo.codec.faults import Fault
from feast_repo.codec.instants import all_instants, instant
from feast_repo.codec.numbers import Number, all_integers, all_scaled, integer, scaled
from feast_repo.declare.fields import INT64_MAX, INT64_MIN, Bool, Choice, Decimal, EventField, Integer, Timestamp

if TYPE_CHECKING:
    from collections.abc import Mapping

    from feast_repo.declare.events import EventStream

Value: TypeAlias = str | int | bool

_TEXTS = {str, Number, type(None)}

INT64: Any = Annotated[int, msgspec.Meta(ge=INT64_MIN, le=INT64_MAX)]
TICKS_IN_A_SECOND = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}
IGNORED = "ignored"
"""In the place of a reason: the message is no business of ours."""


class Form(Protocol):
    """One way to write the values of a field."""

    wire: Any
    """The type of the values in JSON, for msgspec; `Any` for numbers and strings alike, by their text."""
    given: pl.DataType
    """The type of a column of values as they are written."""

    def column(self, given: pl.Series) -> pl.Series:
        """The values of a column; null where none is given, and where `value` must decide. May be `given` itself."""

    def value(self, given: object) -> Value | Fault:
        """The value of one that JSON holds: str, int, `Number`, bool, list or dict."""


def form_of(field: EventField) -> Form:
    """The form that a field declares."""
    form: Form
    match field:
        case Integer(from_string=True):
            form = IntegerText()
        case Integer() | Timestamp(format="ms"):
            form = AsItIs(int, INT64, pl.Int64())
        case Timestamp(format="iso8601"):
            form = Instant()
        case Timestamp(format=unit):
            form = Ticks(unit)
        case Decimal(scale=scale):
            form = DecimalText(scale)
        case Bool():
            form = AsItIs(bool, bool, pl.Boolean())
        case Choice(foreign=names) if names:
            form = Translated(names)
        case _:
            form = AsItIs(str, str, pl.String())
    return form


class AsItIs:
    """Strings, 64-bit integers or booleans that become what they are."""

    def __init__(self, kind: type[Value], wire: Any, dtype: pl.DataType) -> None:
        self._kind = kind
        self.wire = wire
        self.given = dtype

    def column(self, given: pl.Series) -> pl.Series:
        """The column itself."""
        return given

    def value(self, given: object) -> Value | Fault:
        """The value itself; a boolean is not an integer, and a number's text not a string."""
        if type(given) is not self._kind or (type(given) is int and not INT64_MIN <= given <= INT64_MAX):
            return Fault.TYPE
        return given


class Translated:
    """Strings of which some have another name here."""

    wire: Any = str
    given: pl.DataType = pl.String()

    def __init__(self, names: Mapping[str, str]) -> None:
        self._names = dict(names)

    def column(self, given: pl.Series) -> pl.Series:
        """The column under our names."""
        names = given.to_list()
        return pl.Series(given.name, list(map(self._names.get, names, names)), dtype=pl.String)

    def value(self, given: object) -> Value | Fault:
        """Our name."""
        return self._names.get(given, given) if type(given) is str else Fault.TYPE


class Ticks:
    """Integers of a unit since 1970 that become milliseconds; what is less than one is cut off, towards the past.

    `whole`: what is less is a fault instead.
    """

    wire: Any = INT64
    given: pl.DataType = pl.Int64()

    def __init__(self, unit: str, *, whole: bool = False) -> None:
        ticks = TICKS_IN_A_SECOND[unit]
        self._ms_in_a_tick, self._ticks_in_a_ms = max(1_000 // ticks, 1), max(ticks // 1_000, 1)
        self._whole = whole
        self._most = INT64_MAX // self._ms_in_a_tick

    def column(self, given: pl.Series) -> pl.Series:
        """The milliseconds; null where they are beyond 64 bits."""
        ticks = pl.col(given.name)
        fits = ticks.is_between(-self._most, self._most)
        if self._whole:
            fits &= ticks % self._ticks_in_a_ms == 0
        ms = ticks * self._ms_in_a_tick // self._ticks_in_a_ms
        return given.to_frame().select(pl.when(fits).then(ms)).to_series()

    def value(self, given: object) -> Value | Fault:
        """The milliseconds."""
        if type(given) is not int or not INT64_MIN <= given <= INT64_MAX:
            return Fault.TYPE
        ms, rest = divmod(given * self._ms_in_a_tick, self._ticks_in_a_ms)
        return Fault.TYPE if (rest and self._whole) or not INT64_MIN <= ms <= INT64_MAX else ms


class Instant:
    """Strings of ISO 8601 with a time zone that become milliseconds."""

    wire: Any = str
    given: pl.DataType = pl.String()

    def column(self, given: pl.Series) -> pl.Series:
        """The milliseconds."""
        return all_instants(given)

    def value(self, given: object) -> Value | Fault:
        """The milliseconds."""
        return instant(given) if type(given) is str else Fault.TYPE


class IntegerText:
    """Integers, and strings that hold one."""

    wire: Any = Any
    given: pl.DataType = pl.String()

    def column(self, given: pl.Series) -> pl.Series:
        """The integers."""
        return all_integers(given)

    def value(self, given: object) -> Value | Fault:
        """The integer."""
        return integer(str(given)) if isinstance(given, str) or _is_int64(given) else Fault.TYPE


class DecimalText:
    """Numbers, and strings that hold one, that become integers of a scale."""

    wire: Any = Any
    given: pl.DataType = pl.String()

    def __init__(self, scale: int) -> None:
        self._scale = scale

    def column(self, given: pl.Series) -> pl.Series:
        """The scaled integers."""
        return all_scaled(given, self._scale)

    def value(self, given: object) -> Value | Fault:
        """The scaled integer."""
        return scaled(str(given), self._scale) if isinstance(given, str) or _is_int64(given) else Fault.TYPE


def _is_int64(given: object) -> bool:
    return type(given) is int and INT64_MIN <= given <= INT64_MAX


class Forms:
    """The forms of an event's fields, by name."""

    def __init__(self, declaration: EventStream, other: Mapping[str, Form] | None = None) -> None:
        """`other`: forms that fields have in this source instead of the declared ones."""
        self._declaration = declaration
        self._choices = [field for field in declaration.fields if isinstance(field, Choice) and field.ignore]
        self._by_name = {field.name: form_of(field) for field in declaration.fields} | dict(other or {})

    def __getitem__(self, name: str) -> Form:
        return self._by_name[name]

    def ignored(self, written: pl.DataFrame) -> list[int]:
        """The rows of messages that are to be ignored."""
        rows: set[int] = set()
        for choice in self._choices:
            rows.update(written[choice.name].is_in(choice.ignore).arg_true().to_list())
        return sorted(rows)

    def convert(self, written: pl.DataFrame) -> tuple[pl.DataFrame, set[int]]:
        """The values of columns as they are written, and the rows where only `settle` can tell."""
        columns, unsure = [], set()
        for given in written:
            column = self._by_name[given.name].column(given)
            if column is not given and column.null_count() > given.null_count():
                unsure.update((column.is_null() & given.is_not_null()).arg_true().to_list())
            columns.append(column)
        return pl.DataFrame(columns), unsure

    def settle(self, given: Mapping[str, object]) -> dict[str, Value] | str:
        """The values of one message, or the first reason against it: `IGNORED`, a missing field, then faults by kind.

        `given`: what the message holds, by field, without those that are absent or null; a fault if that is known.
        """
        # A fault, or the text of a number, may equal a name without being the string that is to be ignored.
        names = ((given.get(choice.name), choice.ignore) for choice in self._choices)
        if any(type(name) is str and name in ignored for name, ignored in names):
            return IGNORED
        values: dict[str, Value] = {}
        faults: list[tuple[Fault, str]] = []
        declaration = self._declaration
        for field in declaration.fields:
            if field.name in given:
                held = given[field.name]
                value = held if isinstance(held, Fault) else self._by_name[field.name].value(held)
                if isinstance(value, Fault):
                    faults.append((value, field.name))
                else:
                    values[field.name] = value
        kind = declaration.kind
        is_heartbeat = kind is not None and values.get(kind) == declaration.heartbeat is not None
        for field in declaration.fields:
            if (
                field.required
                and field.name not in given
                and not (is_heartbeat and field.name not in declaration.in_heartbeats)
            ):
                return f"missing:{field.name}"
        for first in Fault:
            for fault, name in faults:
                if fault is first:
                    return f"{fault}:{name}"
        return values


def as_texts(held: list[Any]) -> list[str | None]:
    """Values of JSON as the texts of their numbers or strings; the text is empty where it is neither."""
    if set(map(type, held)) <= _TEXTS:
        return held
    return [str(one) if type(one) is int else one if one is None or isinstance(one, str) else "" for one in held]


def corrected(columns: pl.DataFrame, settled: Mapping[int, Mapping[str, Value]]) -> pl.DataFrame:
    """The columns with the values of some rows replaced."""
    if not settled:
        return columns
    rows = list(settled)
    right = pl.DataFrame(
        [[row.get(name) for name in columns.columns] for row in settled.values()], columns.schema, orient="row"
    )
    return columns.select(column.scatter(rows, right[column.name]) for column in columns)
