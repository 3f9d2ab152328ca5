"""Records that the decoder must reject: valid events broken in one way each, for every dead-letter reason."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from feast_repo.codec.encoding import compact, written
from feast_repo.declare.fields import INT64_MAX, Bool, Choice, Decimal, EventField, Integer, Text, Timestamp

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from feast_repo.declare.events import EventStream

Document: TypeAlias = "dict[str, Any]"
Path: TypeAlias = tuple[str, ...]

YEAR_MS = 365 * 24 * 3_600_000
YEAR_1_MS = -62_135_596_800_000
"""What is before can't be written in every format."""
SECONDS_TAKEN_FOR_MS = 10**10
"""Seconds of all times until the year 2286, taken for milliseconds, are before this."""
NUMBERS: tuple[Any, ...] = (1.0, True, INT64_MAX + 1, [1])
"""No integers of 64 bits."""


@dataclass(frozen=True)
class Flaw:
    """One way to break an event, and the resulting dead-letter reason.

    `apply` takes the event as its JSON object, which it leaves as it is, and the record's arrival (ms), and returns the
    message's value.
    """

    reason: str
    apply: Callable[[Document, int], bytes]


def flaws(events: EventStream) -> tuple[Flaw, ...]:
    """All flaws that the declaration's rules allow, in a fixed order, several for some reasons.

    Fields that read the same value have none of their own: what breaks one may break the other first.
    """
    found = [Flaw("empty", lambda _event, _arrival: b"")]
    found += [Flaw("not_json", change) for change in _not_json()]
    found += [Flaw("not_an_object", _constant(compact(value))) for value in ([], ["event_id"], "event", 42, True, None)]
    readers = Counter(field.components for field in events.fields)
    objects: set[str] = set()
    for field in events.fields:
        if readers[field.components] == 1:
            found += _flaws_of(field)
        outer = field.components[0]
        if len(field.components) > 1 and outer not in objects:  # of the fields inside, the first declared is named
            objects.add(outer)
            found.append(Flaw(f"type:{field.name}", _replaced((outer,), 5)))
    key = events.by_name[events.key]
    if readers[key.components] == 1:
        found.append(Flaw("key_mismatch", _changed(key.components, _other_key)))
    if events.kind is not None and events.heartbeat is not None:
        kind = events.by_name[events.kind]
        beat = written(kind, events.heartbeat)  # a heartbeat belongs to nobody
        found.append(Flaw("key_mismatch", _replaced(kind.components, beat)))
    return tuple(found)


def _not_json() -> Iterator[Callable[[Document, int], bytes]]:
    yield lambda event, _: compact(event)[:-1]
    yield lambda event, _: compact(event)[: len(compact(event)) // 2]
    yield lambda event, _: compact(event) + b"}"
    yield lambda event, _: compact(event) * 2
    yield lambda event, _: compact(event).replace(b'"', b"'")
    yield lambda event, _: _into_text(event, b"\xff\xfe")  # invalid UTF-8
    yield lambda event, _: _into_text(event, b"\\ud800")  # half a surrogate pair
    yield lambda event, _: compact(event)[:-1] + b',"score":NaN}'
    yield lambda event, _: ",".join(map(str, event.values())).encode()  # CSV on the wrong topic


def _flaws_of(field: EventField) -> Iterator[Flaw]:
    """The flaws of one field."""
    name, path = field.name, field.components
    if field.required:
        yield Flaw(f"missing:{name}", lambda event, _: compact(_without(event, path)))
        yield Flaw(f"missing:{name}", _replaced(path, None))
    yield from (Flaw(f"type:{name}", _replaced(path, value)) for value in _of_a_wrong_type(field))
    match field:
        case Text(min_length=shortest, max_length=longest):
            if shortest:
                yield Flaw(f"length:{name}", _replaced(path, "x" * (shortest - 1)))
            if longest is not None:
                yield Flaw(f"length:{name}", _replaced(path, "x" * (longest + 1)))
        case Choice():
            known = (*field.values, *field.foreign, *field.ignore)
            yield Flaw(f"unknown_{name}", _replaced(path, f"{max(known, key=len, default='')}_"))
        case Timestamp():
            yield from _flaws_of_time(field)
        case Decimal(scale=scale):
            yield Flaw(f"precision:{name}", _replaced(path, f"0.{'1'.rjust(scale + 1, '0')}"))
    if isinstance(field, Integer | Decimal) and field.non_negative:
        yield Flaw(f"negative:{name}", _replaced(path, written(field, -1)))


def _of_a_wrong_type(field: EventField) -> tuple[Any, ...]:
    match field:
        case Integer(from_string=True):
            return ("", "1.0", "+1", *NUMBERS)
        case Decimal():
            return ("", "+1", "NaN", "1_000", True, 10**40, [1])
        case Bool():
            return ("true", 1, [True])
        case Timestamp(format="iso8601"):
            return (1_760_000_000_000, "", "2026-01-31", "2026-02-30T00:00:00Z", "2026-01-31T24:00:00Z", {"at": "x"})
        case Integer() | Timestamp():
            return ("1760000000000", *NUMBERS)
        case _:
            return (7, False, {"id": "x"})


def _flaws_of_time(field: Timestamp) -> Iterator[Flaw]:
    path, earliest_ms, ahead_ms = field.components, field.earliest_ms, field.max_ahead_ms
    if field.format == "iso8601":
        yield Flaw(f"timezone:{field.name}", _changed(path, lambda text: text.removesuffix("Z")))
    if field.format == "ms" and earliest_ms > SECONDS_TAKEN_FOR_MS:
        yield Flaw("timestamp_range", _changed(path, lambda at_ms: at_ms // 1000))
    if earliest_ms > YEAR_1_MS:
        yield Flaw("timestamp_range", _replaced(path, written(field, earliest_ms - 1)))
    if ahead_ms < 1000 * YEAR_MS:
        # So far ahead that it stays in the future on a topic where the broker sets the message's time.
        far_ms = ahead_ms + 10 * YEAR_MS
        yield Flaw(
            "future_timestamp", lambda event, arrival: compact(_with(event, path, written(field, arrival + far_ms)))
        )


def _other_key(key: str | int) -> str | int:
    """Another key of the same length."""
    if isinstance(key, int):
        return key ^ 1
    return key[:-1] + ("1" if key.endswith("0") else "0")


def _replaced(path: Path, value: Any) -> Callable[[Document, int], bytes]:
    return lambda event, _: compact(_with(event, path, value))


def _changed(path: Path, change: Callable[[Any], Any]) -> Callable[[Document, int], bytes]:
    return lambda event, _: compact(_with(event, path, change(_at(event, path))))


def _constant(value: bytes) -> Callable[[Document, int], bytes]:
    return lambda _event, _arrival: value


def _into_text(event: Document, junk: bytes) -> bytes:
    """Junk at the beginning of the first string; of the first name if there is none."""
    value = compact(event)
    opening = b':"' if b':"' in value else b'"'
    return value.replace(opening, opening + junk, 1)


def _at(event: Document, path: Path) -> Any:
    for name in path:
        event = event[name]
    return event


def _with(event: Document, path: Path, value: Any) -> Document:
    """A copy with another value at a path, and with the objects around it."""
    name, *within = path
    return {**event, name: _with(event.get(name, {}), tuple(within), value) if within else value}


def _without(event: Document, path: Path) -> Document:
    """A copy in which nothing stands at a path."""
    *around, name = path
    inner = _at(event, tuple(around))
    rest = {other: value for other, value in inner.items() if other != name}
    return _with(event, tuple(around), rest) if around else rest
