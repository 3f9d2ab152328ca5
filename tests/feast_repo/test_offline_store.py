from __future__ import annotations

import random
import subprocess
import sys
from contextlib import ExitStack
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pandas as pd
import polars as pl
import pytest
from feast import Entity, FeatureView, Field, FileSource, ValueType
from feast.data_source import PushMode
from feast.types import Int64, String

from feast_repo.declare.events import UTC_MICROSECONDS
from feast_repo.declare.rows import SERVED
from feast_repo.declare.stored import offline_columns
from feast_repo.features import user_click_features, user_profile_features
from feast_repo.settings import PROJECT_ROOT, StoreSettings
from feast_repo.stores.offline.parquet import day_folder, publish
from feast_repo.stores.offline.store import ignoring_served
from feast_repo.stores.offline.tables import features_folder
from tests.feast_repo.rows import NEW_YEAR, PUSH_SOURCE, clicks, table

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from feast import FeatureStore

MICROSECOND = timedelta(microseconds=1)
MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)
TTL = user_click_features.ttl
CLICKS = f"{user_click_features.name}:click_count"
AGE = f"{user_profile_features.name}:age"


def folder(day: date = date(2026, 1, 1)) -> Path:
    return day_folder(features_folder(StoreSettings().data_root, user_click_features.name), day.isoformat())


def rows_in(*folders: Path) -> pl.DataFrame:
    return pl.concat(
        pl.read_parquet(file, hive_partitioning=False) for one in folders for file in sorted(one.glob("*.parquet"))
    )


def store_rows(rows: Sequence[dict[str, Any]], name: str = "rows") -> None:
    """Rows of the click view, a file a day; rows came to be two minutes after their time."""
    complete = [{"created_timestamp": row["event_timestamp"] + 2 * MINUTE, **row} for row in rows]
    for (day,), part in (
        table(user_click_features, complete, writer="stream")
        .with_columns(pl.col("event_timestamp").dt.date().alias("day"))
        .partition_by("day", as_dict=True, include_key=False)
        .items()
    ):
        publish(folder(day) / f"{name}.parquet", part)


def row(count: int, time: datetime = NEW_YEAR, user: str = "a", **rest: Any) -> dict[str, Any]:
    return {"user_id": user, "event_timestamp": time, "click_count": count, **rest}


def join(
    store: FeatureStore, asked: Sequence[tuple[str, datetime]], features: Sequence[str] = (CLICKS,), **options: Any
) -> list[Any]:
    """The first feature of each asked (user, time), in order."""
    entities = pd.DataFrame({"user_id": [user for user, _ in asked], "event_timestamp": [time for _, time in asked]})
    entities["number"] = range(len(asked))
    got = store.get_historical_features(entities, list(features), **options).to_df().sort_values("number")
    assert got["number"].tolist() == list(range(len(asked))), "rows out are not rows in"
    return [None if pd.isna(value) else value for value in got[features[0].split(":")[1]]]


class TestWrite:
    def test_a_push_adds_a_file_a_day_with_the_declared_columns(self, store: FeatureStore) -> None:
        no_count = clicks(["b"], view_count=None)  # Pandas has no integers beside null
        rows = pl.concat([clicks(["a"]), no_count, clicks(["a"], NEW_YEAR - MICROSECOND)])
        rows = rows.with_columns(writer=pl.lit("me"))
        nanoseconds = pl.col("event_timestamp").dt.cast_time_unit("ns")
        store.push(PUSH_SOURCE, rows.with_columns(nanoseconds).to_pandas(), to=PushMode.OFFLINE)
        assert [len(list(folder(day).iterdir())) for day in (date(2025, 12, 31), NEW_YEAR.date())] == [1, 1]
        stored = rows_in(folder(date(2025, 12, 31)), folder())
        assert dict(stored.schema) == offline_columns(user_click_features)
        assert stored.sort("user_id", "event_timestamp").equals(
            rows.with_columns(pl.lit(None, UTC_MICROSECONDS).alias(SERVED))
            .select(stored.columns)
            .sort("user_id", "event_timestamp")
        )

    def test_the_same_push_again_changes_nothing(self, store: FeatureStore) -> None:
        contents = []
        for _ in range(2):
            for users in (["a", "b"], ["c", "d"]):
                rows = clicks(users).with_columns(writer=pl.lit("me"))
                store.push(PUSH_SOURCE, rows.to_pandas(), to=PushMode.OFFLINE)
            contents.append({file.name: file.read_bytes() for file in folder().iterdir()})
        assert contents[0] == contents[1]
        assert len(contents[0]) == 2

    def test_rows_without_time_are_refused(self, store: FeatureStore) -> None:
        rows = clicks(["a", "b"]).with_columns(writer=pl.lit("me"))
        rows = rows.with_columns(pl.when(pl.col("user_id") == "a").then("event_timestamp").alias("event_timestamp"))
        with pytest.raises(ValueError, match="1 of 2 rows for 'user_click_features' have no event_timestamp"):
            store.push(PUSH_SOURCE, rows.to_pandas(), to=PushMode.OFFLINE)
        assert not folder().exists()

    def test_three_processes_at_once_lose_nothing_not_even_on_a_new_registry(
        self, redis_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.setenv("REDIS_URL", redis_url)
        monkeypatch.setenv("FEAST_REGISTRY_URL", f"sqlite:///{tmp_path / 'registry.db'}")
        with ExitStack() as processes:
            writers = [
                processes.enter_context(
                    subprocess.Popen(
                        [sys.executable, "-m", "tests.feast_repo.offline_writer", str(number)],
                        cwd=PROJECT_ROOT,
                        stdin=subprocess.PIPE,
                        stdout=subprocess.PIPE,
                    )
                )
                for number in range(3)
            ]
            for writer in writers:
                assert writer.stdout is not None
                assert writer.stdout.readline() == b"ready\n"
            for writer in writers:
                assert writer.stdin is not None
                writer.stdin.close()  # go
        assert [writer.returncode for writer in writers] == [0, 0, 0]
        expected = [
            f"writer-{writer}-push-{push}-{row}" for writer in range(3) for push in range(5) for row in range(20)
        ]
        assert sorted(rows_in(folder())["user_id"]) == sorted(expected)
        assert not [file for file in folder().iterdir() if file.suffix != ".parquet"]


class TestJoin:
    def test_gives_the_newest_row_up_to_the_asked_time(self, store: FeatureStore) -> None:
        store_rows([row(1), row(2, NEW_YEAR + HOUR), row(3, NEW_YEAR + HOUR, "b")])
        asked = [("a", NEW_YEAR + HOUR - MICROSECOND), ("a", NEW_YEAR + HOUR), ("a", NEW_YEAR - MINUTE)]
        assert join(store, asked) == [1, 2, None]

    def test_keeps_every_entity_row(self, store: FeatureStore) -> None:
        store_rows([row(1)])
        at = NEW_YEAR + HOUR
        asked = [("a", at), ("unknown", at), ("a", at), ("a", NEW_YEAR - HOUR), ("a", at), ("unknown", at)]
        assert join(store, asked) == [1, None, 1, None, 1, None]
        assert join(store, asked, [CLICKS, AGE]) == [1, None, 1, None, 1, None]

    def test_no_entity_rows_give_none(self, store: FeatureStore) -> None:
        store_rows([row(1)])
        entities = pd.DataFrame({"user_id": ["a"], "event_timestamp": [NEW_YEAR]})[:0]
        assert store.get_historical_features(entities, [CLICKS]).to_df().empty

    def test_honours_the_ttl(self, store: FeatureStore) -> None:
        store_rows([row(1)])
        asked = [("a", NEW_YEAR + TTL), ("a", NEW_YEAR + TTL + MICROSECOND), ("a", NEW_YEAR + 30 * TTL)]
        assert join(store, asked) == [1, None, None]

    def test_can_leave_out_rows_that_came_later_than_the_asked_time(self, store: FeatureStore) -> None:
        healed = NEW_YEAR + timedelta(days=2)
        store_rows([row(1, NEW_YEAR - HOUR), row(2, NEW_YEAR)])
        store_rows([row(3, NEW_YEAR, created_timestamp=healed, writer="heal")], "healed")
        asked = [("a", NEW_YEAR + MINUTE), ("a", NEW_YEAR + 2 * MINUTE), ("a", NEW_YEAR + HOUR)]
        assert join(store, asked, filter_by_created_timestamp=True) == [1, 2, 2]
        # Of rows with one event time, the last created counts.
        assert join(store, asked) == [3, 3, 3]

    def test_as_served_a_row_counts_from_when_it_was_created_and_served(self, store: FeatureStore) -> None:
        """The stream was down for six hours, then pushed both windows; the first had been pushed in time before."""
        back = NEW_YEAR + 6 * HOUR
        store_rows(
            [
                row(1, served_timestamp=NEW_YEAR + 3 * MINUTE),
                row(2, NEW_YEAR + HOUR, served_timestamp=back),
                row(3, NEW_YEAR + 2 * HOUR, served_timestamp=back),
            ]
        )
        asked = [("a", NEW_YEAR + time) for time in (2 * MINUTE, 3 * MINUTE, HOUR, 5 * HOUR, 6 * HOUR - MICROSECOND)]
        asked.append(("a", back))
        assert join(store, asked, filter_by_created_timestamp=True) == [None, 1, 1, 1, 1, 3]
        assert join(store, asked) == [1, 1, 2, 3, 3, 3]
        with ignoring_served():
            assert join(store, asked, filter_by_created_timestamp=True) == [1, 1, 1, 3, 3, 3]

    def test_rows_of_files_without_served_timestamp_count_from_their_creation(self, store: FeatureStore) -> None:
        store_rows([row(1)])
        (file,) = folder().iterdir()
        pl.read_parquet(file).drop(SERVED).write_parquet(file)
        asked = [("a", NEW_YEAR + MINUTE), ("a", NEW_YEAR + 2 * MINUTE)]
        assert join(store, asked, filter_by_created_timestamp=True) == [None, 1]
        store_rows([row(2, NEW_YEAR + HOUR, served_timestamp=NEW_YEAR + 3 * HOUR)], "new")
        asked += [("a", NEW_YEAR + 2 * HOUR), ("a", NEW_YEAR + 3 * HOUR)]
        assert join(store, asked, filter_by_created_timestamp=True) == [None, 1, 1, 2]

    def test_equals_a_join_row_by_row(self, store: FeatureStore) -> None:
        chance = random.Random(7)
        users = [f"user_{number}" for number in range(6)]
        rows = [
            row(number, NEW_YEAR + chance.randrange(600) * 10 * MINUTE, chance.choice(users)) for number in range(300)
        ]
        rows = list({(one["user_id"], one["event_timestamp"]): one for one in rows}.values())
        store_rows(rows)
        asked = [(chance.choice(users), NEW_YEAR + chance.randrange(6_000) * MINUTE) for _ in range(200)]

        def newest(user: str, time: datetime) -> Any:
            fits = [
                one
                for one in rows
                if one["user_id"] == user and one["event_timestamp"] <= time <= one["event_timestamp"] + TTL
            ]
            return max(fits, key=lambda one: one["event_timestamp"])["click_count"] if fits else None

        assert join(store, asked) == [newest(user, time) for user, time in asked]

    def test_times_in_other_zones_mean_the_same(self, store: FeatureStore) -> None:
        store_rows([row(1)])
        times = pd.to_datetime([NEW_YEAR - MINUTE, NEW_YEAR]).tz_convert("America/New_York")
        assert join(store, [("a", time) for time in times]) == [None, 1]

    def test_an_absent_folder_is_an_empty_one(self, store: FeatureStore) -> None:
        assert join(store, [("a", NEW_YEAR), ("b", NEW_YEAR)], [CLICKS, AGE]) == [None, None]

    def test_a_feature_declared_later_is_null_before(self, store: FeatureStore) -> None:
        old = table(user_click_features, [row(1, created_timestamp=NEW_YEAR)], writer="stream").drop("view_count")
        publish(folder() / "old.parquet", old)
        assert join(store, [("a", NEW_YEAR)], [f"{user_click_features.name}:view_count", CLICKS]) == [None]
        assert join(store, [("a", NEW_YEAR)]) == [1]
        store_rows([row(2, NEW_YEAR + HOUR, view_count=9)], "new")
        view_counts = join(store, [("a", NEW_YEAR), ("a", NEW_YEAR + HOUR)], [f"{user_click_features.name}:view_count"])
        assert view_counts == [None, 9]

    def test_reads_only_the_days_within_reach(self, store: FeatureStore) -> None:
        store_rows([row(1)])
        for day in (date(2025, 12, 30), date(2026, 1, 3)):
            folder(day).mkdir(parents=True)
            (folder(day) / "unreadable.parquet").write_bytes(b"no Parquet")
        assert join(store, [("a", NEW_YEAR), ("a", NEW_YEAR + TTL + HOUR)]) == [1, None]

    @pytest.mark.parametrize("result", ["to_df", "to_arrow"])
    def test_files_that_compaction_replaces_meanwhile_are_found(self, store: FeatureStore, result: str) -> None:
        store_rows([row(1)], "stream-1")
        store_rows([row(2, NEW_YEAR + HOUR)], "stream-2")
        entities = pd.DataFrame({"user_id": ["a", "a"], "event_timestamp": [NEW_YEAR, NEW_YEAR + HOUR]})
        job = store.get_historical_features(entities, [CLICKS])
        originals = sorted(folder().iterdir())
        publish(folder() / "compacted.parquet", rows_in(folder()))
        for file in originals:
            file.unlink()
        got = getattr(job, result)()
        assert sorted(got["click_count"].to_pylist() if result == "to_arrow" else got["click_count"]) == [1, 2]

    def test_other_files_are_left_to_feast(self, store: FeatureStore, tmp_path: Path) -> None:
        file = tmp_path / "other.parquet"
        pl.DataFrame({"user_id": ["a"], "event_timestamp": [NEW_YEAR], "clubs": [3]}).write_parquet(file)
        source = FileSource(name="other", path=str(file), timestamp_field="event_timestamp")
        entity = Entity(name="user", join_keys=["user_id"], value_type=ValueType.STRING)
        fields = [Field(name="user_id", dtype=String), Field(name="clubs", dtype=Int64)]
        store.apply([entity, FeatureView(name="other", entities=[entity], schema=fields, source=source)])
        store.refresh_registry()
        assert join(store, [("a", NEW_YEAR), ("b", NEW_YEAR)], ["other:clubs"]) == [3, None]


class TestMaterialize:
    def test_each_users_newest_row_of_the_range_goes_online(self, store: FeatureStore) -> None:
        store_rows([row(1), row(2, NEW_YEAR + HOUR), row(3, NEW_YEAR + 2 * HOUR), row(4, NEW_YEAR, "b")])
        store.materialize(NEW_YEAR, NEW_YEAR + HOUR, [user_click_features.name])
        online = store.get_online_features([CLICKS], [{"user_id": "a"}, {"user_id": "b"}]).to_dict()
        assert online["click_count"] == [2, 4]

    def test_nothing_stored_is_no_error(self, store: FeatureStore) -> None:
        store.materialize(NEW_YEAR, NEW_YEAR + HOUR)
        assert store.get_online_features([CLICKS], [{"user_id": "a"}]).to_dict()["click_count"] == [None]
