"""What the stream must compute, told the slow way: plain Python, one record and one message at a time.

Nothing here is shared with the engine: each window keeps its own copies of its records and is computed when it closes,
and each message is parsed and judged alone. So a mistake would have to be made twice, in two different ways, to go
unseen. `ReferenceWindows` is the rule of windows, `judge` the rule of messages.
"""

from __future__ import annotations

import json
import operator
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeAlias

import polars as pl

from feast_repo.declare.algebra import Aggregate, Count, Max, Mean, Min, Ratio, Sum
from feast_repo.declare.conditions import Absent, Both, Comparison, Either, Not, OneOf
from feast_repo.declare.fields import Choice, Decimal, Integer, Text, Timestamp
from tests.aggregates import Ever, Greatest, Integers, Strings
from tests.feast_repo.written import KINDS, FaultError, exactly, held, worth

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from feast_repo.declare.conditions import Condition
    from feast_repo.declare.events import EventStream
    from feast_repo.declare.fields import EventField
    from feast_repo.declare.views import WindowedView

Record: TypeAlias = dict[str, Any]
"""`kafka_timestamp` in ms, perhaps `create_time` (it is the producer's), and each declared field, None if absent."""

DEEPEST = 500

OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    "==": operator.eq,
    "!=": operator.ne,
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
}


def holds(where: Condition | None, record: Record) -> bool:
    """Tell whether a record fulfils a condition; a comparison with null is false."""
    return where is None or meets(where, record)


def meets(where: Condition, record: Record) -> bool:
    match where:
        case Both(left, right):
            return meets(left, record) and meets(right, record)
        case Either(one, other):
            return meets(one, record) or meets(other, record)
        case Not(negated):
            return not meets(negated, record)
        case Absent(column):
            return record[column] is None
        case OneOf(column, values):
            return record[column] is not None and record[column] in values
        case Comparison(column, symbol, value):
            return record[column] is not None and OPERATORS[symbol](record[column], value)
    raise AssertionError(where)


def wrapped(total: int) -> int:
    """Take an integer to 64 bits."""
    return (total + 2**63) % 2**64 - 2**63


PLAIN: dict[type[Aggregate], Callable[[list[Any]], Any]] = {
    Count: len,
    Sum: lambda values: wrapped(sum(values)),
    Min: lambda values: min(values, default=None),
    Max: lambda values: max(values, default=None),
    Greatest: lambda values: max(values, default=None),
    Strings: lambda values: sorted(set(values)),
    Integers: lambda values: sorted(set(values)),
    Mean: lambda values: float(sum(values)) / float(len(values)) if values else None,
    Ever: bool,
}
"""Every aggregate there is, of the values that the selected events have in its field, or of the events themselves."""


def aggregate(feature: Aggregate, records: Iterable[Record]) -> Any:
    """Compute an aggregate of some records."""
    selected: list[Any] = [record for record in records if holds(feature.where, record)]
    if column := getattr(feature, "column", None):
        selected = [record[column] for record in selected if record[column] is not None]
    return PLAIN[type(feature)](selected)


def features_of(view: WindowedView, records: Sequence[Record]) -> tuple[Any, ...]:
    """Compute a user's features, in declared order, from the records of one window."""
    values: dict[str, Any] = {}
    for name, feature in view.features.items():
        if isinstance(feature, Aggregate):
            values[name] = aggregate(feature, records)
    for name, feature in view.features.items():
        if isinstance(feature, Ratio):
            above, below = values[feature.numerator], values[feature.denominator]
            values[name] = float(above) / float(below) if above is not None and below else 0.0
    return tuple(values[name] for name in view.features)


@dataclass(frozen=True)
class ReferenceWindow:
    """One closed window: its end in ms, and rows of (user, end in ms, created in ms, features...)."""

    end_ms: int
    rows: tuple[tuple[Any, ...], ...]


class ReferenceWindows:
    """The windows of one partition."""

    def __init__(self, view: WindowedView) -> None:
        self.view = view
        self.watermark_ms: int | None = None
        self.created_ms: int | None = None
        self.greatest_ms: int | None = None
        self.open: dict[int, dict[str, list[Record]]] = {}
        self.counted: dict[int, set[str]] = {}
        """By closed end, the users with a counted row, until the next window has said who of them expired."""
        self.events: set[tuple[str, int]] = set()
        """Id and time of all accepted records."""

    def add(self, record: Record) -> tuple[int | None, int, list[ReferenceWindow]]:
        """Take one record: the watermark it saw, how many windows it missed, and the windows that it closed."""
        view, events = self.view, self.view.source
        seen, missed, time = self.watermark_ms, 0, record[events.time]
        event = ("" if events.event_id is None else record[events.event_id]), time
        horizon = events.deduplication_horizon or view.window + view.slide
        is_recognized = seen is None or seen < time + horizon // timedelta(milliseconds=1)
        is_copy = events.event_id is not None and event in self.events and is_recognized
        self.events.add(event)
        if record[events.key] is not None and not is_copy:
            first = time // view.slide_ms * view.slide_ms + view.slide_ms
            for end in range(first, first + view.window_ms, view.slide_ms):
                if seen is not None and end <= seen:
                    missed += 1
                else:
                    self.open.setdefault(end, {}).setdefault(record[events.key], []).append(record)
        self.greatest_ms = time if self.greatest_ms is None else max(self.greatest_ms, time)
        arrived, reached = record["kafka_timestamp"], time - view.lateness_ms
        if record.get("create_time"):
            arrived = min(arrived, self.greatest_ms + 24 * 3_600_000)
        self.created_ms = arrived if self.created_ms is None else max(self.created_ms, arrived)
        self.watermark_ms = reached if seen is None else max(seen, reached)
        return seen, missed, self._close(self.watermark_ms, self.created_ms)

    def _close(self, watermark_ms: int, created_ms: int) -> list[ReferenceWindow]:
        closed = []
        slide_ms = self.view.slide_ms
        while due := [end for end in {*self.open, *(end + slide_ms for end in self.counted)} if end <= watermark_ms]:
            end = min(due)
            users = self.open.pop(end, {})
            expired = self.counted.pop(end - slide_ms, set()) - users.keys()
            if users:
                self.counted[end] = set(users)
            rows = tuple(
                (user, end, created_ms, *features_of(self.view, users.get(user, ())))
                for user in sorted({*users, *expired})
            )
            if rows:
                closed.append(ReferenceWindow(end, rows))
        return closed


def records_frame(events: EventStream, records: Sequence[Record]) -> pl.DataFrame:
    """Put records, in offset order, into the columns that the engine takes."""
    return pl.DataFrame(
        [{"offset": offset, "create_time": False, **record} for offset, record in enumerate(records)],
        schema={"offset": pl.Int64, "kafka_timestamp": pl.Int64, "create_time": pl.Boolean, **events.schema},
    )


def judge(events: EventStream, value: bytes, key: bytes | None, kafka_timestamp: int) -> Record | str:
    """Judge one message: the declared fields of a good one, or the reason why it is none."""
    if not value:
        return "empty"
    try:
        message = strict_json(value)
    except ValueError:
        return "not_json"
    if not isinstance(message, dict):
        return "not_an_object"
    if any(_is_ignored(field, message) for field in events.fields):
        return "ignored"
    record: Record = {}
    wrong: dict[str, str] = {}
    for field in events.fields:
        try:
            record[field.name] = worth(field, message)
        except FaultError as fault:
            record[field.name], wrong[field.name] = None, str(fault)
    return next(_faults(events, record, wrong, key, kafka_timestamp), record)


def _is_ignored(field: EventField, message: dict[str, Any]) -> bool:
    try:
        return isinstance(field, Choice) and held(field, message) in field.ignore
    except FaultError:
        return False


def _faults(
    events: EventStream, record: Record, wrong: dict[str, str], key: bytes | None, kafka_timestamp: int
) -> Iterator[str]:
    """Yield the reasons that hold, the first one first; a kind of reason can rely on those before it."""
    heartbeat = events.kind is not None and record[events.kind] == events.heartbeat is not None
    user = record[events.key]
    needed = {events.time, events.event_id, events.kind} if heartbeat else {field.name for field in events.fields}
    for field in events.fields:
        absent = record[field.name] is None and field.name not in wrong
        if field.required and absent and field.name in needed:
            yield f"missing:{field.name}"
    yield from (f"{kind}:{name}" for kind in KINDS for name, held_kind in wrong.items() if held_kind == kind)
    for is_faulty, reason in FAULTS:
        for field in events.fields:
            value = record[field.name]
            if value is not None and is_faulty(field, value, kafka_timestamp):
                yield reason.format(field.name)
    if heartbeat:
        if key is not None or user is not None:
            yield "key_mismatch"
    elif key != user.encode():
        yield "key_mismatch"


def _has_wrong_length(field: EventField, value: Any, _: int) -> bool:
    if not isinstance(field, Text):
        return False
    return len(value) < field.min_length or (field.max_length is not None and len(value) > field.max_length)


def _is_unknown(field: EventField, value: Any, _: int) -> bool:
    return isinstance(field, Choice) and value not in field.values


def _is_too_early(field: EventField, value: Any, _: int) -> bool:
    return isinstance(field, Timestamp) and value < field.earliest_ms


def _is_ahead(field: EventField, value: Any, kafka_timestamp: int) -> bool:
    return isinstance(field, Timestamp) and value > kafka_timestamp + field.max_ahead_ms


def _is_negative(field: EventField, value: Any, _: int) -> bool:
    return isinstance(field, Integer | Decimal) and field.non_negative and value < 0


FAULTS: tuple[tuple[Callable[[EventField, Any, int], bool], str], ...] = (
    (_has_wrong_length, "length:{}"),
    (_is_unknown, "unknown_{}"),
    (_is_too_early, "timestamp_range"),
    (_is_ahead, "future_timestamp"),
    (_is_negative, "negative:{}"),
)


def strict_json(document: bytes) -> object:
    """Parse a document as RFC 8259 has it, of a name given twice the last, numbers exactly.

    Raises:
        ValueError: the bytes are not JSON, not UTF-8, hold half of a surrogate pair, or nest too deeply.
    """
    text = document.decode("utf-8")
    if _depth(text) > DEEPEST:
        message = f"nested deeper than {DEEPEST} levels"
        raise ValueError(message)
    value = json.loads(text, parse_constant=_refuse, parse_int=exactly, parse_float=exactly, object_pairs_hook=_members)
    _refuse_surrogates(value)
    return value


def _depth(text: str) -> int:
    """Count how deep brackets nest outside of strings, in a text that may be no JSON at all."""
    depth = deepest = 0
    in_string = escaped = False
    for character in text:
        if in_string:
            in_string = escaped or character != '"'
            escaped = character == "\\" and not escaped
        elif character == '"':
            in_string = True
        elif character in "[{":
            depth += 1
            deepest = max(deepest, depth)
        elif character in "]}":
            depth -= 1
    return deepest


def _refuse(constant: str) -> None:
    message = f"{constant} is no JSON"
    raise ValueError(message)


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Look at every member, also at those that a later one of the same name hides."""
    for name, value in pairs:
        _refuse_surrogates(name)
        _refuse_surrogates(value)
    return dict(pairs)


def _refuse_surrogates(value: object) -> None:
    """Look into strings and arrays; objects have been looked at when they were made."""
    rest = [value]
    while rest:
        item = rest.pop()
        if isinstance(item, str):
            item.encode()
        elif isinstance(item, list):
            rest += item
