"""A dataflow that rebuilds recovery state from the archive and the progress record.

    python -m bytewax.run stream.rebuild -r NEW_STORE -s 3600 -b 0       # what `python -m stream.recovery rebuild` runs

It has the steps of `stream/dataflow.py` under the same names, so Bytewax stores what a run would have stored that
stopped at the progress record. It does not read Kafka and writes only recovery state.
"""

from __future__ import annotations

from typing import TypeAlias

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
from stream.routing import key_of, part_of
from stream.steps import FLOW, KAFKA, STORES, WINDOWS, parts
from stream.stopping import refuse
from stream.windows import SnapshotError

OfStream: TypeAlias = tuple[str, Progress]
"""A partition's progress, after the name of its stream."""


class _Positions(FixedPartitionedSource[tuple[str, OfStream], int]):
    """One part per Kafka partition of each stream: yields its progress once, and is then at the next offset."""

    def __init__(self, settings: StreamSettings) -> None:
        self._progress = {
            part_of(stream.name, partition): (stream.name, progress)
            for stream in settings.catalog.streams
            for partition, progress in ProgressRecord(progress_folder(settings.data_root, stream)).load().items()
        }

    def list_parts(self) -> list[str]:
        return list(self._progress)

    def build_part(self, step_id: str, for_part: str, resume_state: int | None) -> _Position:
        del step_id, resume_state
        return _Position(*self._progress[for_part])


class _Position(StatefulSourcePartition[tuple[str, OfStream], int]):
    def __init__(self, stream: str, progress: Progress) -> None:
        self._stream, self._progress = stream, progress
        self._given = False

    def next_batch(self) -> list[tuple[str, OfStream]]:
        if self._given:
            raise StopIteration
        self._given = True
        return [(key_of(self._stream, self._progress.partition), (self._stream, self._progress))]

    def snapshot(self) -> int:
        return self._progress.next_offset


class _Windows(StatefulBatchLogic[OfStream, None, bytes]):
    """The state of one partition's engine, built when the partition's progress arrives."""

    def __init__(self, settings: StreamSettings) -> None:
        self._settings = settings
        self._state = b""

    def on_batch(self, values: list[OfStream]) -> tuple[list[None], bool]:
        catalog, root = self._settings.catalog, self._settings.data_root
        try:
            for name, progress in values:
                stream = catalog.stream(name)
                self._state = ArchiveTail(root, stream, catalog.views_of(stream), progress).engine().snapshot()
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
    positions = op.input(KAFKA, flow, _Positions(settings))
    state = op.stateful_batch(WINDOWS, positions, lambda _: _Windows(settings))
    op.output(STORES, state, _NoStores())
    return flow


flow = build(StreamSettings())
