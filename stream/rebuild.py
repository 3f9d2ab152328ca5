"""A dataflow that makes recovery state anew, from the archive and the progress record.

    python -m bytewax.run stream.rebuild -r NEW_STORE -s 3600 -b 0       # what `python -m stream.recovery rebuild` runs

It has the steps of `stream/dataflow.py` under the same names, so Bytewax stores for it what a run would have stored
that stopped where the progress record ends. It reads no Kafka and writes nothing but recovery state.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import bytewax.operators as op
import polars as pl
from bytewax.dataflow import Dataflow
from bytewax.inputs import FixedPartitionedSource, StatefulSourcePartition
from bytewax.operators import StatefulBatchLogic
from bytewax.outputs import FixedPartitionedSink, StatefulSinkPartition

from feast_repo.events import Timestamp
from feast_repo.files import data_files, day_folders
from feast_repo.parquet import despite_compaction, scan
from feast_repo.progress import Progress, ProgressRecord
from feast_repo.tables import day, event_columns, events_folder, progress_folder
from stream.routing import key_of
from stream.settings import StreamSettings
from stream.steps import FLOW, KAFKA, STORES, WINDOWS, parts
from stream.stopping import refuse
from stream.windows import SnapshotError, WindowEngine, tail_start_ms

if TYPE_CHECKING:
    from pathlib import Path

    from feast_repo.events import EventDeclaration
    from feast_repo.views import WindowedView


def archived_engine(data_root: Path, view: WindowedView, progress: Progress) -> WindowEngine:
    """The engine of one partition as it was at the partition's progress record.

    Raises:
        SnapshotError: the archive was written under another allowed lateness, or lacks records.
    """
    if progress.watermark_ms is None:  # nothing but dead letters so far
        return WindowEngine(view)
    events, time = view.events, view.events.by_name[view.events.time]
    start_ms = tail_start_ms(view, progress.watermark_ms)
    # The folder is the day of the Kafka time, and an event is at most so far ahead of that.
    ahead_ms = time.max_ahead_ms if isinstance(time, Timestamp) else 0
    tail = despite_compaction(
        lambda: (
            _archived(data_root, events, progress, first_day=day(max(0, start_ms - ahead_ms)))
            .with_columns(pl.col("kafka_timestamp", "watermark", events.time).dt.epoch("ms"))
            .filter(pl.col(events.time) >= start_ms)
            .sort("offset")
            .collect()
        )
    )
    latest = despite_compaction(
        lambda: (
            _archived(data_root, events, progress)
            .select(pl.col("kafka_timestamp").max().dt.epoch("ms"))
            .collect()
            .item()
        )
    )
    if latest is None:
        message = f"the archive has no records of partition {progress.partition}, whose progress record tells of some"
        raise SnapshotError(message)
    return WindowEngine.rebuild(view, tail, progress.watermark_ms + view.lateness_ms, latest)


def _archived(data_root: Path, events: EventDeclaration, progress: Progress, first_day: str = "") -> pl.LazyFrame:
    """The partition's accepted records that the progress record speaks of, by Kafka-time day."""
    folders = [folder for folder in day_folders(events_folder(data_root)) if folder.name >= f"dt={first_day}"]
    files = sorted(file for folder in folders for file in data_files(folder))
    records = scan(files, event_columns(events))
    records = records.filter(partition=progress.partition).filter(pl.col("offset") < progress.next_offset)
    return records.unique("offset")  # a compaction that was ended half-way leaves copies


class _Positions(FixedPartitionedSource[tuple[str, Progress], int]):
    """One part a Kafka partition: gives its progress once, and is then at the next offset."""

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
    """The state of one partition's engine, made when the partition's progress comes."""

    def __init__(self, settings: StreamSettings) -> None:
        self._settings = settings
        self._state = b""

    def on_batch(self, values: list[Progress]) -> tuple[list[None], bool]:
        try:
            for progress in values:
                self._state = archived_engine(self._settings.data_root, self._settings.view, progress).snapshot()
        except (SnapshotError, OSError, pl.exceptions.PolarsError) as error:
            refuse(str(error))
        return [], StatefulBatchLogic.RETAIN

    def snapshot(self) -> bytes:
        return self._state


class _NoStores(FixedPartitionedSink[None, None]):
    """The output's parts, which have no state of their own."""

    def list_parts(self) -> list[str]:
        return parts()

    def build_part(self, step_id: str, for_part: str, resume_state: None) -> _NoStore:
        del step_id, for_part, resume_state
        return _NoStore()


class _NoStore(StatefulSinkPartition[None, None]):
    def write_batch(self, values: list[None]) -> None:
        """Nothing comes."""

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
