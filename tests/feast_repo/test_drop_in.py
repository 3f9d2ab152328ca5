"""What a Feast repository of somebody else needs from our stores, beyond what the differential tests compare."""

from __future__ import annotations

import asyncio
import json
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import polars as pl
import pytest
from feast import Entity, FeatureStore, FeatureView, Field, FileSource, PushSource, RepoConfig, ValueType
from feast.data_source import PushMode
from feast.infra.offline_stores.file_source import SavedDatasetFileStorage
from feast.infra.online_stores.helpers import _mmh3
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Value
from feast.types import Float32, Int64, String
from redis import Redis

from feast_repo.stores.offline.source_columns import COLUMNS_TAG, FORMER_TAG, is_ours, stored_columns
from feast_repo.stores.offline.store import PartitionedParquetOfflineStore
from tests.feast_repo.rows import NEW_YEAR, everything

if TYPE_CHECKING:
    from collections.abc import Callable

HOUR = timedelta(hours=1)
DRIVER = Entity(name="driver", join_keys=["driver_id"], value_type=ValueType.INT64)
TIME = "Datetime(time_unit='us', time_zone='UTC')"
COLUMNS = {"driver_id": "Int64", "event_timestamp": TIME, "trips": "Int64", "rate": "Float32", "name": "String"}
ROWS = {
    "driver_id": [1, 1, 2],
    "event_timestamp": [NEW_YEAR, NEW_YEAR + HOUR, NEW_YEAR],
    "trips": [10, 11, 20],
    "rate": [0.5, None, 0.25],
    "name": ["a", "b", None],
}
ASKED = pd.DataFrame({"driver_id": [2, 1, 9], "event_timestamp": [NEW_YEAR + 2 * HOUR] * 3})


@pytest.fixture
def repository(tmp_path: Path, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> Callable[..., FeatureStore]:
    """Makes a store as somebody's feature_store.yaml would, with our two types."""
    monkeypatch.setenv("REDIS_URL", redis_url)

    def make(*, online: dict[str, Any] | None = None, **offline: Any) -> FeatureStore:
        return FeatureStore(
            config=RepoConfig(
                project="somebodys",
                provider="local",
                repo_path=tmp_path,
                registry=str(tmp_path / "registry.db"),
                entity_key_serialization_version=3,
                online_store={"type": "feast_repo.online_store.RedisUrlOnlineStore", **(online or {})},
                offline_store={"type": "feast_repo.offline_store.PartitionedParquetOfflineStore", **offline},
            )
        )

    return make


def file_source(tmp_path: Path, **options: Any) -> FileSource:
    pd.DataFrame(ROWS).to_parquet(tmp_path / "rows.parquet")  # as everybody does it: with nanoseconds
    return FileSource(name="rows", path="rows.parquet", timestamp_field="event_timestamp", **options)


def view(source: Any, **options: Any) -> FeatureView:
    return FeatureView(
        **{"name": "drivers", "entities": [DRIVER], "ttl": timedelta(days=1), "source": source, **options}
    )


class TestTaggedSources:
    def test_apply_infers_a_schema_from_the_tag(self, repository: Any, tmp_path: Path) -> None:
        source = FileSource(
            name="days",
            path=str(tmp_path / "days"),
            timestamp_field="event_timestamp",
            tags={COLUMNS_TAG: json.dumps(COLUMNS)},
        )
        store = repository()
        store.apply([DRIVER, view(source)])
        inferred = {field.name: str(field.dtype) for field in store.get_feature_view("drivers").features}
        assert inferred == {"trips": "Int64", "rate": "Float32", "name": "String"}
        assert store.get_historical_features(ASKED, ["drivers:trips"]).to_df()["trips"].isna().all()

    def test_the_types_have_arrows_names(self) -> None:
        types = {
            **COLUMNS,
            "flag": "Boolean",
            "flags": "List(Boolean)",
            "bytes": "Binary",
            "small": "Int32",
            "image": "ImageBytes",
            "when": "UnixTimestamp",
            "words": "Array(String)",
            "fine": "Datetime(time_unit='ns', time_zone=None)",
        }
        source = FileSource(path="x", timestamp_field="event_timestamp", tags={COLUMNS_TAG: json.dumps(types)})
        got = PartitionedParquetOfflineStore.get_table_column_names_and_types_from_data_source(None, source)
        assert dict(got) == {
            "driver_id": "int64",
            "event_timestamp": "timestamp[us, tz=UTC]",
            "trips": "int64",
            "rate": "float",
            "name": "string",
            "flag": "bool",
            "flags": "list<item: bool>",
            "bytes": "binary",
            "small": "int32",
            "image": "binary",
            "when": "timestamp[us, tz=UTC]",
            "words": "list<item: string>",
            "fine": "timestamp[ns]",
        }

    @pytest.mark.parametrize("tag", ["team-a, team-b", '["a", "b"]', "{}", '{"a": "a column"}', "7"])
    def test_a_tag_of_the_former_name_may_be_anybodys(self, repository: Any, tmp_path: Path, tag: str) -> None:
        store = repository()
        store.apply([DRIVER, view(file_source(tmp_path, tags={FORMER_TAG: tag}))])
        assert store.get_historical_features(ASKED, ["drivers:trips"]).to_df()["trips"].to_list()[:2] == [20, 11]

    def test_a_tag_of_the_former_name_that_is_ours_counts(self) -> None:
        source = FileSource(path="x", timestamp_field="event_timestamp", tags={FORMER_TAG: json.dumps(COLUMNS)})
        assert is_ours(source)
        assert stored_columns(source)["rate"] == pl.Float32

    def test_an_unknown_type_is_one_line(self) -> None:
        tags = {COLUMNS_TAG: json.dumps({**COLUMNS, "profile": "Struct({a: String})"})}
        source = FileSource(name="days", path="x", timestamp_field="event_timestamp", tags=tags)
        with pytest.raises(ValueError, match=r"^source 'days': tag .*column 'profile' has type 'Struct.*'.*$"):
            stored_columns(source)

    def test_pushed_lists_and_small_types_come_back(self, repository: Any, tmp_path: Path) -> None:
        columns = {**COLUMNS, "words": "List(String)", "blob": "Bytes", "on": "Bool"}
        days = FileSource(
            name="days",
            path=str(tmp_path / "days"),
            timestamp_field="event_timestamp",
            tags={COLUMNS_TAG: json.dumps(columns)},
        )
        store = repository()
        store.apply([DRIVER, view(PushSource(name="pushed", batch_source=days))])
        pushed = pd.DataFrame(
            {**ROWS, "words": [["x"], None, []], "blob": [b"\0", b"", None], "on": [True, None, False]}
        )
        for _ in range(2):
            store.push("pushed", pushed, to=PushMode.OFFLINE)
        assert len(list((tmp_path / "days").glob("*/*.parquet"))) == 1
        got = store.get_historical_features(ASKED, [f"drivers:{name}" for name in ("words", "blob", "on", "rate")])
        first = got.to_arrow().select(["words", "blob", "on", "rate"]).to_pylist()[0]
        assert first == {"words": [], "blob": None, "on": False, "rate": 0.25}


class TestHistory:
    def test_a_missing_file_is_told_at_once(self, repository: Any, tmp_path: Path) -> None:
        store = repository()
        store.apply([DRIVER, view(file_source(tmp_path))])
        (tmp_path / "rows.parquet").unlink()
        start = time.monotonic()
        with pytest.raises(FileNotFoundError, match=r"^source 'rows': no file .*rows\.parquet$"):
            store.get_historical_features(ASKED, ["drivers:trips"]).to_df()
        assert time.monotonic() - start < 2

    @pytest.mark.parametrize("years", [1, 250, 400, 2_700_000])
    def test_any_ttl(self, repository: Any, tmp_path: Path, years: int) -> None:
        store = repository()
        store.apply([DRIVER, view(file_source(tmp_path), ttl=timedelta(days=365 * years))])
        asked = pd.DataFrame(
            {"driver_id": [1, 1], "event_timestamp": [NEW_YEAR + timedelta(days=1), "2100-01-01 00:00Z"]}
        )
        got = store.get_historical_features(asked, ["drivers:trips"]).to_df()["trips"]
        assert got.to_list() == ([11, 11] if years > 1 else [11, pytest.approx(float("nan"), nan_ok=True)])

    def test_a_range_without_entities_gives_each_entity_as_of_its_end(self, repository: Any, tmp_path: Path) -> None:
        store = repository()
        store.apply([DRIVER, view(file_source(tmp_path))])
        end = NEW_YEAR + HOUR / 2
        job = store.get_historical_features(None, ["drivers:trips", "drivers:name"], start_date=NEW_YEAR, end_date=end)
        assert job.to_arrow().to_pylist() == [
            {"event_timestamp": pd.Timestamp(end), "driver_id": 1, "trips": 10, "name": "a"},
            {"event_timestamp": pd.Timestamp(end), "driver_id": 2, "trips": 20, "name": None},
        ]

    def test_a_range_over_views_of_other_entities_is_one_line(self, repository: Any, tmp_path: Path) -> None:
        source, town = file_source(tmp_path), Entity(name="town", join_keys=["name"], value_type=ValueType.STRING)
        store = repository()
        store.apply([DRIVER, town, view(source), view(source, name="towns", entities=[town])])
        asked = ["drivers:trips", "towns:rate"]
        with pytest.raises(ValueError, match=r"^without entity_df all views need the join keys driver_id; towns have"):
            store.get_historical_features(None, asked, end_date=NEW_YEAR).to_df()

    def test_sql_goes_through_duckdb(self, repository: Any, tmp_path: Path) -> None:
        store = repository()
        store.apply([DRIVER, view(file_source(tmp_path))])
        file = tmp_path / "rows.parquet"
        query = f"SELECT driver_id, max(event_timestamp) AS event_timestamp FROM '{file}' GROUP BY 1 ORDER BY 1"  # noqa: S608
        assert store.get_historical_features(query, ["drivers:trips"]).to_df()["trips"].to_list() == [11, 20]
        with pytest.raises(ValueError, match=r"^entity_df: DuckDB can't run the SQL: [^\n]+$"):
            store.get_historical_features("SELECT nothing FROM nowhere", ["drivers:trips"])

    def test_a_key_of_another_type_is_one_line(self, repository: Any, tmp_path: Path) -> None:
        store = repository()
        store.apply([DRIVER, view(file_source(tmp_path))])
        with pytest.raises(ValueError, match=r"^entity_df column 'driver_id' is of type string, but join key"):
            store.get_historical_features(ASKED.astype({"driver_id": "string"}), ["drivers:trips"]).to_df()
        with pytest.raises(ValueError, match=r"^entity_df has no column 'driver_id', a join key of feature view"):
            store.get_historical_features(ASKED.drop(columns="driver_id"), ["drivers:trips"]).to_df()

    def test_staging_location_gets_the_result(self, repository: Any, tmp_path: Path) -> None:
        store = repository(staging_location=str(tmp_path / "staging"))
        store.apply([DRIVER, view(file_source(tmp_path))])
        job = store.get_historical_features(ASKED, ["drivers:trips"])
        assert job.supports_remote_storage_export()
        (file,) = job.to_remote_storage()
        assert Path(file).is_relative_to(tmp_path / "staging")
        assert pd.read_parquet(file).equals(job.to_df())
        plain = repository().get_historical_features(ASKED, ["drivers:trips"])
        assert not plain.supports_remote_storage_export()

    @pytest.mark.filterwarnings("ignore:Saving dataset is an experimental feature")
    def test_a_saved_dataset_is_never_half_there(self, repository: Any, tmp_path: Path) -> None:
        store = repository()
        store.apply([DRIVER, view(file_source(tmp_path))])
        job = store.get_historical_features(ASKED, ["drivers:trips"])
        saved = store.create_saved_dataset(job, "saved", SavedDatasetFileStorage("saved.parquet"))
        assert pd.read_parquet(tmp_path / "saved.parquet").equals(job.to_df())
        assert len(saved.to_df()) == len(ASKED)


class TestOnline:
    @pytest.mark.parametrize("count", [3_998, 3_999, 20_000])
    def test_more_features_than_lua_takes_arguments(self, repository: Any, redis_url: str, count: int) -> None:
        names = [f"feature_{number}" for number in range(count)]
        source = FileSource(path="wide.parquet", timestamp_field="event_timestamp")
        wide = view(source, name="wide", schema=[Field(name=name, dtype=Int64) for name in names])
        store = repository()
        key = EntityKey(join_keys=["driver_id"], entity_values=[Value(int64_val=1)])
        for number in (1, 3, 2):  # Feast takes minutes to apply and read so many, but not to write them
            row = (key, dict.fromkeys(names, Value(int64_val=number)), NEW_YEAR + number * HOUR, None)
            store._get_provider().online_store.online_write_batch(store.config, wide, [row], None)  # noqa: SLF001
        with Redis.from_url(redis_url) as redis:
            (stored,) = everything(redis).values()
        assert set(stored) == {_mmh3(f"wide:{name}") for name in names} | {b"_ts:wide"}
        del stored[b"_ts:wide"]
        assert set(stored.values()) == {Value(int64_val=3).SerializeToString()}

    def test_pushes_and_reads_work_in_a_second_event_loop(self, repository: Any, tmp_path: Path) -> None:
        source = PushSource(name="rows", batch_source=file_source(tmp_path))
        store = repository()
        schema = [Field(name="trips", dtype=Int64), Field(name="rate", dtype=Float32), Field(name="name", dtype=String)]
        store.apply([DRIVER, view(source, schema=schema)])

        async def push_and_read(trips: int, later: timedelta) -> list[Any]:
            rows = {"driver_id": [1], "event_timestamp": [NEW_YEAR + later], "trips": [trips], "rate": 1.0, "name": "x"}
            await store.push_async("rows", pd.DataFrame(rows))
            reads = [store.get_online_features_async(["drivers:trips"], [{"driver_id": 1}]) for _ in range(5)]
            return [read.to_dict()["trips"] for read in await asyncio.gather(*reads)]

        assert asyncio.run(push_and_read(1, HOUR)) == [[1]] * 5
        assert asyncio.run(push_and_read(2, 2 * HOUR)) == [[2]] * 5
        assert asyncio.run(push_and_read(3, HOUR)) == [[2]] * 5  # an older row never comes back

    def test_a_connection_string_is_heeded(
        self, repository: Any, tmp_path: Path, redis_url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("REDIS_URL", "redis://127.0.0.1:1/0")
        store = repository(online={"connection_string": f"{redis_url.split('/')[2]},db=4"})
        store.apply([DRIVER, view(PushSource(name="rows", batch_source=file_source(tmp_path)))])
        store.push("rows", pd.DataFrame(ROWS).tail(1))
        read = store.get_online_features(["drivers:trips"], [{"driver_id": 2}])
        assert read.to_dict()["trips"] == [20]
        read = asyncio.run(store.get_online_features_async(["drivers:trips"], [{"driver_id": 2}]))
        assert read.to_dict()["trips"] == [20]
        client = store._get_provider().online_store._get_client(store.config.online_store)  # noqa: SLF001
        assert client.connection_pool.connection_kwargs["db"] == 4

    def test_materialize_reads_nanoseconds_and_views_without_entities(self, repository: Any, tmp_path: Path) -> None:
        source = file_source(tmp_path)
        store = repository()
        store.apply([DRIVER, view(source), view(source, name="all", entities=[])])
        store.materialize(datetime(2025, 12, 31, tzinfo=UTC), NEW_YEAR + HOUR)
        asked, rows = ["drivers:trips", "all:trips"], [{"driver_id": 1}, {"driver_id": 2}]
        got = store.get_online_features(asked, rows, full_feature_names=True).to_dict()
        assert got["drivers__trips"] == [11, 20]
        assert got["all__trips"] == [11, 11]
