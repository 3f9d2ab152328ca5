"""The service over HTTP: what it answers, and that it stands up to bad input, load, and parts that go away."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import polars as pl
import pytest
from feast import FeatureService, FeatureView, Field
from feast.types import Int64

from batch.drift.samples import Period, scores as last_scores
from feast_repo.declare.catalog import Catalog
from feast_repo.feast_objects import all_objects
from feast_repo.features import (
    catalog,
    purchase_prediction,
    user_click_features as clicks,
    user_profile_features as profiles,
)
from feast_repo.settings import PROJECT_ROOT
from feast_repo.stores.offline.tables import prediction_columns
from serving import metrics
from serving.__main__ import main
from serving.access import ApiKeys
from serving.app import ENTITIES_A_REQUEST, MOST_BYTES
from serving.model import ModelFolder
from serving.predict import main as predict
from serving.score_log import ScoreLog
from serving.services import open_services
from serving.settings import ServingSettings
from serving.train import main as train
from simulation.training_rows import training_rows
from tests.declared import fraud
from tests.serving.conftest import (
    USERS,
    Client,
    Reply,
    now_slide,
    push,
    serving,
    tell_progress,
    wait_for,
    write_profiles,
)

if TYPE_CHECKING:
    from feast import FeatureStore
    from redis import Redis

    from sandbox.redis_server import RedisServer
    from serving.services import Services
    from serving.training import Trained

SCHEMATHESIS = Path(sys.executable).with_name("schemathesis")
CONNECTIONS = 10_000


def scores() -> pl.DataFrame:
    files = sorted(ServingSettings().data_root.glob("predictions/dt=*/*.parquet"))
    return pl.concat([pl.read_parquet(file, hive_partitioning=False) for file in files])


def clicks_status(client: Client) -> str:
    status: str = client.ask(f"/v1/features/{USERS[0]}").body["views"][clicks.name]["status"]
    return status


class TestAnswers:
    def test_predictions(
        self, store: FeatureStore, redis: Redis, service: Services, client: Client, trained: Trained
    ) -> None:
        push(store, USERS[:2], now_slide(), view_count=25)
        write_profiles(store, USERS[:1], now_slide())
        tell_progress(store, redis, now_slide())
        wait_for(lambda: clicks_status(client) == "fresh")  # the stream's reach is looked at once a second
        reply = client.predict(*USERS[:3], USERS[0])
        assert (reply.status, reply.body["model_version"]) == (200, "v1")
        found = reply.body["predictions"]
        assert [one["user_id"] for one in found] == [*USERS[:3], USERS[0]]
        assert found[0] == found[3]
        assert found[0]["views"][clicks.name]["features"]["view_count"] == 25
        assert [one["views"][clicks.name]["status"] for one in found[:3]] == ["fresh", "fresh", "missing"]
        assert [one["views"][profiles.name]["status"] for one in found[:3]] == ["fresh", "missing", "missing"]
        rows = service.named(None).reader.read(USERS[:3])
        assert [one["probability"] for one in found[:3]] == pytest.approx(trained.model.predict(rows))

    def test_features(self, store: FeatureStore, client: Client) -> None:
        push(store, ["a/b ü"], now_slide(), click_count=3)
        reply = client.ask("/v1/features/a%2Fb%20%C3%BC")
        assert reply.status == 200
        assert reply.body["user_id"] == "a/b ü"
        assert reply.body["views"][clicks.name]["features"]["click_count"] == 3

    def test_a_thousand_users(self, client: Client) -> None:
        users = [f"{number:064d}" for number in range(1_000)]
        reply = client.predict(*users)
        assert reply.status == 200
        assert [one["user_id"] for one in reply.body["predictions"]] == users

    def test_health(self, client: Client) -> None:
        assert client.ask("/healthz").body == {"status": "ok"}
        ready = client.ask("/readyz")
        assert (ready.status, ready.body["ready"], ready.body["model"]["detail"]) == (200, True, "v1")
        head = client.ask("/healthz", method="HEAD")
        assert (head.status, head.body) == (200, "")

    def test_metrics(self, store: FeatureStore, client: Client) -> None:
        push(store, USERS[:1], now_slide())
        client.predict("nobody", USERS[0])
        client.ask("/v1/features/somebody")
        text = client.ask("/metrics").body
        assert f'serving_rows_total{{status="missing",view="{clicks.name}"}}' in text
        assert 'serving_request_seconds_count{route="/v1/features/",status="200"}' in text
        assert "serving_probability_bucket" in text
        assert f'serving_feature_age_seconds_count{{view="{clicks.name}"}}' in text
        assert 'serving_model{service="purchase_prediction",version="v1"} 1.0' in text
        assert "somebody" not in text

    def test_access_log_holds_no_values(self, service: Services, capsys: pytest.CaptureFixture[str]) -> None:
        with serving(service) as client:
            client.ask("/v1/features/secret-user")
            client.ask("/secret-place")
        out = capsys.readouterr().out
        assert '"route":"/v1/features/","status":200' in out
        assert '"route":"other","status":404' in out
        assert "secret" not in out


BAD_BODIES: list[tuple[Any, str]] = [
    (b"", "no JSON"),
    (b"{", "no JSON"),
    (b"\xff", "no JSON"),
    (b'{"user_ids": ["\\ud800"]}', "no JSON"),
    ({}, "user_ids"),
    ([], "object"),
    ({"user_ids": []}, "length >= 1"),
    ({"user_ids": [""]}, "length >= 1"),
    ({"user_ids": ["x" * 65]}, "length <= 64"),
    ({"user_ids": [1]}, "user_ids[0]"),
    ({"user_ids": ["a"] * 1_001}, "length <= 1000"),
    ({"user_ids": ["a"], "secret-field": 1}, "unknown field"),
    ({"user_ids": None}, "array"),
]


class TestEntities:
    def test_are_answered_as_users_are(self, store: FeatureStore, client: Client) -> None:
        push(store, USERS[:2], now_slide(), view_count=25)
        plain = client.predict(*USERS[:3]).body["predictions"]
        entities = [{"user_id": user} for user in USERS[:3]]
        reply = client.ask("/v1/predictions", {"entities": entities})
        assert reply.status == 200
        named = reply.body["predictions"]
        assert [one["entity"] for one in named] == entities
        assert all("user_id" not in one for one in named)
        assert all("entity" not in one for one in plain)
        assert [one["probability"] for one in named] == [one["probability"] for one in plain]

    def test_of_several_keys_are_read_without_a_label(
        self, store: FeatureStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        shop = Catalog(services=(fraud,))
        monkeypatch.setattr(ServingSettings, "catalog", shop)
        store.apply(all_objects(shop))
        store.refresh_registry()
        settings = ServingSettings()
        with serving(open_services(store, settings)) as client:
            asked = client.ask("/v1/features", {"entities": [{"shop": 7, "card_id": "c1"}]})
            assert (asked.status, asked.body["entities"][0]["entity"]) == (200, {"shop": 7, "card_id": "c1"})
            for path, body in (("/v1/features", {"user_ids": ["c1"]}), ("/v1/features/c1", None)):
                refused = client.ask(path, body)
                assert (refused.status, refused.body["error"]["code"]) == (422, "invalid")
                assert "card_id, shop" in refused.body["error"]["message"]
            assert client.ask("/readyz").body["redis"]["ok"]
            document = client.ask("/openapi.json").body
        assert not [path for path in document["paths"] if path.startswith("/v1/features/")]
        assert "/v1/predictions" not in document["paths"]
        entity = document["components"]["schemas"]["Entity"]
        assert entity["properties"]["shop"]["type"] == "integer"
        assert entity["required"] == ["card_id", "shop"]


class TestBadInput:
    @pytest.mark.parametrize(("body", "says"), BAD_BODIES, ids=[str(body)[:30] for body, _ in BAD_BODIES])
    def test_is_told(self, shared: Client, body: Any, says: str) -> None:
        reply = shared.ask("/v1/predictions", body, method="POST")
        assert (reply.status, reply.body["error"]["code"]) == (422, "invalid")
        assert says in reply.body["error"]["message"]

    @pytest.mark.parametrize(
        ("path", "method", "status"),
        [
            ("/", "GET", 404),
            ("/v1/predictions/", "POST", 404),
            ("/v1/features/", "GET", 422),
            ("/v1/features/" + "x" * 65, "GET", 422),
            ("/v1/features/%FF", "GET", 422),
            ("/v1/features/%ED%A0%80", "GET", 422),
            ("/v1/features/a", "DELETE", 405),
            ("/v1/predictions", "GET", 405),
        ],
    )
    def test_other_places_and_methods(self, shared: Client, path: str, method: str, status: int) -> None:
        reply = shared.ask(path, method=method)
        assert reply.status == status
        assert reply.body["error"]["message"]
        assert ("allow" in reply.headers) == (status == 405)

    def test_a_long_body_is_refused(self, shared: Client) -> None:
        reply = shared.ask("/v1/predictions", b" " * (MOST_BYTES + 1), method="POST")
        assert (reply.status, reply.body["error"]["code"]) == (413, "too_large")
        full = b" " * (MOST_BYTES - 30) + b'{"user_ids": ["a"]}'
        assert shared.ask("/v1/predictions", full, method="POST").status == 200

    def test_a_slow_body_is_given_up(self, service: Services) -> None:
        with serving(service, body_timeout_s=0.2) as client, connected(client) as one:
            one.sendall(b"POST /v1/predictions HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{")
            assert one.recv(100).startswith(b"HTTP/1.1 408 ")


@pytest.fixture(scope="module")
def shared(redis_server: RedisServer, trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """One service for requests that change nothing."""
    from feast_repo.stores.opening import ensure_applied, open_store  # noqa: PLC0415  (after its settings)

    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("DATA_ROOT", str(tmp_path_factory.mktemp("shared")))
        environment.setenv("REDIS_URL", redis_server.url)
        settings = ServingSettings()
        models = ModelFolder(settings.data_root, settings.service)
        models.save(trained.card, trained.onnx)
        models.promote("v1")
        store = open_store()
        ensure_applied(store)
        with serving(open_services(store, settings)) as client:
            yield client
        store.registry._exit_handler()  # noqa: SLF001
        store.registry.write_engine.dispose()


def connected(client: Client) -> socket.socket:
    host, _, port = client.url.removeprefix("http://").partition(":")
    return socket.create_connection((host, int(port)), timeout=30)


def schemathesis(client: Client, folder: Path, request: pytest.FixtureRequest, *more: str) -> str:
    """What it has found; empty if nothing."""
    seed = str(request.config.option.hypothesis_seed)
    done = subprocess.run(
        [
            *(SCHEMATHESIS, "run", f"{client.url}/openapi.json"),
            *("--checks", "all", "--max-examples", "50", "--seed", seed, "--no-color", *more),
        ],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout + done.stderr if done.returncode else ""


class TestSchemathesis:
    def test_finds_nothing(self, shared: Client, tmp_path: Path, request: pytest.FixtureRequest) -> None:
        assert not schemathesis(shared, tmp_path, request)

    def test_finds_nothing_with_keys(
        self,
        store: FeatureStore,
        data_root: Path,
        tmp_path: Path,
        request: pytest.FixtureRequest,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        del data_root
        monkeypatch.setenv("SERVING_API_KEYS", "a-key")
        settings = ServingSettings()
        with serving(open_services(store, settings)) as client:
            assert not schemathesis(client, tmp_path, request, "--header", "X-API-Key: a-key")
            assert client.ask("/openapi.json").body["paths"]["/v1/predictions"]["post"]["security"] == [{"key": []}]


class TestKeys:
    def test_are_asked_for(
        self,
        store: FeatureStore,
        data_root: Path,
        monkeypatch: pytest.MonkeyPatch,
        tmp_path: Path,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        del data_root
        file = tmp_path / "keys"
        file.write_text("old-key\n")
        monkeypatch.setenv("SERVING_API_KEYS", "own-key, other-key")
        monkeypatch.setenv("SERVING_API_KEYS_FILE", str(file))
        monkeypatch.setenv("SERVING_REFRESH_SECONDS", "0.1")
        settings = ServingSettings()
        with serving(open_services(store, settings)) as client:
            for key in ("own-key", "other-key", "old-key"):
                assert client.predict("a", X_API_Key=key).status == 200
            for headers in ({}, {"X_API_Key": ""}, {"X_API_Key": "own-key,"}, {"X_API_Key": "OWN-KEY"}):
                reply = client.predict("a", **headers)
                assert (reply.status, reply.body["error"]["code"]) == (401, "unauthorized")
                assert client.ask("/v1/features/a", **headers).status == 401
            assert {client.ask(path).status for path in ("/healthz", "/readyz", "/metrics", "/openapi.json")} == {200}
            # Rotation: the new one joins, then the old one goes.
            file.write_text("old-key\nnew-key\n")
            wait_for(lambda: client.predict("a", X_API_Key="new-key").status == 200)
            file.write_text("new-key\n")
            wait_for(lambda: client.predict("a", X_API_Key="old-key").status == 401)
            file.write_text("")  # would open the service: the keys stay
            wait_for(lambda: "the API keys stay as they were" in caplog.text)
            assert client.predict("a").status == 401
            assert client.predict("a", X_API_Key="new-key").status == 200

    def test_a_list_without_keys_is_refused(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("SERVING_API_KEYS", " , ")
        with pytest.raises(ValueError, match="SERVING_API_KEYS holds no key"):
            ApiKeys(ServingSettings())

    def test_a_file_without_keys_is_refused(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        file = tmp_path / "keys"
        file.write_text("\n \n")
        monkeypatch.setenv("SERVING_API_KEYS_FILE", str(file))
        with pytest.raises(ValueError, match="holds no key"):
            ApiKeys(ServingSettings())


def ask_until(client: Client, stop: threading.Event) -> list[Reply]:
    """Predictions one after the other."""
    replies = []
    while not stop.is_set():
        replies.append(client.predict("a", "b"))
    return replies


class TestUnderLoad:
    def test_redis_killed_and_back(self, service: Services, client: Client, redis_server: RedisServer) -> None:
        stop = threading.Event()
        with ThreadPoolExecutor(8) as pool:
            asking = [pool.submit(ask_until, client, stop) for _ in range(8)]
            try:
                wait_for(lambda: client.predict("a").status == 200)
                redis_server.kill()
                wait_for(lambda: client.predict("a").status == 503)
                ready = client.ask("/readyz")
                assert (ready.status, ready.body["redis"]["ok"], ready.body["model"]["ok"]) == (503, False, True)
                assert client.ask("/healthz").status == 200
            finally:
                redis_server.start()
                wait_for(lambda: client.predict("a").status == 200, 5)
                stop.set()
        replies = [reply for one in asking for reply in one.result()]
        assert Counter(reply.status for reply in replies).keys() <= {200, 503}
        refused = next(reply for reply in replies if reply.status == 503)
        assert refused.body["error"]["code"] == "online_store_unavailable"
        assert refused.headers["retry-after"] == "1"
        assert service.named(None).reader.read(["a"])

    def test_redis_that_comes_later_than_the_service(self, service: Services, redis_server: RedisServer) -> None:
        redis_server.kill()
        try:
            with serving(service) as client:
                assert client.predict("a").body["error"]["code"] == "online_store_unavailable"
                redis_server.start()
                wait_for(lambda: client.predict("a").status == 200, 5)
        finally:
            redis_server.start()

    def test_a_frozen_redis_costs_the_timeout_and_no_more(
        self, store: FeatureStore, data_root: Path, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        del data_root
        monkeypatch.setenv("SERVING_TIMEOUT_SECONDS", "0.2")
        settings = ServingSettings()
        assert redis_server.process is not None
        with serving(open_services(store, settings)) as client:
            assert client.predict("a").status == 200
            os.kill(redis_server.process.pid, signal.SIGSTOP)
            try:
                reply = client.predict("a")
                assert (reply.status, reply.body["error"]["code"]) == (503, "online_store_unavailable")
            finally:
                os.kill(redis_server.process.pid, signal.SIGCONT)
            wait_for(lambda: client.predict("a").status == 200)

    def test_too_many_at_once_are_turned_away(self, service: Services, redis_server: RedisServer) -> None:
        assert redis_server.process is not None
        with serving(service, concurrency=2) as client, ThreadPoolExecutor(6) as pool:
            assert client.predict("a").status == 200
            os.kill(redis_server.process.pid, signal.SIGSTOP)
            try:
                asking = [pool.submit(client.predict, "a") for _ in range(6)]
                replies = [one.result() for one in asking]
            finally:
                os.kill(redis_server.process.pid, signal.SIGCONT)
            codes = Counter(reply.body["error"]["code"] for reply in replies)
            assert codes["overloaded"] == 4, codes
            assert all(reply.headers["retry-after"] == "1" for reply in replies)
            wait_for(lambda: client.predict("a").status == 200)
            assert client.ask("/metrics").body.count("serving_in_flight 0.0") == 1

    def test_many_users_count_as_many_requests(self, service: Services, redis_server: RedisServer) -> None:
        assert redis_server.process is not None
        batch = [f"user_{number}" for number in range(10 * ENTITIES_A_REQUEST)]
        with serving(service, concurrency=25) as client, ThreadPoolExecutor(4) as pool:
            assert client.predict("a").status == 200
            os.kill(redis_server.process.pid, signal.SIGSTOP)
            try:
                asking = [pool.submit(client.predict, *batch) for _ in range(4)]
                codes = Counter(one.result().body["error"]["code"] for one in asking)
            finally:
                os.kill(redis_server.process.pid, signal.SIGCONT)
            assert codes == {"overloaded": 2, "online_store_unavailable": 2}
            wait_for(lambda: client.predict("a").status == 200)
        with serving(service, concurrency=1) as client:
            assert client.predict(*batch).status == 200, "alone it is answered"


class TestChanges:
    def test_a_new_feature_is_served(self, store: FeatureStore, client: Client) -> None:
        stop = threading.Event()
        with ThreadPoolExecutor(4) as pool:
            asking = [pool.submit(ask_until, client, stop) for _ in range(4)]
            try:
                self.add_a_feature(store, client)
            finally:
                stop.set()
        assert Counter(reply.status for one in asking for reply in one.result()).keys() == {200}

    def add_a_feature(self, store: FeatureStore, client: Client) -> None:
        view = store.get_feature_view(clicks.name)
        wider = FeatureView(
            name=view.name,
            entities=[store.get_entity("user")],
            ttl=view.ttl,
            schema=[*view.schema, Field(name="another_count", dtype=Int64)],
            source=view.stream_source,
        )
        others = [store.get_feature_view(profiles.name)]
        store.apply([wider, FeatureService(name="purchase_prediction", features=[wider, *others])])

        def served() -> dict[str, Any]:
            features: dict[str, Any] = client.ask("/v1/features/a").body["views"][clicks.name]["features"]
            return features

        wait_for(lambda: "another_count" in served())
        assert served()["another_count"] is None, "nothing is declared for it here"
        assert client.predict("a").status == 200

    def test_a_model_that_no_longer_fits_is_refused(self, store: FeatureStore, client: Client) -> None:
        assert client.predict("a").status == 200
        service = store.get_feature_service("purchase_prediction")
        del service.feature_view_projections[0].features[1]
        store.apply([service])
        wait_for(lambda: client.predict("a").status == 503)
        error = client.predict("a").body["error"]
        assert error["code"] == "no_model"
        assert clicks.name in error["message"]
        assert client.ask("/readyz").status == 503
        assert client.ask("/v1/features/a").status == 200

    def test_a_new_model_is_taken_over(self, client: Client) -> None:
        settings = ServingSettings()
        source = settings.data_root / "training" / "purchase_prediction.parquet"
        source.parent.mkdir()
        training_rows(seed=2).write_parquet(source)
        train(["--promote", "always"])
        version = ModelFolder(settings.data_root, settings.service).current
        wait_for(lambda: client.predict("a").body["model_version"] == version)

    def test_a_broken_pointer_leaves_the_model(
        self, client: Client, data_root: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        (data_root / "models" / "purchase_prediction" / "current.json").write_text("{")
        wait_for(lambda: "model v1 stays" in caplog.text)
        assert client.predict("a").status == 200

    def test_a_model_that_does_not_fit_takes_no_place_of_one_that_does(
        self, client: Client, data_root: Path, trained: Trained, caplog: pytest.LogCaptureFixture
    ) -> None:
        first, *others = trained.card.features
        unknown = msgspec.structs.replace(first, name="not_in_the_registry")
        models = ModelFolder(data_root, "purchase_prediction")
        models.save(msgspec.structs.replace(trained.card, version="v2", features=(unknown, *others)), trained.onnx)
        models.promote("v2")
        wait_for(lambda: "model v1 stays" in caplog.text)
        assert "not_in_the_registry" in caplog.text
        assert client.predict("a").body["model_version"] == "v1"

    def test_without_a_model_it_says_what_to_do_and_finds_one_later(
        self, store: FeatureStore, trained: Trained, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("SERVING_REFRESH_SECONDS", "0.1")
        settings = ServingSettings()
        with serving(open_services(store, settings)) as client:
            reply = client.predict("a")
            assert (reply.status, reply.body["error"]["code"]) == (503, "no_model")
            assert "serving.train" in reply.body["error"]["message"]
            models = ModelFolder(settings.data_root, settings.service)
            models.save(trained.card, trained.onnx)
            models.promote("v1")
            wait_for(lambda: client.predict("a").status == 200)

    def test_a_registry_that_is_away_is_survived(self, store: FeatureStore, client: Client) -> None:
        database = Path(store.registry.write_engine.url.database or "")
        away = database.with_suffix(".away")
        store.registry.write_engine.dispose()
        database.rename(away)
        try:
            wait_for(lambda: not client.ask("/readyz").body["registry"]["ok"])
            assert client.ask("/readyz").status == 200
            assert client.predict("a").status == 200
        finally:
            store.registry.write_engine.dispose()
            away.replace(database)
        wait_for(lambda: client.ask("/readyz").body["registry"]["ok"])


class TestScores:
    def test_are_kept(self, service: Services) -> None:
        with serving(service) as client:
            replies = [client.predict("a", "b"), client.predict("c")]
        told = [(one["user_id"], one["probability"], "v1") for reply in replies for one in reply.body["predictions"]]
        assert sorted(scores().drop("scored_at").rows()) == sorted(told)

    def test_each_of_several_services_has_its_own_with_its_join_keys(self, tmp_path: Path) -> None:
        both = [purchase_prediction, fraud]
        log = ScoreLog(tmp_path, fraud, both)
        log.add(1e9, [{"shop": 7, "card_id": "c1"}, {"shop": -1, "card_id": "c2"}], [0.1, 0.2], "v1")
        assert log.flush() == 2
        (file,) = tmp_path.glob("predictions/fraud/dt=2001-09-09/*.parquet")
        rows = pl.read_parquet(file, hive_partitioning=False)
        assert dict(rows.schema) == prediction_columns(fraud)
        assert rows.rows() == [
            (datetime(2001, 9, 9, 1, 46, 40, tzinfo=UTC), "c1", 7, 0.1, "v1"),
            (datetime(2001, 9, 9, 1, 46, 40, tzinfo=UTC), "c2", -1, 0.2, "v1"),
        ]
        day = Period(datetime(2001, 9, 9, tzinfo=UTC), datetime(2001, 9, 10, tzinfo=UTC))
        log.add(1e9 + 1, [{"shop": 7, "card_id": "c2"}, {"shop": -1, "card_id": "c2"}], [0.3, 0.4], "v1")
        log.flush()
        assert last_scores(tmp_path, fraud, day, services=both).to_list() == [0.1, 0.4, 0.3]
        assert last_scores(tmp_path, purchase_prediction, day, services=both).is_empty()

    def test_a_full_disk_holds_them_up(self, tmp_path: Path) -> None:
        log = ScoreLog(tmp_path, purchase_prediction, catalog.services, most=3)
        before = metrics.scores_lost._value.get()  # noqa: SLF001
        (tmp_path / "predictions").write_text("in the way")
        log.add(1e9, ["a", "b"], [0.1, 0.2], "v1")
        assert log.flush() == 0
        log.add(1e9 + 86_400, ["c"], [0.3], "v1")
        log.add(1e9, ["d"], [0.4], "v2")
        assert metrics.scores_lost._value.get() - before == 2  # noqa: SLF001
        (tmp_path / "predictions").unlink()
        assert log.flush() == 2
        files = sorted(tmp_path.glob("predictions/dt=*/*.parquet"))
        assert [file.parent.name for file in files] == ["dt=2001-09-09", "dt=2001-09-10"]
        assert log.flush() == 0


class TestCommands:
    @pytest.mark.parametrize("ended_by", [signal.SIGTERM, signal.SIGINT])
    def test_ends_without_noise_and_with_all_of_its_access_log(
        self, store: FeatureStore, data_root: Path, tmp_path: Path, ended_by: signal.Signals
    ) -> None:
        del store, data_root
        log = tmp_path / "access.log"
        with log.open("w") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "serving", "--port", "0"],
                cwd=PROJECT_ROOT,
                env={**os.environ, "FEAST_REGISTRY_URL": ServingSettings().registry_url},
                stdout=output,
                stderr=subprocess.PIPE,
                text=True,
            )
        try:
            assert process.stderr is not None
            while "listening on " not in (line := process.stderr.readline()):
                assert line
            client = Client(line.rpartition("listening on ")[2].strip())
            assert client.predict("a").status == 200
            wait_for(lambda: log.read_text().endswith("\n"))  # while it runs
            assert client.predict("b").status == 200
            process.send_signal(ended_by)
            _, errors = process.communicate(timeout=60)
        finally:
            process.kill()
            process.communicate()
        assert (process.returncode, errors) == (0, "")
        assert [json.loads(line)["route"] for line in log.read_text().splitlines()] == ["/v1/predictions"] * 2

    def test_ten_thousand_connections_and_sigterm(self, store: FeatureStore, data_root: Path) -> None:
        import resource  # noqa: PLC0415

        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if hard < CONNECTIONS + 2_000:
            pytest.skip(f"this machine allows {hard} open files, and {CONNECTIONS} connections need more")
        del store, data_root
        process = subprocess.Popen(
            [sys.executable, "-m", "serving", "--port", "0"],
            cwd=PROJECT_ROOT,
            env={**os.environ, "FEAST_REGISTRY_URL": ServingSettings().registry_url},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            assert process.stderr is not None
            lines = []
            while "listening on " not in (line := process.stderr.readline()):
                lines.append(line)
                assert line, lines
            client = Client(line.rpartition("listening on ")[2].strip())
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
            request = b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n"
            connections = []
            for _ in range(CONNECTIONS):
                connections.append(connected(client))
                connections[-1].sendall(request)
            assert client.predict("a").status == 200
            for one in connections[:: CONNECTIONS // 100]:
                assert one.recv(200).startswith(b"HTTP/1.1 200 ")
            for one in connections:
                one.close()
            assert client.predict("b").status == 200
            process.send_signal(signal.SIGTERM)
            _, errors = process.communicate(timeout=60)
            assert process.returncode == 0, errors
            assert "Traceback" not in errors
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            process.kill()
            process.communicate()
        assert scores()["user_id"].to_list() == ["a", "b"]

    def test_predict(
        self, store: FeatureStore, redis: Redis, data_root: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        import json  # noqa: PLC0415

        del data_root
        push(store, USERS[:1], now_slide(), view_count=25)
        tell_progress(store, redis, now_slide())
        assert predict(["--users", *USERS[:2], "--json"]) == 0
        told = json.loads(capsys.readouterr().out)
        assert [one["user_id"] for one in told["predictions"]] == USERS[:2]
        assert told["predictions"][0]["views"][clicks.name]["status"] == "fresh"
        assert [name for name, _ in pairwise([*told["milliseconds"], ""])][-1] == "all"
        entities = [json.dumps({"user_id": user}) for user in USERS[:2]]
        assert predict(["--entities", *entities, "--json"]) == 0
        again = json.loads(capsys.readouterr().out)["predictions"]
        assert [one["entity"]["user_id"] for one in again] == USERS[:2]
        assert predict(["--users", *USERS[:2]]) == predict(["--entities", *entities]) == 0
        shown = capsys.readouterr().out
        assert "view_count" in shown
        assert "missing" in shown

    @pytest.mark.parametrize(
        ("arguments", "says"),
        [(["--users", "x" * 65], "no user id"), (["--users", "a"], "serving.train"), ([], "--users")],
    )
    def test_predict_refuses(
        self, store: FeatureStore, capsys: pytest.CaptureFixture[str], arguments: list[str], says: str
    ) -> None:
        del store
        with pytest.raises(SystemExit, match="2"):
            predict(arguments)
        assert says in capsys.readouterr().err

    @pytest.mark.parametrize("entity", ["{", "[1]", '{"user_id": 1}', '{"user_id": "a"}, {"shop": 1}'])
    def test_predict_refuses_what_is_no_entity(
        self, store: FeatureStore, data_root: Path, capsys: pytest.CaptureFixture[str], entity: str
    ) -> None:
        del store, data_root
        with pytest.raises(SystemExit, match="2"):
            predict(["--entities", entity])
        assert "no entities of 'purchase_prediction'" in capsys.readouterr().err

    def test_predict_without_redis(
        self, store: FeatureStore, data_root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        del store, data_root
        monkeypatch.setenv("REDIS_URL", "redis://127.0.0.1:1/0")
        with pytest.raises(SystemExit, match="75"):
            predict(["--users", "a"])
        assert "check REDIS_URL" in capsys.readouterr().err

    def test_a_taken_port_is_told(self, capsys: pytest.CaptureFixture[str]) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(SystemExit, match="2"):
            main(["--port", str(taken.getsockname()[1])])
        assert "name another with --host and --port" in capsys.readouterr().err
