"""Materializes batch features to the online store, and verifies what is served.

    python -m batch.materialize                     # rows that the profile job has stored in the last 7 days

Each entity gets its newest row, encoded from columns straight to Feast's bytes, unless the online store has one at
least as new. Then served values are read through Feast and compared with stored ones; exits with 1 if they differ. The
windowed features don't need this, because the stream writes them.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import polars as pl
from rich.console import Console
from rich.progress import Progress as ProgressBar
from rich.table import Table

from batch.lock import carrying_rows
from batch.maintenance.restore_online import newest_by_day
from feast_repo.commands import Command, as_it_is, integer, number
from feast_repo.settings import StoreSettings

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from batch.parity.online import OnlineComparison
    from feast_repo.declare.batch_views import BatchView
    from feast_repo.stores.online.view import OnlineView

LOOK_BACK_DAYS = 7
SAMPLE = 1_000
MOST_USERS = 10**9
MOST_EXAMPLES = 10


def materialize(online: OnlineView, data_root: Path, view: BatchView, since: datetime, console: Console) -> int:
    """Write each entity's newest row of a view among those from `since` on; returns how many were written.

    Raises:
        redis.RedisError: Redis is away.
    """
    written = 0
    online.settle()  # reports a wrong address even if there is nothing to write
    with ProgressBar(console=console, transient=True) as bar:
        task = bar.add_task(view.name, total=None)
        for done, days, rows in newest_by_day(data_root, view, f"{since:%Y-%m-%d}"):
            written += online.write_beside(rows.filter(pl.col("event_timestamp") >= since))
            bar.update(task, completed=done, total=days)
    return written


def _print(report: dict[str, Any]) -> None:
    table = Table(
        "view", "written", "compared", "equal", "different", "missing", "older", "newer", title="materialized"
    )
    for name, one in report["views"].items():
        figures = (one[what] for what in ("written", "users", "equal", "different", "missing", "behind", "ahead"))
        table.add_row(name, *(f"{figure:,}" for figure in figures))
    console = as_it_is()
    console.print(table)
    for name, one in report["views"].items():
        for example in one["examples"]:
            told = f"  {name} {example['entity']} {example['feature']}: {example['online']}, {example['offline']}"
            console.print(told)
        for remedy in one["remedies"]:
            console.print(f"  {remedy}", soft_wrap=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    command = Command("python -m batch.materialize", "Materialize batch features to the online store.")
    command.add_argument(
        "--look-back-days", type=number(above=0), default=LOOK_BACK_DAYS, help="age limit of rows (%(default)s)"
    )
    command.add_argument(
        "--sample", type=integer(0, MOST_USERS), default=SAMPLE, help="entities to compare afterwards (%(default)s)"
    )
    command.add_choice("view", "all batch views")
    command.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    options = command.parse_args(arguments)
    settings = command.settings(StoreSettings)
    catalog = settings.catalog
    declared = catalog.batch if options.view is None else (command.chosen(catalog.batch_view, options.view),)
    start = time.monotonic()
    try:
        since = datetime.now(UTC) - timedelta(days=options.look_back_days)
    except OverflowError:
        command.error(f"--look-back-days {options.look_back_days:g} reaches beyond the calendar")
    store = command.feature_store()
    from batch.parity.online import compare_online  # noqa: PLC0415  (Feast takes seconds to import)
    from feast_repo.stores.online.format import UnsupportedFormatError  # noqa: PLC0415
    from feast_repo.stores.online.view import OnlineView  # noqa: PLC0415

    views: dict[str, Any] = {}
    wrong = 0
    with command.telling(settings.data_root), carrying_rows(settings.data_root):
        try:
            for view in declared:
                online = OnlineView(store, store.get_feature_view(view.name))
                if not views:
                    command.claim_redis(online.redis, store.project, settings)
                written = materialize(online, settings.data_root, view, since, Console(stderr=True))
                found: OnlineComparison = compare_online(
                    store, settings.data_root, view, sample=options.sample, most_examples=MOST_EXAMPLES
                )
                wrong += found.wrong
                views[view.name] = {
                    "written": written,
                    **asdict(found),
                    "wrong": found.wrong,
                    "remedies": found.remedies,
                }
        except UnsupportedFormatError as error:
            command.error(f"{error}: this command knows Redis only; use `feast materialize`")
    report = {"since": since.isoformat(), "views": views, "holds": not wrong}
    report["seconds"] = round(time.monotonic() - start, 3)
    if options.json:
        sys.stdout.write(json.dumps(report) + "\n")
    else:
        _print(report)
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
