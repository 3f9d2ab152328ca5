"""Events to message bytes, as producers write them and `feast_repo.codec.decoding` reads them."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from feast_repo.declare.fields import Choice, Decimal, Timestamp

if TYPE_CHECKING:
    from collections.abc import Mapping

    from feast_repo.declare.events import EventStream
    from feast_repo.declare.fields import EventField

EPOCH = datetime.fromtimestamp(0, UTC)


def compact(value: Any) -> bytes:
    """A value as JSON without spaces."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


def encode(stream: EventStream, event: Mapping[str, Any]) -> bytes:
    """An event as its producers write it. `event` has column values by field name; what is absent or None is left out.

    Decoding gives these values again. Times lose what their format doesn't hold.
    """
    return compact(document(stream, event))


def document(stream: EventStream, event: Mapping[str, Any]) -> dict[str, Any]:
    """An event as the JSON object that `encode` writes."""
    found: dict[str, Any] = {}
    for field in stream.fields:
        if (value := event.get(field.name)) is not None:
            *around, name = field.components
            place = found
            for outer in around:
                place = place.setdefault(outer, {})
            place[name] = written(field, value)
    return found


def written(field: EventField, value: Any) -> Any:
    """A column's value as the field is written."""
    if isinstance(field, Timestamp):
        return _time(field, value)
    if isinstance(field, Decimal):
        return _decimal(field, value)
    if isinstance(field, Choice):
        return next((foreign for foreign, ours in field.foreign.items() if ours == value), value)
    return value


def _time(field: Timestamp, at_ms: int) -> int | str:
    if field.format == "iso8601":
        return (EPOCH + timedelta(milliseconds=at_ms)).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return {"ms": at_ms, "s": at_ms // 1000, "us": at_ms * 1000}[field.format]


def _decimal(field: Decimal, scaled: int) -> str:
    digits = str(abs(scaled)).rjust(field.scale + 1, "0")
    whole, places = digits[: len(digits) - field.scale], digits[len(digits) - field.scale :]
    return ("-" if scaled < 0 else "") + (f"{whole}.{places}" if places else whole)
