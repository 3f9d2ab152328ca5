"""A point-in-time training set: (entity, time) pairs, each with the features that serving had at that time.

    python -m batch.training_set --start 2026-01-01 --end 2026-02-01
    python -m batch.training_set --as-created               # for history that was streamed all at once
    python -m batch.training_set --healed --to corrected.parquet
    python -m batch.training_set --pairs mine.csv           # your own rows instead of labelled ones

The join is Feast's. By default (as served) it uses only rows that had been created and served by the pair's time: rows
of a stream that was down, of a backfill or of a heal count from when they could be read. `--as-created` uses what a
stream without delay would have served; `--healed` uses today's truth. Missing and expired values get the declared
defaults, as in serving.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from batch.lock import carrying_rows
from batch.training.joining import AS_CREATED, AS_SERVED, CORRECTED, FeatureJoin, FeatureTime
from batch.training.labels import label_of, labelled_pairs
from batch.training.own_rows import own_rows
from feast_repo.commands import Command, as_it_is, instant
from feast_repo.declare.rows import EVENT_TIME
from feast_repo.settings import StreamSettings
from feast_repo.stores.offline.parquet import publish
from feast_repo.stores.offline.tables import progress_folder
from feast_repo.stores.progress import ProgressRecord

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    import polars as pl

    from feast_repo.declare.services import FeatureService

MANY = 0.01
"""The share of pairs from which a warning is logged."""


@dataclass
class TrainingSetSummary:
    """The content of a training set. Of the pairs `without` a view's row, some have one that `arrived_later`.

    `label` and `positive` are None for a file of own rows that has no Boolean column of the label's name.
    """

    label: str | None
    positive: int | None
    rows: int = 0
    first: str | None = None
    last: str | None = None
    features: FeatureTime = AS_SERVED
    healed: bool = False
    without: dict[str, int] = field(default_factory=dict)
    arrived_later: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0

    def as_json(self) -> dict[str, Any]:
        """For programs: the positive rows are under the label's name."""
        told = asdict(self)
        label, positive = told.pop("label"), told.pop("positive")
        return told if label is None else {label: positive, **told}


class _Build:
    """One run of the command, after its options were read."""

    def __init__(self, command: Command, options: argparse.Namespace) -> None:
        self._command, self._options = command, options
        self._settings = command.settings(StreamSettings)
        self._service: FeatureService = command.chosen(self._settings.catalog.service, options.service)
        self._console = Console(stderr=True)
        root = self._settings.data_root
        self.path: Path = options.to or root / "training" / f"{self._service.name}.parquet"

    def run(self) -> TrainingSetSummary:
        """Write the file."""
        root = self._settings.data_root
        with self._command.telling(root), carrying_rows(root):
            return self._labelled() if self._options.pairs is None else self._own(self._options.pairs)

    def _labelled(self) -> TrainingSetSummary:
        root, options = self._settings.data_root, self._options
        label, events = label_of(self._service)
        progress = ProgressRecord(progress_folder(root, events)).load()
        with self._console.status("reading events, labelling pairs"):
            pairs = labelled_pairs(root, self._service, progress, options.start, options.end)
        if pairs.is_empty():
            self._command.error(
                f"{root} has no event in this range of which the stream has seen what followed within "
                f"{label.within}: run the stream longer, or correct --start, --end or DATA_ROOT"
            )
        features, summary = self._joined(pairs, label.name, int(pairs[label.name].sum()))
        publish(self.path, pairs.hstack(features))
        return summary

    def _own(self, source: Path) -> TrainingSetSummary:
        if self.path.exists() and source.exists() and self.path.samefile(source):
            self._command.error(f"{source} would be replaced by the training set: name another file with --to")
        with own_rows(source, self._service) as rows:
            label = None if rows.positive is None else label_of(self._service)[0].name
            features, summary = self._joined(rows.asked, label, rows.positive)
            with self._console.status("writing"):
                rows.write(self.path, features)
        return summary

    def _joined(
        self, pairs: pl.DataFrame, label: str | None, positive: int | None
    ) -> tuple[pl.DataFrame, TrainingSetSummary]:
        """The features of pairs, in their order, and what is told about them."""
        with self._console.status("opening the feature store"):
            store = self._command.feature_store()
        join = FeatureJoin(store, self._service, self._options.features)
        features = join.of(pairs, self._console)
        summary = TrainingSetSummary(label, positive, len(pairs), features=join.features)
        summary.healed = join.features == CORRECTED
        times = pairs[EVENT_TIME].drop_nulls()
        if len(times):
            summary.first, summary.last = times.min().isoformat(), times.max().isoformat()  # type: ignore[union-attr]
        summary.without, summary.arrived_later = join.without, join.arrived_later
        return features, summary


def _show(summary: TrainingSetSummary, path: Path) -> None:
    table = Table(title="training set", show_header=False)
    table.add_column()
    table.add_column(justify="right")
    table.add_row("pairs", f"{summary.rows:,}")
    if summary.positive is not None:
        table.add_row(f"of them {summary.label}", f"{summary.positive:,} ({summary.positive / summary.rows:.1%})")
    table.add_row("first", str(summary.first))
    table.add_row("last", str(summary.last))
    table.add_row("features", summary.features)
    for name, rows in summary.without.items():
        table.add_row(f"without {name}: defaults", f"{rows:,}")
    as_it_is().print(table)
    sys.stdout.write(f"{path}\n")


def _arrived_later(view: str, pairs: int, features: FeatureTime) -> str:
    """Why pairs have a view's defaults although there are rows, and which option uses them."""
    were, use = (
        ("created", "--healed uses them")
        if features == AS_CREATED
        else ("served", "--as-created uses those of a history that was streamed at once, --healed all")
    )
    return f"{pairs:,} pairs have the defaults of {view}, since its rows were {were} after the pairs' times; {use}"


def _options(command: Command, arguments: Sequence[str] | None) -> argparse.Namespace:
    command.add_argument("--start", type=instant, help="first time of a pair, ISO 8601 UTC (default: all archived)")
    command.add_argument("--end", type=instant, help="times before this, ISO 8601 UTC")
    command.add_argument(
        "--pairs", type=Path, metavar="FILE",
        help="Parquet or CSV of your own rows instead of labelled ones: join keys, event_timestamp, any other columns",
    )  # fmt: skip
    mode = command.add_mutually_exclusive_group()
    mode.add_argument(
        "--as-created", action="store_const", dest="features", const=AS_CREATED, default=AS_SERVED,
        help="as a stream without delay would have served them: for history that was streamed all at once",
    )  # fmt: skip
    mode.add_argument("--healed", action="store_const", dest="features", const=CORRECTED, help="today's truth instead")
    command.add_argument("--to", type=Path, help="Parquet file (default: training/<service>.parquet in DATA_ROOT)")
    command.add_choice("service")
    command.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    options = command.parse_args(arguments)
    if options.pairs is not None and (options.start is not None or options.end is not None):
        command.error(
            "--start and --end choose archived events; with --pairs all rows of the file are taken: leave them out"
        )
    if options.start is not None and options.end is not None and options.start >= options.end:
        command.error("--start must be before --end")
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    command = Command("python -m batch.training_set", "Write pairs of entity and time with the features served then.")
    options = _options(command, arguments)
    build, start = _Build(command, options), time.monotonic()
    summary = build.run()
    summary.seconds = round(time.monotonic() - start, 3)
    for name, count in summary.arrived_later.items():
        if count > MANY * summary.rows:
            sys.stderr.write(f"batch.training_set: {_arrived_later(name, count, options.features)}\n")
    if options.json:
        sys.stdout.write(json.dumps({**summary.as_json(), "file": str(build.path)}) + "\n")
    else:
        _show(summary, build.path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
