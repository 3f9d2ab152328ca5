"""What the stores must hold after any run over a topic, told by the reference; and what they do hold."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

import hiredis
import polars as pl

from feast_repo.clickstream import clickstream
from feast_repo.stores.offline.tables import (
    dead_letters_folder,
    events_folder,
    features_folder,
    from_milliseconds,
    late_folder,
    progress_folder,
)
from feast_repo.stores.online.feast_bytes import feast_commands
from feast_repo.stores.online.format import decode_time
from feast_repo.stores.progress import ProgressRecord
from tests.stream.reference import Record, ReferenceWindows, judge

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from feast import FeatureStore
    from redis import Redis

    from feast_repo.declare.views import WindowedView
    from tests.crash.kafka import Log

Rows = list[tuple[Any, ...]]
SHOWN = 3


@dataclass(frozen=True)
class Outcome:
    """All that is stored, as sorted plain rows, times in ms; so a row that is there twice is seen."""

    events: Rows
    late: Rows
    dead_letters: Rows
    features: Rows
    progress: Rows
    announced: dict[int, int]
    online: dict[bytes, dict[bytes, bytes]]


def difference(wanted: Outcome, there: Outcome) -> str:
    """What is lacking, and what is there too much; empty if nothing is."""
    return "\n".join([*_excess("lacks", wanted, there), *_excess("has too much:", there, wanted)])


def missing(told: Outcome, there: Outcome) -> str:
    """What is told of and not stored, and what is announced beyond what is told; empty if nothing is.

    Rows beyond are fine, and so are newer ones online: they are of the epoch that was under way.
    """
    online = {
        key: row
        for key, row in told.online.items()
        if not there.online.get(key) or _time(there.online[key]) < _time(row)
    }
    beyond = {p: offset for p, offset in there.announced.items() if offset > told.announced.get(p, 0)}
    lacking = _excess("lacks", replace(told, announced={}, online=online), replace(there, online={}))
    return "\n".join([*lacking, *([f"announced before it was recorded: {beyond}"] if beyond else [])])


def _time(row: dict[bytes, bytes]) -> int:
    return max(decode_time(value) for field, value in row.items() if field.startswith(b"_ts:"))


def _excess(what: str, more: Outcome, less: Outcome) -> Iterator[str]:
    for name in ("events", "late", "dead_letters", "features", "progress", "announced", "online"):
        if rows := _counted(more, name) - _counted(less, name):
            yield f"{name} {what} {rows.total()}: {'; '.join(list(rows.elements())[:SHOWN])}"


def _counted(outcome: Outcome, name: str) -> Counter[str]:
    value = getattr(outcome, name)
    return Counter(map(str, value.items() if isinstance(value, dict) else value))


def expected(view: WindowedView, logs: Sequence[Log], store: FeatureStore) -> Outcome:
    """What follows from the messages alone."""
    events: Rows = []
    late: Rows = []
    dead: Rows = []
    features: Rows = []
    progress: Rows = []
    for partition, log in enumerate(logs):
        windows = ReferenceWindows(view)
        for offset, message in enumerate(log.messages):
            record = judge(view.source, message.value, message.key, message.kafka_ms)
            if isinstance(record, str):
                dead.append((partition, offset, message.value, record))
                continue
            record = Record(record, kafka_timestamp=message.kafka_ms)
            watermark, missed, closed = windows.add(record)
            events.append((partition, offset, watermark, record["event_id"]))
            if missed:
                late.append((partition, offset, missed))
            features += [row for window in closed for row in window.rows]
        if log.messages:
            progress.append((partition, len(log.messages), windows.watermark_ms))
    announced = {partition: offset for partition, offset, *_ in progress}
    return Outcome(sorted(events), late, dead, sorted(features), progress, announced, _online(view, features, store))


def _online(view: WindowedView, features: Rows, store: FeatureStore) -> dict[bytes, dict[bytes, bytes]]:
    """What Feast itself would write of each user's newest row."""
    newest: dict[str, tuple[Any, ...]] = {}
    for row in sorted(features):  # by user, then by end
        newest[row[0]] = row
    names = [*view.join_keys, "event_timestamp", "created_timestamp", *view.features]
    rows = pl.DataFrame(list(newest.values()), schema=names, orient="row").with_columns(
        from_milliseconds("event_timestamp"), from_milliseconds("created_timestamp")
    )
    if rows.is_empty():
        return {}
    reader = hiredis.Reader()
    reader.feed(feast_commands(store.config, store.get_feature_view(view.name), rows))
    hashes = {}
    while (command := reader.gets()) is not False:
        _, key, *parts = command
        hashes[key] = dict(zip(parts[::2], parts[1::2], strict=True))
    return hashes


def found(view: WindowedView, root: Path, redis: Redis, announcements: str, users: Iterable[bytes]) -> Outcome:
    """What is stored; of Redis the announced offsets, and the hashes with these keys."""
    events = _table(events_folder(root, clickstream), "partition", "offset", "watermark", "event_id")
    late = _table(late_folder(root, view), "partition", "offset", "missed_windows")
    dead = _table(dead_letters_folder(root, clickstream), "partition", "offset", "value", "reason")
    columns = (*view.join_keys, "event_timestamp", "created_timestamp", *view.features)
    features = _table(features_folder(root, view.name), *columns)
    progress = [
        (one.partition, one.next_offset, one.watermark_ms)
        for one in ProgressRecord(progress_folder(root, clickstream)).load().values()
    ]
    with redis.pipeline(transaction=False) as pipe:
        for key in users:
            pipe.execute_command("HGETALL", key)
        hashes = dict(zip(users, pipe.execute(), strict=True))
    told = cast("dict[bytes, bytes]", redis.hgetall(announcements))
    announced = {int(field): json.loads(value)["next_offset"] for field, value in told.items()}
    return Outcome(
        events, late, dead, features, sorted(progress), announced, {key: row for key, row in hashes.items() if row}
    )


def _table(folder: Path, *columns: str) -> Rows:
    files = sorted(folder.glob("dt=*/*.parquet"))
    if not files:
        return []
    rows = pl.read_parquet(files, columns=list(columns), hive_partitioning=False, missing_columns="insert")
    times = [name for name, dtype in rows.schema.items() if isinstance(dtype, pl.Datetime)]
    return sorted(rows.with_columns(pl.col(times).dt.epoch("ms")).rows())
