"""Several feature services in one process: each answers its own requests, by its own entities and model."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from feast_repo.declare.algebra import field
from feast_repo.declare.catalog import Catalog
from feast_repo.declare.labels import Label
from feast_repo.declare.services import FeatureService
from feast_repo.feast_objects import all_objects
from feast_repo.features import purchase_prediction, user_click_features as clicks
from serving.model import ModelFolder
from serving.services import open_services
from serving.settings import ServingSettings
from tests.declared import fraud, payments, shop_features
from tests.serving.conftest import USERS, Client, now_slide, push, serving, wait_for
from tests.serving.test_service import schemathesis

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from feast import FeatureStore

    from serving.training import Trained

large = Label("large", where=field("amount_cents") >= 9_000, within=timedelta(minutes=30), stream=payments)
CATALOG = Catalog(
    services=(
        purchase_prediction,
        replace(fraud, label=large, description="Whether a card is about to be used for a large payment."),
        FeatureService("shops", (shop_features,)),
    )
)
PAIR = {"card_id": "c1", "shop": 7}


@pytest.fixture
def client(store: FeatureStore, data_root: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Client]:
    """Three services: one with a model, one that waits for it, one of features only."""
    del data_root
    monkeypatch.setattr(ServingSettings, "catalog", CATALOG)
    monkeypatch.setenv("SERVING_REFRESH_SECONDS", "0.1")
    store.apply(all_objects(CATALOG))
    store.refresh_registry()
    with serving(open_services(store, ServingSettings())) as asking:
        yield asking


def message(client: Client, path: str, body: Any = None) -> str:
    reply = client.ask(path, body)
    assert (reply.status, reply.body["error"]["code"]) == (422, "invalid")
    text: str = reply.body["error"]["message"]
    return text


def test_each_answers_by_its_own_model_and_entities(store: FeatureStore, client: Client) -> None:
    push(store, USERS[:1], now_slide(), view_count=25)
    shop = client.ask("/v1/predictions", {"service": "purchase_prediction", "user_ids": USERS[:2]})
    assert (shop.status, shop.body["model_version"]) == (200, "v1")
    assert shop.body["predictions"][0]["views"][clicks.name]["features"]["view_count"] == 25
    waiting = client.ask("/v1/predictions", {"service": "fraud", "entities": [PAIR]})
    assert (waiting.status, waiting.body["error"]["code"]) == (503, "no_model")
    cards = client.ask("/v1/features", {"service": "fraud", "entities": [PAIR, PAIR]})
    assert [one["entity"] for one in cards.body["entities"]] == [PAIR, PAIR]
    assert set(cards.body["entities"][0]["views"]) == {view.name for view in fraud.views}
    shops = client.ask("/v1/features/shops/-7")
    assert shops.body["entity"] == {"shop": -7}
    assert shops.body["views"][shop_features.name]["features"]["country"] == "??"


def test_a_request_that_names_none_or_another_is_told_which_there_are(client: Client) -> None:
    entities = {"entities": [PAIR]}
    here = "purchase_prediction, fraud, shops"
    for path in ("/v1/predictions", "/v1/features"):
        assert "missing required field `service`" in message(client, path, entities)
        assert message(client, path, {"service": "sales", **entities}) == f"there is no such service here, but {here}"
        assert "`$.service`" in message(client, path, {"service": 1, **entities})
        assert "missing required field `shop`" in message(
            client, path, {"service": "fraud", "entities": [{"card_id": "c"}]}
        )
    for path in ("/v1/features/7", "/v1/features/sales/7", "/v1/features/"):
        assert message(client, path) == f"there is no such service here, but {here}"
    assert "card_id, shop" in message(client, "/v1/features/fraud/7")
    for no_number in ("x", "1.0", "9223372036854775808", "%31%30%20", ""):
        assert "shop is an integer" in message(client, f"/v1/features/shops/{no_number}")


def test_one_without_a_label_has_features_only(client: Client) -> None:
    body = {"service": "shops", "entities": [{"shop": 7}]}
    assert "declares no label" in message(client, "/v1/predictions", body)
    assert client.ask("/v1/features", body).status == 200


def test_one_that_waits_for_its_model_does_not_take_the_others_away(client: Client, trained: Trained) -> None:
    ready = client.ask("/readyz")
    assert (ready.status, ready.body["ready"], ready.body["model"]["ok"]) == (200, True, False)
    assert "purchase_prediction: v1; fraud: no model has been trained" in ready.body["model"]["detail"]
    assert 'serving_ready{part="model"} 0.0' in client.ask("/metrics").body
    models = ModelFolder(ServingSettings().data_root, "purchase_prediction")
    models.save(replace_version(trained, "v2"), trained.onnx)
    models.promote("v2")
    wait_for(lambda: "purchase_prediction: v2" in client.ask("/readyz").body["model"]["detail"])
    text = client.ask("/metrics").body
    assert 'serving_model{service="purchase_prediction",version="v1"} 0.0' in text
    assert 'serving_model{service="purchase_prediction",version="v2"} 1.0' in text


def replace_version(trained: Trained, version: str) -> Any:
    return msgspec.structs.replace(trained.card, version=version)


def test_the_document_tells_of_all(client: Client) -> None:
    document = client.ask("/openapi.json").body
    assert "fraud: predicts large within 30 min, by card_id, shop. Whether a card" in document["info"]["description"]
    asked = document["paths"]["/v1/predictions"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert [one["$ref"].rpartition("/")[2] for one in asked["oneOf"]] == [
        "UserRequest_purchase_prediction",
        "EntityRequest_purchase_prediction",
        "EntityRequest_fraud",
    ]
    (user,) = document["paths"]["/v1/features/purchase_prediction/{user_id}"]["get"]["parameters"]
    (shop,) = document["paths"]["/v1/features/shops/{shop}"]["get"]["parameters"]
    assert [one["schema"]["type"] for one in (user, shop)] == ["string", "integer"]


def test_the_document_holds(
    store: FeatureStore,
    data_root: Path,
    trained: Trained,
    tmp_path: Path,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # String keys only: for JSON Schema 1.0 is an integer, and for us it is none. And both have a model.
    two = Catalog(services=(purchase_prediction, replace(purchase_prediction, name="purchases_again")))
    models = ModelFolder(data_root, "purchases_again")
    models.save(trained.card, trained.onnx)
    models.promote(trained.card.version)
    monkeypatch.setattr(ServingSettings, "catalog", two)
    store.apply(all_objects(two))
    store.refresh_registry()
    with serving(open_services(store, ServingSettings())) as client:
        found = schemathesis(client, tmp_path, request)
    assert not found, found


def test_one_alone_may_be_named_and_keeps_its_messages_names(
    store: FeatureStore, data_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    del data_root
    monkeypatch.setattr(ServingSettings, "catalog", CATALOG)
    monkeypatch.setenv("SERVING_SERVICE", "purchase_prediction")
    with serving(open_services(store, ServingSettings())) as client:
        body = {"user_ids": USERS[:1]}
        plain, named = (
            client.ask("/v1/predictions", one) for one in (body, {"service": "purchase_prediction", **body})
        )
        assert (plain.status, plain.body["predictions"][0]["probability"]) == (
            named.status,
            named.body["predictions"][0]["probability"],
        )
        assert "there is no such service here" in message(client, "/v1/predictions", {"service": "fraud", **body})
        assert "UserRequest" in client.ask("/openapi.json").body["components"]["schemas"]
