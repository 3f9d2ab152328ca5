"""Clicks for the drill: an endless history, much faster than real time, with late, malformed and duplicate records."""

from __future__ import annotations

import contextlib
import random
import threading
from typing import TYPE_CHECKING, Self

import polars as pl

from simulation.clock import Simulation, Traffic
from simulation.events import simulate
from simulation.records import EVENT, LATE, heartbeats
from stream.producing import TopicSink

if TYPE_CHECKING:
    from feast_repo.settings import StreamSettings

START_MS = 1_772_323_200_000  # 2026-03-01
USERS = 8_000
"""Enough that most are inactive at the end, so nothing repairs their online rows after a fault."""
RECORDS_PER_SECOND = 1_000
SECONDS_PER_SECOND = 60
"""A window closes every ten real seconds."""
BLOCK = 250
COPY_SHARE = 0.02
REMEMBERED = 200
"""Blocks to take copies from: some of them are older than any live pane."""


class ClickTraffic:
    """A thread that produces until `end`, which then sends the heartbeats that close every window.

    with ClickTraffic(settings, seed, partitions) as traffic:
        ...
        traffic.end()
    traffic.sent, traffic.malformed
    """

    def __init__(self, settings: StreamSettings, seed: int, partitions: int) -> None:
        self.sent = 0
        self.copies = 0
        self.malformed: set[bytes] = set()
        self._view = settings.catalog.view()
        self._partitions = tuple(range(partitions))
        self._chance = random.Random(seed)  # noqa: S311  (a drill is repeatable)
        self._simulation = Simulation(
            stream=self._view.source,
            traffic=Traffic(users=USERS, seed=seed, disorder_ms=60_000, late_share=0.02, malformed_share=0.01),
            start_ms=START_MS,
            interval_ms=1000 * SECONDS_PER_SECOND / RECORDS_PER_SECOND,
            events=None,
            lateness_ms=self._view.lateness_ms,
            block=BLOCK,
        )
        self._stop = threading.Event()
        self._sink = TopicSink(settings, self._view.source.topic, threading.Event())
        self._thread = threading.Thread(target=self._run, name="clicks")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def end(self) -> None:
        """Send the last heartbeats and wait until everything is delivered.

        Raises:
            RuntimeError: Kafka did not take a record.
        """
        self._stop.set()
        self._thread.join()
        if self._sink.failed:
            message = f"{self._sink.failed} records were not delivered: {self._sink.last_error}"
            raise RuntimeError(message)

    def _run(self) -> None:
        blocks: list[pl.DataFrame] = []
        latest_ms = START_MS
        with contextlib.closing(self._sink):
            for fresh in simulate(self._simulation):
                records = self._with_copies(fresh, blocks)
                blocks = [*blocks, fresh.filter(pl.col("kind").is_in([EVENT, LATE]))][-REMEMBERED:]
                latest_ms = max(latest_ms, int(fresh["arrival_ms"].max()))  # type: ignore[arg-type]
                self._send(records)
                if self._stop.wait(BLOCK / RECORDS_PER_SECOND):
                    break
            view = self._view
            end_ms = (latest_ms // view.slide_ms + 2) * view.slide_ms + view.window_ms + view.lateness_ms
            self._send(heartbeats(view.source, self._simulation.run, end_ms, self._partitions))

    def _with_copies(self, fresh: pl.DataFrame, blocks: list[pl.DataFrame]) -> pl.DataFrame:
        """Repeat some records: the latest as in a producer's retry, older ones as in a replay."""
        count = round(COPY_SHARE * len(fresh))
        sources = [block for block in (blocks[-1:] + self._chance.sample(blocks, min(1, len(blocks)))) if len(block)]
        copies = [block.sample(min(count, len(block)), seed=self._chance.randrange(2**31)) for block in sources]
        arrival = fresh["arrival_ms"][-1]
        copies = [copy.with_columns(arrival_ms=pl.lit(arrival, pl.Int64)) for copy in copies]
        self.copies += sum(map(len, copies))
        return pl.concat([fresh, *copies])

    def _send(self, records: pl.DataFrame) -> None:
        self._sink.send(records)
        self.sent += len(records)
        bad = records.filter(~pl.col("kind").is_in([EVENT, LATE, "heartbeat"]))
        self.malformed.update(value or b"" for value in bad["value"].to_list())
