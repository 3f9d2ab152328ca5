"""Services of entities with one or several join keys, String or Int64: what Feast gives, reader and HTTP give."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import msgspec
import polars as pl
import pytest
from feast import Entity, FeatureService, FeatureView, Field, FileSource
from feast.types import Int32, Int64
from hypothesis import given, strategies as st

from feast_repo.declare.catalog import Catalog
from feast_repo.declare.events import UTC_MICROSECONDS
from feast_repo.feast_objects import all_objects
from feast_repo.features import user_click_features
from serving.reader import FeastReader, RedisReader
from serving.requests import RequestFormat
from serving.schema import SchemaError, ServedSchema, ServedView, read_schema
from serving.settings import ServingSettings
from tests.declared import card_features, fraud, shop_features, shop_of_card_features

if TYPE_CHECKING:
    from feast import FeatureStore

    from feast_repo.declare.batch_views import BatchView
    from feast_repo.declare.views import WindowedView
    from serving.messages import EntityFeatures
    from serving.reader import Reader

TEXT = st.text(st.characters(exclude_categories=["Cs"]))
NOW = datetime.now(UTC).replace(microsecond=0)
CARDS = ["c1", "ü😀", "x" * 200, ""]
SHOPS = [0, -1, (1 << 63) - 1, -(1 << 63)]
STORED = [{"shop": shop, "card_id": card} for card, shop in zip(CARDS, SHOPS, strict=True)]
ASKED: list[dict[str, Any]] = [
    {"card_id": card, "shop": shop} for card in [*CARDS, "nobody"] for shop in reversed([*SHOPS, 4711])
]
"""Every pair, so that most have a row of the card and one of the shop, and none of both."""


def write(store: FeatureStore, view: WindowedView | BatchView) -> None:
    """A row of each stored entity, with values that tell which."""
    rows = pl.DataFrame(STORED, schema={"shop": pl.Int64, "card_id": pl.String}).select(view.join_keys)
    columns = {
        name: pl.format("value {}", pl.int_range(pl.len()))
        if kind == "String"
        else (pl.int_range(pl.len()) * 100).cast(getattr(pl, kind))
        for name, kind in view.value_types.items()
    }
    time = pl.lit(NOW).cast(UTC_MICROSECONDS)
    table = rows.with_columns(event_timestamp=time, created_timestamp=time, **columns)
    store.write_to_online_store(view.name, table.to_pandas())


@pytest.fixture
def shop_store(store: FeatureStore) -> FeatureStore:
    """A store of the payments' views, with a few rows of each."""
    store.apply(all_objects(Catalog(services=(fraud,))))
    store.refresh_registry()
    for view in fraud.views:
        write(store, view)
    return store


@pytest.fixture(params=["redis", "feast"])
def reader(shop_store: FeatureStore, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Reader:
    monkeypatch.setenv("SERVING_TIMEOUT_SECONDS", "30")  # Feast takes long on a busy machine
    settings = ServingSettings()
    schema = read_schema(shop_store, "fraud", fraud.views)
    if request.param == "redis":
        return RedisReader(schema, shop_store.config.entity_key_serialization_version, settings.redis_url, 5)
    return FeastReader(shop_store, schema, settings)


def test_every_view_is_read_by_its_own_keys_as_feast_does(shop_store: FeatureStore, reader: Reader) -> None:
    assert reader.schema.join_keys == {"card_id": "String", "shop": "Int64"}
    theirs = shop_store.get_online_features(shop_store.get_feature_service("fraud"), ASKED).to_dict()
    rows = reader.read(ASKED)
    assert [row.entity for row in rows] == ASKED
    for number, row in enumerate(rows):
        for view in fraud.views:
            expected = {name: theirs[name][number] for name in view.features}
            if row.views[view.name].status == "missing":
                assert set(expected.values()) == {None}
                assert row.views[view.name].features == view.defaults
            else:
                assert row.views[view.name].features == expected
    found = {view.name: sum(row.views[view.name].status != "missing" for row in rows) for view in fraud.views}
    assert found == {card_features.name: 20, shop_features.name: 20, shop_of_card_features.name: 4}


def test_reading_asynchronously_gives_the_same(reader: Reader) -> None:
    async def read() -> list[EntityFeatures]:
        try:
            return await reader.read_async(ASKED)
        finally:
            await reader.close()

    values = [{name: one.features for name, one in row.views.items()} for row in asyncio.run(read())]
    assert values == [{name: one.features for name, one in row.views.items()} for row in reader.read(ASKED)]


@pytest.mark.parametrize(
    ("entity", "lacks"),
    [({"card_id": "c1"}, "'shop', of type Int64"), ({"shop": 1, "card_id": 1}, "'card_id', of type String")]
    + [({"card_id": "c1", "shop": shop}, "'shop', of type Int64") for shop in ("1", 1.0, True, 1 << 63, None)]
    + [("c1", "join keys are card_id, shop")],
)
def test_what_is_no_entity_is_told(reader: Reader, entity: Any, lacks: str) -> None:
    with pytest.raises(ValueError, match=lacks):
        reader.read([ASKED[0], entity])


def test_a_service_of_one_integer_key(shop_store: FeatureStore) -> None:
    shop_store.apply([FeatureService(name="shops", features=[shop_store.get_feature_view(shop_features.name)])])
    schema = read_schema(shop_store, "shops", fraud.views)
    reader = RedisReader(schema, 3, ServingSettings().redis_url, 5)
    rows = reader.read([{"shop": shop} for shop in (-1, 12)])
    assert [row.views[shop_features.name].features["country"] for row in rows] == ["value 1", "??"]
    assert schema.user_key is None


def test_both_forms_give_the_same_for_one_string_key(shop_store: FeatureStore) -> None:
    shop_store.apply([FeatureService(name="cards", features=[shop_store.get_feature_view(card_features.name)])])
    reader = RedisReader(read_schema(shop_store, "cards", fraud.views), 3, ServingSettings().redis_url, 5)
    plain, named = reader.read(CARDS), reader.read([{"card_id": card} for card in CARDS])
    assert [row.views[card_features.name].features for row in plain] == [
        row.views[card_features.name].features for row in named
    ]
    assert [row.user_id for row in plain] == CARDS


def view_of(name: str, keys: dict[str, Any]) -> list[Any]:
    """A feature view and its entities in Feast's words."""
    entities = [Entity(name=key, join_keys=[key], value_type=kind.to_value_type()) for key, kind in keys.items()]
    fields = [Field(name=key, dtype=kind) for key, kind in keys.items()]
    source = FileSource(name=f"{name}_file", path="nowhere", timestamp_field="event_timestamp")
    return [
        *entities,
        FeatureView(
            name=name, entities=entities, schema=[*fields, Field(name=f"{name}_x", dtype=Int64)], source=source
        ),
    ]


def test_keys_that_are_not_served_are_told(store: FeatureStore) -> None:
    *_, wrong = objects = view_of("numbered", {"number": Int32})
    store.apply([*objects, FeatureService(name="wrong", features=[wrong])])
    with pytest.raises(SchemaError, match=r"'wrong', view 'numbered': join key 'number' is of type Int32"):
        read_schema(store, "wrong", [])
    clicks = store.get_feature_view(user_click_features.name)
    store.apply([FeatureService(name="renamed", features=[clicks.with_join_key_map({"user_id": "buyer"})])])
    with pytest.raises(SchemaError, match="renames join keys"):
        read_schema(store, "renamed", [])


def request_format(**join_keys: str) -> RequestFormat:
    return RequestFormat(ServedSchema("project", "service", (ServedView("view", join_keys, {}, None, None, {}),)))


class TestRequests:
    @given(
        st.lists(
            st.tuples(st.text(st.characters(exclude_categories=["Cs"])), st.integers(-(1 << 63), (1 << 63) - 1)),
            min_size=1,
        )
    )
    def test_entities_come_as_they_are(self, pairs: list[tuple[str, int]]) -> None:
        entities = [{"card-id": card, "shop": shop} for card, shop in pairs]
        body = json.dumps({"entities": entities}).encode()
        assert request_format(**{"card-id": "String", "shop": "Int64"}).decode(body) == entities

    @pytest.mark.parametrize(
        ("body", "says"),
        [
            ({}, "missing required field `entities`"),
            ({"user_ids": ["c1"]}, "one String join key, and here they are card_id, shop"),
            ({"entities": []}, "length >= 1"),
            ({"entities": [{"card_id": "c1", "shop": 1}] * 1_001}, "length <= 1000"),
            ({"entities": ["c1"]}, "$.entities[0]"),
            ({"entities": [{"card_id": "c1"}]}, "missing required field `shop` - at `$.entities[0]`"),
            ({"entities": [{"card_id": "c1", "shop": "1"}]}, "Expected `int`, got `str` - at `$.entities[0].shop`"),
            ({"entities": [{"card_id": 1, "shop": 1}]}, "Expected `str`, got `int` - at `$.entities[0].card_id`"),
            ({"entities": [{"card_id": "c1", "shop": 1.5}]}, "$.entities[0].shop"),
            ({"entities": [{"card_id": "c1", "shop": True}]}, "$.entities[0].shop"),
            ({"entities": [{"card_id": "c1", "shop": None}]}, "$.entities[0].shop"),
            ({"entities": [{"card_id": "c1", "shop": 1 << 63}]}, "$.entities[0].shop"),
            ({"entities": [{"card_id": "c1", "shop": 1 << 70}]}, "$.entities[0].shop"),
            ({"entities": [{"card_id": "x" * 1_025, "shop": 1}]}, "length <= 1024"),
            ({"entities": [{"card_id": "c1", "shop": 1, "user_id": "u"}]}, "unknown field `user_id`"),
        ],
    )
    def test_what_is_wrong_is_told_in_one_line(self, body: Any, says: str) -> None:
        with pytest.raises(msgspec.MsgspecError) as told:
            request_format(card_id="String", shop="Int64").decode(json.dumps(body).encode())
        assert says in str(told.value)
        assert "\n" not in str(told.value)

    def test_one_string_key_may_be_given_in_two_ways_but_in_one_at_once(self) -> None:
        decode = request_format(card_id="String").decode
        assert decode(b'{"user_ids": ["c1"]}') == ["c1"]
        assert decode(b'{"entities": [{"card_id": "c1"}]}') == [{"card_id": "c1"}]
        for body in (b"{}", b'{"user_ids": ["c1"], "entities": [{"card_id": "c1"}]}'):
            with pytest.raises(msgspec.ValidationError, match="one of the fields `user_ids` and `entities`"):
                decode(body)
