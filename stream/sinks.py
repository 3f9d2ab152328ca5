"""The three places that outcomes go to. Each begins to write at once, beside the dataflow, and holds while its store is
away; `finish` returns when everything that was given is stored. `stream/commit.py` says in which order that happens.
"""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING

import polars as pl

from feast_repo.online_marker import is_filled, mark_filled, marker_key, read_mark
from feast_repo.progress import announce, progress_key
from feast_repo.tables import (
    DEAD_LETTER_COLUMNS,
    dead_letters_folder,
    event_columns,
    events_folder,
    late_columns,
    late_folder,
)
from stream.availability import hold_for_disk, hold_for_redis
from stream.background import Background
from stream.log_table import LogTable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from redis import Redis

    from feast_repo.progress import Progress
    from feast_repo.push import Pusher
    from feast_repo.views import WindowedView
    from stream.availability import Emptied
    from stream.epoch import Outcome
    from stream.windows import ClosedWindow

    Closed = tuple[int, ClosedWindow]
    """A partition and its window."""

WRITER = "stream"
WRITE_THREADS = 8

FLUSH_ROWS = 250_000
"""Log rows that are written before the epoch's end, which bounds memory; their durability alone commits nothing."""

ROOM = 2
"""Batches for Redis, and sets of log files, that may be under way before the dataflow waits."""


class Logs:
    """The log tables: accepted records, late ones, dead letters. Rows that are durable already are skipped."""

    def __init__(self, data_root: Path, view: WindowedView) -> None:
        self._events = LogTable(events_folder(data_root), event_columns(view.events))
        self._late = LogTable(late_folder(data_root, view), late_columns(view.events))
        self._dead_letters = LogTable(dead_letters_folder(data_root), DEAD_LETTER_COLUMNS)
        self._thread = Background("logs", ROOM)  # one, since files have to appear in order

    def append(self, outcome: Outcome, late: pl.DataFrame) -> None:
        """Take an outcome's records, those of them that are late, and its dead letters."""
        hold_for_disk(lambda: self._append(outcome, late))
        if self._events.waiting_rows + self._dead_letters.waiting_rows >= FLUSH_ROWS:
            self._write()

    def _append(self, outcome: Outcome, late: pl.DataFrame) -> None:
        partition = outcome.progress.partition
        self._events.append(partition, outcome.records)
        self._late.append(partition, late)
        self._dead_letters.append(partition, outcome.dead_letters)

    def _write(self) -> None:
        for table in (self._events, self._late, self._dead_letters):
            for file in table.take_files():
                self._thread.do(partial(hold_for_disk, file.write))

    def finish(self) -> None:
        """Make all rows durable."""
        self._write()
        self._thread.finish()

    def close(self) -> None:
        """End the writing thread."""
        self._thread.close()


class Features:
    """The files of closed windows. A file is named after its window, so a replay overwrites the same features."""

    def __init__(self, pusher: Pusher) -> None:
        self._pusher = pusher
        # A catch-up closes thousands of small windows in one epoch: their writes and syncs overlap.
        self._threads = ThreadPoolExecutor(WRITE_THREADS, thread_name_prefix="features")
        self._under_way: list[Future[None]] = []

    def write(self, closed: Sequence[Closed], served: datetime) -> None:
        """Write partitions' closed windows, one file each; Redis had acknowledged their rows by `served`."""
        self._under_way += [self._threads.submit(self._push, partition, window, served) for partition, window in closed]

    def _push(self, partition: int, window: ClosedWindow, served: datetime) -> None:
        hold_for_disk(
            lambda: self._pusher.push_offline(
                window.rows, writer=WRITER, partition=partition, window_end_ms=window.end_ms, served=served
            )
        )

    def finish(self) -> None:
        """Make all files durable."""
        for file in self._under_way:
            file.result()
        self._under_way.clear()

    def close(self) -> None:
        """End the writing threads."""
        self._threads.shutdown()


class Online:
    """Redis: the newest row of each user, and how far the stream has come.

    An older row never overwrites a newer one, so a replay is harmless. `is_first_run`: nothing has been stored yet, so
    there is nothing that Redis could lack.
    """

    def __init__(self, pusher: Pusher, view_name: str, emptied: Emptied, *, is_first_run: bool) -> None:
        self._pusher = pusher
        self._emptied = emptied
        self._thread = Background("redis", ROOM)  # one, since rows are read and then compared
        self._progress_key = progress_key(pusher.project, view_name)
        self._marker_key = marker_key(pusher.project, view_name)
        self._mark: bytes | None = None  # unknown, so that the first epoch is pushed twice rather than not at all
        if (redis := pusher.redis) is not None and is_first_run:
            hold_for_redis(lambda: mark_filled(redis, self._marker_key))

    def push(self, closed: list[Closed], then: Callable[[list[Closed], datetime], None]) -> None:
        """Push the rows of partitions' closed windows, then hand these on with the time when Redis had them."""
        if closed:
            self._thread.do(partial(self._push, closed, then))

    def _push(self, closed: list[Closed], then: Callable[[list[Closed], datetime], None]) -> None:
        rows = pl.concat([window.rows for _, window in closed])
        hold_for_redis(lambda: self._pusher.push_online(rows))
        then(closed, datetime.now(UTC))

    def finish(self) -> None:
        """Have all rows in Redis."""
        self._thread.finish()

    def push_what_a_restore_missed(self, windows: Sequence[ClosedWindow]) -> None:
        """Push the epoch's windows again unless the mark says that Redis has lost nothing since the last epoch.

        A restore that ran meanwhile could not read them before their files were durable.
        """
        if (redis := self._pusher.redis) is not None:
            hold_for_redis(lambda: self._push_again(redis, windows))

    def _push_again(self, redis: Redis, windows: Sequence[ClosedWindow]) -> None:
        mark = read_mark(redis, self._marker_key)
        if windows and (mark != self._mark or not is_filled(mark)):
            self._pusher.push_online(pl.concat([window.rows for window in windows]))
        self._mark = mark
        self._emptied.look(filled=is_filled(mark))

    def announce(self, advanced: Sequence[Progress]) -> None:
        """Tell readers how far the stream has come."""
        if (redis := self._pusher.redis) is not None and advanced:
            hold_for_redis(lambda: announce(redis, self._progress_key, advanced))

    def close(self) -> None:
        """End the pushing thread."""
        self._thread.close()
