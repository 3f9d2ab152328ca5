"""The order in which an epoch becomes durable, defined here and nowhere else.

    logs, Redis, features      each feature file after Redis has its rows, because it records when they were served
    what a restore missed      after the features are durable, because a restore reads only durable files
    confirmation               Redis states up to where it has all rows; a rolled-back Redis states less than the record
    progress record            the commit point: everything that it covers is stored
    announcement               never ahead of the record
    Bytewax commits            the epoch's offsets and window state, after `commit` returned

After a crash before the progress record, a replay writes identical rows again: durable log rows are skipped, a feature
file is overwritten with the same features, and Redis keeps the newer row. After a crash behind it, a replay skips the
windows, because the record says that they are stored.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from stream.availability import hold_for_disk

if TYPE_CHECKING:
    from collections.abc import Sequence

    from feast_repo.declare.views import WindowedView
    from feast_repo.stores.progress import Progress, ProgressRecord
    from stream.epoch import Epoch, Outcome
    from stream.sinks import FeatureFiles, Logs, OnlineViews
    from stream.view_windows import ClosedWindow


class Commit:
    """Commits the epochs of one stream in one part of the stores, and tracks what is committed."""

    def __init__(
        self,
        views: Sequence[WindowedView],
        record: ProgressRecord,
        logs: Logs,
        features: FeatureFiles,
        online: OnlineViews,
    ) -> None:
        self._views = {view.name: view for view in views}
        self._record = record
        self._logs = logs
        self._features = features
        self._online = online
        self._stored: dict[int, Progress] = {}
        hold_for_disk(lambda: self._stored.update(record.settle()))

    def new_windows(self, outcome: Outcome) -> list[ClosedWindow]:
        """The outcome's windows that are not committed yet.

        Committed windows are never written again: they were pushed online before their commit, and their files may
        have been compacted since.
        """
        stored = self._stored.get(outcome.progress.partition)
        if stored is None:
            return outcome.windows
        closed = {name: view.closed_end_ms(stored.watermark_ms) for name, view in self._views.items()}
        return [window for window in outcome.windows if _is_after(closed[window.view], window.end_ms)]

    def commit(self, epoch: Epoch) -> list[Progress]:
        """Make an epoch durable; returns the progress of the partitions that moved forward."""
        advanced = self._advanced(epoch)
        self._logs.finish()
        self._online.finish()  # only after this have all feature files been requested
        self._features.finish()
        self._online.push_what_a_restore_missed(epoch.windows)
        self._online.confirm(advanced)
        self._save(advanced)
        self._online.announce(advanced)
        return advanced

    def _advanced(self, epoch: Epoch) -> list[Progress]:
        stored = self._stored
        return [
            progress
            for partition, progress in epoch.reached.items()
            if partition not in stored or progress.next_offset > stored[partition].next_offset
        ]

    def _save(self, advanced: Sequence[Progress]) -> None:
        for progress in advanced:
            hold_for_disk(lambda: self._record.save(progress))  # noqa: B023  (called before the next round)
            self._stored[progress.partition] = progress


def _is_after(closed_end_ms: int | None, end_ms: int) -> bool:
    """Whether a window is not among those that had closed."""
    return closed_end_ms is None or end_ms > closed_end_ms
