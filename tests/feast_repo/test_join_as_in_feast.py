"""The point-in-time join beside that of Feast's DuckDB store, on whatever rows Hypothesis makes up.

Feast leaves open which of the rows with one event time and one creation counts, so no two such rows are made.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from feast import Entity, FeatureStore, FeatureView, Field, FileSource, RepoConfig, ValueType
from feast.types import Int64, String
from hypothesis import given, settings, strategies as st

from tests.feast_repo.rows import NEW_YEAR

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.filterwarnings("ignore")  # Feast's and Ibis's own

STEP = timedelta(microseconds=1)
TTLS = {"forever": timedelta(0), "moment": STEP, "while": 3 * STEP}
# Few of each, so that most rows meet others.
KEYS = st.sampled_from([("a", 1), ("a", 1), ("a", 1), ("a", 2**60 + 1), ("b", 1), (None, 1), ("a", None)])
TIMES = st.integers(0, 4)
STORED = st.lists(st.tuples(KEYS, TIMES, st.none() | TIMES), min_size=8, max_size=16, unique=True)
ASKED = st.lists(st.tuples(KEYS, st.integers(0, 7)), min_size=8, max_size=16)


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[FeatureStore]]:
    """A file's path, and two stores with three views on it: Feast's DuckDB store, and ours."""
    folder = tmp_path_factory.mktemp("join")
    file = folder / "rows.parquet"
    write(file, [(("a", 1), 0, 0)], None)
    user = Entity(name="user", join_keys=["user"], value_type=ValueType.STRING)
    item = Entity(name="item", join_keys=["item"], value_type=ValueType.INT64)
    source = FileSource(
        name="rows", path=str(file), timestamp_field="event_timestamp", created_timestamp_column="created"
    )
    fields = [Field(name="user", dtype=String), Field(name="item", dtype=Int64), Field(name="stored", dtype=Int64)]
    views = [
        FeatureView(name=name, entities=[user, item], ttl=ttl, schema=fields, source=source)
        for name, ttl in TTLS.items()
    ]
    opened = []
    for number, offline in enumerate(("duckdb", "feast_repo.offline_store.PartitionedParquetOfflineStore")):
        store = FeatureStore(
            config=RepoConfig(
                project="compared",
                provider="local",
                repo_path=folder,
                registry=str(folder / f"registry-{number}.db"),
                entity_key_serialization_version=3,
                online_store={"type": "sqlite", "path": str(folder / "online.db")},
                offline_store={"type": offline},
            )
        )
        store.apply([user, item, *views])
        opened.append(store)
    return file, opened


def write(file: Path, rows: list[tuple[Any, int, int | None]], zone: str | None) -> None:
    def times(steps: list[int | None]) -> pa.Array:
        at = [None if step is None else (NEW_YEAR + step * STEP).replace(tzinfo=None) for step in steps]
        column = pa.array(at, pa.timestamp("us"))
        return column if zone is None else column.cast(pa.int64()).cast(pa.timestamp("us", zone))

    columns = {
        "user": pa.array([key[0] for key, _, _ in rows], pa.string()),
        "item": pa.array([key[1] for key, _, _ in rows], pa.int64()),
        "event_timestamp": times([time for _, time, _ in rows]),
        "created": times([created for _, _, created in rows]),
        "stored": pa.array(range(len(rows)), pa.int64()),
    }
    pq.write_table(pa.table(columns), file)


@given(
    stored=STORED,
    asked=ASKED,
    as_known=st.booleans(),
    zones=st.tuples(*[st.sampled_from(["UTC", "Asia/Kolkata", "America/New_York"])] * 2),
)
@settings(max_examples=25)
def test_equals_feasts_join(
    stores: tuple[Path, list[FeatureStore]], stored: Any, asked: Any, zones: tuple[str, str], *, as_known: bool
) -> None:
    file, both = stores
    write(file, stored, zones[0])
    entities = pd.DataFrame(
        {
            "user": pd.Series([key[0] for key, _ in asked], dtype=pd.ArrowDtype(pa.string())),
            "item": pd.Series([key[1] for key, _ in asked], dtype=pd.ArrowDtype(pa.int64())),
            "event_timestamp": pd.to_datetime([NEW_YEAR + time * STEP for _, time in asked]).tz_convert(zones[1]),
            "number": range(len(asked)),
        }
    )
    features = [f"{name}:stored" for name in TTLS]
    answers = []
    for store in both:
        job = store.get_historical_features(
            entities, features, full_feature_names=True, filter_by_created_timestamp=as_known
        )
        rows = job.to_arrow().select(["number", *(f"{name}__stored" for name in TTLS)])
        answers.append(rows.sort_by("number").to_pylist())
    assert answers[1] == answers[0]
    assert [row["number"] for row in answers[1]] == list(range(len(asked)))
