"""What people are told of declarations: in Feast's registry and its lineage, and in no stored state's meaning."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from feast import FeatureService, FeatureView, KafkaSource
from feast.lineage.registry_lineage import RegistryLineageGenerator

from feast_repo.clickstream import clickstream
from feast_repo.declare.about import in_words
from feast_repo.declare.algebra import Count, Max, Ratio, Sum, field
from feast_repo.declare.catalog import Catalog
from feast_repo.feast_objects import all_objects
from feast_repo.features import catalog, purchase_prediction, user, user_click_features as clicks, user_profile_features
from feast_repo.stores.opening import ensure_applied

if TYPE_CHECKING:
    from feast import FeatureStore

BOUGHT = field("event_type") == "purchase"


@pytest.mark.parametrize(
    ("feature", "formula"),
    [
        (Count(), "count of events"),
        (Count(where=BOUGHT), "count of events where event_type == 'purchase'"),
        (
            Sum("price_cents", where=BOUGHT & (field("price_cents") > 5)),
            "sum of price_cents where (event_type == 'purchase') & (price_cents > 5)",
        ),
        (Max("price_cents"), "max of price_cents"),
        (Ratio("cart_count", "view_count"), "cart_count / view_count"),
    ],
)
def test_a_formula_says_what_a_feature_is(feature: Count | Ratio, formula: str) -> None:
    assert feature.formula == formula


@pytest.mark.parametrize(
    ("duration", "words"),
    [
        (timedelta(days=7), "7 d"),
        (timedelta(hours=36), "36 h"),
        (timedelta(minutes=90), "90 min"),
        (timedelta(seconds=90), "90 s"),
        (timedelta(milliseconds=1500), "1.5 s"),
    ],
)
def test_a_duration_has_its_greatest_whole_unit(duration: timedelta, words: str) -> None:
    assert in_words(duration) == words


def test_the_registry_has_it_all(store: FeatureStore) -> None:
    ensure_applied(store)
    stored = store.registry.get_feature_view(clicks.name, store.project)
    assert (stored.description, stored.owner) == (clicks.description, clicks.owner)
    assert stored.tags == {
        **clicks.tags,
        "kind": "windowed view",
        "entity": "user",
        "stream": "clickstream",
        "window": "1 h",
        "slide": "10 min",
        "lateness": "2 min",
    }
    features = {one.name: one for one in stored.features}
    assert features["revenue_cents"].tags["formula"] == "sum of price_cents where event_type == 'purchase'"
    assert features["revenue_cents"].description.endswith(", in 1 h every 10 min")
    assert features["cart_rate"].description == clicks.features["cart_rate"].description
    batch = store.registry.get_feature_view(user_profile_features.name, store.project)
    assert {one.name: one.description for one in batch.features} == {
        name: one.description for name, one in user_profile_features.features.items()
    }
    entity = store.registry.get_entity("user", store.project)
    assert (entity.description, entity.owner) == (user.description, user.owner)
    service = store.registry.get_feature_service(purchase_prediction.name, store.project)
    assert (service.owner, service.tags["label"]) == (purchase_prediction.owner, "purchased within 1 h")
    topic = store.registry.get_data_source("kafka_clickstream", store.project)
    assert isinstance(topic, KafkaSource)
    assert (topic.kafka_options.topic, topic.owner) == (clickstream.topic, clickstream.owner)
    assert "price_cents int64" in topic.kafka_options.message_format.schema_json


def test_feasts_lineage_leads_from_the_kafka_stream_to_the_service(store: FeatureStore) -> None:
    ensure_applied(store)
    direct, _ = RegistryLineageGenerator().generate_lineage(store.registry.proto())
    edges = {(one.source.name, one.target.name) for one in direct}
    assert ("kafka_clickstream_user_click_features", clicks.name) in edges
    assert (clicks.name, purchase_prediction.name) in edges


def test_owner_and_tags_of_ones_own_are_kept_everywhere() -> None:
    tags = {"tier": "2", "ticket": "F-1"}
    about: dict[str, Any] = {"owner": "me@example.com", "tags": tags}
    entity = replace(user, **about)
    stream = replace(clickstream, **about)
    view = replace(clicks, entity=entity, source=stream, features={"n": Count(**about)}, **about)
    service = replace(purchase_prediction, views=(view,), **about)
    objects = all_objects(Catalog(services=(service,)))
    assert len(objects) == 4
    for one in objects:
        assert one.owner == "me@example.com"
        assert tags.items() <= one.tags.items()
    (registered,) = (one for one in objects if isinstance(one, FeatureView))
    assert registered.features[0].tags == {
        **tags,
        "owner": "me@example.com",
        "formula": "count of events",
        "window": "1 h",
        "slide": "10 min",
    }
    assert all(one.tags["kind"] == "feature service" for one in objects if isinstance(one, FeatureService))


def test_it_means_nothing_for_stored_state() -> None:
    told = {
        name: replace(one, description="Something else.", owner="me", tags={"a": "b"})
        for name, one in clicks.features.items()
    }
    other = replace(clicks, features=told, owner="me", tags={"c": "d"}, description="Of old.")
    assert other.fingerprint == clicks.fingerprint
    assert (
        replace(clicks, features={"n": Count(owner="a")}).fingerprint
        == replace(clicks, features={"n": Count()}).fingerprint
    )


@pytest.mark.parametrize("place", ["view", "feature", "entity", "stream", "service"])
def test_a_tag_that_is_derived_is_refused(place: str) -> None:
    mine = {"window": "2 h"}
    view = replace(clicks, tags=mine) if place == "view" else clicks
    if place == "feature":
        view = replace(clicks, features={"n": Count(tags=mine)})
    if place == "entity":
        view = replace(clicks, entity=replace(user, tags=mine))
    if place == "stream":
        view = replace(clicks, source=replace(clickstream, tags=mine))
    service = replace(purchase_prediction, views=(view,), tags=mine if place == "service" else {})
    with pytest.raises(ValueError, match=r"catalog: .*: the tags \['window'\] are derived"):
        Catalog(services=(service,))


def test_the_shops_catalog_says_who_owns_what() -> None:
    declared = (*catalog.views, *catalog.services, *catalog.entities, *catalog.streams)
    assert all(one.owner and one.description for one in declared)
