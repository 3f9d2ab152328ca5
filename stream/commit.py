"""The order in which an epoch becomes durable: the one place that says it.

    logs, Redis, features      each feature file after Redis has its rows, since it tells when they were served
    what a restore missed      needs the features durable: what is not, a restore can't read
    confirmation               Redis says up to where it has all rows; one that goes back says less than the record
    progress record            the commit point: everything that it speaks of is stored
    announcement               never ahead of the record
    Bytewax commits            the epoch's offsets and window state, after `commit` returned

A crash before the progress record leaves rows that a replay writes again, the same ones: log rows that are durable are
skipped, a feature file is overwritten with the same features, and Redis keeps the newer row. A crash after it leaves
windows that a replay skips, since the record says that they are stored.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from stream.availability import hold_for_disk

if TYPE_CHECKING:
    from collections.abc import Sequence

    from feast_repo.stores.progress import Progress, ProgressRecord
    from stream.epoch import Epoch, Outcome
    from stream.sinks import FeatureFiles, Logs, Online
    from stream.windows import ClosedWindow


class Commit:
    """Commits epochs of one part of the stores, and knows what is committed."""

    def __init__(self, record: ProgressRecord, logs: Logs, features: FeatureFiles, online: Online) -> None:
        self._record = record
        self._logs = logs
        self._features = features
        self._online = online
        self._stored: dict[int, Progress] = {}
        hold_for_disk(lambda: self._stored.update(record.settle()))

    def new_windows(self, outcome: Outcome) -> list[ClosedWindow]:
        """The outcome's windows that are not committed yet.

        The others were pushed online before they were committed, and their files may have been compacted since, so
        they are never written again.
        """
        stored = self._stored.get(outcome.progress.partition)
        if stored is None or stored.last_closed_end_ms is None:
            return outcome.windows
        return [window for window in outcome.windows if window.end_ms > stored.last_closed_end_ms]

    def commit(self, epoch: Epoch) -> list[Progress]:
        """Make an epoch durable; returns the positions that moved forward."""
        advanced = self._advanced(epoch)
        self._logs.finish()
        self._online.finish()  # only now are all feature files asked for
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
