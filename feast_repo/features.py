"""The shop's features. One line here adds a feature to stream, batch, Feast, checks and serving."""

from __future__ import annotations

from datetime import timedelta

from feast_repo.clickstream import clickstream
from feast_repo.declare.algebra import Count, Ratio, Sum, field
from feast_repo.declare.batch_views import BatchFeature, BatchView
from feast_repo.declare.catalog import Catalog
from feast_repo.declare.entities import Entity
from feast_repo.declare.labels import Label
from feast_repo.declare.services import FeatureService
from feast_repo.declare.views import WindowedView
from feast_repo.profiles import COUNTRIES, TIERS

TEAM = "shop-ml@example.com"

user = Entity(name="user", join_keys={"user_id": "String"}, description="A shopper, such as user_000001.", owner=TEAM)

user_click_features = WindowedView(
    name="user_click_features",
    description="What a user did in the hour before the window's end.",
    owner=TEAM,
    tags={"tier": "1"},
    entity=user,
    source=clickstream,
    push_source="user_clicks_push",
    window=timedelta(hours=1),
    slide=timedelta(minutes=10),
    ttl=timedelta(hours=24),
    features={
        "click_count": Count(where=field("event_type") == "click"),
        "view_count": Count(where=field("event_type") == "view"),
        "cart_count": Count(where=field("event_type") == "add_to_cart"),
        "purchase_count": Count(where=field("event_type") == "purchase"),
        "revenue_cents": Sum("price_cents", where=field("event_type") == "purchase"),
        "cart_rate": Ratio("cart_count", "view_count", description="Carts per view; 0 without views."),
        "conversion_rate": Ratio("purchase_count", "view_count"),
    },
)

user_profile_features = BatchView(
    name="user_profile_features",
    description="Who a user is, from the profile job.",
    owner=TEAM,
    entity=user,
    ttl=timedelta(days=365),
    key_patterns={"user_id": "user_[0-9]{6,}"},
    features={
        "age": BatchFeature("Int64", minimum=18, maximum=120, description="In years."),
        "country": BatchFeature("String", values=tuple(COUNTRIES), description="Of residence, as ISO 3166."),
        "subscription_tier": BatchFeature("String", values=tuple(TIERS), description="What the user pays for."),
        "activity_weight": BatchFeature("Float64", above=0, maximum=1, description="How active among all, 1: most."),
    },
    max_age=timedelta(days=2),
)

purchase_prediction = FeatureService(
    name="purchase_prediction",
    description="What the purchase model reads.",
    owner=TEAM,
    views=(user_click_features, user_profile_features),
    label=Label("purchased", where=field("event_type") == "purchase", within=timedelta(hours=1)),
)

catalog = Catalog(services=(purchase_prediction,))
