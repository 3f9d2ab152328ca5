"""Rows into Redis: our guarded push beside `FeatureStore.push`, and beside what the server can take at most.

    python -m benchmarks.push

A row is one of `user_click_features`: HSET of its time and seven features. Before each push Redis holds the window
before for the same users, which is what the stream finds; so our push and Feast's both read the stored times first.
Feast's is stock Feast with its own Redis store, and gets a ready data frame.

Python's garbage collector looks through Feast's million objects again and again unless it is spared them. The stream
does so when it starts, so ours is measured like that, and Feast's as in any process; the table has both ways for both.

What bounds it: `redis-benchmark` sends HSET with as many fields and bytes, made once and guarded by nothing, 1,000 in a
pipeline over 4 connections (the quickest of those that were tried). "Ready-made" are the very commands of our push,
made beforehand; the rest of the push is reading the stored times and making the bytes.

Before anything is timed, both pushes must leave the same keys and bytes in an empty Redis.
"""

from __future__ import annotations

import csv
import gc
import shutil
import subprocess
import sys
import time
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.feast_stores import own_stores
from benchmarks.feature_rows import click_rows
from benchmarks.options import options as read_options
from benchmarks.plots import bars
from benchmarks.redis_content import digest, hashes, payloads
from benchmarks.results import keep
from benchmarks.rounds import Spread, in_turn, ratio
from benchmarks.watch import ContestantError
from feast_repo.features import user_click_features as view
from feast_repo.stores.online.pipe import ask
from sandbox.processes import LOOPBACK
from stream.stores import COLLECT_AFTER

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import pandas as pd
    import polars as pl
    from feast import FeatureStore
    from redis import Redis

    from benchmarks.feast_stores import Stores
    from feast_repo.stores.push import Pusher

WINDOW_END_MS = 1_772_366_400_000
SMALL = 10_000
LARGE = {"quick": 30_000, "usual": 100_000, "full": 100_000}
PIPELINE, CONNECTIONS, REPEATED = 1_000, 4, 5
OURS, OURS_LARGE = f"push, {SMALL:,} rows", "push, many rows"
OURS_PLAIN = f"{OURS}, collector not spared"
FEAST = f"FeatureStore.push, {SMALL:,} rows"
FEAST_SPARED = f"{FEAST}, collector spared"
READY_MADE, REDIS_BENCHMARK = "ready-made commands", "redis-benchmark"
PROGRAMS = ("redis-benchmark", "valkey-benchmark")
RANDOM = "__rand_int__"  # twelve digits in its place
LACKING = (
    f"{PROGRAMS[0]} is not on PATH, so ready-made commands stand for what the server can take; to measure with it: "
    "apt-get install redis-tools"
)


class Contest:
    """One Redis, and those who write into it: each way gives rows/s. Ours are timed over `at_least` rows."""

    def __init__(self, redis: Redis, pusher: Pusher, stock: FeatureStore, at_least: int) -> None:
        self._redis, self._pusher, self._stock, self._at_least = redis, pusher, stock, at_least

    def check(self, rows: pl.DataFrame) -> None:
        """Both pushes must leave the same.

        Raises:
            ContestantError: they don't.
        """
        self._redis.flushall()
        self._pusher.push_online(rows)
        ours = digest(self._redis)
        self._redis.flushall()
        self._push_stock(rows.to_pandas())
        if ours != digest(self._redis) or ours.hashes != len(rows):
            message = "the two pushes have left different contents in Redis"
            raise ContestantError(message)

    def ours(self, rows: pl.DataFrame) -> float:
        """`Pusher.push_online`, again and again until so many rows are pushed."""
        seconds = 0.0
        for _ in range(self._at_least // len(rows)):  # a single one of few rows is over in 30 ms
            self._window_before(rows)
            start = time.perf_counter()
            written = self._pusher.push_online(rows)
            seconds += time.perf_counter() - start
            if written != len(rows):
                message = f"the push wrote {written:,} of {len(rows):,} rows"
                raise ContestantError(message)
        return self._at_least / seconds

    def feast(self, rows: pl.DataFrame) -> float:
        """`FeatureStore.push` to the online store."""
        self._window_before(rows)
        frame = rows.to_pandas()
        start = time.perf_counter()
        self._push_stock(frame)
        return len(rows) / (time.perf_counter() - start)

    def ready_made(self, rows: pl.DataFrame) -> float:
        """The commands that `Pusher.push_online` makes, made beforehand."""
        self._redis.flushall()
        self._pusher.push_online(rows)
        commands = payloads([[b"HSET", key, *parts] for key, parts in hashes(self._redis)])
        self._window_before(rows)
        start = time.perf_counter()
        ask(self._redis, commands)
        return len(rows) / (time.perf_counter() - start)

    def redis_benchmark(self, program: str, rows: pl.DataFrame) -> float:
        """HSET with random keys among so many, with fields and values as long as those of a usual row."""
        self._redis.flushall()
        self._pusher.push_online(rows)
        found = [(key, parts) for key, parts in hashes(self._redis)]
        usual = sorted(found, key=lambda row: sum(map(len, row[1])))[len(found) // 2]
        key, parts = usual
        arguments = ["k" * (len(key) - len(RANDOM)) + RANDOM, *("x" * len(part) for part in parts)]
        # Distinct fields, as in a row.
        arguments[1::2] = [f"{number}".ljust(len(field), "f") for number, field in enumerate(arguments[1::2])]
        self._redis.flushall()
        told = 0.0
        for _ in range(2):  # the first fills
            command = [program, "-h", LOOPBACK, "-p", str(self._redis.connection_pool.connection_kwargs["port"])]
            command += ["-n", str(REPEATED * len(rows)), "-r", str(len(rows)), "-P", str(PIPELINE)]
            command += ["-c", str(CONNECTIONS), "--csv", "HSET", *arguments]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            told = float(next(csv.DictReader(done.stdout.splitlines()))["rps"])
        return told

    def _push_stock(self, frame: pd.DataFrame) -> None:
        from feast.data_source import PushMode  # noqa: PLC0415  (takes seconds)

        self._stock.push(view.push_source, frame, to=PushMode.ONLINE)

    def _window_before(self, rows: pl.DataFrame) -> None:
        self._redis.flushall()
        self._pusher.push_online(rows.with_columns(rows["event_timestamp"] - view.slide))


@contextmanager
def collector_spared() -> Iterator[None]:
    """As the stream has it: all objects that are there already are no business of the garbage collector."""
    usual = gc.get_threshold()
    gc.collect()
    gc.freeze()
    gc.set_threshold(COLLECT_AFTER)
    try:
        yield
    finally:
        gc.set_threshold(*usual)
        gc.unfreeze()


def measure(stores: Stores, program: str | None, large: int, rounds: int) -> dict[str, list[float]]:
    """Rows/s of each way in each round."""
    ours, stock = stores.ours(), stores.stock("duckdb")
    from feast_repo.stores.push import Pusher  # noqa: PLC0415  (takes seconds)

    pusher = Pusher(ours, view.push_source)
    if pusher.redis is None:
        message = "the push goes through Feast's own here, so there is nothing to compare"
        raise ContestantError(message)
    contest = Contest(stores.redis, pusher, stock, large)
    rows = click_rows(np.arange(large), np.full(large, WINDOW_END_MS), seed=1)
    contest.check(rows)
    small = rows[:SMALL]

    def spared(way: Callable[[pl.DataFrame], float], some: pl.DataFrame) -> float:
        with collector_spared():
            return way(some)

    ways: dict[str, Callable[[], float]] = {
        OURS: partial(spared, contest.ours, small),
        OURS_LARGE: partial(spared, contest.ours, rows),
        OURS_PLAIN: partial(contest.ours, small),
        FEAST: partial(contest.feast, small),
        FEAST_SPARED: partial(spared, contest.feast, small),
        READY_MADE: partial(contest.ready_made, rows),
    }
    if program is not None:
        ways[REDIS_BENCHMARK] = partial(contest.redis_benchmark, program, rows)
    return in_turn(ways, rounds, "push")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; returns the exit code."""
    about = "Rows/s into Redis: our push, FeatureStore.push, redis-benchmark."
    options = read_options("benchmarks.push", about, arguments)
    program = next(filter(shutil.which, PROGRAMS), None)
    large = LARGE[options.size]
    with own_stores() as stores:
        found = measure(stores, program, large, options.rounds)
    limit = REDIS_BENCHMARK if program else READY_MADE
    pairs = {
        (OURS, FEAST): ">= 15",
        (OURS_PLAIN, FEAST): "",
        (OURS, FEAST_SPARED): "",
        (OURS_LARGE, READY_MADE): "",
        (OURS, limit): ">= 0.5",
        (OURS_LARGE, limit): ">= 0.5",
    }
    ratios = {
        f"{ours} / {theirs}": (ratio(found[ours], found[theirs]), budget) for (ours, theirs), budget in pairs.items()
    }
    text = _text(ratios, found, large, options.rounds, "" if program else f"\n{LACKING}\n")
    result: dict[str, Any] = {
        "many_rows": large,
        "ratios": {name: vars(spread) for name, (spread, _) in ratios.items()},
        "rows_per_second": found,
    }
    plot = bars(found, "rows/s into Redis (median; line: all rounds)", ours=(OURS, OURS_LARGE, OURS_PLAIN))
    plots = {"Rows per second into Redis": plot}
    keep("push", options, "Push to Redis", result, text, plots=plots)
    return 0


def _text(
    ratios: dict[str, tuple[Spread, str]], found: dict[str, list[float]], large: int, rounds: int, lacking: str
) -> str:
    first = "\n".join(f"| {name} | {spread.text('.2f')} | {budget} |" for name, (spread, budget) in ratios.items())
    second = "\n".join(f"| {name} | {Spread.of(rates).text()} |" for name, rates in found.items())
    return (
        f"Median of {rounds} rounds (least to most); many rows are {large:,}. Redis already holds an older row of each "
        "user; both pushes leave the same bytes.\n\n"
        f"| ratio | | budget |\n|---|---|---|\n{first}\n\n| | rows/s |\n|---|---|\n{second}\n{lacking}"
    )


if __name__ == "__main__":
    sys.exit(main())
