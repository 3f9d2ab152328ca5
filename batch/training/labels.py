"""Labelled pairs of user and time: what a model serving at that time has to predict.

A pair is a user's first event in a minute, so bursts of clicks don't outweigh the rest. Its label says whether the user
bought within the next hour. Pairs with an unknown label are left out. The label is known when both hold:

- The partition's watermark has passed the end of the hour, so nothing that counts can still arrive.
- The stream has an event, of any user in any partition, at or after the end of the hour. Heartbeats prove that time has
  passed, not that anything was recorded. After an import, or once the producers have stopped, the data end with the
  last event: an hour beyond it is unknown, not without a purchase.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import polars as pl

from batch.recompute.archive import PARTITION, Scope, days_of, files_of
from feast_repo.declare.algebra import field
from feast_repo.declare.events import UTC_MICROSECONDS
from feast_repo.declare.views import EVENT_TIME
from feast_repo.stores.offline.parquet import despite_compaction, scan
from feast_repo.stores.offline.tables import event_columns, events_folder

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from feast_repo.declare.views import WindowedView
    from feast_repo.stores.progress import Progress

LABEL = "purchased"
IS_PURCHASE = field("event_type") == "purchase"
HORIZON = timedelta(hours=1)
SPACING = timedelta(minutes=1)


def labelled_pairs(
    data_root: Path,
    view: WindowedView,
    progress: Mapping[int, Progress],
    start: datetime | None = None,
    end: datetime | None = None,
) -> pl.DataFrame:
    """Pairs with start <= time < end, sorted by time and user: join key, event_timestamp (UTC, us), LABEL (Boolean).

    A purchase at exactly the pair's time does not count; duplicate events change nothing.

    Raises:
        OSError: a file can't be read.
    """
    return despite_compaction(lambda: _labelled_pairs(data_root, view, progress, start, end))


def _labelled_pairs(
    data_root: Path,
    view: WindowedView,
    progress: Mapping[int, Progress],
    start: datetime | None,
    end: datetime | None,
) -> pl.DataFrame:
    events, keys = view.source, view.join_keys
    time = pl.col(events.time)
    log = _scan(data_root, view, start).filter(~events.is_heartbeat)
    reach = log.select(time.max().alias("#reach"))
    if start is not None:  # the whole minute: the range must not change which event is first in it
        log = log.filter(time >= pl.lit(start).dt.truncate(SPACING))
    if end is not None:
        log = log.filter(time < end + HORIZON)
    seen = pl.LazyFrame(
        [(one.partition, _utc(one.watermark_ms)) for one in progress.values() if one.watermark_ms is not None],
        schema={PARTITION: pl.Int32, "#seen": UTC_MICROSECONDS},
        orient="row",
    )
    known = time + HORIZON <= pl.min_horizontal("#seen", "#reach")
    pairs = log.join(seen, on=PARTITION).join(reach, how="cross").filter(known)
    pairs = pairs.group_by(*keys, time.dt.truncate(SPACING).alias("#minute")).agg(time.min().alias(EVENT_TIME))
    if start is not None:
        pairs = pairs.filter(pl.col(EVENT_TIME) >= start)
    if end is not None:
        pairs = pairs.filter(pl.col(EVENT_TIME) < end)
    bought = log.filter(IS_PURCHASE.polars()).select(*keys, time.alias("#bought")).unique()
    pair_rows, purchases = pl.collect_all([pairs.select(*keys, EVENT_TIME), bought], engine="streaming")
    return (
        pair_rows.sort(EVENT_TIME, *keys)
        .join_asof(
            purchases.sort("#bought"),
            left_on=EVENT_TIME,
            right_on="#bought",
            by=keys,
            strategy="forward",
            tolerance=HORIZON,
            allow_exact_matches=False,
            check_sortedness=False,
        )
        .select(*keys, EVENT_TIME, pl.col("#bought").is_not_null().alias(LABEL))
    )


def _scan(data_root: Path, view: WindowedView, start: datetime | None) -> pl.LazyFrame:
    """The archive from the first day that can matter: events are at most a declared time ahead of their Kafka time."""
    columns = event_columns(view.source)
    first = None if start is None else round(start.timestamp() * 1000) // view.slide_ms
    first_day = Scope(view, pl.DataFrame(), first).first_day
    folder = events_folder(data_root)
    return scan(files_of(folder, days_of(folder, first_day)), columns)


def _utc(milliseconds: int) -> datetime:
    return datetime.fromtimestamp(0, tz=UTC) + timedelta(milliseconds=milliseconds)
