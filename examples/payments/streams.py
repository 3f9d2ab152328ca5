"""Payments and disputes: what their messages look like.

{"card": {"token": "card_id_000001", "network": "visa"}, "merchant": {"id": 17}, "amount": "19.99",
 "status": "CAPTURED", "created": "2026-01-01T12:00:00.123Z"}
"""

from __future__ import annotations

from datetime import timedelta

from feast_repo.declare import Bool, Choice, Decimal, EventStream, Integer, Text, Timestamp

YEAR_2000_MS = 946_684_800_000

payments = EventStream(
    name="payments",
    topic="card-payments",
    description="Each attempt to pay by card. Payments have no id, and nothing tells that time goes on.",
    fields=(
        Text("card_id", path="card.token", required=True, min_length=1, max_length=64),
        Text("network", path="card.network"),
        Integer("merchant_id", path="merchant.id", required=True, from_string=True),
        Decimal("amount", scale=2, required=True, non_negative=True),
        Choice(
            "status",
            values=("captured", "declined", "refunded"),
            foreign={"CAPTURED": "captured", "DECLINED": "declined", "REFUNDED": "refunded"},
            ignore=("PING",),
        ),
        Bool("contactless"),
        Timestamp("created", format="iso8601", earliest_ms=YEAR_2000_MS, max_ahead_ms=5 * 60_000),
    ),
    key="card_id",
    time="created",
    allowed_lateness=timedelta(minutes=5),
)

disputes = EventStream(
    name="disputes",
    topic="card-disputes",
    description="Payments that their card holders dispute.",
    fields=(
        Text("dispute_id", path="id", required=True, min_length=1, max_length=64),
        Text("card_id", path="card", required=True, min_length=1, max_length=64),
        Choice("reason", values=("fraud", "quality", "other")),
        Decimal("amount", scale=2, required=True),
        Timestamp("opened", format="s", earliest_ms=YEAR_2000_MS, max_ahead_ms=5 * 60_000),
    ),
    key="card_id",
    time="opened",
    event_id="dispute_id",
    allowed_lateness=timedelta(hours=1),
)
