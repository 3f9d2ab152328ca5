"""What the stream leaves behind, written without Kafka: the engine's output through the stream's own tables."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from feast_repo.clickstream import clickstream
from feast_repo.declare.rows import SERVED
from feast_repo.declare.stored import offline_columns
from feast_repo.features import user_click_features
from feast_repo.stores.offline.parquet import day_folder, publish
from feast_repo.stores.offline.tables import (
    day,
    event_columns,
    events_folder,
    features_folder,
    late_columns,
    late_folder,
    progress_folder,
    window_file,
)
from feast_repo.stores.progress import Progress, ProgressRecord
from simulation.clock import Traffic, historical
from simulation.events import simulate
from stream.log_table import LogTable
from stream.windows import WindowEngine
from tests.stream.reference import records_frame

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from feast_repo.declare.views import WindowedView
    from tests.stream.reference import Record

NOW_MS = 1_767_600_000_000


def stream(
    root: Path,
    view: WindowedView,
    logs: Mapping[int, Sequence[Record]],
    *,
    unread: Mapping[int, int] | None = None,
    beside: Sequence[WindowedView] = (),
) -> pl.DataFrame:
    """Run partitions' logs through the engine and store everything; returns the view's rows with their partition.

    `beside`: other views of the same event stream. `unread`: of a partition, so many records at the end are archived,
    but not in the progress record yet.
    """
    views = {one.name: one for one in (view, *beside)}
    events = LogTable(events_folder(root, view.source), event_columns(view.source))
    late = {name: LogTable(late_folder(root, one), late_columns(view.source)) for name, one in views.items()}
    rows = [pl.DataFrame(schema={"partition": pl.Int32, **offline_columns(view)}).drop("writer", SERVED)]
    for partition, log in logs.items():
        frame = records_frame(view.source, log)
        counted = len(frame) - (unread or {}).get(partition, 0)
        engine = WindowEngine(view.source, list(views.values()))
        processed = engine.process(frame[:counted])
        rows += [
            window.rows.select(pl.lit(partition, pl.Int32).alias("partition"), pl.all())
            for window in processed.windows
            if window.view == view.name
        ]
        for window in processed.windows:
            store(root, views[window.view], window.rows, "stream", partition, window.end_ms)
        progress = Progress("topic", partition, counted, engine.watermark_ms)
        ProgressRecord(progress_folder(root, view.source)).save(progress)
        rest = engine.process(frame[counted:])
        events.append(partition, pl.concat([processed.records, rest.records]))
        for name, table in late.items():
            table.append(partition, pl.concat([processed.late(name), rest.late(name)]))
    for table in (events, *late.values()):
        table.flush()
    return pl.concat(rows).sort("partition", "event_timestamp", *view.join_keys)


def store(root: Path, view: WindowedView, rows: pl.DataFrame, writer: str, partition: int, end_ms: int) -> None:
    """Store rows as the push does."""
    path = day_folder(features_folder(root, view.name), day(end_ms)) / window_file(writer, partition, end_ms)
    columns = offline_columns(view)
    told = rows.with_columns(pl.lit(None).alias(SERVED), writer=pl.lit(writer))
    publish(path, told.select(columns.keys()).cast(columns))  # type: ignore[arg-type]


def clicks(
    *, hours: float, events: int, partitions: int, seed: int = 1, users: int = 40, late: float = 0.05
) -> dict[int, list[Record]]:
    """Logs of generated clicks with disorder and late records, spread over partitions, and heartbeats at their end."""
    simulation = historical(
        user_click_features.source,
        [user_click_features],
        Traffic(users=users, seed=seed, disorder_ms=60_000, late_share=late),
        events=events,
        hours=hours,
        now_ms=NOW_MS,
        drain=True,
        partitions=tuple(range(partitions)),
    )
    records = pl.concat(list(simulate(simulation))).with_columns(
        pl.col("partition").fill_null(pl.col("key").str.slice(-3).cast(pl.Int32) % partitions)
    )
    return {
        partition: part.select(pl.col("arrival_ms").alias("kafka_timestamp"), *clickstream.schema).to_dicts()
        for (partition,), part in sorted(records.partition_by("partition", as_dict=True).items())
    }
