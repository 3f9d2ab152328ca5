"""The event archive for batch jobs: which days to read, how far each partition reaches, and what the log's order says.

Files are partitioned by the day of their Kafka time, but windows by event time. An event is at most a declared time
ahead of its Kafka time, which bounds the earlier days of a range. A late event may be on any later day, so the
`Timeline` records the days that hold each pane's events. Only those are read again.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias

import polars as pl

from feast_repo.declare.fields import Timestamp
from feast_repo.declare.panes import PANE, WINDOW
from feast_repo.errors import RefusedError
from feast_repo.stores.offline.files import data_files, day_folders
from feast_repo.stores.offline.tables import day

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from feast_repo.declare.views import WindowedView
    from feast_repo.stores.progress import Progress

Mode: TypeAlias = Literal["as-seen", "complete"]

PARTITION = "partition"
LATE = "#late"
"""The stream counted part of this row differently, or not at all."""
REACH = {PARTITION: pl.Int32(), "next_offset": pl.Int64(), "last": pl.Int64()}
"""How far each partition may be recomputed: records before this offset, windows up to this index."""
CLOSINGS = {PARTITION: pl.Int32(), WINDOW: pl.Int64(), "created_ms": pl.Int64()}
"""Per partition: all windows up to an index had closed when the greatest Kafka time so far was `created_ms`."""
DAYS = {"day": pl.String(), PANE: pl.Int64(), "rows": pl.Int64()}
"""How many records of a pane lie on which day of the archive."""
MISMATCHES = {PARTITION: pl.Int32(), "offset": pl.Int64(), "archived_ms": pl.Int64(), "recomputed_ms": pl.Int64()}
"""Records with an archived watermark that doesn't follow from the records before them."""

MOST_MISMATCHES = 20
MOST_ROWS = 2_000_000
"""Records to process at once, unless one window has more: enough to keep all cores busy within bounded memory."""


class ArchiveError(RefusedError):
    """The archive can't be recomputed from; the message names the remedy."""


@dataclass(frozen=True)
class Scope:
    """What to recompute: windows `first` to `last` (inclusive indices; None: all) of a view.

    `reach` has the columns of REACH. `history` holds events that never went through the stream, in archive-like files
    with negative offsets; their watermark is after all windows, because the stream saw none of them.
    """

    view: WindowedView
    reach: pl.DataFrame
    first: int | None = None
    last: int | None = None
    history: Path | None = None

    @property
    def first_day(self) -> str:
        """The first day of Kafka time that can matter; empty: the first existing one."""
        return "" if self.first is None else day(max(0, self.first_pane_ms(self.first) - self.ahead_ms))

    @property
    def ahead_ms(self) -> int:
        """How far an event time may be ahead of its Kafka time."""
        time = self.view.source.by_name[self.view.source.time]
        return time.max_ahead_ms if isinstance(time, Timestamp) else 0

    def unseen_ms(self, *, goes_back: bool) -> int | None:
        """If the archive starts before the first day: the greatest watermark that records there can explain."""
        if not goes_back:
            return None
        first_day = datetime.fromisoformat(self.first_day).replace(tzinfo=UTC)
        return round(first_day.timestamp() * 1000) + self.ahead_ms - self.view.lateness_ms

    def first_pane_ms(self, window: int) -> int:
        """The start of the first pane that a window or its expiry rows need."""
        return (window - self.view.panes_per_window - 1) * self.view.slide_ms


@dataclass(frozen=True)
class Timeline:
    """What the log's order implies, with the columns of CLOSINGS, DAYS and MISMATCHES (the first of `mismatched`)."""

    closings: pl.DataFrame
    days: pl.DataFrame
    mismatches: pl.DataFrame
    mismatched: int

    def chunks(self, scope: Scope, most_rows: int = MOST_ROWS) -> Iterator[Chunk]:
        """The windows of a scope that can have rows, in runs small enough to recompute at once."""
        panes = scope.view.panes_per_window
        bound = max(scope.reach["last"].to_list(), default=-1)
        if scope.last is not None:
            bound = min(bound, scope.last)
        rows = dict(self.days.group_by(PANE).agg(pl.col("rows").sum()).iter_rows())
        windows = sorted({pane + step for pane in rows for step in range(1, panes + 2)})
        windows = [window for window in windows if (scope.first is None or window >= scope.first) and window <= bound]
        start = 0
        while start < len(windows):
            end, held = start + 1, sum(rows.get(windows[start] - step, 0) for step in range(1, panes + 2))
            while end < len(windows) and held + rows.get(windows[end] - 1, 0) <= most_rows:
                held += rows.get(windows[end] - 1, 0)
                end += 1
            yield self._chunk(windows[start], windows[end - 1], panes)
            start = end

    def _chunk(self, first: int, last: int, panes: int) -> Chunk:
        needed = self.days.filter(pl.col(PANE).is_between(first - panes - 1, last - 1))
        return Chunk(first, last, tuple(sorted(set(needed["day"]))))


@dataclass(frozen=True)
class Chunk:
    """Windows `first` to `last` (indices), and the days of the archive that hold their events."""

    first: int
    last: int
    days: tuple[str, ...]


class Engine(Protocol):
    """A recomputation engine; both engines give identical states, which `WindowedView.finished` makes features of."""

    def timeline(self, scope: Scope) -> Timeline:
        """Read the log once, in order of offsets."""

    def windows(self, scope: Scope, chunk: Chunk, mode: Mode) -> pl.DataFrame:
        """The states of a chunk's windows, in any order: PARTITION, join key, WINDOW, LATE, `view.state_types`."""

    def close(self) -> None:
        """Release the engine's resources."""


def reach_of(view: WindowedView, progress: dict[int, Progress]) -> pl.DataFrame:
    """The stream's progress as REACH, for partitions that have closed a window."""
    rows = [
        (one.partition, one.next_offset, end_ms // view.slide_ms)
        for one in progress.values()
        if (end_ms := view.closed_end_ms(one.watermark_ms)) is not None
    ]
    return pl.DataFrame(rows, schema=REACH, orient="row")


def days_of(folder: Path, first_day: str = "") -> list[str]:
    """A table's days in order, from `first_day` on."""
    days = [path.name.removeprefix("dt=") for path in day_folders(folder)]
    return [one for one in days if one >= first_day]


def files_of(folder: Path, days: tuple[str, ...] | list[str]) -> list[Path]:
    """A table's files of some days, in order."""
    return [file for one in days for file in data_files(folder / f"dt={one}")]
