"""How long the dataflow takes to come back with large state: from the start of its process to new features in Redis.

A run reads a log from a real Kafka and ends with its recovery state committed. Then more clicks arrive, whose first
ones close a window in each partition, and the same command starts again on copies of all that the run has left:
recovery directory, data folder and Redis. Measured from the start of the process:

    ready        Python and Feast are imported, and connections made
    first row    a row of a window that had not closed before is in Redis: state is restored, and batches are processed
    all rows     such rows are there of every partition
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import polars as pl
from redis import Redis

from benchmarks.bare import key
from benchmarks.clicks import START_MS, Clicks
from benchmarks.topic import aside, compete, environment, produce
from benchmarks.watch import ContestantError, cores
from feast_repo.features import user_click_features as view
from feast_repo.settings import PROJECT_ROOT
from feast_repo.stores.offline.tables import day, window_file
from feast_repo.stores.online.format import decode_time

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sandbox.stack import Sandbox

TOPIC = "restart"
MINUTES, END_MINUTES = 73.0, 71.9
"""Of event time: all of the clicks, and the end of the first run, at which nearly all of a window has come."""

LAST_END_MS = START_MS + 60 * 60_000
"""The last window that the first run closes, since the watermark is two minutes behind."""

POLL_S = 0.005
_OURS = [sys.executable, "-m", "benchmarks.contestants.ours"]
GIVE_UP_S = 120.0


@dataclass(frozen=True)
class Restart:
    """Seconds since the start of the process."""

    ready: float
    first_row: float
    all_rows: float
    exit: float


class Restarts:
    """A run that has ended, to be started again any number of times from what it left."""

    def __init__(self, sandbox: Sandbox, clicks: Clicks, folder: Path) -> None:
        """Produce the clicks of `MINUTES` up to the end of the run, run, and produce the rest.

        Raises:
            ContestantError: the run failed.
        """
        self._sandbox, self._folder = sandbox, folder
        self._data, self._recovery = folder / "data", folder / "recovery"
        self._environment = {
            **environment(sandbox, TOPIC, self._data),
            "BENCH_RECOVERY": str(self._recovery),
        }
        sandbox.kafka.create_topic(TOPIC, sandbox.partitions)
        aside(sandbox)
        produce(sandbox, TOPIC, _part(clicks, before=True))
        compete(sandbox, "ours", TOPIC, self._data, BENCH_RECOVERY=str(self._recovery))
        rows = self._last_rows()
        self.active_users = sum(map(len, rows))
        self._probes = [key(part["user_id"][0]) for part in rows]
        produce(sandbox, TOPIC, _part(clicks, before=False))
        self._copy_all(self._folder / "kept", back=False)

    @property
    def recovery_bytes(self) -> int:
        """Size of the recovery state that the run has left."""
        return sum(path.stat().st_size for path in (self._folder / "kept" / "recovery").rglob("*") if path.is_file())

    def restart(self) -> Restart:
        """Start once.

        Raises:
            ContestantError: it failed, or no new row came within two minutes.
        """
        self._copy_all(self._folder / "kept", back=True)
        aside(self._sandbox)
        log = self._folder / "restart.log"
        with log.open("w") as errors, Redis.from_url(self._sandbox.redis_url) as redis:
            start = time.perf_counter()
            child = subprocess.Popen(
                ["taskset", "--cpu-list", ",".join(map(str, cores()[0])), *_OURS],
                cwd=PROJECT_ROOT,
                env={**os.environ, **self._environment},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )
            try:
                assert child.stdout is not None  # noqa: S101  (it is a pipe)
                ready = child.stdout.readline() and time.perf_counter() - start
                first, everywhere = self._wait_for_rows(redis, child, start)
                code = child.wait(GIVE_UP_S)
                done = time.perf_counter() - start
            finally:
                if child.poll() is None:
                    child.kill()
                    child.wait()
        if code or not ready:
            message = f"the restart ended with {code}:\n{log.read_text(errors='replace')[-3000:]}"
            raise ContestantError(message)
        return Restart(ready, first, everywhere, done)

    def _wait_for_rows(self, redis: Redis, child: subprocess.Popen[str], start: float) -> tuple[float, float]:
        first = None
        while (now := time.perf_counter() - start) < GIVE_UP_S and child.poll() is None:
            pipe = redis.pipeline(transaction=False)
            for probe in self._probes:
                pipe.execute_command("HGET", probe, f"_ts:{view.name}")
            new = [decode_time(found) > LAST_END_MS * 1_000_000 for found in pipe.execute()]
            if first is None and any(new):
                first = now
            if first is not None and all(new):
                return first, now
            time.sleep(POLL_S)
        message = f"no new rows in Redis of all partitions after {now:.0f} s"
        raise ContestantError(message)

    def _last_rows(self) -> list[pl.DataFrame]:
        """Each partition's rows of the last window that has closed."""
        folder = self._data / "features" / view.name / f"dt={day(LAST_END_MS)}"
        partitions = range(self._sandbox.partitions)
        return [pl.read_parquet(folder / window_file("stream", number, LAST_END_MS)) for number in partitions]

    def _copy_all(self, kept: Path, *, back: bool) -> None:
        """Copy what the run has left to a folder, or back from it."""
        redis = self._sandbox.redis
        redis.stop()
        for name, place in (("data", self._data), ("recovery", self._recovery), ("redis", redis.folder)):
            source, target = (kept / name, place) if back else (place, kept / name)
            shutil.rmtree(target, ignore_errors=True)
            shutil.copytree(source, target)
        redis.start()


def _part(clicks: Clicks, *, before: bool) -> Iterator[pl.DataFrame]:
    """The clicks before the end of the run, or those after it."""
    at = START_MS + round(END_MINUTES * 60_000)
    for frame in clicks.records():
        yield frame.filter((pl.col("arrival_ms") < at) == before)
