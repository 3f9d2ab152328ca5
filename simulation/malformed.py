"""Records that the decoder must reject: valid events broken in one way each, for every dead-letter reason."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from feast_repo.codec.encoding import compact
from feast_repo.declare.fields import INT64_MAX, Choice, EventField, Integer, Text, Timestamp

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from feast_repo.declare.events import EventStream

YEAR_MS = 365 * 24 * 3_600_000


@dataclass(frozen=True)
class Flaw:
    """One way to break an event, and the resulting dead-letter reason.

    `apply` takes the event's fields and the record's arrival (ms) and returns the message's value.
    """

    reason: str
    apply: Callable[[dict[str, Any], int], bytes]


def flaws(events: EventStream) -> tuple[Flaw, ...]:
    """All flaws that the declaration's rules allow, in a fixed order, several for some reasons."""
    found = [Flaw("empty", lambda _event, _arrival: b"")]
    found += [Flaw("not_json", change) for change in _not_json(events)]
    found += [Flaw("not_an_object", _constant(compact(value))) for value in ([], ["event_id"], "event", 42, True, None)]
    for field in events.fields:
        found += _flaws_of(field)
    found.append(Flaw("key_mismatch", lambda event, _: compact({**event, events.key: f"{event[events.key]}0"})))
    if events.kind is not None and events.heartbeat is not None:
        found.append(_with_value("key_mismatch", events.kind, events.heartbeat))  # a heartbeat belongs to nobody
    return tuple(found)


def _not_json(events: EventStream) -> Iterator[Callable[[dict[str, Any], int], bytes]]:
    first = f'"{events.key}":"'.encode()
    yield lambda event, _: compact(event)[:-1]
    yield lambda event, _: compact(event)[: len(compact(event)) // 2]
    yield lambda event, _: compact(event) + b"}"
    yield lambda event, _: compact(event) * 2
    yield lambda event, _: compact(event).replace(b'"', b"'")
    yield lambda event, _: compact(event).replace(first, first + b"\xff\xfe", 1)  # invalid UTF-8
    yield lambda event, _: compact(event).replace(first, first + b"\\ud800", 1)  # half a surrogate pair
    yield lambda event, _: compact(event)[:-1] + b',"score":NaN}'
    yield lambda event, _: ",".join(map(str, event.values())).encode()  # CSV on the wrong topic


def _flaws_of(field: EventField) -> Iterator[Flaw]:
    """The flaws of one field."""
    name = field.name
    if field.required:
        yield Flaw(f"missing:{name}", lambda event, _: compact({k: v for k, v in event.items() if k != name}))
        yield _with_value(f"missing:{name}", name, None)
    of_numbers, of_text = ("1760000000000", 1.0, True, INT64_MAX + 1, [1]), (7, False, {"id": "x"})
    wrong: tuple[Any, ...] = of_numbers if isinstance(field, (Integer, Timestamp)) else of_text
    yield from (_with_value(f"type:{name}", name, value) for value in wrong)
    match field:
        case Text(min_length=shortest, max_length=longest):
            if shortest:
                yield _with_value(f"length:{name}", name, "x" * (shortest - 1))
            if longest is not None:
                yield _with_value(f"length:{name}", name, "x" * (longest + 1))
        case Choice():
            yield _with_value(f"unknown_{name}", name, f"un{field.values[0]}")
        case Timestamp():
            # Seconds instead of milliseconds, and the time before all times.
            yield Flaw("timestamp_range", lambda event, _: compact({**event, name: event[name] // 1000}))
            yield _with_value("timestamp_range", name, field.earliest_ms - 1)
            # So far ahead that it stays in the future on a topic where the broker sets the message's time.
            yield Flaw("future_timestamp", lambda event, arrival: compact({**event, name: arrival + 10 * YEAR_MS}))
        case Integer(non_negative=True):
            yield _with_value(f"negative:{name}", name, -1)


def _with_value(reason: str, name: str, value: Any) -> Flaw:
    return Flaw(reason, lambda event, _: compact({**event, name: value}))


def _constant(value: bytes) -> Callable[[dict[str, Any], int], bytes]:
    return lambda _event, _arrival: value
