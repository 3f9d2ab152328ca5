"""How old a click is when its features can be read: from the record that closes a window to the rows in Redis.

    python -m benchmarks.freshness

The dataflow runs live, as `python -m bytewax.run stream.dataflow -r DIR -s 10 -b 0` on one core; Kafka (Apache, 12
partitions), Redis, the producer and the reader share the others. The producer sends 10,000 events/s of 50,000 users
(`--size full`: 100,000/s, too) at a constant rate. Their event time runs 60 times as fast as the wall clock, so that
windows close every 10 s, in all partitions at nearly the same moment. That is 60 times as often as in production, with
as many rows at each closing as there were users in the hour of event time.

The clock starts when the producer hands the record that closes a window to librdkafka, and stops when the reader sees a
row of this window, or of a later one, for a user of that partition: three users a partition, asked for every 5 ms. So
it includes linger (5 ms), the broker, the consumer's fetch, waiting for the batches before (and for the end of an
epoch, every 10 s), decoding, closing the window, the push, and up to 5 ms until the reader asks. The first window is
not counted; a round is a window. Afterwards all rows in Parquet must be those that SQL finds in the same events.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
from confluent_kafka import Producer
from redis import Redis
from rich.progress import Progress

from benchmarks.clicks import EVENT_COLUMNS, START_MS, differences, expected_rows
from benchmarks.live import SPEED, live_clicks
from benchmarks.options import options as read_options
from benchmarks.plots import shares
from benchmarks.results import keep
from benchmarks.rounds import Spread
from benchmarks.watch import LAST_LINES, ContestantError, cores
from feast_repo.features import user_click_features as view
from feast_repo.settings import PROJECT_ROOT
from feast_repo.stores.online.format import RowFormat, decode_time
from feast_repo.stores.online.marker import marker_key
from feast_repo.stores.online.pipe import ask
from sandbox.processes import wait_until
from sandbox.stack import Sandbox

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

RATES = {"quick": (10_000,), "usual": (10_000,), "full": (10_000, 100_000)}
PROJECT, KEY_VERSION = "ml_feature_store", 3  # as in feature_store.yaml
ASK_S = 0.005
HEARTBEAT = json.dumps({"event_id": "start", "event_type": "heartbeat", "event_timestamp": START_MS})
START_S, GRACE_S, STOP_S = 60, 30, 60
QUANTILES = (50, 95, 99, 100)
SLIDE_S = view.slide_ms / 1000 / SPEED


@dataclass(frozen=True)
class Run:
    """Milliseconds from record to row, by window end; the most that the producer was behind."""

    milliseconds: dict[int, list[float]]
    behind_ms: float

    @property
    def all(self) -> list[float]:
        """Those of all windows."""
        return [one for window in self.milliseconds.values() for one in window]


class Reader:
    """Asks for the stored times of some users, and remembers when it first saw which."""

    def __init__(self, redis: Redis, users: Sequence[str]) -> None:
        (key,) = view.join_keys
        rows = RowFormat(PROJECT, view.name, view.entity.join_keys, view.value_types, KEY_VERSION)
        self._redis, self._users = redis, users
        self._questions = list(rows.read_time_commands(rows.keys(pl.DataFrame({key: users}))))
        self._stored: list[bytes | None] = [None] * len(users)
        self.seen: dict[str, list[tuple[int, float]]] = {user: [] for user in users}

    def ask(self) -> int:
        """Ask once; returns the oldest time, ms UTC."""
        replies = ask(self._redis, self._questions)
        now = time.time()
        for number, (before, data) in enumerate(zip(self._stored, replies, strict=True)):
            if data != before:
                self.seen[self._users[number]].append((decode_time(data) // 1_000_000, now))
        self._stored = replies
        return min(times[-1][0] if times else 0 for times in self.seen.values())

    def seen_at(self, user: str, end_ms: int) -> float:
        """When a row of this window end or a later one was there.

        Raises:
            ContestantError: it never was.
        """
        for stored_ms, at in self.seen[user]:
            if stored_ms >= end_ms:
                return at
        message = f"{user} got no row of the window that ended at {end_ms}"
        raise ContestantError(message)


def measure(rate: int, windows: int, bar: Progress) -> Run:
    """One run at a rate, over so many windows beside the first.

    Raises:
        ContestantError: the dataflow failed, or rows are missing or wrong.
    """
    ours = ",".join(map(str, cores()[0]))
    seconds = round((windows + 1) * SLIDE_S + (view.lateness_ms / 1000 + 60) / SPEED) + 1
    clicks = live_clicks(rate, seconds)
    with (
        tempfile.TemporaryDirectory() as folder,
        _off_the_measured_core(),
        Sandbox(Path(folder) / "data", kafka="apache") as sandbox,
        Redis.from_url(sandbox.redis_url) as redis,
    ):
        environment = {**os.environ, **sandbox.environment, "STREAM_STOP_AT_END": ""}
        command = ["taskset", "--cpu-list", ours, sys.executable, "-m", "bytewax.run", "stream.dataflow"]
        command += ["-r", f"{folder}/recovery", "-s", "10", "-b", "0"]
        with _running(command, environment, Path(folder) / "log") as dataflow:
            _wait_for_the_stores(sandbox, redis, Path(folder) / "log")
            produced, reader = _follow(rate, seconds, environment, redis, bar)
            dataflow.send_signal(signal.SIGTERM)
            if dataflow.wait(STOP_S):
                _fail(Path(folder) / "log")
        events = pl.concat(records.select(EVENT_COLUMNS) for records in clicks.records())
        if wrong := differences(expected_rows(events, clicks.ends), sandbox.root):
            message = f"{wrong:,} rows are missing or wrong"
            raise ContestantError(message)
    return _latencies(produced, reader, clicks.ends[1:])


def _wait_for_the_stores(sandbox: Sandbox, redis: Redis, log: Path) -> None:
    """A heartbeat before all clicks makes the dataflow open its stores, which takes seconds."""
    producer = Producer({"bootstrap.servers": sandbox.bootstrap})
    for partition in range(sandbox.partitions):
        producer.produce(sandbox.topic, HEARTBEAT, partition=partition)
    producer.flush()
    if not wait_until(lambda: bool(redis.exists(marker_key(PROJECT, view.name))), START_S):
        _fail(log)


def _follow(
    rate: int, seconds: int, environment: dict[str, str], redis: Redis, bar: Progress
) -> tuple[dict[str, Any], Reader]:
    """Produce, and read until the last window is there: what the producer told, and what was read."""
    task = bar.add_task(f"{rate:,} events/s", total=None)
    producer = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.live", str(rate), str(seconds)],
        cwd=PROJECT_ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert producer.stdout is not None  # noqa: S101  (it is a pipe)
        told = json.loads(producer.stdout.readline())
        reader = Reader(redis, list(told["partition_of"]))
        bar.update(task, total=seconds)
        start, last = time.monotonic(), live_clicks(rate, seconds).ends[-1]
        while reader.ask() < last and time.monotonic() < start + seconds + GRACE_S:
            bar.update(task, completed=time.monotonic() - start)
            time.sleep(ASK_S)
        done: dict[str, Any] = json.loads(producer.stdout.readline())
    finally:
        producer.terminate()
        producer.wait()
        bar.remove_task(task)
    return {**done, "partition_of": told["partition_of"]}, reader


def _latencies(produced: dict[str, Any], reader: Reader, ends: Sequence[int]) -> Run:
    closed = {(partition, end_ms): at for partition, end_ms, at in produced["closed"]}
    return Run(
        {
            end_ms: [
                (reader.seen_at(user, end_ms) - closed[partition, end_ms]) * 1000
                for user, partition in produced["partition_of"].items()
            ]
            for end_ms in ends
        },
        produced["behind_ms"],
    )


@contextmanager
def _off_the_measured_core() -> Iterator[None]:
    """Leave the dataflow its core, we and what we start."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores()[1])
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@contextmanager
def _running(command: Sequence[str], environment: dict[str, str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as output:
        process = subprocess.Popen(command, cwd=PROJECT_ROOT, env=environment, stdout=output, stderr=output)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()


def _fail(log: Path) -> None:
    end = "\n".join(log.read_text(errors="replace").splitlines()[-LAST_LINES:])
    message = f"the dataflow did not start or failed:\n{end}"
    raise ContestantError(message)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; returns the exit code."""
    about = "From the record that closes a window to its rows in Redis, live. A round is a window."
    options = read_options("benchmarks.freshness", about, arguments)
    with Progress(transient=True) as bar:
        runs = {rate: measure(rate, options.rounds, bar) for rate in RATES[options.size]}
    text = _text(runs, options.rounds)
    result = {rate: {**vars(run), "quantiles": _quantiles(run.all)} for rate, run in runs.items()}
    plot = shares({f"{rate:,} events/s": run.all for rate, run in runs.items()}, "milliseconds from record to row")
    plots = {"Share of rows that can be read within a time": plot}
    keep("freshness", options, "Freshness", {"runs": result}, text, plots=plots)
    return 0


def _quantiles(values: Sequence[float]) -> dict[str, float]:
    return {f"p{at}": float(np.percentile(values, at)) for at in QUANTILES}


def _text(runs: dict[int, Run], windows: int) -> str:
    names = ["p50", "p95", "p99", "most"]
    lines = [
        f"| events/s | {' | '.join(f'{name}, ms' for name in names)} | median of each window, ms | rows | behind, ms |",
        "|---" * 8 + "|",
    ]
    for rate, run in runs.items():
        each = Spread.of(float(np.median(window)) for window in run.milliseconds.values())
        quantiles = " | ".join(f"{value:,.0f}" for value in _quantiles(run.all).values())
        lines.append(f"| {rate:,} | {quantiles} | {each.text()} | {len(run.all):,} | {run.behind_ms:,.0f} |")
    return (
        "From handing the record that closes a window to the producer until a row of the window is read from Redis; "
        f"{windows} windows, one every {SLIDE_S:g} s in all partitions at once. It includes linger, fetch, the batches "
        "before, decoding, closing, the push, and up to 5 ms until the reader asks. Rows: how many were looked at. "
        "Behind: the producer, at most.\n\n" + "\n".join(lines) + "\n"
    )


if __name__ == "__main__":
    sys.exit(main())
