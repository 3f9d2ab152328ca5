"""Features as of each row's time: our offline store beside Feast's DuckDB and Dask stores, on the same Parquet.

    python -m benchmarks.join

Three days of `user_click_features` with one file a day, as compaction leaves them (with the hundreds of files of a day
that is still being written, Dask needs minutes), and a row of `user_profile_features` for each of 50,000 users. The
rows to join, a user and a time each, lie in the last two and a half days. What is asked for is what a training set is
made of: `get_historical_features` of the whole feature service, as served (rows that had been created by then).

Ours computes which stored row answers each asked one and takes their values; Feast's DuckDB store runs a query that
joins each row with all earlier ones of its entity. The bound is told beside: the same join by hand with Polars, for
these two views. `batch.training_set --pairs` is the whole command on a Parquet file of the rows, in this process: it
opens the store, joins day by day, and writes a file that is read back here.

All values are compared with those of the join by hand: how many rows come out, and how many of them are right.
"""

from __future__ import annotations

import gc
import io
import sys
import time
import warnings
from contextlib import redirect_stdout
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from batch.training.training_set import main as training_set
from benchmarks.feast_stores import own_stores
from benchmarks.feature_rows import click_rows, user_names
from benchmarks.options import options as read_options
from benchmarks.plots import bars
from benchmarks.results import keep
from benchmarks.rounds import Spread, in_turn, ratio
from benchmarks.watch import ContestantError
from feast_repo.declare.events import UTC_MICROSECONDS
from feast_repo.declare.rows import SERVED
from feast_repo.declare.stored import offline_columns
from feast_repo.declare.values import POLARS_TYPES
from feast_repo.features import purchase_prediction, user_click_features as clicks, user_profile_features as profiles
from feast_repo.stores.offline.parquet import day_folder, publish
from feast_repo.stores.offline.tables import day, features_folder, from_milliseconds
from simulation.profiles import make_profiles, publish_profiles

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from feast import FeatureStore

    from benchmarks.feast_stores import Stores

USERS, DAYS, DAY_MS = 50_000, 3, 86_400_000
FIRST_MS = 1_772_323_200_000
"""2026-03-01 00:00 UTC."""
STORED = {"quick": 200_000, "usual": 1_000_000, "full": 1_000_000}
ASKED = {"quick": 20_000, "usual": 200_000, "full": 1_000_000}
OURS, DUCKDB, DASK, BY_HAND = "our store", "Feast's DuckDB store", "Feast's Dask store", "by hand with Polars"
PAIRS = "batch.training_set --pairs"
KEYS = ["user_id", "event_timestamp"]
COLUMNS: dict[str, pl.DataType] = {
    "user_id": pl.String(),
    "event_timestamp": UTC_MICROSECONDS,
    **{name: POLARS_TYPES[kind] for view in (clicks, profiles) for name, kind in view.value_types.items()},
}


def store_rows(root: Path, rows: int) -> None:
    """The Parquet that all of them read."""
    chance = np.random.default_rng(1)
    ends = np.arange(1, 1 + DAY_MS // clicks.slide_ms) * clicks.slide_ms - clicks.slide_ms
    active = rows // DAYS // len(ends)
    for number in range(DAYS):
        users = np.concatenate([np.sort(chance.choice(USERS, active, replace=False)) for _ in ends])
        first = FIRST_MS + number * DAY_MS
        table = click_rows(users, np.repeat(first + ends, active), seed=number)
        columns = pl.Schema(offline_columns(clicks))
        path = day_folder(features_folder(root, clicks.name), day(first)) / "compacted-1.parquet"
        stored = table.with_columns(pl.lit(None).alias(SERVED), writer=pl.lit("stream"))
        publish(path, stored.select(columns.keys()).cast(columns))
    publish_profiles(make_profiles(USERS, seed=1), datetime.fromtimestamp(FIRST_MS / 1000, UTC), root)


def asked_for(count: int) -> pl.DataFrame:
    """So many different pairs of user and time, by time."""
    chance = np.random.default_rng(2)
    seconds = chance.integers(DAY_MS // 2000, DAYS * DAY_MS // 1000, count + count // 10)
    pairs = pl.DataFrame(
        {"user_id": user_names(chance.integers(0, USERS, len(seconds))), "ms": FIRST_MS + seconds * 1000}
    )
    pairs = pairs.unique(maintain_order=True)[:count]
    return pairs.select("user_id", from_milliseconds("ms").alias("event_timestamp")).sort("event_timestamp", "user_id")


def by_hand(root: Path, pairs: pl.DataFrame) -> pl.DataFrame:
    """The join for rows that are created in the order of their times."""
    joined = pairs.lazy()
    for view in (clicks, profiles):
        rows = (
            pl.scan_parquet(features_folder(root, view.name) / "*" / "*.parquet", hive_partitioning=False)
            .select("user_id", "created_timestamp", pl.col("event_timestamp").alias("#time"), *view.features)
            .sort("created_timestamp")
        )
        alive = pl.col("#time") >= pl.col("event_timestamp") - view.ttl
        joined = joined.join_asof(
            rows, left_on="event_timestamp", right_on="created_timestamp", by="user_id", check_sortedness=False
        ).with_columns(pl.when(alive).then(pl.col(name)).alias(name) for name in view.features)
        joined = joined.drop("#time", "created_timestamp", strict=False)
    return joined.collect()


def measure(stores: Stores, asked: int, rounds: int) -> tuple[dict[str, list[float]], dict[str, tuple[int, int]]]:
    """Seconds of each way in each round; of each, how many rows came out and how many of them are right.

    Raises:
        ContestantError: ours are not all there, or not all right.
    """
    pairs = asked_for(asked)
    frame = pairs.to_pandas()
    expected = by_hand(stores.root, pairs).select(COLUMNS.keys())
    came: dict[str, tuple[int, int]] = {}

    def feast(store: FeatureStore) -> pl.DataFrame:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Feast's use of Ibis and Dask is not our business here
            service = store.get_feature_service(purchase_prediction.name)
            return pl.DataFrame(
                store.get_historical_features(frame, service, filter_by_created_timestamp=True).to_arrow()
            )

    defaults = {
        name: value for view in (clicks, profiles) for name, value in view.defaults.items() if value is not None
    }
    with_defaults = expected.with_columns(pl.col(name).fill_null(value) for name, value in defaults.items())

    def timed(name: str, join: Callable[[], pl.DataFrame]) -> float:
        gc.collect()
        start = time.perf_counter()
        rows = join()
        seconds = time.perf_counter() - start
        rows = rows.select(pl.col(column).cast(dtype) for column, dtype in COLUMNS.items())
        right = with_defaults if name == PAIRS else expected
        right = right.join(rows, on=expected.columns, how="semi", nulls_equal=True)
        came[name] = len(rows), len(right)
        return seconds

    asked_file, joined_file = stores.root / "asked.parquet", stores.root / "joined.parquet"
    publish(asked_file, pairs)

    def command() -> pl.DataFrame:
        with redirect_stdout(io.StringIO()):
            training_set(["--pairs", str(asked_file), "--to", str(joined_file), "--json"])
        return pl.read_parquet(joined_file)

    ours, duckdb, dask = stores.ours(), stores.stock("duckdb"), stores.stock("dask")
    ways: dict[str, Callable[[], float]] = {
        OURS: partial(timed, OURS, lambda: feast(ours)),
        PAIRS: partial(timed, PAIRS, command),
        DUCKDB: partial(timed, DUCKDB, lambda: feast(duckdb)),
        DASK: partial(timed, DASK, lambda: feast(dask)),
        BY_HAND: partial(timed, BY_HAND, lambda: by_hand(stores.root, pairs)),
    }
    feast(ours)  # what is imported on the first call is no part of a join
    found = in_turn(ways, rounds, "join")
    for name in (OURS, PAIRS):
        if came[name] != (len(pairs), len(pairs)):
            message = f"{name} gave {came[name][0]:,} rows for {len(pairs):,}, {came[name][1]:,} of them right"
            raise ContestantError(message)
    return found, came


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; returns the exit code."""
    options = read_options("benchmarks.join", "Point-in-time joins: our store, Feast's DuckDB and Dask.", arguments)
    stored, asked = STORED[options.size], ASKED[options.size]
    with own_stores() as stores:
        store_rows(stores.root, stored)
        found, came = measure(stores, asked, options.rounds)
    ratios = {f"our store is so many times as fast as {name}": ratio(found[name], found[OURS]) for name in found}
    del ratios[f"our store is so many times as fast as {OURS}"]
    first = "\n".join(f"| {name} | {spread.text('.2f')} | |" for name, spread in ratios.items())
    second = "\n".join(
        f"| {name} | {Spread.of(seconds).text('.2f')} | {asked:,} | {came[name][0]:,} | {came[name][1]:,} |"
        for name, seconds in found.items()
    )
    text = (
        f"{asked:,} rows to join with {stored:,} rows of {clicks.name} and {USERS:,} of {profiles.name}; median of "
        f"{options.rounds} rounds (least to most).\n\n"
        f"| ratio | | budget |\n|---|---|---|\n{first}\n\n"
        f"| | seconds | rows in | rows out | of them right |\n|---|---|---|---|---|\n{second}\n"
    )
    result = {
        "ratios": {name: vars(spread) for name, spread in ratios.items()},
        "rows_in": asked,
        "rows_out_and_right": came,
        "seconds": found,
    }
    plots = {f"Seconds to join {asked:,} rows": bars(found, f"seconds for {asked:,} rows", ours=(OURS, PAIRS))}
    keep("join", options, "Point-in-time join", result, text, plots=plots)
    return 0


if __name__ == "__main__":
    sys.exit(main())
