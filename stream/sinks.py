"""The three destinations of outcomes. Each writes at once, beside the dataflow, and waits while its store is away.
`finish` returns when everything it was given is stored. `stream/commit.py` defines the order.
"""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING

import polars as pl

from feast_repo.stores.offline.tables import (
    DEAD_LETTER_COLUMNS,
    dead_letters_folder,
    event_columns,
    events_folder,
    late_columns,
    late_folder,
)
from feast_repo.stores.online.marker import is_filled
from stream.availability import hold_for_disk, hold_for_redis
from stream.background import Background
from stream.log_table import LogTable
from stream.redis_watch import new_token
from stream.stopping import stop_requested

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from feast_repo.declare.events import EventStream
    from feast_repo.declare.views import WindowedView
    from feast_repo.stores.progress import Progress
    from feast_repo.stores.push import Pusher
    from stream.availability import Emptied
    from stream.epoch import Outcome
    from stream.redis_watch import RedisWatch
    from stream.refill import Refill
    from stream.view_windows import ClosedWindow

    Closed = tuple[int, ClosedWindow]
    """A partition and its window."""

WRITER = "stream"
WRITE_THREADS = 8

FLUSH_ROWS = 250_000
"""This many log rows are written before the epoch's end, which bounds memory; being durable alone commits nothing."""

ROOM = 2
"""Batches for Redis, and sets of log files, that may be pending before the dataflow waits."""


class Logs:
    """The log tables of a stream: accepted records, late records of each view, dead letters.

    Rows that are already durable are skipped.
    """

    def __init__(self, data_root: Path, stream: EventStream, views: Sequence[WindowedView]) -> None:
        self._events = LogTable(events_folder(data_root, stream), event_columns(stream))
        self._late = {view.name: LogTable(late_folder(data_root, view), late_columns(stream)) for view in views}
        self._dead_letters = LogTable(dead_letters_folder(data_root, stream), DEAD_LETTER_COLUMNS)
        self._thread = Background("logs", ROOM)  # one thread, because files must appear in order

    def append(self, outcome: Outcome) -> None:
        """Take an outcome's records, its late records and its dead letters."""
        hold_for_disk(lambda: self._append(outcome))
        if self._events.waiting_rows + self._dead_letters.waiting_rows >= FLUSH_ROWS:
            self._write()

    def _append(self, outcome: Outcome) -> None:
        partition = outcome.progress.partition
        self._events.append(partition, outcome.records)
        for view, table in self._late.items():
            table.append(partition, outcome.late[view])
        self._dead_letters.append(partition, outcome.dead_letters)

    def _write(self) -> None:
        for table in (self._events, *self._late.values(), self._dead_letters):
            for file in table.take_files():
                self._thread.do(partial(hold_for_disk, file.write))

    def finish(self) -> None:
        """Make all rows durable."""
        self._write()
        self._thread.finish()

    def close(self) -> None:
        """End the writing thread."""
        self._thread.close()


class FeatureFiles:
    """The files of closed windows. A file is named after its window, so a replay overwrites the same features.

    `pushers`: by the view's name.
    """

    def __init__(self, pushers: Mapping[str, Pusher]) -> None:
        self._pushers = pushers
        # A catch-up closes thousands of small windows in one epoch, so their writes and syncs overlap.
        self._threads = ThreadPoolExecutor(WRITE_THREADS, thread_name_prefix="features")
        self._under_way: list[Future[None]] = []

    def write(self, closed: Sequence[Closed], served: datetime) -> None:
        """Write partitions' closed windows, one file each; Redis had acknowledged their rows by `served`."""
        self._under_way += [self._threads.submit(self._push, partition, window, served) for partition, window in closed]

    def _push(self, partition: int, window: ClosedWindow, served: datetime) -> None:
        hold_for_disk(
            lambda: self._pushers[window.view].push_offline(
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
    """Redis: the newest row of each entity of a view, and how far the stream has come.

    An older row never overwrites a newer one, so a replay is harmless. If this part has a `refill`, that refills what
    Redis loses. Meanwhile nothing is announced, so readers don't take the remaining rows for fresh.
    """

    def __init__(
        self, view: WindowedView, pusher: Pusher, watch: RedisWatch | None, emptied: Emptied, refill: Refill | None
    ) -> None:
        self._view = view
        self._pusher = pusher
        self._watch = watch
        self._emptied = emptied
        self._refill = refill
        self._thread = Background("redis", ROOM)  # one thread, because rows are read and then compared
        self._mark: bytes | None = None  # unknown: the first epoch is pushed twice rather than not at all
        self._reached: dict[int, Progress] = {}
        self._withheld = False

    def push(self, closed: list[Closed], then: Callable[[list[Closed], datetime], None]) -> None:
        """Push the rows of closed windows, then hand the windows on with the time when Redis had acknowledged them."""
        if closed:
            self._thread.do(partial(self._push, closed, then))

    def _push(self, closed: list[Closed], then: Callable[[list[Closed], datetime], None]) -> None:
        self._push_rows([window for _, window in closed])
        then(closed, datetime.now(UTC))

    def _push_rows(self, windows: Sequence[ClosedWindow]) -> None:
        rows, token = pl.concat([window.rows for window in windows]), new_token()
        hold_for_redis(lambda: self._pusher.push_online(rows))
        if (watch := self._watch) is not None:
            hold_for_redis(lambda: watch.pushed(token, rows))

    def finish(self) -> None:
        """Wait until Redis has all rows."""
        self._thread.finish()

    def push_what_a_restore_missed(self, windows: Sequence[ClosedWindow]) -> None:
        """Push the epoch's windows again if Redis has lost rows since the last epoch, and request a refill.

        A concurrent restore could not read these windows before their files were durable.
        """
        if (watch := self._watch) is not None:
            before = self._mark
            hold_for_redis(lambda: self._look(watch))
            if windows and (self._mark != before or not self._is_filled):
                self._push_rows(windows)
            if not self._is_filled and self._refill is not None:
                self._refill.ask_for()

    def _look(self, watch: RedisWatch) -> None:
        self._mark, loss = watch.look()
        self._emptied.look(self._view.name, filled=self._is_filled, loss=loss)

    @property
    def _is_filled(self) -> bool:
        return is_filled(self._mark)

    def confirm(self, advanced: Sequence[Progress]) -> None:
        """Record in Redis how far its rows go; if it lacks rows, the restore records it instead."""
        self._reached |= {progress.partition: progress for progress in advanced}
        if (watch := self._watch) is not None and self._is_filled and (told := self._told(advanced)):
            hold_for_redis(lambda: watch.confirm(told))

    def announce(self, advanced: Sequence[Progress]) -> None:
        """Announce the stream's progress to readers, or withhold it until Redis is filled."""
        if (watch := self._watch) is not None and self._is_filled and (told := self._told(advanced)):
            hold_for_redis(lambda: watch.announce(told))
        self._withheld = not self._is_filled

    def _told(self, advanced: Sequence[Progress]) -> Sequence[Progress]:
        return list(self._reached.values()) if self._withheld else advanced

    def close(self) -> None:
        """End the pushing thread; waits for a running refill unless a stop was requested."""
        self._thread.close()
        if (watch := self._watch) is None or not self._withheld or not self._reached:
            return
        if self._refill is not None:
            self._refill.finish()
        if not stop_requested.is_set():
            hold_for_redis(lambda: self._look(watch))
            self.confirm([])
            self.announce([])


class OnlineViews:
    """Redis, for all views of a stream. Each step is done for all of them before the next step."""

    def __init__(self, views: Mapping[str, Online]) -> None:
        self._views = views

    def push(self, closed: Sequence[Closed], then: Callable[[list[Closed], datetime], None]) -> None:
        """Push the rows of closed windows, each to its view; see `Online.push`."""
        for name, online in self._views.items():
            online.push([one for one in closed if one[1].view == name], then)

    def finish(self) -> None:
        """Wait until Redis has all rows."""
        for online in self._views.values():
            online.finish()

    def push_what_a_restore_missed(self, windows: Sequence[ClosedWindow]) -> None:
        """See `Online.push_what_a_restore_missed`."""
        for name, online in self._views.items():
            online.push_what_a_restore_missed([window for window in windows if window.view == name])

    def confirm(self, advanced: Sequence[Progress]) -> None:
        """Record in Redis how far its rows go."""
        for online in self._views.values():
            online.confirm(advanced)

    def announce(self, advanced: Sequence[Progress]) -> None:
        """Announce the stream's progress to the readers of each view."""
        for online in self._views.values():
            online.announce(advanced)

    def close(self) -> None:
        """End the pushing threads; waits for a running refill unless a stop was requested."""
        for online in self._views.values():
            online.close()
