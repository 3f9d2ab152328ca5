"""Compare the age of each view's newest stored values with its freshness objective.

    python -m batch.freshness                       # of all views; exits with 1 if one is stale

The age of a windowed view is that of the last window that the stream has closed in all partitions, by its progress
record; the age of a batch view is that of its newest publication. Serving judges each value by the same objectives.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from rich.table import Table

from batch.quality.publication import BatchTable
from feast_repo.commands import Command, as_it_is
from feast_repo.declare.views import WindowedView
from feast_repo.settings import StreamSettings
from feast_repo.stores.offline.tables import progress_folder
from feast_repo.stores.progress import ProgressRecord

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from feast_repo.declare.catalog import Catalog
    from feast_repo.declare.stored import View

EPOCH = datetime.fromtimestamp(0, tz=UTC)


@dataclass(frozen=True)
class Freshness:
    """How old a view's newest values are, and may be. `newest` (ISO 8601, UTC) is None if nothing is stored.

    `limit_seconds` is None if its values are never stale.
    """

    view: str
    newest: str | None
    age_seconds: float | None
    limit_seconds: float | None

    @property
    def stale(self) -> bool:
        """Whether the values are older than they may be, or there are none."""
        return self.limit_seconds is not None and (self.age_seconds is None or self.age_seconds > self.limit_seconds)


def freshness(root: Path, catalog: Catalog, view: View, now: datetime) -> Freshness:
    """A view's freshness.

    Raises:
        OSError: a file below DATA_ROOT can't be read.
    """
    newest = (
        _closed_end(root, view) if isinstance(view, WindowedView) else BatchTable(root, catalog, view).newest_time()
    )
    limit_ms = catalog.stale_after_ms(view)
    return Freshness(
        view.name,
        None if newest is None else newest.isoformat(),
        None if newest is None else round((now - newest).total_seconds(), 3),
        None if limit_ms is None else limit_ms / 1000,
    )


def _closed_end(root: Path, view: WindowedView) -> datetime | None:
    end_ms = ProgressRecord(progress_folder(root, view.source)).closed_end_ms(view)
    return None if end_ms is None else EPOCH + timedelta(milliseconds=end_ms)


def _print(found: Sequence[Freshness]) -> None:
    table = Table("view", "newest values", "age, s", "allowed, s", "status", title="freshness")
    for one in found:
        age, limit = ("-" if seconds is None else f"{seconds:,.0f}" for seconds in (one.age_seconds, one.limit_seconds))
        table.add_row(one.view, one.newest or "none", age, limit, "STALE" if one.stale else "fresh")
    as_it_is().print(table)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    command = Command("python -m batch.freshness", "Compare the age of stored values with the freshness objectives.")
    command.add_choice("view", "all views")
    command.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    options = command.parse_args(arguments)
    settings = command.settings(StreamSettings)
    views = command.chosen(settings.catalog.some_views, options.view)
    now = datetime.now(UTC)
    with command.telling(settings.data_root):
        found = [freshness(settings.data_root, settings.catalog, view, now) for view in views]
    holds = not any(one.stale for one in found)
    if options.json:
        report: dict[str, Any] = {"holds": holds, "views": [{**asdict(one), "stale": one.stale} for one in found]}
        sys.stdout.write(json.dumps(report) + "\n")
    else:
        _print(found)
    return int(not holds)


if __name__ == "__main__":
    sys.exit(main())
