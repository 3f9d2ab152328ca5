"""Rows recomputed from the archive, chunk by chunk, by either engine: the basis of backfill, heal and parity."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import polars as pl
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress as ProgressBar, TextColumn, TimeRemainingColumn

from batch.recompute.archive import LATE, PARTITION, ArchiveError, Chunk, Scope, reach_of
from batch.recompute.polars_engine import PolarsEngine
from feast_repo.commands import instant
from feast_repo.declare.panes import WINDOW
from feast_repo.stores.offline.tables import day, events_folder, from_milliseconds, progress_folder
from feast_repo.stores.progress import ProgressRecord

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator, Sequence
    from datetime import datetime
    from pathlib import Path

    from batch.recompute.archive import Engine, Mode, Timeline
    from feast_repo.commands import Command
    from feast_repo.declare.views import WindowedView

ENGINES = ("polars", "spark")
MODES: tuple[Mode, ...] = ("as-seen", "complete")


@dataclass(frozen=True)
class Recomputation:
    """A scope, its engine, and what the log's order implies for it."""

    engine: Engine
    scope: Scope
    timeline: Timeline

    def chunks(self) -> list[Chunk]:
        """The runs of windows to recompute, one after the other."""
        return list(self.timeline.chunks(self.scope))

    def as_of(self, reach: pl.DataFrame) -> Recomputation:
        """The same recomputation with the log only up to `reach` (partition, next_offset)."""
        then = self.scope.reach.join(reach.select(PARTITION, pl.col("next_offset").alias("then")), on=PARTITION)
        then = then.with_columns(pl.min_horizontal("next_offset", "then").alias("next_offset")).drop("then")
        return replace(self, scope=replace(self.scope, reach=then))

    def rows(self, chunk: Chunk, mode: Mode) -> pl.DataFrame:
        """A chunk's rows, sorted: partition, join key, event_timestamp, created_timestamp, LATE, features."""
        view = self.scope.view
        end_ms = pl.col(WINDOW) * view.slide_ms
        rows = view.finished(self.engine.windows(self.scope, chunk, mode)).sort(WINDOW)
        if self.scope.history is None:
            rows = rows.join_asof(
                self.timeline.closings.sort(WINDOW),
                on=WINDOW,
                by=PARTITION,
                strategy="forward",
                check_sortedness=False,
            )
        else:
            rows = rows.with_columns((end_ms + view.lateness_ms).alias("created_ms"))
        return (
            rows.with_columns(end_ms.alias("end_ms"))
            .select(
                PARTITION,
                *view.join_keys,
                from_milliseconds("end_ms").alias("event_timestamp"),
                from_milliseconds("created_ms").alias("created_timestamp"),
                LATE,
                *view.features,
            )
            .sort(PARTITION, "event_timestamp", *view.join_keys)
        )


def add_arguments(command: Command) -> None:
    """Add the arguments that all recomputing commands share."""
    command.add_choice("view")
    command.add_argument("--start", type=instant, help="first window end, ISO 8601 UTC (default: all that is archived)")
    command.add_argument("--end", type=instant, help="window ends before this, ISO 8601 UTC")
    command.add_argument("--engine", choices=ENGINES, default="polars", help="recomputation engine (%(default)s)")
    command.add_argument("--mode", choices=MODES, help="as the stream saw it (default), or with all late events")
    command.add_argument(
        "--master", default="local[*]", help="Spark master, unless spark-submit names one (%(default)s)"
    )
    command.add_argument("--archive", help="URL of the events that Spark reads (default: in DATA_ROOT)")
    command.add_argument("--json", action="store_true", help="print one JSON object instead of a table")


def parsed(command: Command, arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command's arguments; exits if they contradict each other."""
    options = command.parse_args(arguments)
    if options.start is not None and options.end is not None and options.start >= options.end:
        command.error("--start must be before --end")
    if options.archive is not None and options.engine != "spark":
        command.error("--archive needs --engine spark; Polars reads DATA_ROOT")
    return options


def scope_of(data_root: Path, view: WindowedView, start: datetime | None, end: datetime | None) -> Scope:
    """All closed windows of a view with start <= end of the window < end."""
    reach = reach_of(view, ProgressRecord(progress_folder(data_root, view.source)).load())
    first, last = (
        None if time is None else -(-round(time.timestamp() * 1000) // view.slide_ms) for time in (start, end)
    )
    return Scope(view, reach, first, None if last is None else last - 1)


@contextmanager
def opened(name: str, data_root: Path, view: WindowedView, *, master: str, archive: str | None) -> Iterator[Engine]:
    """The engine of that name, on the archive of the view's event stream.

    Raises:
        ArchiveError: the engine is not installed, or does not start.
    """
    folder = events_folder(data_root, view.source)
    if name == "polars":
        yield PolarsEngine(folder)
        return
    from batch.recompute.spark_engine import SparkEngine, local_url  # noqa: PLC0415  (an extra, and takes seconds to import)

    engine = SparkEngine(archive or local_url(folder), master)
    try:
        yield engine
    finally:
        engine.close()


def recompute(engine: Engine, scope: Scope) -> Recomputation:
    """Read the log's order.

    Raises:
        ArchiveError: the archive does not reach as far as the progress record.
    """
    timeline = engine.timeline(scope)
    closed = timeline.closings.group_by(PARTITION).agg(pl.col(WINDOW).max().alias("archived"))
    short = scope.reach.join(closed, on=PARTITION, how="left").filter(
        pl.col("archived").fill_null(-(2**62)) < pl.min_horizontal("last", pl.lit(scope.last, pl.Int64))
    )
    if scope.history is None and not short.is_empty():
        partition = min(short[PARTITION].to_list())
        message = (
            f"the archive of partition {partition} ends before the progress record does: its last records are missing "
            "from events/, or DATA_ROOT is not the stream's"
        )
        raise ArchiveError(message)
    return Recomputation(engine, scope, timeline)


def complaint(timeline: Timeline) -> str:
    """The complaint about an archive with watermarks that don't follow from its records."""
    first = timeline.mismatches.row(0, named=True)
    return (
        f"{timeline.mismatched:,} archived watermarks are not what the records before them give, the first at "
        f"partition {first['partition']}, offset {first['offset']}: records are missing from events/ before it, or "
        "ALLOWED_LATENESS_SECONDS is not the stream's"
    )


def track(recomputation: Recomputation, task: str) -> Iterator[Chunk]:
    """The chunks, with a progress bar on stderr that names the day."""
    slide_ms = recomputation.scope.view.slide_ms
    chunks = recomputation.chunks()
    total = sum(chunk.last - chunk.first + 1 for chunk in chunks)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("windows"))
    with ProgressBar(*columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True) as bar:
        running = bar.add_task(task, total=total)
        for chunk in chunks:
            bar.update(running, description=f"{task} {day(chunk.first * slide_ms)}")
            yield chunk
            bar.advance(running, chunk.last - chunk.first + 1)
