"""A plain Feast repository with Feast's own stores and with ours: the two lines of docs/feast.md, and nothing else.

One Parquet file as Pandas writes it, two views of one entity. Measured are `push`, `materialize`, online reads of 1,
100 and 1,000 entities, and a point-in-time join, through Feast's own API on both sides. Feast's stores are Redis and
DuckDB; the file has microseconds, since the locked DuckDB can't cast nanoseconds. Answers online are compared, and of
the join how many rows come out.
"""

from __future__ import annotations

import contextlib
import gc
import io
import sys
import time
import warnings
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from benchmarks.feast_stores import own_stores
from benchmarks.options import options as read_options
from benchmarks.results import keep
from benchmarks.rounds import Spread, in_turn, ratio
from benchmarks.watch import ContestantError
from feast_repo.declare.events import UTC_MICROSECONDS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from feast import FeatureStore

STORED = {"quick": 20_000, "usual": 1_000_000, "full": 1_000_000}
ASKED = {"quick": 5_000, "usual": 1_000_000, "full": 1_000_000}
DRIVERS, PUSHED, READS = 50_000, 10_000, 200
FEATURES = ("trips", "rate", "name")
START = datetime(2026, 3, 1, tzinfo=UTC)
OURS, FEAST = "ours", "Feast's"
TYPES = {
    OURS: (
        "feast_repo.online_store.RedisUrlOnlineStore",
        "feast_repo.offline_store.PartitionedParquetOfflineStore",
    ),
    FEAST: ("redis", "duckdb"),
}


def rows(count: int, seed: int) -> pl.DataFrame:
    """Rows of random drivers over three days."""
    chance = np.random.default_rng(seed)
    return pl.DataFrame(
        {
            "driver_id": chance.integers(0, DRIVERS, count),
            "event_timestamp": START.timestamp() * 1e6 + chance.integers(0, 3 * 86_400, count) * 1e6,
            "trips": chance.integers(0, 1_000, count),
            "rate": chance.random(count),
            "name": chance.integers(0, 100, count).astype(str),
        }
    ).with_columns(pl.col("event_timestamp").cast(pl.Int64).cast(UTC_MICROSECONDS))


def opened(root: Path, redis: str, side: str, number: int) -> FeatureStore:
    """A repository in a folder of its own; only the two types differ."""
    from feast import Entity, FeatureStore, FeatureView, FileSource, PushSource, RepoConfig, ValueType  # noqa: PLC0415

    folder = root / f"side-{number}"
    folder.mkdir()
    online, offline = TYPES[side]
    store = FeatureStore(
        config=RepoConfig(
            project="plain",
            provider="local",
            repo_path=folder,
            registry=str(folder / "registry.db"),
            entity_key_serialization_version=3,
            online_store={"type": online, "connection_string": f"{redis.split('/')[2]},db={number}"},
            offline_store={"type": offline},
        )
    )
    driver = Entity(name="driver", join_keys=["driver_id"], value_type=ValueType.INT64)
    source = FileSource(name="rows", path=str(root / "rows.parquet"), timestamp_field="event_timestamp")
    view = FeatureView(name="drivers", entities=[driver], ttl=timedelta(days=1), source=source)
    push = PushSource(name="push", batch_source=source)
    store.apply([driver, view, FeatureView(name="pushed", entities=[driver], ttl=timedelta(days=1), source=push)])
    return store


def measure(stored: int, asked: int, rounds: int) -> dict[str, dict[str, list[float]]]:
    """Seconds of each task and side in each round.

    Raises:
        ContestantError: the two sides differ.
    """
    names = [f"drivers:{name}" for name in FEATURES]
    entity_df = rows(asked, 2).select("driver_id", "event_timestamp").unique(maintain_order=True).to_pandas()
    found: dict[str, dict[str, list[float]]] = {}
    with own_stores() as stores:
        rows(stored, 1).write_parquet(stores.root / "rows.parquet")
        sides = {side: opened(stores.root, stores.redis_url, side, number) for number, side in enumerate(TYPES, 1)}
        pushes = iter(range(1, 1_000))

        def push(store: FeatureStore) -> None:
            later = START + timedelta(days=4, minutes=next(pushes))
            rows_of_now = rows(PUSHED, 3).unique("driver_id").with_columns(pl.lit(later).alias("event_timestamp"))
            store.push("push", rows_of_now.to_pandas())

        def materialize(store: FeatureStore) -> None:
            store.materialize(START, START + timedelta(days=3), ["drivers"])

        def read(entities: int, store: FeatureStore) -> Any:
            wanted = [{"driver_id": number} for number in range(entities)]
            return [store.get_online_features(names, wanted) for _ in range(max(1, READS // entities))][-1].proto

        def history(store: FeatureStore) -> int:
            return int(store.get_historical_features(entity_df, names).to_arrow().num_rows)

        tasks: dict[str, Callable[[FeatureStore], Any]] = {
            f"push {PUSHED:,} rows": push,
            f"materialize {stored:,} rows": materialize,
            **{f"read {count:,} entities": partial(read, count) for count in (1, 100, 1_000)},
            f"history of {len(entity_df):,} rows": history,
        }
        for task, work in tasks.items():
            came: dict[str, Any] = {}
            for store in sides.values():  # what is imported and connected at the first call is no part of it
                _timed("first", work, store, {})
            found[task] = in_turn(
                {side: partial(_timed, side, work, store, came) for side, store in sides.items()}, rounds, task
            )
            if came[OURS] != came[FEAST]:
                message = f"{task}: ours and Feast's gave different answers"
                raise ContestantError(message)
    return found


def _timed(side: str, work: Callable[[FeatureStore], Any], store: FeatureStore, came: dict[str, Any]) -> float:
    gc.collect()
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")  # Feast's use of Ibis is not our business here
        start = time.perf_counter()
        came[side] = work(store)
        return time.perf_counter() - start


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; returns the exit code."""
    options = read_options("benchmarks.dropin", "A Feast repository with Feast's stores and with ours.", arguments)
    found = measure(STORED[options.size], ASKED[options.size], options.rounds)
    quicker = {task: ratio(seconds[FEAST], seconds[OURS]) for task, seconds in found.items()}
    lines = "\n".join(
        f"| {task} | {spread.text('.2f')} | {Spread.of(found[task][OURS]).text('.3f')} | "
        f"{Spread.of(found[task][FEAST]).text('.3f')} |"
        for task, spread in quicker.items()
    )
    text = (
        f"Median of {options.rounds} rounds (least to most). Answers are the same.\n\n"
        f"| | so many times as fast | seconds, ours | seconds, Feast's |\n|---|---|---|---|\n{lines}\n"
    )
    result = {"ratios": {task: vars(spread) for task, spread in quicker.items()}, "seconds": found}
    keep("dropin", options, "A Feast repository with two lines changed", result, text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
