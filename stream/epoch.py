"""What one part of the stores has received of a stream since the last commit."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import polars as pl

if TYPE_CHECKING:
    from collections.abc import Mapping

    from feast_repo.stores.progress import Progress
    from stream.view_windows import ClosedWindow


@dataclass(frozen=True)
class Outcome:
    """The results of one batch of a partition of a stream: `records` and `dead_letters` in offset order.

    `ignored` messages are neither. `late` has by view the records that missed windows of it, with `missed_windows`.
    """

    stream: str
    progress: Progress
    records: pl.DataFrame
    late: dict[str, pl.DataFrame]
    dead_letters: pl.DataFrame
    windows: list[ClosedWindow]
    ignored: int = 0


@dataclass
class Epoch:
    """The outcomes since the last commit: each partition's progress, and the newly closed windows.

    `windows_per_record`: of each view. `late`: records that missed windows of a view, each view for itself, and
    `uncounted` those that missed all of them; `refused`: dead letters by reason.
    """

    windows_per_record: Mapping[str, int]
    reached: dict[int, Progress] = field(default_factory=dict)
    windows: list[ClosedWindow] = field(default_factory=list)
    messages: int = 0
    late: int = 0
    uncounted: int = 0
    ignored: int = 0
    refused: Counter[str] = field(default_factory=Counter)

    def take(self, outcome: Outcome, windows: list[ClosedWindow]) -> None:
        """Add an outcome, and of its windows those that are not durable yet."""
        self.reached[outcome.progress.partition] = outcome.progress
        self.windows += windows
        self.messages += len(outcome.records) + len(outcome.dead_letters) + outcome.ignored
        self.ignored += outcome.ignored
        for view, late in outcome.late.items():
            if not late.is_empty():
                self.late += len(late)
                self.uncounted += late.filter(pl.col("missed_windows") == self.windows_per_record[view]).height
        if not outcome.dead_letters.is_empty():
            self.refused.update(dict(outcome.dead_letters["reason"].value_counts().iter_rows()))

    @property
    def feature_rows(self) -> int:
        """Number of rows in the windows."""
        return sum(len(window.rows) for window in self.windows)
