"""Columns to the bytes that Feast keeps in Redis, and the commands that carry them.

One hash an entity: key = Feast's serialized entity key + project; field `_ts:<view>` = the row's event time as protobuf
Timestamp; field murmur3("<view>:<feature>") = the value as protobuf Value, empty for null. Everything that doesn't
depend on a row comes from Feast's own functions, and `RowFormat` compares itself with them before it is used.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
from feast.infra.online_stores.helpers import _mmh3, _redis_key
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Value
from google.protobuf.timestamp_pb2 import Timestamp

if TYPE_CHECKING:
    from collections.abc import Iterator

STRING_TAG, INT64_TAG, DOUBLE_TAG = b"\x12", b"\x20", 0x29
"""Field numbers and wire types of Value's string_val, int64_val and double_val."""

PROBE = "\x01probe\x01"
ROWS_PER_PAYLOAD = 4_000


class UnsupportedFormatError(Exception):
    """The installed Feast writes other bytes than these, or the view has types that aren't known here."""


def _varint(number: int) -> bytes:
    """A number as protobuf has it: 7 bits a byte, least significant first."""
    out = bytearray()
    while number > 0x7F:  # noqa: PLR2004  (7 bits)
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


_SMALL_INTEGERS = [INT64_TAG + _varint(number) for number in range(1 << 14)]


def _int64_values(column: pl.Series) -> list[bytes]:
    small = _SMALL_INTEGERS
    return [
        small[value] if 0 <= value < len(small) else INT64_TAG + _varint(value & 0xFFFF_FFFF_FFFF_FFFF)
        for value in column.fill_null(0).to_list()
    ]


def _double_values(column: pl.Series) -> list[bytes]:
    records = np.empty(len(column), dtype=[("tag", "u1"), ("value", "<f8")])
    records["tag"], records["value"] = DOUBLE_TAG, column.fill_null(0.0).to_numpy()
    data, width = records.tobytes(), records.itemsize
    return [data[at : at + width] for at in range(0, len(data), width)]


def _string_values(column: pl.Series) -> list[bytes]:
    encoded = [value.encode() for value in column.fill_null("").to_list()]
    return [STRING_TAG + _varint(len(value)) + value for value in encoded]


def encode_values(column: pl.Series) -> list[bytes]:
    """A feature column as Feast's values; null (and NaN, as in Feast) is empty.

    Raises:
        UnsupportedFormatError: the column is neither Int64, Float64 nor String.
    """
    if column.dtype == pl.Float64:
        column = column.fill_nan(None)
        values = _double_values(column)
    elif column.dtype == pl.Int64:
        values = _int64_values(column)
    elif column.dtype == pl.String:
        values = _string_values(column)
    else:
        message = f"column {column.name!r} has type {column.dtype}"
        raise UnsupportedFormatError(message)
    if column.null_count():
        values = [b"" if null else value for null, value in zip(column.is_null().to_list(), values, strict=True)]
    return values


def encode_times(column: pl.Series) -> list[bytes]:
    """Event times (Datetime, us) as protobuf Timestamps; there are few different ones in a push."""
    microseconds = column.dt.epoch("us").to_list()
    encoded = {value: _timestamp(value) for value in set(microseconds)}
    return [encoded[value] for value in microseconds]


def _timestamp(microseconds: int) -> bytes:
    timestamp = Timestamp()
    timestamp.FromMicroseconds(microseconds)
    return bytes(timestamp.SerializeToString())


def decode_time(data: bytes) -> int:
    """A stored protobuf Timestamp in nanoseconds."""
    return int(Timestamp.FromString(data).ToNanoseconds())


class RowFormat:
    """How the rows of one view look in Redis, for an entity with one String join key.

    Raises:
        UnsupportedFormatError: this is not what the installed Feast would write.
    """

    def __init__(self, project: str, view: str, join_key: str, features: list[str], key_version: int) -> None:
        self.join_key = join_key
        self.features = features
        self.time_field = f"_ts:{view}".encode()
        self._fields = [_mmh3(f"{view}:{name}") for name in features]
        self._project, self._key_version = project, key_version
        sample = self._feast_key(PROBE)
        at = sample.find(PROBE.encode())
        self._key_head, self._key_tail = sample[: at - 4], sample[at + len(PROBE) :]
        self._check()

    def _feast_key(self, entity: str) -> bytes:
        key = EntityKey(join_keys=[self.join_key], entity_values=[Value(string_val=entity)])
        return bytes(_redis_key(self._project, key, entity_key_serialization_version=self._key_version))

    def keys(self, entities: pl.Series) -> list[bytes]:
        """The Redis keys of String entity ids."""
        head, tail, length = self._key_head, self._key_tail, struct.Struct("<I").pack
        return [head + length(len(entity)) + entity + tail for entity in map(str.encode, entities.to_list())]

    def _check(self) -> None:
        """Compare a few rows with what Feast's own code makes of them."""
        entities = ["user_000001", "ü€😀", "x" * 300]
        if self.keys(pl.Series(entities)) != [self._feast_key(entity) for entity in entities]:
            message = "entity keys differ from Feast's"
            raise UnsupportedFormatError(message)
        samples: list[tuple[pl.Series, list[Value]]] = [
            (pl.Series(numbers := [0, 1, -1, 16_384, 2**63 - 1, -(2**63)]), [Value(int64_val=n) for n in numbers]),
            (pl.Series(floats := [0.0, -0.0, 0.1, 1e300]), [Value(double_val=n) for n in floats]),
            (pl.Series(texts := ["", "free", "ü€😀", "x" * 300]), [Value(string_val=text) for text in texts]),
            (pl.Series([None], dtype=pl.Int64), [Value()]),
        ]
        for column, values in samples:
            if encode_values(column) != [value.SerializeToString() for value in values]:
                message = f"{column.dtype} values differ from Feast's"
                raise UnsupportedFormatError(message)

    def write_commands(self, rows: pl.DataFrame) -> Iterator[tuple[bytes, int]]:
        """HSET commands in RESP for all rows: payloads, each with the number of its commands.

        `rows`: join key (String), event_timestamp (Datetime us), features.
        """
        keys, times = self.keys(rows[self.join_key]), encode_times(rows["event_timestamp"])
        columns = [encode_values(rows[name]) for name in self.features]
        template = b"*%d\r\n$4\r\nHSET\r\n" % (4 + 2 * len(columns))
        template += b"$%d\r\n%b\r\n" + _escaped(self.time_field) + b"$%d\r\n%b\r\n"
        template += b"".join(_escaped(field) + b"$%d\r\n%b\r\n" for field in self._fields)
        for start in range(0, len(keys), ROWS_PER_PAYLOAD):
            parts: list[list[Any]] = []
            for column in (keys, times, *columns):
                part = column[start : start + ROWS_PER_PAYLOAD]
                parts += [[len(value) for value in part], part]
            commands = [template % row for row in zip(*parts, strict=True)]
            yield b"".join(commands), len(commands)

    def read_time_commands(self, keys: list[bytes]) -> Iterator[tuple[bytes, int]]:
        """HGET commands in RESP for the stored event times."""
        template = b"*3\r\n$4\r\nHGET\r\n$%d\r\n%b\r\n" + _escaped(self.time_field)
        for start in range(0, len(keys), ROWS_PER_PAYLOAD):
            part = keys[start : start + ROWS_PER_PAYLOAD]
            yield b"".join([template % (len(key), key) for key in part]), len(part)


def _escaped(argument: bytes) -> bytes:
    """A constant argument in RESP, safe inside a %-template."""
    return (b"$%d\r\n%b\r\n" % (len(argument), argument)).replace(b"%", b"%%")
