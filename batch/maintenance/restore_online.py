"""Refill Redis from Parquet after it was lost or emptied, while the stream runs on.

    python -m batch.restore_online                  # rows that Redis lacks or has an older version of
    python -m batch.restore_online --overwrite      # also rows that differ from the stored row of the same window

Each entity gets its newest offline row. Every row is written by an atomic compare-and-set, so a row of the running
stream is never replaced by an older one.
"""

from __future__ import annotations

import json
import sys
import time
from contextlib import nullcontext
from typing import TYPE_CHECKING

import polars as pl
from rich.console import Console
from rich.progress import Progress as ProgressBar

from batch.lock import carrying_rows, only_batch_writer
from feast_repo.commands import Command
from feast_repo.declare.stored import offline_columns
from feast_repo.declare.views import WindowedView
from feast_repo.errors import UnavailableError
from feast_repo.settings import StoreSettings
from feast_repo.stores.offline.files import data_files, day_folders
from feast_repo.stores.offline.parquet import despite_compaction, scan
from feast_repo.stores.offline.tables import features_folder, progress_folder
from feast_repo.stores.online.marker import (
    begin_filling,
    end_filling,
    mark_lost,
    marker_key,
    read_mark,
    server_id,
)
from feast_repo.stores.progress import ProgressRecord, announce_missing, confirm, confirmed_key, progress_key

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from feast_repo.declare.batch_views import BatchView
    from feast_repo.stores.online.view import OnlineView

ROWS_AT_ONCE = 100_000
"""Rows to compare and write at once, which bounds memory."""

HEALED = pl.col("writer") == "heal"
HEALED_LATER = "#healed_later"
"""In Redis, the n-th correction of a row has a time n us after its window's end, to be newer than what it corrects."""


def newest_by_day(
    data_root: Path, view: WindowedView | BatchView, first_day: str = ""
) -> Iterator[tuple[int, int, pl.DataFrame]]:
    """Each entity's newest row, day by day from the newest: (days done, total days, rows as stored online).

    Memory: the entities' newest rows of one day, and the names of entities that are done.
    """
    keys, columns = view.join_keys, offline_columns(view)
    days = day_folders(features_folder(data_root, view.name))
    folders = sorted((folder for folder in days if folder.name >= f"dt={first_day}"), reverse=True)
    had = pl.DataFrame(schema=view.entity.schema)
    for number, folder in enumerate(folders, start=1):
        rows = _newest_of(folder, keys, columns).join(had, on=keys, how="anti")
        had = pl.concat([had, rows.select(keys)])
        yield number, len(folders), rows


def _newest_of(folder: Path, keys: tuple[str, ...], columns: dict[str, pl.DataType]) -> pl.DataFrame:
    def read() -> pl.DataFrame:
        rows = scan(data_files(folder), columns)
        # Two passes over the files, because a sort would hold all rows of the day.
        newest = rows.group_by(keys).agg(pl.col("event_timestamp").max()).collect(engine="streaming")
        return rows.join(newest.lazy(), on=[*keys, "event_timestamp"], how="semi").collect(engine="streaming")

    later = pl.duration(microseconds=pl.when(HEALED).then(HEALED_LATER).otherwise(0))
    return (
        despite_compaction(read)
        .with_columns(
            pl.col("created_timestamp").filter(HEALED).n_unique().over(keys).cast(pl.Int64).alias(HEALED_LATER)
        )
        .sort("created_timestamp")
        .unique(keys, keep="last")
        .with_columns(pl.col("event_timestamp") + later)
        .drop(HEALED_LATER)
    )


def overwrite(data_root: Path, view: WindowedView | BatchView, online: OnlineView) -> int:
    """Make Redis serve each entity's newest stored row; returns how many rows were written.

    The caller holds the lock of batch writers, so no correction can come in between.

    Raises:
        redis.RedisError: Redis is away; run it again.
    """
    online.settle()
    return sum(_write(online, view, rows, overwrites=True) for _, _, rows in newest_by_day(data_root, view))


class OvertakenError(UnavailableError):
    """Redis lost rows, or another restore began, while this one ran."""


def restore(
    data_root: Path,
    view: WindowedView | BatchView,
    online: OnlineView,
    project: str,
    console: Console,
    *,
    overwrites: bool = False,
) -> int:
    """Refill one view; returns how many rows were written.

    Raises:
        redis.RedisError: Redis is away.
        OvertakenError: Redis was emptied again meanwhile, or restarted, or failed over.
    """
    redis, marker = online.redis, marker_key(project, view.name)
    server = server_id(redis)
    mine, written = begin_filling(redis, marker), 0
    online.settle()
    record = ProgressRecord(progress_folder(data_root, view.source)) if isinstance(view, WindowedView) else None
    stored = {} if record is None else record.load()
    with ProgressBar(console=console, transient=True) as bar:
        task = bar.add_task(view.name, total=None)
        for done, days, rows in newest_by_day(data_root, view):
            written += _write(online, view, rows, overwrites=overwrites)
            bar.update(task, completed=done, total=days)
    if record is not None and isinstance(view, WindowedView):
        confirm(redis, confirmed_key(project, view.name), stored.values())
        announce_missing(redis, progress_key(project, view.name), record, view)
    online.set_sentinel()
    if not end_filling(redis, marker, mine):
        message = f"Redis was emptied again, or another restore is running, while {view.name} was restored: try again"
        raise OvertakenError(message)
    if server_id(redis) != server:
        # What takes over may have an earlier state: the same mark, and not all of the rows that were written above.
        claims = [progress_key(project, view.name), confirmed_key(project, view.name)]
        mark_lost(redis, marker, read_mark(redis, marker), claims)
        message = f"Redis was restarted, or failed over, while {view.name} was restored: try again"
        raise OvertakenError(message)
    return written


def _write(online: OnlineView, view: WindowedView | BatchView, rows: pl.DataFrame, *, overwrites: bool) -> int:
    parts = rows.iter_slices(ROWS_AT_ONCE)
    if not overwrites:
        return sum(map(online.write_beside, parts))
    # A row and its corrections belong to one window, microseconds apart.
    resolution = view.slide if isinstance(view, WindowedView) else None
    return sum(online.write_over(part, resolution) for part in parts)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    command = Command("python -m batch.restore_online", "Refill Redis from Parquet, while the stream runs on.")
    command.add_argument(
        "--overwrite", action="store_true", help="also replace rows that differ from the stored row of the same window"
    )
    command.add_choice("view", "all views")
    command.add_argument("--json", action="store_true", help="print the result as one JSON object")
    options = command.parse_args(arguments)
    settings = command.settings(StoreSettings)
    views = command.chosen(settings.catalog.some_views, options.view)
    console = Console(stderr=True)

    from feast_repo.stores.online.format import UnsupportedFormatError  # noqa: PLC0415
    from feast_repo.stores.online.view import OnlineView  # noqa: PLC0415  (Feast takes seconds to import)

    start = time.monotonic()
    written: dict[str, int] = {}
    store = command.feature_store()
    overwrites: bool = options.overwrite
    with command.telling(settings.data_root), carrying_rows(settings.data_root):
        try:
            # A concurrent heal's correction would be undone.
            with only_batch_writer(settings.data_root) if overwrites else nullcontext():
                for view in views:
                    online = OnlineView(store, store.get_feature_view(view.name))
                    if not written:
                        command.claim_redis(online.redis, store.project, settings)
                    written[view.name] = restore(
                        settings.data_root, view, online, store.project, console, overwrites=overwrites
                    )
        except UnsupportedFormatError as error:
            command.error(f"{error}: this command knows Redis only; use `feast materialize`")
    if options.json:
        sys.stdout.write(json.dumps({"written": written, "seconds": round(time.monotonic() - start, 3)}) + "\n")
    else:
        rows = ", ".join(f"{count:,} rows of {name}" for name, count in written.items())
        sys.stdout.write(f"restored {rows} in {time.monotonic() - start:.1f} s\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
