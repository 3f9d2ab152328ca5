"""Events to message bytes, as producers write them and `feast_repo.codec.decoding` reads them."""

from __future__ import annotations

import json
from typing import Any

from feast_repo.clickstream import clickstream


def compact(value: Any) -> bytes:
    """A value as JSON without spaces."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


def heartbeat_value(event_id: str, at_ms: int) -> bytes:
    """The message of a heartbeat: an event without a user that carries time (epoch ms UTC). It has no message key."""
    return compact({clickstream.event_id: event_id, clickstream.kind: clickstream.heartbeat, clickstream.time: at_ms})


def is_heartbeat(value: bytes | None) -> bool:
    """Whether a message's value is a heartbeat, whoever wrote it."""
    try:
        event = json.loads(value or b"")
    except (ValueError, RecursionError):
        return False
    return isinstance(event, dict) and event.get(clickstream.kind) == clickstream.heartbeat
