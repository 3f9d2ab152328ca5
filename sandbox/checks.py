"""The demo's checks of the stores, each with code that the stream does not use."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import polars as pl
from redis import Redis

from feast_repo.declare.rows import SERVED
from feast_repo.declare.stored import offline_columns
from feast_repo.stores.offline.files import data_files, day_folders
from feast_repo.stores.offline.parquet import scan
from feast_repo.stores.offline.tables import DEAD_LETTERS, EVENTS, FEATURES, LATE, features_folder

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from feast import FeatureStore

    from feast_repo.declare.batch_views import BatchView
    from feast_repo.declare.views import WindowedView

ENTITIES_PER_READ = 2_000


@dataclass(frozen=True)
class Check:
    """A condition, whether it holds, and the figures that show it."""

    name: str
    holds: bool
    figures: str


def rows_of(folder: Path) -> pl.DataFrame:
    """All rows of a table under DATA_ROOT, null if a feature was not declared yet; an empty frame without files."""
    files = [file for day in day_folders(folder) for file in data_files(day)]
    return pl.concat([scan(file).collect() for file in files], how="diagonal") if files else pl.DataFrame()


def newest_rows(data_root: Path, view: WindowedView | BatchView) -> pl.DataFrame:
    """Each entity's newest row in the offline store, sorted by entity."""
    rows = rows_of(features_folder(data_root, view.name))
    return rows.sort("event_timestamp", "created_timestamp").group_by(view.join_keys).last().sort(view.join_keys)


def online_rows(store: FeatureStore, view: WindowedView | BatchView, entities: pl.DataFrame) -> pl.DataFrame:
    """The entities' rows from Feast's own `get_online_features`, with their event times; `entities`: the join keys."""
    references, columns = [f"{view.name}:{name}" for name in view.features], offline_columns(view)
    parts = []
    for some in entities.select(view.join_keys).iter_slices(ENTITIES_PER_READ):
        response = store.get_online_features(references, some.to_dicts())
        values: dict[str, list[Any]] = response.to_dict()
        names = list(response.proto.metadata.feature_names.val)
        times = response.proto.results[names.index(next(iter(view.features)))].event_timestamps
        read = {"event_timestamp": [time.ToMicroseconds() for time in times]}
        read |= {name: values[name] for name in view.features}
        parts.append(some.hstack(pl.DataFrame(read, schema={name: columns[name] for name in read})))
    return pl.concat(parts)


def online_equals_offline(store: FeatureStore, data_root: Path, view: WindowedView | BatchView) -> Check:
    """Check that every entity's online row equals the newest offline row, value by value, time included."""
    offline = newest_rows(data_root, view).select(*view.join_keys, "event_timestamp", *view.features)
    online = online_rows(store, view, offline)
    different = pl.concat([offline, online]).unique().height - offline.height
    return Check(
        f"online equals newest offline row ({view.name})",
        holds=different == 0 and offline.height > 0,
        figures=f"{offline.height:,} entities, {different:,} different",
    )


def contents(data_root: Path, redis_url: str) -> dict[str, str]:
    """A digest of every row in Parquet (without its served time) and of every feature in Redis, by table."""
    digests = {}
    tables = (folder for kind in (FEATURES, EVENTS, LATE, DEAD_LETTERS) for folder in (data_root / kind).glob("*"))
    for folder in sorted(tables):
        rows = rows_of(folder).drop(SERVED, strict=False)
        if rows.is_empty():
            continue
        place = [name for name in ("partition", "offset") if name in rows.columns]
        data = rows.sort(place or rows.columns).write_ipc(None).getvalue()
        digests[str(folder.relative_to(data_root))] = f"{len(rows)} rows {hashlib.sha256(data).hexdigest()}"
    hashes = hashlib.sha256()
    with Redis.from_url(redis_url) as redis:
        for key, fields in sorted(_feature_hashes(redis)):
            hashes.update(repr((key, sorted(fields.items()))).encode())
    digests["redis"] = hashes.hexdigest()
    return digests


def _feature_hashes(redis: Redis) -> Iterator[tuple[bytes, dict[bytes, bytes]]]:
    """All of Feast's hashes, without the sentinel; other hashes hold wall-clock times and positions."""
    from feast_repo.stores.online.keys import SENTINEL  # noqa: PLC0415  (it imports Feast, which takes seconds)

    for key in redis.scan_iter(count=5_000, _type="hash"):
        if not any(part in key for part in (b":progress:", b":confirmed:", SENTINEL.encode())):
            yield key, cast("dict[bytes, bytes]", redis.hgetall(key))
