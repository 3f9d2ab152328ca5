"""The reader gives what `get_online_features` gives, and tells how far it can be trusted."""

from __future__ import annotations

import asyncio
import sqlite3
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pandas as pd
import pytest
from feast import FeatureService, FeatureStore, FeatureView, Field, FileSource
from feast.repo_config import RepoConfig
from feast.types import Array, Bool, Bytes, Float32, Float64, Int32, Int64, String, UnixTimestamp

from feast_repo.clickstream import clickstream
from feast_repo.declare.freshness import MARGIN
from feast_repo.feast_objects import all_objects
from feast_repo.features import catalog, user_click_features as clicks, user_profile_features as profiles
from feast_repo.stores.offline.tables import progress_folder
from feast_repo.stores.progress import Progress, ProgressRecord
from serving.errors import OnlineStoreError
from serving.reader import FeastReader, RedisReader, open_reader
from serving.schema import SchemaError, read_schema
from serving.settings import ServingSettings
from tests.serving.conftest import USERS, now_slide, push, tell_progress, write_profiles

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from redis import Redis

    from serving.reader import Reader

NOW = datetime.now(UTC).replace(microsecond=0)
VALUES: dict[str, tuple[Any, list[Any]]] = {
    "int32": (Int32, [1, -(1 << 31), (1 << 31) - 1]),
    "int64": (Int64, [1 << 40, -1, (1 << 63) - 1]),
    "float32": (Float32, [0.1, -0.0, 3e38]),
    "float64": (Float64, [0.1, float("inf"), 5e-324]),
    "string": (String, ["", "ü€😀", "x" * 300]),
    "bool": (Bool, [True, False, True]),
    "bytes": (Bytes, [b"\x00\xff", b"", b"a" * 200]),
    "time": (UnixTimestamp, [NOW, NOW, NOW - timedelta(days=9000)]),
    "integers": (Array(Int64), [[1, -2], [3], [1 << 40]]),
    "strings": (Array(String), [["a", "ü"], ["b"], ["c"]]),
}


@pytest.fixture
def reader(store: FeatureStore) -> Reader:
    return open_reader(store, ServingSettings())


def read_both_ways(reader: Reader, users: list[str]) -> list[dict[str, dict[str, Any]]]:
    async def read() -> Any:
        try:
            return await reader.read_async(users)
        finally:
            await reader.close()

    rows = reader.read(users)
    again = asyncio.run(read())
    assert [row.user_id for row in rows] == [row.user_id for row in again] == users
    values = [{name: one.features for name, one in row.views.items()} for row in rows]
    assert values == [{name: one.features for name, one in row.views.items()} for row in again]
    return values


def test_equals_feast_for_every_type(store: FeatureStore, tmp_path: Path) -> None:
    entity = store.get_entity("user")
    source = FileSource(name="anywhere", path=str(tmp_path / "none.parquet"), timestamp_field="event_timestamp")
    fields = [Field(name=name, dtype=feast_type) for name, (feast_type, _) in VALUES.items()]
    view = FeatureView(name="all_types", entities=[entity], ttl=timedelta(days=1), schema=fields, source=source)
    store.apply([view, FeatureService(name="everything", features=[view, store.get_feature_view(profiles.name)])])
    store.refresh_registry()
    users = ["a", "ü😀", "c" * 64]
    frame = pd.DataFrame({"user_id": users, **{name: values for name, (_, values) in VALUES.items()}})
    store.write_to_online_store("all_types", frame.assign(event_timestamp=NOW, created_timestamp=NOW))
    write_profiles(store, users[:1], NOW)

    schema = read_schema(store, "everything", [])
    settings = ServingSettings()
    reader = RedisReader(schema, store.config.entity_key_serialization_version, settings.redis_url, 5)
    asked = [*users, "nobody"]
    theirs = store.get_online_features(store.get_feature_service("everything"), [{"user_id": one} for one in asked])
    expected = theirs.to_dict()
    ours = read_both_ways(reader, asked)
    for number, row in enumerate(ours):
        assert {**row["all_types"], **row[profiles.name]} == {
            name: values[number] for name, values in expected.items() if name != "user_id"
        }
    assert ours[0]["all_types"]["int64"] == 1 << 40
    assert set(ours[3]["all_types"].values()) == {None}


def test_equals_feast_for_the_declared_views(store: FeatureStore, reader: Reader) -> None:
    push(store, USERS[:3], now_slide(), view_count=20_000, cart_rate=1 / 3)
    write_profiles(store, USERS[1:], NOW, country="é")
    expected = store.get_online_features(
        store.get_feature_service("purchase_prediction"), [{"user_id": user} for user in USERS]
    ).to_dict()
    for number, row in enumerate(read_both_ways(reader, USERS)):
        ours = row[clicks.name] | row[profiles.name]
        theirs = {name: values[number] for name, values in expected.items() if name != "user_id"}
        if number > 2:  # Feast knows no defaults
            assert all(theirs[name] is None for name in clicks.features)
            theirs |= clicks.defaults
        assert ours == theirs


class TestStatus:
    def statuses(self, reader: Reader) -> dict[str, tuple[str, dict[str, Any]]]:
        (row,) = reader.read(USERS[:1])
        return {name: (one.status, one.features) for name, one in row.views.items()}

    def test_missing_has_the_declared_defaults_and_no_age(self, reader: Reader) -> None:
        (row,) = reader.read(["nobody"])
        assert {name: (one.status, one.age_seconds) for name, one in row.views.items()} == {
            clicks.name: ("missing", None),
            profiles.name: ("missing", None),
        }
        assert row.views[clicks.name].features == clicks.defaults
        assert row.views[profiles.name].features == profiles.defaults

    def test_fresh(self, store: FeatureStore, redis: Redis, reader: Reader) -> None:
        push(store, USERS, now_slide(), view_count=7)
        tell_progress(store, redis, now_slide(), None)
        (row,) = reader.read(USERS[:1])
        read = row.views[clicks.name]
        assert (read.status, read.features["view_count"]) == ("fresh", 7)
        age = (datetime.now(UTC) - now_slide()).total_seconds()
        assert read.age_seconds == pytest.approx(age, abs=5)
        assert read.stream_lag_seconds == pytest.approx(age, abs=5)
        assert row.views[profiles.name].stream_lag_seconds is None

    def test_stale_when_one_partition_is_behind(self, store: FeatureStore, redis: Redis, reader: Reader) -> None:
        limit = clicks.least_freshness + MARGIN
        push(store, USERS, now_slide(), view_count=7)
        tell_progress(store, redis, now_slide(), datetime.now(UTC) - limit - timedelta(seconds=30))
        status, features = self.statuses(reader)[clicks.name]
        assert (status, features["view_count"]) == ("stale", 7)

    def test_not_stale_within_slide_lateness_and_margin(
        self, store: FeatureStore, redis: Redis, reader: Reader
    ) -> None:
        limit = clicks.least_freshness + MARGIN
        push(store, USERS, now_slide())
        tell_progress(store, redis, datetime.now(UTC) - limit + timedelta(seconds=30))
        assert self.statuses(reader)[clicks.name][0] == "fresh"

    def test_stale_when_nothing_is_known_of_the_stream(self, store: FeatureStore, reader: Reader) -> None:
        push(store, USERS, now_slide())
        assert self.statuses(reader)[clicks.name][0] == "stale"

    @pytest.mark.parametrize(("beyond", "status"), [(-60, "fresh"), (60, "expired")])
    def test_expires_at_the_ttl(
        self, store: FeatureStore, redis: Redis, reader: Reader, beyond: int, status: str
    ) -> None:
        tell_progress(store, redis, now_slide())
        push(store, USERS, datetime.now(UTC) - clicks.ttl - timedelta(seconds=beyond), view_count=7)
        write_profiles(store, USERS, datetime.now(UTC) - profiles.ttl - timedelta(seconds=beyond))
        found = self.statuses(reader)
        assert found[clicks.name] == (status, clicks.defaults | ({"view_count": 7} if status == "fresh" else {}))
        assert found[profiles.name][0] == status
        assert found[profiles.name][1]["country"] == (None if status == "expired" else "DE")


def test_many_users_keep_their_order(store: FeatureStore, reader: Reader) -> None:
    users = [f"user_{number:06d}" for number in range(1_000)]
    push(store, users[::2], now_slide(), view_count=1)
    asked = [*reversed(users), users[0], users[0]]
    assert [row[clicks.name]["view_count"] for row in read_both_ways(reader, asked)] == [
        1 - int(user[-1]) % 2 for user in asked
    ]


def test_redis_away_is_told(monkeypatch: pytest.MonkeyPatch, store: FeatureStore) -> None:
    monkeypatch.setenv("REDIS_URL", "redis://127.0.0.1:1/0")
    reader = open_reader(store, ServingSettings())
    with pytest.raises(OnlineStoreError):
        reader.read(USERS)
    with pytest.raises(OnlineStoreError):
        asyncio.run(reader.read_async(USERS))


def test_a_registry_without_the_service_is_told(store: FeatureStore) -> None:
    with pytest.raises(SchemaError, match="feast apply"):
        read_schema(store, "another", [])


@pytest.fixture
def sqlite_store(tmp_path: Path) -> Iterator[FeatureStore]:
    config = RepoConfig(
        project="other",
        provider="local",
        registry={"registry_type": "sql", "path": f"sqlite:///{tmp_path / 'other.db'}", "cache_mode": "sync"},
        online_store={"type": "sqlite", "path": str(tmp_path / "online.db")},
        offline_store={"type": "feast_repo.offline_store.PartitionedParquetOfflineStore"},
        entity_key_serialization_version=3,
    )
    store = FeatureStore(config=config)
    store.apply(all_objects(catalog))
    yield store
    store.registry.write_engine.dispose()


def test_another_online_store_is_read_by_feast_with_the_same_answers(sqlite_store: FeatureStore) -> None:
    settings = ServingSettings()
    push(sqlite_store, USERS[:2], now_slide(), view_count=7)
    write_profiles(sqlite_store, USERS[:1], datetime.now(UTC) - profiles.ttl - timedelta(days=1))
    end = round(now_slide().timestamp() * 1000)
    ProgressRecord(progress_folder(settings.data_root, clickstream)).save(Progress("topic", 0, 1, end))
    reader = open_reader(sqlite_store, settings)
    assert isinstance(reader, FeastReader)
    first, second, third = reader.read(USERS[:3])
    assert first.views[clicks.name].features == clicks.defaults | {"view_count": 7}
    assert [row.views[clicks.name].status for row in (first, second, third)] == ["fresh", "fresh", "missing"]
    assert [row.views[profiles.name].status for row in (first, second, third)] == ["expired", "missing", "missing"]
    assert [row.user_id for row in asyncio.run(reader.read_async(USERS))] == USERS


def test_another_online_store_that_fails_is_told(sqlite_store: FeatureStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SERVING_TIMEOUT_SECONDS", "0.2")
    reader = open_reader(sqlite_store, ServingSettings())
    assert reader.read(USERS)
    lock = sqlite3.connect(sqlite_store.config.online_store.path)
    lock.execute("BEGIN EXCLUSIVE")
    try:
        with pytest.raises(OnlineStoreError, match="not answer in"):  # SQLite itself waits for seconds
            asyncio.run(reader.read_async(USERS))
    finally:
        lock.close()
    sqlite_store.teardown()
    with pytest.raises(OnlineStoreError):
        reader.read(USERS)
