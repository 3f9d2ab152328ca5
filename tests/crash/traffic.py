"""Messages for a topic: disorder, gaps, copies, heartbeats, and some that no event is made of; all from a seed."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from tests.crash.kafka import Log, Sent

if TYPE_CHECKING:
    import random

EVENING_MS = 1_772_406_000_000
"""23:00 UTC, so that traffic of some hours fills two days."""

MINUTE_MS = 60_000
TYPES = ("view", "view", "click", "add_to_cart", "purchase")
USERS = 3
"""Of each partition: few, so that they come back after they have expired."""


def fill(logs: list[Log], chance: random.Random, messages: int) -> None:
    """Add that many messages to each partition of a topic."""
    for partition, log in enumerate(logs):
        clock_ms = max((one.kafka_ms for one in log.messages), default=EVENING_MS)
        for _ in range(messages):
            clock_ms += round(chance.expovariate(1 / (2.5 * MINUTE_MS)))
            if chance.random() < 0.02:
                clock_ms += chance.randrange(3 * 60) * MINUTE_MS
            log.messages.append(_message(partition, log, clock_ms, chance))


def _message(partition: int, log: Log, clock_ms: int, chance: random.Random) -> Sent:
    kind = chance.random()
    if kind < 0.1 and log.messages:  # delivered twice
        again = chance.choice(log.messages[-12:])
        return Sent(again.key, again.value, clock_ms)
    if kind < 0.16:
        return Sent(None, _json(event_id=_id(chance), event_type="heartbeat", event_timestamp=clock_ms), clock_ms)
    user = f"user-{partition}-{chance.randrange(USERS)}"
    behind_ms = chance.choice((0, 0, 0, 1, 5, 15, 75)) * MINUTE_MS
    fields: dict[str, object] = {
        "event_id": _id(chance),
        "user_id": user,
        "event_type": chance.choice(TYPES),
        "event_timestamp": clock_ms - behind_ms + chance.randrange(-500, 500),
        "price_cents": chance.randrange(10_000),
    }
    if kind < 0.22:
        return _faulty(fields, user, clock_ms, chance)
    return Sent(user.encode(), _json(**fields), clock_ms - chance.randrange(400))


def _faulty(fields: dict[str, object], user: str, clock_ms: int, chance: random.Random) -> Sent:
    values = (
        b"",
        b"{",
        _json(**{**fields, "price_cents": -1}),
        _json(**{**fields, "event_type": "dance"}),
        _json(**{**fields, "event_timestamp": clock_ms + 60 * MINUTE_MS}),
    )
    return Sent(user.encode(), chance.choice(values), clock_ms)


def _id(chance: random.Random) -> str:
    return f"{chance.getrandbits(64):x}"


def _json(**fields: object) -> bytes:
    return json.dumps(fields).encode()
