"""What one part of the stores has received since the last commit."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import polars as pl

if TYPE_CHECKING:
    from feast_repo.stores.progress import Progress
    from stream.windows import ClosedWindow


@dataclass(frozen=True)
class Outcome:
    """The results of one batch of a partition: `records` and `dead_letters` in offset order; `ignored` are neither."""

    progress: Progress
    records: pl.DataFrame
    dead_letters: pl.DataFrame
    windows: list[ClosedWindow]
    ignored: int = 0

    @property
    def late(self) -> pl.DataFrame:
        """The records that missed windows."""
        return self.records.filter(pl.col("missed_windows") > 0)


@dataclass
class Epoch:
    """The outcomes since the last commit: each partition's progress, and the newly closed windows.

    `uncounted`: late records that missed all of their windows; `refused`: dead letters by reason.
    """

    windows_per_record: int
    reached: dict[int, Progress] = field(default_factory=dict)
    windows: list[ClosedWindow] = field(default_factory=list)
    messages: int = 0
    ignored: int = 0
    late: int = 0
    uncounted: int = 0
    refused: Counter[str] = field(default_factory=Counter)

    def take(self, outcome: Outcome, late: pl.DataFrame, windows: list[ClosedWindow]) -> None:
        """Add an outcome with its late records and its windows that are not durable yet."""
        self.reached[outcome.progress.partition] = outcome.progress
        self.windows += windows
        self.messages += len(outcome.records) + len(outcome.dead_letters) + outcome.ignored
        self.ignored += outcome.ignored
        if not late.is_empty():
            self.late += len(late)
            self.uncounted += late.filter(pl.col("missed_windows") == self.windows_per_record).height
        if not outcome.dead_letters.is_empty():
            self.refused.update(dict(outcome.dead_letters["reason"].value_counts().iter_rows()))

    @property
    def feature_rows(self) -> int:
        """Number of rows in the windows."""
        return sum(len(window.rows) for window in self.windows)
