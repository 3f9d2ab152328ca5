"""Declarations beside the shop's: payments, with entities of one and of several join keys, String and Int64."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

from feast_repo.declare.algebra import Count, Ratio, Sum
from feast_repo.declare.batch_views import BatchFeature, BatchView
from feast_repo.declare.entities import Entity
from feast_repo.declare.events import EventStream
from feast_repo.declare.fields import Integer, Text, Timestamp
from feast_repo.declare.services import FeatureService
from feast_repo.declare.views import WindowedView


def on_stream(view: WindowedView, **changes: Any) -> WindowedView:
    """The view on an event stream with these changes."""
    return replace(view, source=replace(view.source, **changes))


payments = EventStream(
    name="payments",
    topic="payments",
    fields=(
        Text("payment_id", required=True, min_length=1, max_length=64),
        Text("card_id", required=True, min_length=1, max_length=64),
        Integer("shop", required=True),
        Integer("amount_cents", non_negative=True),
        Timestamp("paid_at", earliest_ms=946_684_800_000, max_ahead_ms=5 * 60_000),
    ),
    key="card_id",
    time="paid_at",
    event_id="payment_id",
    allowed_lateness=timedelta(minutes=2),
)

card = Entity("card", {"card_id": "String"})
shop = Entity("shop", {"shop": "Int64"})
shop_of_card = Entity("shop_of_card", {"shop": "Int64", "card_id": "String"})
"""Declared in another order than Feast's, which is by name."""

card_features = WindowedView(
    name="card_features",
    entity=card,
    source=payments,
    push_source="card_push",
    window=timedelta(hours=1),
    slide=timedelta(minutes=10),
    ttl=timedelta(days=1),
    features={"card_count": Count(), "card_cents": Sum("amount_cents")},
)
shop_of_card_features = replace(
    card_features,
    name="shop_of_card_features",
    entity=shop_of_card,
    push_source="shop_of_card_push",
    features={
        "pair_count": Count(),
        "pair_cents": Sum("amount_cents"),
        "pair_cents_each": Ratio("pair_cents", "pair_count"),
    },
)
shop_windows = replace(
    card_features,
    name="shop_windows",
    source=replace(payments, name="payments_by_shop", topic="payments_by_shop", key="shop"),
    entity=shop,
    push_source="shop_push",
    features={"shop_count": Count()},
)
shop_features = BatchView(
    name="shop_features",
    entity=shop,
    ttl=timedelta(days=365),
    features={"country": BatchFeature("String", "??"), "chargebacks": BatchFeature("Int64")},
)
fraud = FeatureService("fraud", (card_features, shop_of_card_features, shop_features))
