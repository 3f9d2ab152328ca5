"""Heartbeats as messages: of the declared kind or, in a stream without one, of any content with a header.

The header's value is the event time, epoch ms UTC in decimal digits. The message has no key, and its value is empty.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, TypeAlias

import polars as pl

from feast_repo.codec.encoding import encode
from feast_repo.declare.fields import INT64_MAX, INT64_MIN, Choice

if TYPE_CHECKING:
    from collections.abc import Sequence

    from feast_repo.declare.events import EventStream

Headers: TypeAlias = "list[tuple[str, bytes]]"

HEADER = "heartbeat"
MOST_DIGITS = 20


def heartbeat(stream: EventStream, event_id: str, at_ms: int) -> tuple[bytes, Headers]:
    """Value and headers of a heartbeat, whose message has no key."""
    if stream.heartbeat is None:
        return b"", [(HEADER, str(at_ms).encode())]
    event: dict[str, Any] = {stream.time: at_ms}
    if stream.event_id is not None:
        event = {stream.event_id: event_id, **event}
    if stream.kind is not None:
        event[stream.kind] = stream.heartbeat
    return encode(stream, event), []


def header_of(headers: Sequence[tuple[str, Any]] | None) -> bytes | None:
    """What a message's headers say of the time as a heartbeat; None if the message is none."""
    for name, value in headers or ():
        if name == HEADER:
            return value if isinstance(value, bytes) else b""
    return None


def is_heartbeat(stream: EventStream, value: bytes | None, headers: Sequence[tuple[str, Any]] | None = None) -> bool:
    """Whether a message is a heartbeat, whoever wrote it."""
    kind = None if stream.kind is None else stream.by_name[stream.kind]
    if stream.heartbeat is None or not isinstance(kind, Choice):
        return header_of(headers) is not None
    try:
        found = json.loads(value or b"")
    except (ValueError, RecursionError):
        return False
    for name in kind.components:
        found = found.get(name) if isinstance(found, dict) else None
    return isinstance(found, str) and kind.foreign.get(found, found) == stream.heartbeat


def times_of(headers: Sequence[bytes | None]) -> tuple[list[int], pl.Series, list[int]]:
    """Which messages are heartbeats by their header, their event times (Int64), and which of them are unreadable."""
    positions = [position for position, header in enumerate(headers) if header is not None]
    times = [_time(headers[position] or b"") for position in positions]
    unreadable = [position for position, time in zip(positions, times, strict=True) if time is None]
    return positions, pl.Series(times, dtype=pl.Int64), unreadable


def _time(text: bytes) -> int | None:
    digits = text.removeprefix(b"-")
    if not digits.isdigit() or len(digits) > MOST_DIGITS:
        return None
    time = int(text)
    return time if INT64_MIN <= time <= INT64_MAX else None
