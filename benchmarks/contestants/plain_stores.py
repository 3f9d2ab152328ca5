"""Feast's stores without Feast, for contestants whose own environment can't have it: redis-py and pyarrow alone.

Rows in Redis are as Feast 0.67 reads them (entity keys of version 3, values as protobuf `Value`); a row costs far less
than through `FeatureStore.push`, so these contestants have an advantage over those that use Feast.
"""

from __future__ import annotations

import struct
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import mmh3
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import redis
from confluent_kafka import Consumer, TopicPartition

if TYPE_CHECKING:
    from pathlib import Path

PROJECT, VIEW, JOIN_KEY = "ml_feature_store", "user_click_features", "user_id"
COUNTS = ["click_count", "view_count", "cart_count", "purchase_count", "revenue_cents"]
RATES = {"cart_rate": "cart_count", "conversion_rate": "purchase_count"}
TIME = pa.timestamp("us", tz="UTC")
ROWS_PER_PIPELINE = 10_000
TIMEOUT_S = 10.0
STRING_TYPE = 2  # of Feast's `ValueType`
_word = struct.Struct("<I").pack
_double = struct.Struct("<Bd").pack
KEY_HEAD = _word(1) + _word(STRING_TYPE) + _word(len(JOIN_KEY)) + JOIN_KEY.encode() + _word(STRING_TYPE)
INT64_TAG, DOUBLE_TAG, SECONDS_TAG = b"\x20", 0x29, b"\x08"


def topic_ends(brokers: str, topic: str) -> dict[int, int]:
    """The end offset of each of the topic's partitions, as of now."""
    consumer = Consumer({"bootstrap.servers": brokers, "group.id": "contestant", "enable.auto.commit": False})
    try:
        partitions = consumer.list_topics(topic, timeout=TIMEOUT_S).topics[topic].partitions
        return {
            number: consumer.get_watermark_offsets(TopicPartition(topic, number), timeout=TIMEOUT_S)[1]
            for number in partitions
        }
    finally:
        consumer.close()


class PlainStores:
    """Parquet files below DATA_ROOT/features, and each user's newest row in Redis.

    Batches must come in the order of time for each user: stored times are not read.
    """

    def __init__(self, data_root: Path, redis_url: str) -> None:
        self._folder = data_root / "features" / VIEW
        self._folder.mkdir(parents=True, exist_ok=True)
        self._files = 0
        self._redis = redis.Redis.from_url(redis_url)
        self._redis.ping()
        self._fields = [_field(name) for name in [*COUNTS, *RATES]]

    def write(self, rows: pa.Table) -> None:
        """Write user_id, event_timestamp (of any time type, UTC) and counts; the rates are added here."""
        rows = rows.set_column(rows.schema.get_field_index("event_timestamp"), "event_timestamp", _utc(rows))
        views = pc.cast(rows["view_count"], pa.float64())
        for name, numerator in RATES.items():
            rate = pc.divide(pc.cast(rows[numerator], pa.float64()), views)
            rows = rows.append_column(name, pc.if_else(pc.equal(views, 0.0), 0.0, rate))
        pq.write_table(rows, self._folder / f"part-{self._files:06d}.parquet", compression="zstd")
        self._files += 1
        self._write_online(rows)

    def close(self) -> None:
        """Leave Redis."""
        self._redis.close()

    def _write_online(self, rows: pa.Table) -> None:
        times = pc.cast(rows["event_timestamp"], pa.int64()).to_pylist()
        newest: dict[str, int] = {}
        for number, user in enumerate(rows[JOIN_KEY].to_pylist()):
            kept = newest.get(user)
            if kept is None or times[kept] < times[number]:
                newest[user] = number
        counts = [rows[name].to_pylist() for name in COUNTS]
        rates = [rows[name].to_pylist() for name in RATES]
        field, project, time_field = self._fields, PROJECT.encode(), f"_ts:{VIEW}".encode()
        pipeline = self._redis.pipeline(transaction=False)
        for sent, (user, number) in enumerate(newest.items(), 1):
            name = user.encode()
            values = [_integer(column[number]) for column in counts]
            values += [_double(DOUBLE_TAG, column[number]) for column in rates]
            arguments: list[Any] = [time_field, SECONDS_TAG + _varint(times[number] // 1_000_000)]
            for pair in zip(field, values, strict=True):
                arguments += pair
            pipeline.execute_command("HSET", KEY_HEAD + _word(len(name)) + name + project, *arguments)
            if sent % ROWS_PER_PIPELINE == 0:
                pipeline.execute()
        pipeline.execute()


def _utc(rows: pa.Table) -> pa.ChunkedArray:
    """The event times as microseconds UTC."""
    return pc.cast(pc.cast(rows["event_timestamp"], pa.timestamp("us")), TIME)


def _field(feature: str) -> bytes:
    """The hash field of a feature."""
    return _word(mmh3.hash(f"{VIEW}:{feature}", signed=False))


@lru_cache(1 << 16)
def _integer(number: int) -> bytes:
    """A count as Feast's `Value`."""
    return INT64_TAG + _varint(number)


@lru_cache(1 << 16)
def _varint(number: int) -> bytes:
    """A number from 0 on as protobuf has it: 7 bits a byte, least significant first."""
    out = bytearray()
    while number > 0x7F:  # noqa: PLR2004  (7 bits)
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)
