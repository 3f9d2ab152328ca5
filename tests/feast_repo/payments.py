"""A stream of payments that uses every form of field: another producer's names, nested objects, times and money."""

from __future__ import annotations

from datetime import timedelta

from feast_repo.clickstream import YEAR_2000_MS
from feast_repo.codec.decoding import Decoder, RawBatch
from feast_repo.declare.events import EventStream
from feast_repo.declare.fields import Bool, Choice, Decimal, Integer, Text, Timestamp

NOW = 1_772_366_400_000
"""2026-03-01 12:00 UTC."""
AHEAD = 300_000

payments = EventStream(
    name="payments",
    topic="payments",
    allowed_lateness=timedelta(minutes=1),
    fields=(
        Text("payment_id", required=True, min_length=1, max_length=64, path="id"),
        Text("user_id", required=True, min_length=1, max_length=64, path="context.user.id"),
        Choice(
            "kind",
            values=("payment", "refund", "heartbeat"),
            path="type",
            foreign={"SALE": "payment", "BACK": "refund", "TICK": "heartbeat"},
            ignore=("ping", "PONG"),
        ),
        Timestamp("paid_at", format="iso8601", earliest_ms=YEAR_2000_MS, max_ahead_ms=AHEAD, path="created"),
        Decimal("amount", scale=2, required=True, non_negative=True, path="money.amount"),
        Text("amount_text", path="money.amount"),
        Decimal("rate", scale=4),
        Integer("items", from_string=True, non_negative=True),
        Integer("plain"),
        Bool("contactless", path="card.contactless"),
        Text("brand", path="card.brand"),
        Choice("tier", values=("1", "2"), required=False, path=("card.tier",)),
    ),
    key="user_id",
    time="paid_at",
    event_id="payment_id",
    kind="kind",
    heartbeat="heartbeat",
)

clocks = EventStream(
    name="clocks",
    topic="clocks",
    allowed_lateness=timedelta(minutes=1),
    fields=(
        Timestamp("seconds", format="s", earliest_ms=YEAR_2000_MS, max_ahead_ms=AHEAD, path="a.at"),
        Timestamp("microseconds", format="us", earliest_ms=-(10**15), max_ahead_ms=AHEAD, path="a.us"),
        Timestamp("text", format="iso8601", earliest_ms=-(2**63), max_ahead_ms=10**17, path="a.b.text"),
        Decimal("whole", scale=0, path="a.b.number"),
        Decimal("fine", scale=18, path="a.b.number"),
        Integer("number", path="a.b.number"),
        Bool("flag", required=True),
        Text("key", required=True),
        Choice("kind", values=("a", "b"), required=False),
    ),
    key="key",
    time="text",
    kind="kind",
    heartbeat="b",
)
"""Times of each format, and fields of several types that read the same value."""


def batch(values: list[bytes], keys: list[bytes | None], now_ms: int = NOW) -> RawBatch:
    """Messages that a broker took at the same time, with offsets from 0 on."""
    count = len(values)
    return RawBatch(0, values, keys, [now_ms] * count, list(range(count)))


PAYMENTS = Decoder(payments)
