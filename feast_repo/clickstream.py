"""The clickstream: what a click looks like on the topic."""

from __future__ import annotations

from datetime import timedelta

from feast_repo.declare.events import EventStream
from feast_repo.declare.fields import Choice, Integer, Text, Timestamp

YEAR_2000_MS = 946_684_800_000

clickstream = EventStream(
    name="clickstream",
    topic="clickstream",
    description="What shoppers do on the site, one message an action.",
    owner="web@example.com",
    fields=(
        Text("event_id", required=True, min_length=1, max_length=64),
        Text("user_id", required=True, min_length=1, max_length=64),
        Choice("event_type", values=("view", "click", "add_to_cart", "purchase", "heartbeat")),
        # From 2000 on, which catches seconds sent as milliseconds; at most 5 minutes ahead of the broker's clock.
        Timestamp("event_timestamp", earliest_ms=YEAR_2000_MS, max_ahead_ms=5 * 60_000),
        Text("product_id"),
        Text("session_id"),
        Integer("price_cents", non_negative=True),
    ),
    key="user_id",
    time="event_timestamp",
    allowed_lateness=timedelta(minutes=2),
    event_id="event_id",
    kind="event_type",
    heartbeat="heartbeat",
)
