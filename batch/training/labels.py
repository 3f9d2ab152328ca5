"""Labelled pairs of entity and time: what a model serving at that time has to predict.

A pair is an entity's first event in a while (the label's spacing). Its label says whether an event that meets the
label's condition followed within the declared time. Pairs with an unknown label are left out. The label is known when
both hold:

- The watermark has passed the end of that time, so nothing that counts can still arrive: in the entity's partition, or
  in all if the message key is none of its join keys.
- The stream has an event, of any entity in any partition, at or after that end. Heartbeats prove that time has passed,
  not that anything was recorded. After an import, or once the producers have stopped, the data end with the last event:
  what would follow is unknown, not absent.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import polars as pl

from batch.recompute.archive import PARTITION, days_of, files_of
from feast_repo.declare.events import UTC_MICROSECONDS
from feast_repo.declare.rows import EVENT_TIME
from feast_repo.declare.vocabulary import POLARS
from feast_repo.errors import RefusedError
from feast_repo.stores.offline.parquet import despite_compaction, scan
from feast_repo.stores.offline.tables import day, event_columns, events_folder

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from feast_repo.declare.events import EventStream
    from feast_repo.declare.labels import Label
    from feast_repo.declare.services import FeatureService
    from feast_repo.stores.progress import Progress


class NoLabelError(RefusedError):
    """A service predicts nothing; the message names the remedy."""


def label_of(service: FeatureService) -> tuple[Label, EventStream]:
    """What a service predicts, and the stream with the events that tell.

    Raises:
        NoLabelError: it declares no label.
    """
    if service.label is None or service.label_stream is None:
        message = f"service {service.name!r} has no label to train for: declare it with label=Label(...)"
        raise NoLabelError(message)
    return service.label, service.label_stream


def labelled_pairs(
    data_root: Path,
    service: FeatureService,
    progress: Mapping[int, Progress],
    start: datetime | None = None,
    end: datetime | None = None,
) -> pl.DataFrame:
    """Pairs with start <= time < end, sorted by time and keys: keys, event_timestamp (UTC, us), the label (Boolean).

    An event at exactly the pair's time is not what follows it; duplicate events change nothing.

    Raises:
        NoLabelError: the service declares no label.
        OSError: a file can't be read.
    """
    return despite_compaction(lambda: _labelled_pairs(data_root, service, progress, start, end))


def _labelled_pairs(
    data_root: Path,
    service: FeatureService,
    progress: Mapping[int, Progress],
    start: datetime | None,
    end: datetime | None,
) -> pl.DataFrame:
    label, events = label_of(service)
    keys = list(service.schema)
    time, within, spacing = pl.col(events.time), label.within, label.spacing
    log = _scan(data_root, events, None if start is None else start - spacing).filter(~events.is_heartbeat)
    reach = log.select(time.max().alias("#reach"))
    log = log.drop_nulls(keys)
    if start is not None:  # from where its spacing begins: the range must not change which event is first in it
        log = log.filter(time >= pl.lit(start).dt.truncate(spacing))
    if end is not None:
        log = log.filter(time < end + within)
    seen = pl.LazyFrame(
        [(one.partition, _utc(one.watermark_ms)) for one in progress.values() if one.watermark_ms is not None],
        schema={PARTITION: pl.Int32, "#seen": UTC_MICROSECONDS},
        orient="row",
    )
    if events.key not in keys:
        seen = seen.with_columns(pl.col("#seen").min())
    known = time + within <= pl.min_horizontal("#seen", "#reach")
    pairs = log.join(seen, on=PARTITION).join(reach, how="cross").filter(known)
    pairs = pairs.group_by(*keys, time.dt.truncate(spacing).alias("#spacing")).agg(time.min().alias(EVENT_TIME))
    if start is not None:
        pairs = pairs.filter(pl.col(EVENT_TIME) >= start)
    if end is not None:
        pairs = pairs.filter(pl.col(EVENT_TIME) < end)
    met = log.filter(label.where.holds(POLARS)).select(*keys, time.alias("#met")).unique()
    pair_rows, met_rows = pl.collect_all([pairs.select(*keys, EVENT_TIME), met], engine="streaming")
    return (
        pair_rows.sort(EVENT_TIME, *keys)
        .join_asof(
            met_rows.sort("#met"),
            left_on=EVENT_TIME,
            right_on="#met",
            by=keys,
            strategy="forward",
            tolerance=within,
            allow_exact_matches=False,
            check_sortedness=False,
        )
        .select(*keys, EVENT_TIME, pl.col("#met").is_not_null().alias(label.name))
    )


def _scan(data_root: Path, events: EventStream, start: datetime | None) -> pl.LazyFrame:
    """The archive from the first day that can matter: events are at most a declared time ahead of their Kafka time."""
    first_day = "" if start is None else day(max(0, round(start.timestamp() * 1000) - events.ahead_ms))
    folder = events_folder(data_root, events)
    return scan(files_of(folder, days_of(folder, first_day)), event_columns(events))


def _utc(milliseconds: int) -> datetime:
    return datetime.fromtimestamp(0, tz=UTC) + timedelta(milliseconds=milliseconds)
