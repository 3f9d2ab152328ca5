from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest
from feast import Entity, FeatureService, FeatureStore, FeatureView, Field, FileSource, PushSource, ValueType
from feast.data_source import PushMode
from feast.infra.online_stores import redis as feast_redis
from feast.repo_config import RepoConfig
from feast.types import Array, Bool, Float32, Float64, Int32, Int64, String, UnixTimestamp
from redis import ConnectionError as RedisConnectionError, Redis, ResponseError, TimeoutError as RedisTimeoutError

from feast_repo.declare.events import UTC_MICROSECONDS
from feast_repo.declare.rows import SERVED
from feast_repo.declare.stored import offline_columns
from feast_repo.feast_objects import all_objects
from feast_repo.features import catalog, user_click_features, user_profile_features
from feast_repo.settings import StoreSettings
from feast_repo.stores.offline.store import PartitionedParquetOfflineStoreConfig
from feast_repo.stores.offline.tables import features_folder
from feast_repo.stores.online.store import RedisUrlOnlineStoreConfig
from feast_repo.stores.opening import ensure_applied
from feast_repo.stores.push import Pusher
from tests.feast_repo.rows import NEW_YEAR, PUSH_SOURCE, clicks, everything, milliseconds

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

MICROSECOND = timedelta(microseconds=1)
SERVED_AT = NEW_YEAR + timedelta(days=1)
USERS = ["user_000001", "user_000002", "ü€😀 % $6\r\n", "", "x" * 1_000]

COLUMNS: dict[str, tuple[Any, Any, list[Any]]] = {
    "int64": (Int64, pl.Int64, [0, 1, 16_384, -1, 2**53]),
    "int32": (Int32, pl.Int32, [0, 1, 16_384, -1, 2**31 - 1]),
    "bool": (Bool, pl.Boolean, [True, False, True, False, True]),
    "float64": (Float64, pl.Float64, [0.0, -0.0, 0.1, 1e300, float("nan")]),
    "float32": (Float32, pl.Float32, [0.0, -0.0, 0.1, 1e30, float("nan")]),
    "string": (String, pl.String, ["", "free", "ü€😀", "x" * 1_000, "%d\r\n"]),
    "int64s": (Array(Int64), pl.List(pl.Int64), [[], [1], [-1, 16_384], [2**63 - 1, -(2**63)], [0] * 300]),
    "strings": (Array(String), pl.List(pl.String), [["", "ü€😀"], [""], ["x" * 1_000, "b"], [], ["%d\r\n"] * 300]),
}


def click_count(store: FeatureStore, user: str) -> object:
    online = store.get_online_features(["user_click_features:click_count"], [{"user_id": user}])
    return online.to_dict()["click_count"][0]


KEYS: dict[str, tuple[Any, ValueType, list[Any]]] = {
    "user_id": (String, ValueType.STRING, USERS),
    "a_shop": (Int64, ValueType.INT64, [0, -1, 2**63 - 1, -(2**63), 300]),
    "z_city": (String, ValueType.STRING, ["", "Z\x00", "é", "x" * 300, "b"]),
}


def view_of_types(store: FeatureStore, folder: Path, types: dict[str, Any], keys: Sequence[str] = ("user_id",)) -> None:
    source = FileSource(
        name="types_file",
        path=str(folder),
        timestamp_field="event_timestamp",
        created_timestamp_column="created_timestamp",
    )
    entities = [Entity(name=f"entity_{key}", join_keys=[key], value_type=KEYS[key][1]) for key in keys]
    fields = [Field(name=name, dtype=dtype) for name, dtype in ({key: KEYS[key][0] for key in keys} | types).items()]
    push_source = PushSource(name="types_push", batch_source=source)
    store.apply([*entities, FeatureView(name="types", entities=entities, schema=fields, source=push_source)])
    store.refresh_registry()


def rows_of_types(nulls: bool) -> pl.DataFrame:  # noqa: FBT001  (a test parameter)
    columns = {
        name: pl.Series([None if nulls and row % 2 else value for row, value in enumerate(values)], dtype=dtype)
        for name, (_, dtype, values) in COLUMNS.items()
    }
    times = [NEW_YEAR, NEW_YEAR + MICROSECOND, NEW_YEAR + timedelta(seconds=0.5), NEW_YEAR, NEW_YEAR]
    keys = {name: values for name, (_, _, values) in KEYS.items()}
    return pl.DataFrame({**keys, "event_timestamp": times, "created_timestamp": times, **columns}).cast(
        {"event_timestamp": UTC_MICROSECONDS, "created_timestamp": UTC_MICROSECONDS}
    )


@pytest.fixture
def other_store(tmp_path: Path, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> Callable[..., FeatureStore]:
    """Makes a store that holds the declared views and is configured otherwise than ours."""
    monkeypatch.setenv("REDIS_URL", redis_url)

    def make(**config: Any) -> FeatureStore:
        store = FeatureStore(
            config=RepoConfig(
                project="ml_feature_store",
                provider="local",
                entity_key_serialization_version=3,
                registry={"registry_type": "sql", "path": f"sqlite:///{tmp_path / 'other.db'}"},
                **{"offline_store": PartitionedParquetOfflineStoreConfig(), **config},
            )
        )
        store.apply(all_objects(catalog))
        return store

    return make


class TestOnline:
    @pytest.mark.parametrize("nulls", [False, True])
    @pytest.mark.parametrize("keys", [*([key] for key in KEYS), list(KEYS), list(KEYS)[::-1], ["a_shop", "user_id"]])
    def test_is_byte_equal_to_feasts_push(
        self,
        store: FeatureStore,
        redis: Redis,
        tmp_path: Path,
        keys: list[str],
        nulls: bool,  # noqa: FBT001
    ) -> None:
        types = {name: feast_type for name, (feast_type, _, _) in COLUMNS.items()}
        view_of_types(store, tmp_path, types, keys)
        rows = rows_of_types(nulls)
        store.push("types_push", rows.to_pandas(), to=PushMode.ONLINE)
        theirs = everything(redis)
        redis.flushdb()
        pusher = Pusher(store, "types_push")
        assert pusher.redis is not None, "it fell back"
        assert pusher.push_online(rows) == len(USERS)
        assert everything(redis) == theirs
        assert len(theirs) == len(USERS)

    def test_is_byte_equal_for_the_declared_view(self, store: FeatureStore, redis: Redis) -> None:
        rows = clicks(USERS)
        store.push(PUSH_SOURCE, rows.to_pandas(), to=PushMode.ONLINE)
        theirs = everything(redis)
        redis.flushdb()
        assert Pusher(store, PUSH_SOURCE).push_online(rows) == len(USERS)
        assert everything(redis) == theirs

    def test_adds_to_what_other_views_hold(self, store: FeatureStore, redis: Redis) -> None:
        profile = {"user_id": ["user_000001"], "age": [33], "country": ["DE"], "subscription_tier": ["free"]}
        times = {"event_timestamp": [NEW_YEAR], "created_timestamp": [NEW_YEAR], "activity_weight": [1.5]}
        store.write_to_online_store(user_profile_features.name, pl.DataFrame(profile | times).to_pandas())
        before = everything(redis)
        Pusher(store, PUSH_SOURCE).push_online(clicks(["user_000001"]))
        (key,) = before
        assert before[key].items() < everything(redis)[key].items()

    def test_can_be_read_through_feast(self, store: FeatureStore) -> None:
        users = [f"user_{number:06d}" for number in range(9_000)]  # five payloads
        assert Pusher(store, PUSH_SOURCE).push_online(clicks(users)) == len(users)
        online = store.get_online_features(
            ["user_click_features:click_count", "user_click_features:cart_rate"],
            [{"user_id": user} for user in (users[0], users[4_321], users[-1], "nobody")],
        ).to_dict()
        assert online["click_count"] == [0, 4_321, 8_999, None]
        assert online["cart_rate"] == [0.25, 0.25, 0.25, None]

    def test_an_empty_frame_writes_nothing(self, store: FeatureStore, redis: Redis) -> None:
        assert Pusher(store, PUSH_SOURCE).push_online(clicks([])) == 0
        assert everything(redis) == {}

    def test_two_views_of_one_source_both_get_their_rows(self, store: FeatureStore, redis: Redis) -> None:
        source = PushSource(
            name=PUSH_SOURCE, batch_source=FileSource(name="f", path="f", timestamp_field="event_timestamp")
        )
        entity = store.get_entity("user")
        fields = [Field(name="user_id", dtype=String), Field(name="click_count", dtype=Int64)]
        store.apply([FeatureView(name="second", entities=[entity], schema=fields, source=source)])
        store.refresh_registry()
        assert Pusher(store, PUSH_SOURCE).push_online(clicks(["user_000001"])) == 2
        (row,) = everything(redis).values()
        assert {b"_ts:second", b"_ts:user_click_features"} < row.keys()

    def test_rows_without_entity_or_time_are_refused(self, store: FeatureStore, redis: Redis) -> None:
        pusher = Pusher(store, PUSH_SOURCE)
        rows = clicks(["user_000001", "user_000002"])
        for name in ("user_id", "event_timestamp"):
            first = pl.int_range(pl.len()) == 0
            with pytest.raises(ValueError, match=f"1 of 2 rows .*have no {name}"):
                pusher.push_online(rows.with_columns(pl.when(first).then(name).alias(name)))
        assert everything(redis) == {}

    def test_nothing_is_written_if_a_row_lacks_one_of_its_keys(
        self, store: FeatureStore, redis: Redis, tmp_path: Path
    ) -> None:
        view_of_types(store, tmp_path, {"int64": Int64}, list(KEYS))
        pusher, rows = Pusher(store, "types_push"), rows_of_types(nulls=False)
        first = pl.int_range(pl.len()) == 0
        for name in KEYS:
            with pytest.raises(ValueError, match=f"1 of 5 rows .*have no {name}"):
                pusher.push_online(rows.with_columns(pl.when(~first).then(name).alias(name)))
        assert everything(redis) == {}

    def test_an_unknown_push_source_is_named(self, store: FeatureStore) -> None:
        with pytest.raises(LookupError, match=r"'nothing'.*feast apply"):
            Pusher(store, "nothing")


class TestGuard:
    @pytest.mark.parametrize("stored", [NEW_YEAR, NEW_YEAR + MICROSECOND, datetime(1999, 1, 1, tzinfo=UTC)])
    def test_only_a_newer_row_is_written(self, store: FeatureStore, redis: Redis, stored: datetime) -> None:
        pusher = Pusher(store, PUSH_SOURCE)
        assert pusher.push_online(clicks(["user_000001"], stored, click_count=1)) == 1
        before = everything(redis)
        for time in (stored, stored - MICROSECOND, stored - timedelta(days=1)):
            assert pusher.push_online(clicks(["user_000001"], time, click_count=2)) == 0
        assert everything(redis) == before
        # A correction of the same window.
        assert pusher.push_online(clicks(["user_000001"], stored + MICROSECOND, click_count=3)) == 1
        assert click_count(store, "user_000001") == 3

    def test_each_row_is_judged_alone(self, store: FeatureStore) -> None:
        pusher = Pusher(store, PUSH_SOURCE)
        pusher.push_online(clicks(["old"], NEW_YEAR - timedelta(hours=1), click_count=1))
        pusher.push_online(clicks(["new"], NEW_YEAR + timedelta(hours=1), click_count=1))
        assert pusher.push_online(clicks(["new", "old", "unknown"], click_count=2)) == 2
        assert [click_count(store, user) for user in ("old", "new", "unknown")] == [2, 1, 2]

    @pytest.mark.parametrize("order", [[0, 1, 2], [2, 1, 0], [1, 2, 0]])
    def test_of_two_rows_of_a_user_the_newest_counts(self, store: FeatureStore, order: list[int]) -> None:
        slide = timedelta(minutes=10)
        rows = [clicks(["user_000001"], NEW_YEAR + number * slide, click_count=number) for number in order]
        assert Pusher(store, PUSH_SOURCE).push_online(pl.concat([*rows, clicks(["other"])])) == 2
        assert click_count(store, "user_000001") == 2

    def test_of_two_rows_with_one_time_the_first_counts_as_in_feast(self, store: FeatureStore, redis: Redis) -> None:
        rows = pl.concat([clicks(["user_000001"], click_count=number) for number in (1, 2)])
        store.push(PUSH_SOURCE, rows.to_pandas(), to=PushMode.ONLINE)
        theirs = everything(redis)
        redis.flushdb()
        assert Pusher(store, PUSH_SOURCE).push_online(rows) == 1
        assert everything(redis) == theirs


class TestFailures:
    def test_a_server_that_is_away_raises(
        self, store: FeatureStore, opened: Callable[[], FeatureStore], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        del store
        monkeypatch.setenv("REDIS_URL", "redis://127.0.0.1:1/0")
        with pytest.raises(RedisConnectionError):
            Pusher(opened(), PUSH_SOURCE).push_online(clicks(["user_000001"]))

    def test_after_an_error_reply_the_next_push_works(self, store: FeatureStore, redis: Redis) -> None:
        pusher = Pusher(store, PUSH_SOURCE)
        pusher.push_online(clicks(["broken"]))
        (key,) = everything(redis)
        redis.set(key, "a key that holds no hash")
        users = ["a", "broken", *(f"user_{number}" for number in range(100))]
        with pytest.raises(ResponseError, match="WRONGTYPE"):
            pusher.push_online(clicks(users))
        redis.delete(key)
        assert pusher.push_online(clicks(users)) == len(users)
        assert click_count(store, "user_99") == 101

    def test_a_server_that_is_too_slow_raises_and_its_late_replies_are_nobodys(
        self,
        store: FeatureStore,
        opened: Callable[[], FeatureStore],
        redis: Redis,
        redis_url: str,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setenv("REDIS_URL", f"{redis_url}?socket_timeout=0.3")
        pusher = Pusher(opened(), PUSH_SOURCE)
        assert pusher.push_online(clicks(["a"])) == 1  # connected
        redis.client_pause(60_000, all=False)  # only writes wait
        with pytest.raises(RedisTimeoutError):
            pusher.push_online(clicks(["a", "b"]))
        redis.client_unpause()
        assert pusher.push_online(clicks(["a", "b", "c"])) in {1, 2}  # Redis may have got to "b" after all
        assert [click_count(store, user) for user in "abc"] == [0, 1, 2]

    def test_a_connection_that_the_server_closed_is_replaced(self, store: FeatureStore, redis: Redis) -> None:
        pusher = Pusher(store, PUSH_SOURCE)
        pusher.push_online(clicks(["a"]))
        redis.client_kill_filter(_type="normal", skipme=True)
        assert pusher.push_online(clicks(["b"])) == 1


class TestFallback:
    def test_another_online_store_gets_feasts_push(
        self, other_store: Callable[..., FeatureStore], tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        store = other_store(online_store={"type": "sqlite", "path": str(tmp_path / "online.db")})
        with caplog.at_level(logging.WARNING, "feast_repo"):
            pusher = Pusher(store, PUSH_SOURCE)
        (warning,) = [record.getMessage() for record in caplog.records if record.name == "feast_repo.stores.push"]
        assert "'sqlite'" in warning
        assert pusher.redis is None
        assert pusher.push_online(clicks([])) == 0
        newer = clicks(["user_000001"], NEW_YEAR + timedelta(hours=1), click_count=7)
        assert pusher.push_online(pl.concat([newer, clicks(["user_000001", "user_000002"])])) == 2
        online = store.get_online_features(
            ["user_click_features:click_count"], [{"user_id": "user_000001"}, {"user_id": "user_000002"}]
        )
        assert online.to_dict()["click_count"] == [7, 1]

    def test_expiring_keys_get_feasts_push(
        self, other_store: Callable[..., FeatureStore], redis: Redis, caplog: pytest.LogCaptureFixture
    ) -> None:
        store = other_store(online_store=RedisUrlOnlineStoreConfig(key_ttl_seconds=1_000))
        assert Pusher(store, PUSH_SOURCE).push_online(clicks(["user_000001"])) == 1
        assert "key_ttl_seconds" in caplog.text
        (key,) = everything(redis)
        assert redis.execute_command("TTL", key) > 0

    def test_precomputed_services_get_feasts_push(self, store: FeatureStore, caplog: pytest.LogCaptureFixture) -> None:
        view = store.get_feature_view(user_click_features.name)
        store.apply([FeatureService(name="precomputed", features=[view], precompute_online=True)])
        assert Pusher(store, PUSH_SOURCE).redis is None
        assert "precompute_online" in caplog.text

    def test_keys_of_another_type_get_feasts_push(
        self,
        store: FeatureStore,
        redis: Redis,
        tmp_path: Path,
        caplog: pytest.LogCaptureFixture,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setitem(KEYS, "code", (Int32, ValueType.INT32, [1]))
        view_of_types(store, tmp_path, {"click_count": Int64}, ["user_id", "code"])
        rows = clicks(["user_000001"]).with_columns(code=pl.lit(7, pl.Int32))
        assert Pusher(store, "types_push").push_online(rows) == 1
        assert "join keys {'user_id': 'String', 'code': 'Int32'}" in caplog.text
        assert len(everything(redis)) == 1

    def test_another_type_gets_feasts_push(
        self, store: FeatureStore, redis: Redis, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        view_of_types(store, tmp_path, {"at": UnixTimestamp})
        rows = clicks(["user_000001"]).select("user_id", "event_timestamp", "created_timestamp", at="event_timestamp")
        assert Pusher(store, "types_push").push_online(rows) == 1
        assert "UnixTimestamp" in caplog.text
        assert len(everything(redis)) == 1

    def test_a_feast_that_writes_other_bytes_gets_its_own_push(
        self, store: FeatureStore, redis: Redis, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        monkeypatch.setattr(feast_redis, "_mmh3", str.encode)
        assert Pusher(store, PUSH_SOURCE).push_online(clicks(["user_000001"])) == 1
        assert "bytes that the installed Feast writes" in caplog.text
        (row,) = everything(redis).values()
        assert b"user_click_features:click_count" in row

    def test_a_feast_that_writes_in_another_way_gets_its_own_push(
        self, store: FeatureStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        monkeypatch.delattr(feast_redis, "_mmh3")
        assert Pusher(store, PUSH_SOURCE).redis is None
        assert "NameError" in caplog.text


class TestOffline:
    def folder(self, day: str = "2026-01-01") -> Path:
        return features_folder(StoreSettings().data_root, user_click_features.name) / f"dt={day}"

    def test_a_window_is_one_file_named_after_it(self, store: FeatureStore) -> None:
        pusher = Pusher(store, PUSH_SOURCE)
        end = NEW_YEAR + timedelta(hours=9, minutes=10)
        rows = clicks(USERS, end)
        pusher.push_offline(rows, writer="stream", partition=7, window_end_ms=milliseconds(end), served=SERVED_AT)
        (file,) = self.folder().iterdir()
        assert file.name == "stream-p00007-20260101T091000Z.parquet"
        stored = pl.read_parquet(file, hive_partitioning=False)
        assert dict(stored.schema) == offline_columns(user_click_features)
        assert stored.drop("writer", SERVED).equals(rows)
        assert stored[SERVED].unique().to_list() == [SERVED_AT]
        assert stored["writer"].unique().to_list() == ["stream"]

    def test_a_window_that_ends_at_midnight_belongs_to_the_new_day(self, store: FeatureStore) -> None:
        rows = clicks(["user_000001"], NEW_YEAR)
        Pusher(store, PUSH_SOURCE).push_offline(
            rows, writer="stream", partition=0, window_end_ms=milliseconds(NEW_YEAR), served=SERVED_AT
        )
        assert [file.name for file in self.folder().iterdir()] == ["stream-p00000-20260101T000000Z.parquet"]

    def test_a_replay_overwrites_its_file_with_the_same(self, store: FeatureStore) -> None:
        pusher = Pusher(store, PUSH_SOURCE)
        contents = []
        for _ in range(2):
            for partition in range(2):
                pusher.push_offline(
                    clicks(USERS),
                    writer="stream",
                    partition=partition,
                    window_end_ms=milliseconds(NEW_YEAR),
                    served=SERVED_AT,
                )
            contents.append({file.name: file.read_bytes() for file in self.folder().iterdir()})
        assert contents[0] == contents[1]
        assert len(contents[0]) == 2

    def test_an_empty_frame_writes_nothing(self, store: FeatureStore) -> None:
        Pusher(store, PUSH_SOURCE).push_offline(
            clicks([]), writer="stream", partition=0, window_end_ms=milliseconds(NEW_YEAR), served=SERVED_AT
        )
        assert not self.folder().exists()

    def test_another_offline_store_gets_feasts_push(
        self, other_store: Callable[..., FeatureStore], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        file = tmp_path / "features" / user_click_features.name  # where this store's source is, as one file
        file.parent.mkdir()
        clicks(["user_000001"]).with_columns(writer=pl.lit("stream")).select(
            name for name in offline_columns(user_click_features) if name != SERVED
        ).write_parquet(file)
        monkeypatch.setenv("DATA_ROOT", str(tmp_path))
        store = other_store(offline_store={"type": "file"}, online_store=RedisUrlOnlineStoreConfig())
        Pusher(store, PUSH_SOURCE).push_offline(
            clicks(["user_000002"]),
            writer="stream",
            partition=0,
            window_end_ms=milliseconds(NEW_YEAR),
            served=SERVED_AT,
        )
        assert sorted(pl.read_parquet(file)["user_id"]) == ["user_000001", "user_000002"]


def test_applied_views_stay_as_they_are_when_a_pusher_opens(store: FeatureStore) -> None:
    before = [view.last_updated_timestamp for view in store.list_feature_views()]
    Pusher(store, PUSH_SOURCE)
    ensure_applied(store)
    assert [view.last_updated_timestamp for view in store.list_feature_views()] == before
