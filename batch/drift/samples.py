"""Samples of stored features in a period, one value per entity, and the health of the streams in it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import polars as pl

from batch.recompute.archive import days_of, files_of
from batch.recompute.stored import effective, stored_rows
from feast_repo.declare.rows import CREATED, EVENT_TIME
from feast_repo.declare.stored import offline_columns
from feast_repo.declare.values import POLARS_TYPES
from feast_repo.declare.views import WindowedView
from feast_repo.stores.offline.parquet import despite_compaction, scan
from feast_repo.stores.offline.tables import (
    LOG_KEY,
    dead_letters_folder,
    events_folder,
    features_folder,
    late_folder,
    prediction_columns,
    predictions_folder,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping
    from datetime import datetime
    from pathlib import Path

    from feast_repo.declare.batch_views import BatchView
    from feast_repo.declare.services import FeatureService

PREDICTION = "predicted_probability"
"""The name of the predictions among the features."""


@dataclass(frozen=True)
class Period:
    """A range of window ends or record times: `start` <= time < `end` (UTC)."""

    start: datetime
    end: datetime

    def __str__(self) -> str:
        return f"{self.start:%Y-%m-%d %H:%M} to {self.end:%Y-%m-%d %H:%M} UTC"


def values_of(
    data_root: Path, service: FeatureService, period: Period, *, services: Collection[FeatureService] = ()
) -> dict[str, pl.Series]:
    """Each feature's values in a period, one per entity, and PREDICTION, which is empty without predictions.

    `services`: all of the catalog, if the service is not the only one.

    Raises:
        OSError: a file can't be read.
    """
    features = {
        name: values for view in service.views for name, values in sample(data_root, view, period).to_dict().items()
    }
    return {**features, PREDICTION: scores(data_root, service, period, services=services)}


def sample(data_root: Path, view: WindowedView | BatchView, period: Period) -> pl.DataFrame:
    """The features of a view, one row per entity.

    For a windowed view: one window per entity, chosen by a hash among the non-overlapping windows in which it was
    active. Overlapping windows or several rows of one entity would not be independent, and tests would find spurious
    differences. For a batch view: the row that was valid at the end of the period.

    Raises:
        OSError: a file can't be read.
    """
    keys, features = view.join_keys, list(view.features)
    if not isinstance(view, WindowedView):
        return _newest(data_root, view, period).select(features)
    slide_ms = view.slide_ms
    first, last = (-(-round(time.timestamp() * 1000) // slide_ms) for time in (period.start, period.end))
    # Windows that end at multiples of their length do not overlap.
    rows = effective(view, stored_rows(data_root, view, first, last - 1, every=view.panes_per_window))
    active = pl.any_horizontal(
        pl.col(name).ne_missing(pl.lit(view.defaults[name], POLARS_TYPES[aggregate.value_type]))
        for name, aggregate in view.aggregates.items()
    )
    chosen = rows.filter(active).sort(pl.struct(*keys, EVENT_TIME).hash(), EVENT_TIME).unique(keys, keep="first")
    return chosen.sort(keys).select(features)


def scores(
    data_root: Path, service: FeatureService, period: Period, *, services: Collection[FeatureService] = ()
) -> pl.Series:
    """Each entity's last predicted probability in the period; `services` as in `values_of`.

    Raises:
        OSError: a file can't be read.
    """
    folder, time = predictions_folder(data_root, service, services), pl.col("scored_at")
    days = [day for day in days_of(folder, f"{period.start:%Y-%m-%d}") if day <= f"{period.end:%Y-%m-%d}"]
    files = files_of(folder, days)
    columns = prediction_columns(service)
    keys = [name for name in columns if name not in {"scored_at", "probability", "model_version"}]
    rows = scan(files, columns)
    within = rows.filter(time.is_between(period.start, period.end, closed="left"))
    last = within.sort("scored_at", maintain_order=True).unique(keys, keep="last").sort(keys).collect()
    return last["probability"]


def _newest(data_root: Path, view: BatchView, period: Period) -> pl.DataFrame:
    folder, columns = features_folder(data_root, view.name), offline_columns(view)
    days = [day for day in days_of(folder) if day <= f"{period.end:%Y-%m-%d}"]

    def read() -> pl.DataFrame:
        files = files_of(folder, days)
        if not files:
            return pl.DataFrame(schema=columns)
        rows = scan(files, columns)
        held = rows.filter(pl.col(EVENT_TIME) < period.end, pl.col(EVENT_TIME) >= period.end - view.ttl)
        return held.sort(EVENT_TIME, CREATED).unique(view.join_keys, keep="last").collect()

    return despite_compaction(read).sort(view.join_keys)


def stream_health(data_root: Path, views: Iterable[WindowedView], period: Period) -> dict[str, float]:
    """`events_per_hour`, `late_share` (of the events) and `dead_letter_share` (of events and dead letters).

    Over all streams that the views read; an event can be late for each view. By Kafka time. Heartbeats don't count as
    events, because low traffic causes many of them.

    Raises:
        OSError: a file can't be read.
    """
    events: dict[str, int] = {}
    late = dead = seen = 0
    for view in views:
        stream = view.source
        if stream.name not in events:
            columns = {**LOG_KEY, stream.key: stream.schema[stream.key]}
            events[stream.name] = _count(events_folder(data_root, stream), columns, period, ~stream.is_heartbeat)
            dead += _count(dead_letters_folder(data_root, stream), LOG_KEY, period)
        late += _count(late_folder(data_root, view), LOG_KEY, period)
        seen += events[stream.name]
    count, hours = sum(events.values()), (period.end - period.start).total_seconds() / 3600
    return {
        "events_per_hour": count / hours,
        "late_share": late / max(seen, 1),
        "dead_letter_share": dead / max(count + dead, 1),
    }


def health_in_words(reference: Mapping[str, float], current: Mapping[str, float]) -> list[str]:
    """The results of `stream_health` for two periods as text, such as `events per hour 6,240, now 6,200 (-1%)`."""
    volumes = reference["events_per_hour"], current["events_per_hour"]
    change = f" ({volumes[1] / volumes[0] - 1:+.0%})" if volumes[0] else ""
    shares = [
        f"{name.replace('_', ' ')} {reference[name]:.2%}, now {current[name]:.2%}"
        for name in ("late_share", "dead_letter_share")
    ]
    return [f"events per hour {volumes[0]:,.0f}, now {volumes[1]:,.0f}{change}", *shares]


def _count(folder: Path, columns: Mapping[str, pl.DataType], period: Period, which: pl.Expr | None = None) -> int:
    days = [day for day in days_of(folder, f"{period.start:%Y-%m-%d}") if day <= f"{period.end:%Y-%m-%d}"]
    within = pl.col("kafka_timestamp").is_between(period.start, period.end, closed="left")

    def read() -> int:
        if not (files := files_of(folder, days)):
            return 0
        rows = scan(files, columns).filter(within)
        if which is not None:
            rows = rows.filter(which)
        return int(rows.select(pl.struct("partition", "offset").n_unique()).collect().item())

    return despite_compaction(read)
