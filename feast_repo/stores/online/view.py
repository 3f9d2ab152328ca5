"""One feature view in Feast's Redis store: rows as columns, written so that an older one never replaces a newer one."""

from __future__ import annotations

import logging
from datetime import timedelta
from itertools import compress
from typing import TYPE_CHECKING

import polars as pl
from feast import FeatureView
from google.protobuf.timestamp_pb2 import Timestamp

from feast_repo.declare.rows import EVENT_TIME
from feast_repo.stores.internals import redis_client
from feast_repo.stores.online.feast_bytes import compare_with_feast
from feast_repo.stores.online.features import settle
from feast_repo.stores.online.format import VALUE_FORMATS, RowFormat, UnsupportedFormatError, decode_time
from feast_repo.stores.online.guard import SWAP_SHA, swap_until_settled
from feast_repo.stores.online.keys import TYPE_CODES
from feast_repo.stores.online.pipe import ask
from feast_repo.stores.online.store import RedisUrlOnlineStoreConfig
from feast_repo.stores.online.writer import CannotEndError, WriteConnections

if TYPE_CHECKING:
    from collections.abc import Iterator

    from feast import FeatureStore

logger = logging.getLogger(__name__)

SENTINEL_TIME = Timestamp(seconds=1).SerializeToString()


class OnlineView:
    """The online rows of a view. Threads may share it. `writer` names the connections of `write_forward` on the server.

    Raises:
        UnsupportedFormatError: the encoding of this kind of view or store isn't known here; use Feast's own push.
    """

    def __init__(self, store: FeatureStore, view: FeatureView, writer: str = "feature-writer") -> None:
        self._format = _row_format(store, view)
        self._project, self.name = store.project, view.name
        self._features = [field.name for field in view.features]
        # The store's own connection pool.
        self.redis = redis_client(store)
        self._connections = WriteConnections(self.redis, writer)
        self._guarded_by_server = False

    def write_forward(self, rows: pl.DataFrame) -> int:
        """Write each entity's newest row unless Redis has one at least as new; returns how many were written.

        For the single writer that moves a view forward: the stored times are read, then compared. Rows of a failed
        call never arrive after a later call (see `writer.py`). If the server does not allow us to ensure that, each row
        is written by an atomic compare-and-set, at about a third of the speed.

        Raises:
            redis.RedisError: Redis is away or refuses; the call can be repeated.
        """
        if self._guarded_by_server:
            return self.write_beside(rows)
        keys, newest = self._keyed(rows)
        try:
            stored = self._connections.ask(self._format.read_time_commands(keys))
            newer = _newer(newest, stored)
            written = newest.filter(pl.Series(newer))
            self._connections.ask(self._format.write_commands(list(compress(keys, newer)), written))
        except CannotEndError as error:
            logger.warning(
                "Redis does not let us end our own connections (%s): pushes take three times as long; allow INFO, "
                "CLIENT ID, CLIENT SETNAME and CLIENT KILL",
                error,
            )
            self._guarded_by_server = True
            return self.write_beside(rows)
        return len(written)

    def write_beside(self, rows: pl.DataFrame) -> int:
        """As `write_forward`, for any other writer: each row is written by an atomic compare-and-set.

        Raises:
            redis.RedisError: Redis is away or refuses; the call can be repeated.
        """
        keys, rows = self._keyed(rows)
        offered = rows[EVENT_TIME].dt.epoch("ns").to_list()

        def swaps(numbers: list[int], stored: list[bytes | None]) -> Iterator[tuple[bytes, int]]:
            return self._format.swap_commands([keys[number] for number in numbers], stored, rows[numbers], SWAP_SHA)

        return swap_until_settled(
            self.redis,
            len(rows),
            lambda numbers: self._stored_times([keys[number] for number in numbers]),
            lambda number, stored: stored is None or offered[number] > decode_time(stored),
            swaps,
        )

    def write_over(self, rows: pl.DataFrame, resolution: timedelta | None = None) -> int:
        """Replace stored rows that differ, unless Redis has a newer one; returns how many were written.

        Times that are equal in units of `resolution` (since 1970) count as one version, such as a window's row and its
        corrections. A row is set only if its stored time is still the one that it was compared with, so rows that the
        stream writes in between stay.

        Raises:
            redis.RedisError: Redis is away or refuses; the call can be repeated.
        """
        keys, rows = self._keyed(rows)
        expected = self._format.stored_values(rows)
        unit = 1 if resolution is None else resolution // timedelta(microseconds=1) * 1000
        versions = (rows[EVENT_TIME].dt.epoch("ns") // unit).to_list()

        def read(numbers: list[int]) -> list[list[bytes | None]]:
            return ask(self.redis, self._format.read_row_commands([keys[number] for number in numbers]))

        def wanted(number: int, stored: list[bytes | None]) -> bool:
            is_newer = stored[0] is not None and decode_time(stored[0]) // unit > versions[number]
            return not is_newer and stored != expected[number]

        def swaps(numbers: list[int], stored: list[list[bytes | None]]) -> Iterator[tuple[bytes, int]]:
            times = [one[0] for one in stored]
            return self._format.swap_commands([keys[number] for number in numbers], times, rows[numbers], SWAP_SHA)

        return swap_until_settled(self.redis, len(rows), read, wanted, swaps)

    def settle(self) -> int:
        """See `features.settle`: call it before writing rows for features that may have changed."""
        return settle(self.redis, self._project, self.name, self._features)

    def set_sentinel(self) -> None:
        """Set a sentinel row that is deleted along with the view's rows; it has no values and is long expired.

        Raises:
            redis.RedisError: Redis is away.
        """
        self.redis.execute_command("HSET", self._format.sentinel_key, self._format.time_field, SENTINEL_TIME)

    def has_sentinel(self) -> bool:
        """Whether the sentinel row exists.

        Raises:
            redis.RedisError: Redis is away.
        """
        return bool(self.redis.execute_command("HEXISTS", self._format.sentinel_key, self._format.time_field))

    def behind(self, rows: pl.DataFrame) -> int:
        """The number of entities for which Redis has no row or an older one than these (join keys, event_timestamp).

        Raises:
            redis.RedisError: Redis is away.
        """
        keys, rows = self._keyed(rows)
        return sum(_newer(rows, self._stored_times(keys)))

    def _keyed(self, rows: pl.DataFrame) -> tuple[list[bytes], pl.DataFrame]:
        rows = newest_rows(rows, list(self._format.join_keys))
        return self._format.keys(rows), rows

    def _stored_times(self, keys: list[bytes]) -> list[bytes | None]:
        return ask(self.redis, self._format.read_time_commands(keys))


def newest_rows(rows: pl.DataFrame, keys: list[str]) -> pl.DataFrame:
    """Each entity's newest row; of rows with the same time the first, as in Feast."""
    by_time = rows.sort(EVENT_TIME, descending=True, maintain_order=True)
    return by_time.unique(keys, keep="first", maintain_order=True)


def _newer(rows: pl.DataFrame, stored: list[bytes | None]) -> list[bool]:
    """Which rows are newer than the stored times, or the first of their entity."""
    known = {data: decode_time(data) for data in set(stored) if data is not None}
    offered = rows[EVENT_TIME].dt.epoch("ns").to_list()
    return [data is None or time > known[data] for data, time in zip(stored, offered, strict=True)]


def _row_format(store: FeatureStore, view: FeatureView) -> RowFormat:
    """The encoding of a view's rows in Redis, verified against the installed Feast."""
    config, online = store.config, store.config.online_store
    if not isinstance(online, RedisUrlOnlineStoreConfig):
        message = f"the online store is {getattr(online, 'type', online)!r}"
        raise UnsupportedFormatError(message)
    extras = {
        "key_ttl_seconds": online.key_ttl_seconds,
        "enable_online_feature_view_versioning": config.registry.enable_online_feature_view_versioning,
        "precompute_online": any(service.precompute_online for service in store.list_feature_services()),
    }
    if used := [name for name, value in extras.items() if value]:
        message = f"{', '.join(used)} is set"
        raise UnsupportedFormatError(message)
    types = {field.name: str(field.dtype) for field in view.features}
    if unknown := sorted(set(types.values()) - VALUE_FORMATS.keys()):
        message = f"view {view.name!r} has features of type {', '.join(unknown)}"
        raise UnsupportedFormatError(message)
    source = view.batch_source
    if type(view) is not FeatureView or source.timestamp_field != EVENT_TIME or source.field_mapping:
        message = f"view {view.name!r} is no plain feature view with event time {EVENT_TIME!r} and unmapped columns"
        raise UnsupportedFormatError(message)
    join_keys = {field.name: str(field.dtype) for field in view.entity_columns}
    if not join_keys or set(join_keys.values()) - TYPE_CODES.keys():
        message = f"view {view.name!r} has join keys {join_keys}, not only of types {', '.join(TYPE_CODES)}"
        raise UnsupportedFormatError(message)
    row_format = RowFormat(store.project, view.name, join_keys, types, config.entity_key_serialization_version)
    compare_with_feast(config, view, row_format)
    return row_format
