from __future__ import annotations

import gc
import logging
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from threading import Barrier, Event
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import create_engine, inspect

from feast_repo.declare.batch_views import BatchFeature
from feast_repo.declare.catalog import Catalog
from feast_repo.features import user_click_features, user_profile_features
from feast_repo.settings import PROJECT_ROOT, StoreSettings
from feast_repo.stores import opening as store_module, registry
from feast_repo.stores.opening import (
    RegistryMismatchError,
    RegistryUnavailableError,
    despite_others,
    ensure_applied,
    open_store,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from feast import FeatureStore

    from feast_repo.declare.batch_views import BatchView
    from feast_repo.declare.views import WindowedView

PROCESSES = 4


@pytest.fixture(params=["sqlite", "postgresql"])
def registry_url(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """The address of an empty registry, also in the settings; SQLite's folder is not there yet."""
    url = f"sqlite:///{tmp_path / 'new' / 'registry.db'}"
    if request.param == "postgresql":
        url = request.getfixturevalue("postgres_url")
    monkeypatch.setenv("FEAST_REGISTRY_URL", url)
    return url


def declare(monkeypatch: pytest.MonkeyPatch, *views: WindowedView | BatchView) -> None:
    """Have other declarations than the registry."""
    monkeypatch.setattr(StoreSettings, "catalog", Catalog(views=views))


class TestNewRegistry:
    def test_gets_everything_and_says_so(
        self, registry_url: str, opened: Callable[[], FeatureStore], caplog: pytest.LogCaptureFixture
    ) -> None:
        del registry_url
        store = opened()
        with caplog.at_level(logging.INFO, "feast_repo"):
            ensure_applied(store)
        assert user_click_features.name in caplog.text
        assert {view.name for view in store.list_feature_views()} == {
            user_click_features.name,
            user_profile_features.name,
        }
        (service,) = store.list_feature_services()
        features = {feature.name for one in service.feature_view_projections for feature in one.features}
        assert features == user_click_features.features.keys() | user_profile_features.features.keys()
        view = opened().get_feature_view(user_click_features.name)
        assert view.ttl == user_click_features.ttl
        assert view.stream_source.name == user_click_features.push_source
        assert view.join_keys == ["user_id"]
        assert {field.name: str(field.dtype) for field in view.features} == user_click_features.value_types
        assert view.batch_source.path == str(StoreSettings().data_root / "features" / user_click_features.name)

    # What lost the race for the tables leaves its connection to the garbage collector.
    @pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
    def test_several_may_start_at_once(self, registry_url: str, opened: Callable[[], FeatureStore]) -> None:
        del registry_url
        start = Barrier(PROCESSES, timeout=60)

        def open_and_apply(_: int) -> FeatureStore:
            start.wait()
            store = opened()
            start.wait()
            ensure_applied(store)
            return store

        with ThreadPoolExecutor(PROCESSES) as threads:
            stores = list(threads.map(open_and_apply, range(PROCESSES)))
        for store in stores:
            assert len(store.list_feature_views()) == 2
            assert [one.name for one in store.list_feature_services()] == ["purchase_prediction"]
            assert "user" in {entity.name for entity in store.list_entities()}
        gc.collect()


class TestKnownRegistry:
    def test_stays_as_it_is(
        self, registry_url: str, opened: Callable[[], FeatureStore], caplog: pytest.LogCaptureFixture
    ) -> None:
        del registry_url
        ensure_applied(opened())
        caplog.clear()
        before = opened().list_feature_views()
        with caplog.at_level(logging.INFO, "feast_repo"):
            ensure_applied(store := opened())
        assert not [record for record in caplog.records if record.name.startswith("feast_repo")]
        assert [view.last_updated_timestamp for view in store.list_feature_views()] == [
            view.last_updated_timestamp for view in before
        ]

    def test_gets_what_it_lacks(self, store: FeatureStore) -> None:
        store.delete_feature_service("purchase_prediction")
        store.delete_feature_view(user_profile_features.name)
        ensure_applied(store)
        assert store.get_feature_view(user_profile_features.name).ttl == user_profile_features.ttl
        assert store.get_feature_service("purchase_prediction")

    @pytest.mark.parametrize(
        "change",
        [
            replace(user_profile_features, ttl=timedelta(days=1)),
            replace(user_profile_features, features={**user_profile_features.features, "x": BatchFeature("Int64")}),
            replace(user_profile_features, features={**user_profile_features.features, "age": BatchFeature("Float64")}),
        ],
        ids=["ttl", "feature", "type"],
    )
    def test_that_differs_is_refused(
        self, store: FeatureStore, monkeypatch: pytest.MonkeyPatch, change: BatchView
    ) -> None:
        declare(monkeypatch, user_click_features, change)
        with pytest.raises(RegistryMismatchError, match=r"user_profile_features differ.*`feast apply`") as error:
            ensure_applied(store)
        assert user_click_features.name not in str(error.value)
        assert store.get_feature_view(user_profile_features.name).ttl == user_profile_features.ttl

    def test_with_another_push_source_is_refused(self, store: FeatureStore, monkeypatch: pytest.MonkeyPatch) -> None:
        declare(monkeypatch, replace(user_click_features, push_source="other"))
        with pytest.raises(RegistryMismatchError, match="user_click_features differ"):
            ensure_applied(store)

    def test_of_another_data_root_is_refused(
        self, store: FeatureStore, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.setenv("DATA_ROOT", str(tmp_path))
        with pytest.raises(RegistryMismatchError, match="another DATA_ROOT"):
            ensure_applied(store)


class TestAddress:
    def engine_file(self) -> Path:
        registry.install()
        engine = create_engine(f"sqlite://?plugin={registry.PLUGIN}")
        try:
            return Path(str(engine.url.database))
        finally:
            engine.dispose()

    def test_is_below_data_root_by_default(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setenv("DATA_ROOT", str(tmp_path / "a" / "b"))
        assert self.engine_file() == tmp_path / "a" / "b" / "registry.db"
        assert (tmp_path / "a" / "b").is_dir()

    def test_a_relative_file_is_the_same_from_every_folder(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.setenv("FEAST_REGISTRY_URL", "sqlite:///feast_repo/relative.db")
        monkeypatch.chdir(tmp_path)
        assert self.engine_file() == PROJECT_ROOT / "feast_repo" / "relative.db"
        assert not self.engine_file().exists()

    def test_a_database_in_memory_stays_there(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("FEAST_REGISTRY_URL", "sqlite:///:memory:")
        assert self.engine_file() == Path(":memory:")

    def test_the_registry_is_where_the_settings_say(
        self, registry_url: str, opened: Callable[[], FeatureStore]
    ) -> None:
        ensure_applied(opened())
        engine = create_engine(registry_url.replace("postgresql:", "postgresql+psycopg:"))
        assert inspect(engine).has_table("feature_views")
        engine.dispose()


def test_a_database_that_is_frozen_is_told_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=64) as server:  # takes connections, and says nothing
        monkeypatch.setenv("FEAST_REGISTRY_URL", f"postgresql://someone@127.0.0.1:{server.getsockname()[1]}/registry")
        start = time.monotonic()
        with pytest.raises(RegistryUnavailableError, match="does not answer"):
            open_store()
        assert time.monotonic() - start < 10


def test_a_database_that_freezes_later_is_told_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "ANSWER_WITHIN_S", 0.1)
    frozen = Event()
    with pytest.raises(RegistryUnavailableError, match="no answer within"):
        despite_others(frozen.wait)
    frozen.set()


def test_a_database_that_is_away_is_told_in_one_line_without_the_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEAST_REGISTRY_URL", "postgresql://feast:secret@127.0.0.1:1/feast")
    with pytest.raises(RegistryUnavailableError, match="FEAST_REGISTRY_URL") as error:
        ensure_applied(open_store())
    assert "secret" not in str(error.value)
    assert "\n" not in str(error.value)
