"""A dataflow that rebuilds recovery state from the archive and the progress record.

    python -m bytewax.run stream.rebuild -r NEW_STORE -s 3600 -b 0       # what `python -m stream.recovery rebuild` runs

It has the steps of `stream/dataflow.py` under the same names, so Bytewax stores what a run would have stored that
stopped at the progress record. It does not read Kafka and writes only recovery state.
"""

from __future__ import annotations

import bytewax.operators as op
import polars as pl
from bytewax.dataflow import Dataflow
from bytewax.inputs import FixedPartitionedSource, StatefulSourcePartition
from bytewax.operators import StatefulBatchLogic
from bytewax.outputs import FixedPartitionedSink, StatefulSinkPartition

from feast_repo.settings import StreamSettings
from feast_repo.stores.offline.tables import progress_folder
from feast_repo.stores.progress import Progress, ProgressRecord
from stream.archive_tail import ArchiveTail
from stream.routing import key_of
from stream.steps import FLOW, KAFKA, STORES, WINDOWS, parts
from stream.stopping import refuse
from stream.windows import SnapshotError


class _Positions(FixedPartitionedSource[tuple[str, Progress], int]):
    """One part per Kafka partition: yields its progress once, and is then at the next offset."""

    def __init__(self, progress: dict[int, Progress]) -> None:
        self._progress = progress

    def list_parts(self) -> list[str]:
        return [f"{partition:05d}" for partition in self._progress]

    def build_part(self, step_id: str, for_part: str, resume_state: int | None) -> _Position:
        del step_id, resume_state
        return _Position(self._progress[int(for_part)])


class _Position(StatefulSourcePartition[tuple[str, Progress], int]):
    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._given = False

    def next_batch(self) -> list[tuple[str, Progress]]:
        if self._given:
            raise StopIteration
        self._given = True
        return [(key_of(self._progress.partition), self._progress)]

    def snapshot(self) -> int:
        return self._progress.next_offset


class _Windows(StatefulBatchLogic[Progress, None, bytes]):
    """The state of one partition's engine, built when the partition's progress arrives."""

    def __init__(self, settings: StreamSettings) -> None:
        self._settings = settings
        self._state = b""

    def on_batch(self, values: list[Progress]) -> tuple[list[None], bool]:
        try:
            for progress in values:
                self._state = (
                    ArchiveTail(self._settings.data_root, self._settings.catalog.view(), progress).engine().snapshot()
                )
        except (SnapshotError, OSError, pl.exceptions.PolarsError) as error:
            refuse(str(error))
        return [], StatefulBatchLogic.RETAIN

    def snapshot(self) -> bytes:
        return self._state


class _NoStores(FixedPartitionedSink[None, None]):
    """The output's parts, which are stateless."""

    def list_parts(self) -> list[str]:
        return parts()

    def build_part(self, step_id: str, for_part: str, resume_state: None) -> _NoStore:
        del step_id, for_part, resume_state
        return _NoStore()


class _NoStore(StatefulSinkPartition[None, None]):
    def write_batch(self, values: list[None]) -> None:
        """Nothing is ever written."""

    def snapshot(self) -> None:
        return None


def build(settings: StreamSettings) -> Dataflow:
    """The dataflow for these settings."""
    flow = Dataflow(FLOW)
    positions = op.input(KAFKA, flow, _Positions(ProgressRecord(progress_folder(settings.data_root)).load()))
    state = op.stateful_batch(WINDOWS, positions, lambda _: _Windows(settings))
    op.output(STORES, state, _NoStores())
    return flow


flow = build(StreamSettings())
