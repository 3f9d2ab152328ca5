"""Backfill: computes features from the archive and adds the missing rows.

    python -m batch.backfill --start 2026-01-01 --end 2026-02-01 --engine spark
    python -m batch.backfill --mode complete --heal           # also corrects rows changed by late events, in Redis too
    python -m batch.backfill --from events.jsonl --end 2026-01-01T12:10   # from events that were never streamed

Existing rows are left unchanged, and nothing is computed beyond the progress record. It can be stopped and restarted at
any time: it continues with the missing rows, and writes nothing if there are none.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from redis.exceptions import RedisError
from rich.table import Table

from batch.history.importing import bring_in, reach_with
from batch.history.rejects import rejects_file
from batch.lock import only_batch_writer
from batch.maintenance.restore_online import overwrite
from batch.recompute.archive import ArchiveError
from batch.recompute.filling import Filling
from batch.recompute.heal import Healing
from batch.recompute.recomputation import add_arguments, complaint, opened, parsed, recompute, scope_of, track
from batch.recompute.rows import in_two_partitions, named
from feast_repo.commands import Command, as_it_is, integer
from feast_repo.settings import StreamSettings

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    import polars as pl

    from batch.recompute.archive import Engine, Mode, Scope
    from batch.recompute.recomputation import Recomputation
    from feast_repo.declare.views import WindowedView
    from feast_repo.stores.online.view import OnlineView

MOST_PARTITIONS = 100_000


@dataclass
class BackfillSummary:
    """The result of a backfill."""

    engine: str
    mode: Mode
    windows: int = 0
    rows: int = 0
    added: int = 0
    completed: int = 0
    completed_online: int | None = None
    healed: int = 0
    healed_online: int = 0
    history_events: int = 0
    history_heartbeats: int = 0
    history_ignored: int = 0
    history_refused: int = 0
    history_reasons: dict[str, int] = field(default_factory=dict)
    rejects_file: str | None = None
    in_two_partitions: list[str] = field(default_factory=list)
    seconds: float = 0.0


def backfill(recomputation: Recomputation, filling: Filling, summary: BackfillSummary) -> None:
    """Add the missing rows; with history, also rows of windows that the stream saw in part.

    Raises:
        OSError: the disk is full or not writable; added rows stay, and a new run continues.
    """
    for chunk in track(recomputation, "backfill"):
        rows = recomputation.rows(chunk, summary.mode)
        summary.added += filling.fill(chunk, rows)
        _count(summary, recomputation, rows, chunk.last - chunk.first + 1)
    summary.completed = filling.completed


def heal(recomputation: Recomputation, data_root: Path, summary: BackfillSummary, online: OnlineView | None) -> None:
    """Correct the rows that differ from the truth, offline chunk by chunk, then online.

    Raises:
        OSError: the disk is full or not writable; healed rows stay, and a new run continues.
        redis.RedisError: Redis is away; rows healed offline stay, and a new run continues.
    """
    healing = Healing(data_root, recomputation.scope, datetime.now(UTC))
    for chunk in track(recomputation, "heal"):
        rows = recomputation.rows(chunk, "complete")
        summary.healed += healing.heal(chunk.first, chunk.last, rows)
        _count(summary, recomputation, rows, chunk.last - chunk.first + 1)
    if online is not None:
        summary.healed_online = healing.heal_online(online)


def _count(summary: BackfillSummary, recomputation: Recomputation, rows: pl.DataFrame, windows: int) -> None:
    summary.rows += len(rows)
    summary.windows += windows
    split = in_two_partitions(recomputation.scope.view, rows)
    summary.in_two_partitions = sorted({*summary.in_two_partitions, *named(split)})


def _open_online(command: Command, name: str, settings: StreamSettings) -> OnlineView | None:
    """The view in Redis, or None if the online store is another one."""
    from feast_repo.stores.online.format import UnsupportedFormatError  # noqa: PLC0415
    from feast_repo.stores.online.view import OnlineView  # noqa: PLC0415  (Feast takes seconds to import)

    store = command.feature_store()
    try:
        online = OnlineView(store, store.get_feature_view(name))
        command.claim_redis(online.redis, store.project, settings)
    except UnsupportedFormatError as error:
        sys.stderr.write(f"batch.backfill: only offline: {error}\n")
        return None
    return online


def _run(options: argparse.Namespace, command: Command, settings: StreamSettings, summary: BackfillSummary) -> int:
    view, root = settings.catalog.view(options.view), settings.data_root
    scope = scope_of(root, view, options.start, options.end)
    online = _open_online(command, view.name, settings) if options.heal else None
    with ExitStack() as stack:
        stack.enter_context(only_batch_writer(root))
        history_end = None
        if options.source is not None:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix=".history-", dir=root))
            rejects = rejects_file(root, options.source)
            scope, history_end = _with_history(options, scope, Path(folder), rejects, summary)
        elif scope.reach.is_empty():
            command.error(f"{root} has no progress record: run the stream first, or name events with --from")
        engine: Engine = stack.enter_context(
            opened(options.engine, root, view, master=options.master, archive=options.archive)
        )
        recomputation = recompute(engine, scope)
        if recomputation.timeline.mismatched:
            sys.stderr.write(f"batch.backfill: {complaint(recomputation.timeline)}\n")
            return 1
        if options.heal:
            heal(recomputation, root, summary, online)
        else:
            filling = Filling(root, recomputation, summary.mode, history_end)
            backfill(recomputation, filling, summary)
            if summary.completed:
                summary.completed_online = _complete_online(command, view, settings)
    return 0


def _complete_online(command: Command, view: WindowedView, settings: StreamSettings) -> int | None:
    """Add missing features to Redis's rows; returns how many, or None if Redis is away, which is reported.

    All rows are checked: a feature that was removed and declared again has lost its values in older rows too.
    """
    try:
        if (online := _open_online(command, view.name, settings)) is None:
            return None
        return overwrite(settings.data_root, view, online)
    except RedisError as error:
        sys.stderr.write(
            f"batch.backfill: stored rows are complete, but Redis does not answer ({error}): check REDIS_URL, then run "
            "`python -m batch.restore_online --overwrite`\n"
        )
        return None


def _with_history(
    options: argparse.Namespace, scope: Scope, folder: Path, rejects: Path, summary: BackfillSummary
) -> tuple[Scope, datetime]:
    partitions = options.partitions or max(scope.reach["partition"].to_list(), default=-1) + 1
    if not partitions:
        message = "the stream has not run here yet: name the number of the topic's partitions with --partitions"
        raise ArchiveError(message)
    history = bring_in(scope.view, options.source, partitions, folder, rejects)
    summary.history_events, summary.history_heartbeats = history.events, history.heartbeats
    summary.history_ignored = history.ignored
    summary.history_refused, summary.history_reasons = history.refused, history.reasons
    summary.rejects_file = None if history.rejects is None else str(history.rejects)
    reach = reach_with(scope.view, scope.reach, partitions, history)
    end = datetime.fromtimestamp(0, tz=UTC) + timedelta(milliseconds=history.last_ms + 1)
    # Windows that history doesn't overlap are left to a backfill from the archive.
    last = history.last_ms // scope.view.slide_ms + scope.view.panes_per_window + 1
    return replace(scope, reach=reach, last=min(last, scope.last or last), history=folder), end


def _table(summary: BackfillSummary) -> Table:
    table = Table(title=f"backfill with {summary.engine}, {summary.mode}", show_header=False)
    table.add_column()
    table.add_column(justify="right")
    always = ("windows", "rows", "added")
    online = ("completed", "completed_online", "healed", "healed_online")
    for name in (*always, *online, "history_events", "history_heartbeats", "history_ignored", "history_refused"):
        value = getattr(summary, name)
        if value or name in always:
            table.add_row(name.replace("_", " "), f"{value:,}")
    if summary.in_two_partitions:
        table.add_row("entities in two partitions", str(len(summary.in_two_partitions)))
    table.add_row("seconds", f"{summary.seconds:.1f}")
    return table


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    command = Command("python -m batch.backfill", "Compute features from the archive and add the missing ones.")
    add_arguments(command)
    command.add_argument("--heal", action="store_true", help="correct stored rows, Redis too; needs --mode complete")
    command.add_argument(
        "--from",
        dest="source",
        type=Path,
        metavar="PATH",
        help="add events of JSON lines or Parquet (file or folder); rejects are kept in DATA_ROOT",
    )
    command.add_argument(
        "--partitions",
        type=integer(1, MOST_PARTITIONS),
        help="of the topic, for --from (default: as the stream recorded)",
    )
    options = parsed(command, arguments)
    mode: Mode = options.mode or ("as-seen" if options.source is None else "complete")
    if options.heal and (mode != "complete" or options.source is not None):
        command.error("--heal corrects by the archive's complete truth: use --mode complete, without --from")
    if options.source is not None and mode != "complete":
        command.error("--from brings events that no stream has seen: use --mode complete, or leave --mode out")
    settings = command.settings(StreamSettings)
    summary, start = BackfillSummary(options.engine, mode), time.monotonic()
    with command.telling(settings.data_root):
        status = _run(options, command, settings, summary)
    if status:
        return status
    summary.seconds = round(time.monotonic() - start, 3)
    if options.json:
        sys.stdout.write(json.dumps(asdict(summary)) + "\n")
    else:
        as_it_is().print(_table(summary))
        for entity in summary.in_two_partitions[:10]:
            sys.stderr.write(f"batch.backfill: {entity} has events in two partitions: use one partitioner\n")
        if summary.rejects_file is not None:
            reasons = ", ".join(f"{count:,} {reason}" for reason, count in summary.history_reasons.items())
            sys.stdout.write(f"{summary.history_refused:,} rejected ({reasons}): {summary.rejects_file}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
