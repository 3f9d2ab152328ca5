"""What one part of the stores has taken since the last commit."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import polars as pl

if TYPE_CHECKING:
    from feast_repo.progress import Progress
    from stream.windows import ClosedWindow


@dataclass(frozen=True)
class Outcome:
    """What one batch of a partition led to. `records` and `dead_letters` are in offset order."""

    progress: Progress
    records: pl.DataFrame
    dead_letters: pl.DataFrame
    windows: list[ClosedWindow]

    @property
    def late(self) -> pl.DataFrame:
        """The records that missed windows."""
        return self.records.filter(pl.col("missed_windows") > 0)


@dataclass
class Epoch:
    """The outcomes since the last commit: how far each partition has come, and the new windows that closed."""

    reached: dict[int, Progress] = field(default_factory=dict)
    windows: list[ClosedWindow] = field(default_factory=list)
    messages: int = 0
    late: int = 0
    dead_letters: int = 0

    def take(self, outcome: Outcome, late: pl.DataFrame, windows: list[ClosedWindow]) -> None:
        """Add an outcome with its late records, and those of its windows that are not durable yet."""
        self.reached[outcome.progress.partition] = outcome.progress
        self.windows += windows
        self.messages += len(outcome.records) + len(outcome.dead_letters)
        self.late += len(late)
        self.dead_letters += len(outcome.dead_letters)

    @property
    def feature_rows(self) -> int:
        """Rows of the windows."""
        return sum(len(window.rows) for window in self.windows)
