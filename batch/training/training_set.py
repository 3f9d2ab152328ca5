"""A point-in-time training set: labelled (entity, time) pairs, each with the features that serving had at that time.

    python -m batch.training_set --start 2026-01-01 --end 2026-02-01
    python -m batch.training_set --as-created               # for history that was streamed all at once
    python -m batch.training_set --healed --to corrected.parquet

The join is Feast's. By default (as served) it uses only rows that had been created and served by the pair's time: rows
of a stream that was down, of a backfill or of a heal count from when they could be read. `--as-created` uses what a
stream without delay would have served; `--healed` uses today's truth. Missing and expired values get the declared
defaults, as in serving.
"""

from __future__ import annotations

import json
import sys
import time
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import polars as pl
from rich.console import Console
from rich.progress import Progress as ProgressBar, SpinnerColumn, TimeElapsedColumn
from rich.table import Table

from batch.lock import carrying_rows
from batch.training.labels import label_of, labelled_pairs
from feast_repo.commands import Command, as_it_is, instant
from feast_repo.declare.rows import EVENT_TIME
from feast_repo.declare.values import POLARS_TYPES
from feast_repo.settings import StreamSettings
from feast_repo.stores.offline.parquet import publish
from feast_repo.stores.offline.tables import progress_folder
from feast_repo.stores.progress import ProgressRecord

if TYPE_CHECKING:
    from collections.abc import Sequence

    from feast import FeatureStore

    from feast_repo.declare.batch_views import BatchView
    from feast_repo.declare.services import FeatureService
    from feast_repo.declare.views import WindowedView

FeatureTime: TypeAlias = Literal["as served", "as created", "with all corrections"]
MANY = 0.01
"""The share of pairs from which a warning is logged."""
AS_SERVED: FeatureTime = "as served"
AS_CREATED: FeatureTime = "as created"
CORRECTED: FeatureTime = "with all corrections"


@dataclass
class TrainingSetSummary:
    """The content of a training set. Of the pairs `without` a view's row, some have one that `arrived_later`."""

    label: str
    rows: int = 0
    positive: int = 0
    first: str | None = None
    last: str | None = None
    features: FeatureTime = "as served"
    healed: bool = False
    without: dict[str, int] = field(default_factory=dict)
    arrived_later: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0

    def as_json(self) -> dict[str, Any]:
        """For programs: the positive rows are under the label's name."""
        told = asdict(self)
        return {told.pop("label"): told.pop("positive"), **told}


class TrainingSet:
    """Joins features to pairs day by day, so memory is bounded by a day's pairs and the result."""

    def __init__(self, store: FeatureStore, service: FeatureService, summary: TrainingSetSummary) -> None:
        self._store, self._views, self._summary = store, service.views, summary
        self._service = store.get_feature_service(service.name)
        self.columns = {name: dtype for view in service.views for name, dtype in _types(view).items()}

    def join(self, pairs: pl.DataFrame) -> pl.DataFrame:
        """The pairs in order with each feature: the stored value, else the declared default.

        Raises:
            RuntimeError: the join lost or duplicated pairs.
        """
        joined = self._joined(pairs, self._summary.features)
        lacking = joined.select(_has_no_row(view).alias(view.name) for view in self._views)
        self._count(self._summary.without, lacking)
        some = lacking.select(pl.any_horizontal(pl.all())).to_series()
        if self._summary.features != CORRECTED and some.any():
            later = self._joined(pairs.filter(some), CORRECTED)  # once for all views: each join rereads the files
            came = later.select((~_has_no_row(view)).alias(view.name) for view in self._views)
            self._count(
                self._summary.arrived_later,
                came.select(pl.col(name) & lacking.filter(some)[name] for name in came.columns),
            )
        defaults = {name: value for view in self._views for name, value in view.defaults.items() if value is not None}
        return joined.with_columns(pl.col(name).fill_null(value) for name, value in defaults.items())

    def _joined(self, pairs: pl.DataFrame, features: FeatureTime) -> pl.DataFrame:
        from feast_repo.stores.offline.store import ignoring_served  # noqa: PLC0415  (Feast takes seconds to import)

        keys = [name for name in pairs.columns if name != self._summary.label]
        with ignoring_served() if features == AS_CREATED else nullcontext():
            job = self._store.get_historical_features(
                entity_df=pairs.select(keys).to_pandas(),
                features=self._service,
                filter_by_created_timestamp=features != CORRECTED,
            )
        types = {**{name: pairs.schema[name] for name in keys}, **self.columns}
        found = pl.DataFrame(job.to_arrow()).select(types.keys()).cast(pl.Schema(types))
        joined = pairs.join(found, on=keys, how="left", maintain_order="left")
        if len(found) != len(pairs) or len(joined) != len(pairs):
            message = f"the point-in-time join gave {len(found):,} rows for {len(pairs):,} pairs"
            raise RuntimeError(message)
        return joined

    @staticmethod
    def _count(counts: dict[str, int], which: pl.DataFrame) -> None:
        for name in which.columns:
            counts[name] = counts.get(name, 0) + int(which[name].sum())


def _types(view: WindowedView | BatchView) -> dict[str, pl.DataType]:
    return {name: POLARS_TYPES[value_type] for name, value_type in view.value_types.items()}


def _has_no_row(view: WindowedView | BatchView) -> pl.Expr:
    return pl.all_horizontal(pl.col(name).is_null() for name in view.features)


def build(
    store: FeatureStore, service: FeatureService, pairs: pl.DataFrame, features: FeatureTime, console: Console
) -> tuple[pl.DataFrame, TrainingSetSummary]:
    """Join features to pairs (see `labels.py`): join keys, event_timestamp, the label, features of all views."""
    label, _ = label_of(service)
    summary = TrainingSetSummary(
        label.name, len(pairs), int(pairs[label.name].sum()), features=features, healed=features == CORRECTED
    )
    training_set = TrainingSet(store, service, summary)
    parts = [
        pairs.head(0).with_columns(pl.lit(None, dtype).alias(name) for name, dtype in training_set.columns.items())
    ]
    if len(pairs):
        first, last = pairs[EVENT_TIME][0], pairs[EVENT_TIME][-1]
        summary.first, summary.last = first.isoformat(), last.isoformat()
    days = pairs.with_columns(pl.col(EVENT_TIME).dt.date().alias("#day")).partition_by("#day", include_key=False)
    columns = SpinnerColumn(), *ProgressBar.get_default_columns(), TimeElapsedColumn()
    with ProgressBar(*columns, console=console, transient=True) as bar:  # a day of many small files takes a while
        task = bar.add_task("joining", total=len(pairs))
        for day in days:
            bar.update(task, description=f"joining {len(day):,} pairs of {day[EVENT_TIME][0]:%Y-%m-%d}")
            parts.append(training_set.join(day))
            bar.advance(task, len(day))
    return pl.concat(parts), summary


def _show(summary: TrainingSetSummary, path: Path) -> None:
    table = Table(title="training set", show_header=False)
    table.add_column()
    table.add_column(justify="right")
    table.add_row("pairs", f"{summary.rows:,}")
    table.add_row(f"of them {summary.label}", f"{summary.positive:,} ({summary.positive / summary.rows:.1%})")
    table.add_row("first", str(summary.first))
    table.add_row("last", str(summary.last))
    table.add_row("features", summary.features)
    for name, rows in summary.without.items():
        table.add_row(f"without {name}: defaults", f"{rows:,}")
    as_it_is().print(table)
    sys.stdout.write(f"{path}\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    command = Command(
        "python -m batch.training_set", "Write labelled pairs of entity and time with the features served then."
    )
    command.add_argument("--start", type=instant, help="first time of a pair, ISO 8601 UTC (default: all archived)")
    command.add_argument("--end", type=instant, help="times before this, ISO 8601 UTC")
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
    if options.start is not None and options.end is not None and options.start >= options.end:
        command.error("--start must be before --end")
    settings = command.settings(StreamSettings)
    service = command.chosen(settings.catalog.service, options.service)
    path: Path = options.to or settings.data_root / "training" / f"{service.name}.parquet"
    start, console = time.monotonic(), Console(stderr=True)
    with command.telling(settings.data_root), carrying_rows(settings.data_root):
        progress = ProgressRecord(progress_folder(settings.data_root, label_of(service)[1])).load()
        with console.status("reading events, labelling pairs"):
            pairs = labelled_pairs(settings.data_root, service, progress, options.start, options.end)
        if pairs.is_empty():
            command.error(
                f"{settings.data_root} has no event in this range of which the stream has seen what followed within "
                f"{label_of(service)[0].within}: run the stream longer, or correct --start, --end or DATA_ROOT"
            )
        with console.status("opening the feature store"):
            store = command.feature_store()
        rows, summary = build(store, service, pairs, options.features, console)
        publish(path, rows)
    summary.seconds = round(time.monotonic() - start, 3)
    for name, count in summary.arrived_later.items():
        if count > MANY * summary.rows:
            sys.stderr.write(
                f"batch.training_set: {count:,} pairs have the defaults of {name}, since its rows were served after "
                "the pairs' times; --as-created uses those of a history that was streamed at once, --healed all\n"
            )
    if options.json:
        sys.stdout.write(json.dumps({**summary.as_json(), "file": str(path)}) + "\n")
    else:
        _show(summary, path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
