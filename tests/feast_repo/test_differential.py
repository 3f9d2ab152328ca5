"""One repository of every kind of value and view, run through Feast's own stores and through ours, step by step.

Everything is equal: values, types, statuses, the files, and what Redis holds, byte by byte. Feast's Dask store reads
nanoseconds and views without entities; its DuckDB store keeps every entity row. So each is the reference for its part.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from feast import (
    Entity,
    FeatureService,
    FeatureStore,
    FeatureView,
    Field,
    FileSource,
    KafkaSource,
    PushSource,
    RepoConfig,
    RequestSource,
    StreamFeatureView,
    ValueType,
)
from feast.data_format import JsonFormat
from feast.data_source import PushMode
from feast.feature_server import get_app
from feast.infra.offline_stores.file_source import SavedDatasetFileStorage
from feast.on_demand_feature_view import on_demand_feature_view
from feast.types import Array, Bool, Bytes, Float32, Float64, Int32, Int64, String, UnixTimestamp
from redis import Redis

from tests.feast_repo.rows import NEW_YEAR, everything

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterator
    from pathlib import Path

    from feast.infra.offline_stores.offline_store import RetrievalJob

    from sandbox.redis_server import RedisServer

pytestmark = pytest.mark.filterwarnings("ignore")  # Feast's, Ibis's and Dask's own

HOUR = timedelta(hours=1)
ZONE = "Asia/Kolkata"
TYPES: dict[str, Any] = {
    "i32": (Int32, pa.int32(), [1, None, -3, 2**31 - 1, 5]),
    "i64": (Int64, pa.int64(), [1, None, -3, 2**40, 5]),
    "f32": (Float32, pa.float32(), [0.5, None, -0.0, 1e30, 5]),
    "f64": (Float64, pa.float64(), [0.1, None, float("inf"), 1e300, 5]),
    "s": (String, pa.string(), ["a", None, "ü€😀", "", "x" * 300]),
    "b": (Bool, pa.bool_(), [True, None, False, True, True]),
    "raw": (Bytes, pa.binary(), [b"\0\xff", None, b"", b"x", b"yz"]),
    "at": (UnixTimestamp, None, [NEW_YEAR, None, NEW_YEAR - HOUR, NEW_YEAR, NEW_YEAR]),
    "i32s": (Array(Int32), pa.list_(pa.int32()), [[1, 2], None, [], [3], [4]]),
    "i64s": (Array(Int64), pa.list_(pa.int64()), [[1, 2], None, [], [3], [4]]),
    "f32s": (Array(Float32), pa.list_(pa.float32()), [[0.5], None, [], [3], [4]]),
    "f64s": (Array(Float64), pa.list_(pa.float64()), [[0.1, 0.2], None, [], [3], [4]]),
    "ss": (Array(String), pa.list_(pa.string()), [["a", ""], None, [], ["b"], ["c"]]),
    "bs": (Array(Bool), pa.list_(pa.bool_()), [[True, False], None, [], [True], [False]]),
    "raws": (Array(Bytes), pa.list_(pa.binary()), [[b"a", b""], None, [], [b"b"], [b"c"]]),
}
KEYS = {"user": ["u1", "u1", "u2", "u2", "u3"], "item": [1, 1, 1, 2, 3]}
# Two rows of u1 differ by their creation, one of u3 comes late.
TIMES = [NEW_YEAR, NEW_YEAR, NEW_YEAR + HOUR, NEW_YEAR + 2 * HOUR, NEW_YEAR - 30 * HOUR]
CREATED = [NEW_YEAR + HOUR, NEW_YEAR, NEW_YEAR + HOUR, NEW_YEAR + 2 * HOUR, NEW_YEAR + 40 * HOUR]
EVERYTHING = [f"everything:{name}" for name in TYPES]
OTHERS = ["renamed:number", "pushed:i64", "pushed:s"]


@dataclass(frozen=True)
class Side:
    """A store with its folder and its database."""

    store: FeatureStore
    root: Path
    redis: Redis
    loop: asyncio.AbstractEventLoop | None
    """The only one that Feast's own store can live in; None: a new one each time."""

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run(work) if self.loop is None else self.loop.run_until_complete(work)

    def lives_in_another_loop(self) -> None:
        """Feast's own store would go on with its client."""
        if self.loop is not None:
            store = self.store._get_provider().online_store  # noqa: SLF001
            if store._client_async is not None:  # noqa: SLF001
                self.run(store._client_async.aclose())  # noqa: SLF001
            store._client_async = None  # noqa: SLF001


def files(root: Path, unit: str) -> None:
    times = {
        "event_timestamp": pa.array(TIMES, pa.timestamp(unit, ZONE)),
        "created": pa.array(CREATED, pa.timestamp(unit, "UTC")),
    }
    values = {name: pa.array(column, dtype or pa.timestamp(unit, "UTC")) for name, (_, dtype, column) in TYPES.items()}
    pq.write_table(pa.table({**KEYS, **times, **values}), root / "everything.parquet")
    for name in ("pushed", "streamed"):
        rows = {"user": KEYS["user"], **times, "i64": values["i64"], "s": values["s"]}
        pq.write_table(pa.table(rows), root / f"{name}.parquet")
    naive = pa.array([time.replace(tzinfo=None) for time in TIMES], pa.timestamp(unit))
    pq.write_table(pa.table({"uid": KEYS["user"], "ts": naive, "n": values["i64"]}), root / "renamed.parquet")


def objects(root: Path) -> list[Any]:
    def source(name: str, **options: Any) -> FileSource:
        given = {"timestamp_field": "event_timestamp", "created_timestamp_column": "created", **options}
        return FileSource(name=f"{name}_source", path=str(root / f"{name}.parquet"), **given)

    user = Entity(name="user", join_keys=["user"], value_type=ValueType.STRING)
    item = Entity(name="item_of_shop", join_keys=["item"], value_type=ValueType.INT64)
    ttl = timedelta(days=1)
    two = [Field(name="user", dtype=String), Field(name="i64", dtype=Int64), Field(name="s", dtype=String)]
    all_types = FeatureView(
        name="everything",
        entities=[user, item],
        ttl=ttl,
        schema=[
            Field(name="user", dtype=String),
            Field(name="item", dtype=Int64),
            *(Field(name=name, dtype=one[0]) for name, one in TYPES.items()),
        ],
        source=source("everything"),
    )
    renamed = FeatureView(
        name="renamed",
        entities=[user],
        ttl=timedelta(0),
        schema=[Field(name="user", dtype=String), Field(name="number", dtype=Int64)],
        source=source(
            "renamed",
            timestamp_field="ts",
            created_timestamp_column="",
            field_mapping={"uid": "user", "n": "number"},
        ),
    )
    pushed = FeatureView(
        name="pushed",
        entities=[user],
        ttl=ttl,
        schema=two,
        source=PushSource(name="push", batch_source=source("pushed")),
    )
    stream = StreamFeatureView(
        name="streamed",
        entities=[user],
        ttl=ttl,
        schema=two,
        timestamp_field="event_timestamp",
        source=KafkaSource(
            name="kafka",
            kafka_bootstrap_servers="127.0.0.1:1",
            topic="t",
            timestamp_field="event_timestamp",
            batch_source=source("streamed"),
            message_format=JsonFormat(schema_json="user string, event_timestamp timestamp, i64 long, s string"),
        ),
    )
    without = FeatureView(name="without", entities=[], ttl=ttl, schema=two[1:], source=source("pushed"))
    request = RequestSource(name="request", schema=[Field(name="plus", dtype=Int64)])

    def computed(inputs: pd.DataFrame) -> pd.DataFrame:
        return pd.DataFrame({"total": inputs["f64"] + inputs["plus"]})

    def mirrored(inputs: dict[str, Any]) -> dict[str, Any]:
        return {"twice": [None if text is None else text + text for text in inputs["s"]]}

    demand = on_demand_feature_view(sources=[all_types, request], schema=[Field(name="total", dtype=Float64)])(computed)
    python = on_demand_feature_view(sources=[all_types], schema=[Field(name="twice", dtype=String)], mode="python")(
        mirrored
    )
    service = FeatureService(
        name="buyers",
        features=[all_types[["i64", "ss"]], renamed.with_name("buyer").with_join_key_map({"user": "buyer"})],
    )
    return [user, item, all_types, renamed, pushed, stream, without, demand, python, service]


def opened(root: Path, server: RedisServer, number: int, online: str, offline: str) -> Side:
    root.mkdir()
    address = {"type": online, "connection_string": f"{server.url.split('/')[2]},db={number}"}
    store = FeatureStore(
        config=RepoConfig(
            project="compared",
            provider="local",
            repo_path=root,
            registry=str(root / "registry.db"),
            entity_key_serialization_version=3,
            online_store=address,
            offline_store={"type": offline},
        )
    )
    loop = asyncio.new_event_loop() if online == "redis" else None
    return Side(store, root, Redis.from_url(f"{server.url.removesuffix('/0')}/{number}"), loop)


@pytest.fixture(scope="module", params=["dask", "duckdb"])
def sides(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, redis_server: RedisServer
) -> Iterator[tuple[Side, Side]]:
    """Feast's stores and ours, on copies of the same files."""
    folder = tmp_path_factory.mktemp("differential")
    made = (
        opened(folder / "theirs", redis_server, 10, "redis", request.param),
        opened(
            folder / "ours",
            redis_server,
            11,
            "feast_repo.online_store.RedisUrlOnlineStore",
            "feast_repo.offline_store.PartitionedParquetOfflineStore",
        ),
    )
    for side in made:
        side.redis.flushdb()
        # The lock's DuckDB can't cast nanoseconds with a zone.
        files(side.root, "ns" if request.param == "dask" else "us")
        side.store.apply(objects(side.root))
    yield made
    for side in made:
        side.lives_in_another_loop()
        side.store.teardown()
    assert everything(made[1].redis) == everything(made[0].redis)
    for side in made:
        assert b"user" not in b"".join(everything(side.redis))
        side.redis.close()
        if side.loop is not None:
            side.loop.close()


def is_dask(side: Side) -> bool:
    return bool(side.store.config.offline_store.type == "dask")


def same(jobs: list[RetrievalJob], by: str) -> None:
    """Whether two histories are equal, where Feast's has a row at all: Dask's join drops those without an answer."""
    theirs, ours = jobs[0].to_df(), jobs[1].to_arrow()
    ours = plain(ours.filter(pc.is_in(ours[by], pa.array(theirs[by]).cast(ours[by].type))).to_pandas(), by)
    theirs = plain(theirs, by)[ours.columns]
    assert len(theirs)
    for name in ours.columns:
        if theirs[name].dtype == "datetime64[us, UTC]" and name == "event_timestamp":  # DuckDB cuts the entity rows'
            theirs[name] = theirs[name].astype("datetime64[ns, UTC]")
        if theirs[name].dtype == "float64" and ours[name].dtype == "int64":  # Dask: a row that it dropped had none
            theirs[name] = theirs[name].astype("int64")
    pd.testing.assert_frame_equal(theirs, ours)


def plain(frame: pd.DataFrame, by: str) -> pd.DataFrame:
    """In an order, with lists that compare."""
    frame = frame.sort_values(by, ignore_index=True)
    return frame.map(lambda value: value.tolist() if isinstance(value, np.ndarray) else value)


def test_inferred_types(sides: tuple[Side, Side]) -> None:
    theirs, ours = ([one.to_proto().spec for one in side.store.list_batch_feature_views()] for side in sides)
    for their, our in zip(theirs, ours, strict=True):
        assert list(our.features) == list(their.features)
        assert list(our.entity_columns) == list(their.entity_columns)


@pytest.mark.parametrize("as_known", [False, True])
@pytest.mark.parametrize("full_names", [False, True])
def test_history(sides: tuple[Side, Side], *, as_known: bool, full_names: bool) -> None:
    times = [NEW_YEAR + hours * HOUR for hours in (0.5, 0, 1, 1, 9, 26, 27, -1, 3)]
    asked = pd.DataFrame(
        {
            "user": ["u1", "u1", "u2", "u1", "u2", "u2", "u2", "u3", "nobody"],
            "item": [1, 1, 1, 1, 2, 2, 1, 3, 1],
            "event_timestamp": pd.to_datetime(times).tz_convert(ZONE),
            "plus": 1,
            "label": np.arange(9.0),
        }
    )
    if not is_dask(sides[0]):  # Dask's join drops copies
        asked = pd.concat([asked, asked.assign(label=asked["label"] + 10)], ignore_index=True)
    demanded = [*EVERYTHING, "renamed:number", "computed:total", "mirrored:twice"]
    features = demanded if not full_names else [*demanded, *OTHERS[1:], "streamed:s"]
    jobs = [
        side.store.get_historical_features(
            asked, features, full_feature_names=full_names, filter_by_created_timestamp=as_known
        )
        for side in sides
    ]
    assert jobs[1].to_df()["label"].to_list() == asked["label"].to_list()
    same(jobs, "label")


def test_history_of_a_service_with_other_join_keys(sides: tuple[Side, Side]) -> None:
    times = [NEW_YEAR + HOUR, NEW_YEAR + 3 * HOUR]
    asked = pd.DataFrame({"user": ["u1", "u2"], "item": [1, 2], "buyer": ["u2", "u3"], "event_timestamp": times})
    same(
        [side.store.get_historical_features(asked, side.store.get_feature_service("buyers")) for side in sides], "user"
    )


def test_history_without_entities_and_of_a_range(sides: tuple[Side, Side]) -> None:
    if not is_dask(sides[0]):
        pytest.skip("Feast's DuckDB store has neither")
    asked = pd.DataFrame({"event_timestamp": [NEW_YEAR + hours * HOUR for hours in (-40, 0, 1, 5)]})
    same([side.store.get_historical_features(asked, ["without:s"]) for side in sides], "event_timestamp")
    for features, end in ((EVERYTHING, NEW_YEAR + HOUR), (["renamed:number"], NEW_YEAR + 50 * HOUR)):
        same(
            [side.store.get_historical_features(None, features, start_date=NEW_YEAR, end_date=end) for side in sides],
            "user",
        )


def test_persist(sides: tuple[Side, Side]) -> None:
    asked = pd.DataFrame({"user": ["u1", "u2"], "item": [1, 2], "event_timestamp": [NEW_YEAR + 3 * HOUR] * 2})
    saved = []
    for side in sides:
        job = side.store.get_historical_features(asked, EVERYTHING)
        file = side.root / "saved.parquet"
        saved.append(side.store.create_saved_dataset(job, "saved", SavedDatasetFileStorage(str(file))))
        assert pq.read_table(file).num_rows == len(asked)
    same(saved, "user")


class TestOnline:
    """The tests of this class build on each other."""

    ASKED: tuple[dict[str, list[Any]], ...] = (
        {"user": ["u1", "u2", "u3", "nobody"], "item": [1, 2, 3, 1]},
        {"user": ["u1", "u1", "u2"], "item": [1, 9, 1]},
    )

    def same_everywhere(self, sides: tuple[Side, Side]) -> None:
        """Redis, and what comes out of it in each way."""
        assert everything(sides[1].redis) == everything(sides[0].redis)
        for asked in self.ASKED:
            for features, entities in (
                ([*EVERYTHING, "mirrored:twice"], asked),
                (["computed:total"], {**asked, "plus": [1] * len(asked["user"])}),
                ([*OTHERS[:2], "streamed:s"], {"user": asked["user"]}),
            ):
                rows = [dict(zip(entities, row, strict=True)) for row in zip(*entities.values(), strict=True)]
                theirs, ours = (side.store.get_online_features(features, rows).proto for side in sides)
                assert ours == theirs
                theirs, ours = (side.run(side.store.get_online_features_async(features, rows)).proto for side in sides)
                assert ours == theirs

    def test_materialized(self, sides: tuple[Side, Side]) -> None:
        views = ["everything", "renamed", "pushed", "streamed", *(["without"] if is_dask(sides[0]) else [])]
        for side in sides:
            side.store.materialize(NEW_YEAR - 90 * HOUR, NEW_YEAR + 2 * HOUR, views)
        assert len(everything(sides[0].redis)) >= 7
        self.same_everywhere(sides)
        for side in sides:
            side.store.materialize_incremental(datetime(2026, 1, 3, tzinfo=UTC), views)
        self.same_everywhere(sides)

    def test_pushed(self, sides: tuple[Side, Side]) -> None:
        rows = pd.DataFrame(
            {
                "user": ["u1", "u1", "u4", "u2"],
                "event_timestamp": [NEW_YEAR + 5 * HOUR, NEW_YEAR + 4 * HOUR, NEW_YEAR, NEW_YEAR - 70 * HOUR],
                "created": [NEW_YEAR] * 4,
                "i64": [50, 40, 4, 0],
                "s": ["new", "old", None, "too old"],
            }
        )
        for side in sides:
            side.store.push("push", rows, to=PushMode.ONLINE_AND_OFFLINE)
            side.store.write_to_online_store("streamed", rows)
            side.run(side.store.push_async("push", rows.assign(i64=rows["i64"] + 1)))
        self.same_everywhere(sides)
        theirs, ours = (pq.read_table(side.root / "pushed.parquet") for side in sides)
        assert ours.schema.names == theirs.schema.names
        assert ours.to_pylist() == theirs.to_pylist()
        if is_dask(sides[0]):
            assert ours.schema == theirs.schema

    def test_served_over_http(self, sides: tuple[Side, Side]) -> None:
        from starlette.testclient import TestClient  # noqa: PLC0415  (warns about its HTTP client)

        push = {
            "push_source_name": "push",
            "df": {
                "user": ["u1", "u5"],
                "event_timestamp": [str(NEW_YEAR + 6 * HOUR)] * 2,
                "created": [str(NEW_YEAR)] * 2,
                "i64": [60, 5],
                "s": ["http", "new"],
            },
            "to": "online",
        }
        asked = {"features": [*EVERYTHING, "pushed:i64"], "entities": dict(self.ASKED[0]), "full_feature_names": True}
        answers = []
        for side in sides:
            side.lives_in_another_loop()
            with TestClient(get_app(side.store)) as client:
                assert client.post("/push", json=push).status_code == 200
                answer = client.post("/get-online-features", json=asked)
                assert answer.status_code == 200
                answers.append(answer.json())
            if side.loop is not None:
                side.store._get_provider().online_store._client_async = None  # noqa: SLF001  (of the server's loop)
        assert answers[1] == answers[0]
        self.same_everywhere(sides)
