"""Features of a service as of the times of rows: the stored values, or the declared defaults."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING, Literal, TypeAlias

import pandas as pd
import polars as pl
from rich.progress import Progress as ProgressBar, SpinnerColumn, TimeElapsedColumn

from feast_repo.declare.rows import EVENT_TIME
from feast_repo.declare.values import POLARS_TYPES

if TYPE_CHECKING:
    from feast import FeatureStore
    from rich.console import Console

    from feast_repo.declare.services import FeatureService
    from feast_repo.declare.stored import View

FeatureTime: TypeAlias = Literal["as served", "as created", "with all corrections"]
AS_SERVED: FeatureTime = "as served"
AS_CREATED: FeatureTime = "as created"
CORRECTED: FeatureTime = "with all corrections"
_ROW = "#row"


class FeatureJoin:
    """Joins a service's features to rows day by day, so memory is bounded by a day's stored rows and the result.

    `without`: by view, how many rows have no stored one; of these, some have one that `arrived_later`.
    """

    def __init__(self, store: FeatureStore, service: FeatureService, features: FeatureTime) -> None:
        self._store, self._views, self.features = store, service.views, features
        self._service = store.get_feature_service(service.name)
        self._keys = list(service.schema)
        self.columns = {name: dtype for view in service.views for name, dtype in _types(view).items()}
        self.without: dict[str, int] = {}
        self.arrived_later: dict[str, int] = {}

    def of(self, rows: pl.DataFrame, console: Console) -> pl.DataFrame:
        """Each feature of each row, in the order of the rows: one row out for each row in.

        `rows`: the join keys and event_timestamp (UTC, us or ns), in any order, with nulls and duplicates. A row
        without time has the defaults of all views, a row with a null in a view's key the defaults of this view.

        Raises:
            RuntimeError: the join lost or duplicated rows.
        """
        numbered = rows.select(*self._keys, EVENT_TIME).with_row_index(_ROW)
        parts = []
        timeless = numbered.filter(pl.col(EVENT_TIME).is_null()).select(_ROW)
        if len(timeless):
            empty = timeless.with_columns(pl.lit(None, dtype).alias(name) for name, dtype in self.columns.items())
            self._count(self.without, empty.select(_has_no_row(view).alias(view.name) for view in self._views))
            parts.append(empty)
        timed = numbered.drop_nulls(EVENT_TIME).with_columns(pl.col(EVENT_TIME).dt.date().alias("#day"))
        days = timed.partition_by("#day", include_key=False, as_dict=True)
        columns = SpinnerColumn(), *ProgressBar.get_default_columns(), TimeElapsedColumn()
        with ProgressBar(*columns, console=console, transient=True) as bar:  # a day of many small files takes a while
            task = bar.add_task("joining", total=len(timed))
            for _, day in sorted(days.items()):
                bar.update(task, description=f"joining {len(day):,} pairs of {day[EVENT_TIME][0]:%Y-%m-%d}")
                parts.append(self._of_day(day))
                bar.advance(task, len(day))
        joined = pl.concat([pl.DataFrame(schema={_ROW: numbered.schema[_ROW], **self.columns}), *parts])
        defaults = {name: value for view in self._views for name, value in view.defaults.items() if value is not None}
        return (
            joined.sort(_ROW).drop(_ROW).with_columns(pl.col(name).fill_null(value) for name, value in defaults.items())
        )

    def _of_day(self, rows: pl.DataFrame) -> pl.DataFrame:
        joined = self._joined(rows, self.features)
        lacking = joined.select(_has_no_row(view).alias(view.name) for view in self._views)
        self._count(self.without, lacking)
        some = lacking.select(pl.any_horizontal(pl.all())).to_series()
        if self.features != CORRECTED and some.any():
            later = self._joined(rows.filter(some), CORRECTED)  # once for all views: each join rereads the files
            came = later.select((~_has_no_row(view)).alias(view.name) for view in self._views)
            self._count(
                self.arrived_later,
                came.select(pl.col(name) & lacking.filter(some)[name] for name in came.columns),
            )
        return joined

    def _joined(self, rows: pl.DataFrame, features: FeatureTime) -> pl.DataFrame:
        """The numbers of the rows, in order, and the features; null where no stored row answers."""
        from feast_repo.stores.offline.store import ignoring_served  # noqa: PLC0415  (Feast takes seconds to import)

        with ignoring_served() if features == AS_CREATED else nullcontext():
            job = self._store.get_historical_features(
                entity_df=self._entity_frame(rows),
                features=self._service,
                filter_by_created_timestamp=features != CORRECTED,
            )
        types = {_ROW: rows.schema[_ROW], **self.columns}
        found = pl.DataFrame(job.to_arrow()).select(types.keys()).cast(pl.Schema(types)).sort(_ROW)
        if not found[_ROW].equals(rows[_ROW]):
            message = f"the point-in-time join gave {len(found):,} rows for {len(rows):,} pairs"
            raise RuntimeError(message)
        return found

    def _entity_frame(self, rows: pl.DataFrame) -> pd.DataFrame:
        """For Feast. NumPy's integers have no null beside them and its text is slow, so keys are Arrow's."""
        columns = {
            name: rows[name].to_pandas(use_pyarrow_extension_array=name != EVENT_TIME)
            for name in (_ROW, *self._keys, EVENT_TIME)
        }
        return pd.DataFrame(columns)

    @staticmethod
    def _count(counts: dict[str, int], which: pl.DataFrame) -> None:
        for name in which.columns:
            counts[name] = counts.get(name, 0) + int(which[name].sum())


def _types(view: View) -> dict[str, pl.DataType]:
    return {name: POLARS_TYPES[value_type] for name, value_type in view.value_types.items()}


def _has_no_row(view: View) -> pl.Expr:
    return pl.all_horizontal(pl.col(name).is_null() for name in view.features)
