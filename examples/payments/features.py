"""Features of card payments: what a card has spent, where, and how often its payments were disputed.

FEATURE_REPO=examples/payments python -m bytewax.run stream.dataflow
"""

from __future__ import annotations

from datetime import timedelta

from streams import disputes, payments

from feast_repo.declare import (
    BatchFeature,
    BatchView,
    Catalog,
    Count,
    Entity,
    FeatureService,
    Label,
    Max,
    Ratio,
    Sum,
    WindowedView,
    field,
)

RISK = "risk@example.com"

card = Entity("card", {"card_id": "String"}, "A payment card, such as card_id_000001.", owner=RISK)
card_at_merchant = Entity("card_at_merchant", {"card_id": "String", "merchant_id": "Int64"}, "A card at one merchant.")

captured = field("status") == "captured"

card_last_hour = WindowedView(
    name="card_last_hour",
    description="What a card has done in the hour before the window's end.",
    owner=RISK,
    entity=card,
    source=payments,
    push_source="card_last_hour_push",
    window=timedelta(hours=1),
    slide=timedelta(minutes=10),
    ttl=timedelta(hours=6),
    freshness=timedelta(minutes=20),
    features={
        "payments_1h": Count(),
        "declined_1h": Count(where=field("status") == "declined"),
        "spent_cents_1h": Sum("amount", where=captured),
        "largest_cents_1h": Max("amount", where=captured),
        "decline_rate_1h": Ratio("declined_1h", "payments_1h"),
    },
)

card_last_day = WindowedView(
    name="card_last_day",
    description="What a card has spent in the day before the window's end.",
    owner=RISK,
    entity=card,
    source=payments,
    push_source="card_last_day_push",
    window=timedelta(hours=24),
    slide=timedelta(hours=1),
    ttl=timedelta(hours=48),
    features={
        "payments_24h": Count(),
        "spent_cents_24h": Sum("amount", where=captured),
    },
)

card_merchant_last_day = WindowedView(
    name="card_merchant_last_day",
    description="What a card has spent at one merchant in the day before the window's end.",
    owner=RISK,
    entity=card_at_merchant,
    source=payments,
    push_source="card_merchant_last_day_push",
    window=timedelta(hours=24),
    slide=timedelta(hours=1),
    ttl=timedelta(hours=48),
    features={
        "merchant_payments_24h": Count(),
        "merchant_spent_cents_24h": Sum("amount", where=captured),
    },
)

card_disputes = WindowedView(
    name="card_disputes",
    description="How many payments of a card were disputed in the week before the window's end.",
    owner=RISK,
    entity=card,
    source=disputes,
    push_source="card_disputes_push",
    window=timedelta(days=7),
    slide=timedelta(days=1),
    ttl=timedelta(days=14),
    features={
        "disputes_7d": Count(),
        "fraud_disputes_7d": Count(where=field("reason") == "fraud"),
    },
)

card_accounts = BatchView(
    name="card_accounts",
    description="Whose card it is, from the account system.",
    owner=RISK,
    entity=card,
    ttl=timedelta(days=365),
    features={
        "limit_cents": BatchFeature("Int64", minimum=0, description="Credit limit of the account."),
        "segment": BatchFeature("String", values=("private", "business"), description="Who holds it."),
    },
    rows=(1_000, None),
    max_age=timedelta(days=2),
)

decline_prediction = FeatureService(
    name="decline_prediction",
    description="Whether a card's next payments will be declined.",
    owner=RISK,
    views=(card_last_hour, card_last_day, card_disputes, card_accounts),
    label=Label("declined", where=field("status") == "declined", within=timedelta(hours=1), stream=payments),
    freshness=timedelta(days=3),
)

catalog = Catalog(services=(decline_prediction,), views=(card_merchant_last_day,))
