"""The demo's checks of the stores, each with code that the stream does not use."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import polars as pl
from redis import Redis

from feast_repo.declare.views import SERVED
from feast_repo.stores.offline.files import data_files, day_folders
from feast_repo.stores.offline.parquet import scan
from feast_repo.stores.offline.tables import features_folder

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from feast import FeatureStore

    from feast_repo.declare.views import BatchView, WindowedView

USERS_PER_READ = 2_000


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
    """Each user's newest row in the offline store, sorted by user."""
    key = view.join_keys[0]
    rows = rows_of(features_folder(data_root, view.name))
    return rows.sort("event_timestamp", "created_timestamp").group_by(key).last().sort(key)


def online_rows(store: FeatureStore, view: WindowedView | BatchView, users: Sequence[str]) -> pl.DataFrame:
    """The users' rows from Feast's own `get_online_features`, with their event times."""
    key = view.join_keys[0]
    references = [f"{view.name}:{name}" for name in view.features]
    parts = []
    for start in range(0, len(users), USERS_PER_READ):
        some = list(users[start : start + USERS_PER_READ])
        response = store.get_online_features(references, [{key: user} for user in some])
        values: dict[str, list[Any]] = response.to_dict()
        names = list(response.proto.metadata.feature_names.val)
        times = response.proto.results[names.index(next(iter(view.features)))].event_timestamps
        microseconds = [time.ToMicroseconds() for time in times]
        parts.append(
            pl.DataFrame(
                {key: some, "event_timestamp": microseconds, **{name: values[name] for name in view.features}},
                schema={
                    key: pl.String,
                    "event_timestamp": pl.Datetime("us", "UTC"),
                    **{name: getattr(pl, value_type) for name, value_type in view.value_types.items()},
                },
            )
        )
    return pl.concat(parts)


def online_equals_offline(store: FeatureStore, data_root: Path, view: WindowedView | BatchView) -> Check:
    """Check that every user's online row equals the newest offline row, value by value, time included."""
    key = view.join_keys[0]
    offline = newest_rows(data_root, view).select(key, "event_timestamp", *view.features)
    online = online_rows(store, view, offline[key].to_list())
    different = pl.concat([offline, online]).unique().height - offline.height
    return Check(
        f"online equals newest offline row ({view.name})",
        holds=different == 0 and offline.height > 0,
        figures=f"{offline.height:,} users, {different:,} different",
    )


def contents(data_root: Path, redis_url: str) -> dict[str, str]:
    """A digest of every row in Parquet (without its served time) and of every feature in Redis, by table."""
    digests = {}
    for folder in ("features/user_click_features", "events", "late/user_click_features", "dead_letters"):
        rows = rows_of(data_root / folder)
        if rows.is_empty():
            digests[folder] = "no rows"
            continue
        first = [name for name in ("partition", "offset", "user_id", "event_timestamp") if name in rows.columns]
        data = rows.drop(SERVED, strict=False).sort(first).write_ipc(None).getvalue()
        digests[folder] = f"{len(rows)} rows {hashlib.sha256(data).hexdigest()}"
    hashes = hashlib.sha256()
    with Redis.from_url(redis_url) as redis:
        for key, fields in sorted(_feature_hashes(redis)):
            hashes.update(repr((key, sorted(fields.items()))).encode())
    digests["redis"] = hashes.hexdigest()
    return digests


def _feature_hashes(redis: Redis) -> Iterator[tuple[bytes, dict[bytes, bytes]]]:
    """All of Feast's hashes, without the sentinel; other hashes hold wall-clock times and positions."""
    from feast_repo.stores.online.format import SENTINEL  # noqa: PLC0415  (it imports Feast, which takes seconds)

    for key in redis.scan_iter(count=5_000, _type="hash"):
        if not any(part in key for part in (b":progress:", b":confirmed:", SENTINEL.encode())):
            yield key, cast("dict[bytes, bytes]", redis.hgetall(key))
