"""Encodes columns as the bytes that Feast keeps in Redis, and the commands that carry them.

One hash per entity: key = Feast's serialized entity key + project (`keys.py`); field `_ts:<view>` = the row's event
time as a protobuf Timestamp; field murmur3("<view>:<feature>") = the value as protobuf Value, empty for null.
Everything that doesn't depend on a row comes from Feast's own functions; `feast_bytes.py` compares the rest with the
installed Feast before it is used.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import polars as pl
from feast.infra.online_stores.helpers import _mmh3
from feast.protos.feast.types.Value_pb2 import Value
from google.protobuf.timestamp_pb2 import Timestamp

from feast_repo.errors import RefusedError
from feast_repo.stores.online.keys import KeyFormat

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    Encode = Callable[[pl.Series, bytes], list[bytes]]

VARINT, FIXED64, SIZED, FIXED32 = 0, 1, 2, 5
"""Protobuf's wire types."""

LIST_TAG = bytes([1 << 3 | SIZED])
"""The tag of the items in Feast's messages of lists, whose only field is the first."""

SMALL = 1 << 12
"""The encodings of numbers below it, which most counts are, are precomputed."""

ROWS_PER_PAYLOAD = 2_000
"""This many rows are encoded while the server works on the previous ones."""


class UnsupportedFormatError(RefusedError):
    """The installed Feast writes different bytes, or the view has something that isn't supported here."""


def value_tag(field: str, wire_type: int) -> bytes:
    """The tag in front of a value in Feast's `Value` message."""
    return bytes([Value.DESCRIPTOR.fields_by_name[field].number << 3 | wire_type])


def as_varint(number: int) -> bytes:
    """A number in protobuf's encoding: 7 bits per byte, least significant first; negative as 64-bit complement."""
    number &= 0xFFFF_FFFF_FFFF_FFFF
    out = bytearray()
    while number > 0x7F:  # noqa: PLR2004  (7 bits)
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def argument(value: bytes) -> bytes:
    """One argument of a command in RESP."""
    return b"$%d\r\n%b\r\n" % (len(value), value)


NULL = argument(b"")


def _varints(field: str) -> Encode:
    tag = value_tag(field, VARINT)

    @cache
    def small(before: bytes) -> list[bytes]:
        return [before + argument(tag + as_varint(number)) for number in range(SMALL)]

    def encode(column: pl.Series, before: bytes) -> list[bytes]:
        known = small(before)
        return [
            known[value] if 0 <= value < SMALL else before + argument(tag + as_varint(value))
            for value in column.to_list()
        ]

    return encode


def _fixed(field: str, wire_type: int, numpy_type: str) -> Encode:
    width = np.dtype(numpy_type).itemsize
    length, tail = b"$%d\r\n%b" % (1 + width, value_tag(field, wire_type)), b"\r\n"

    def encode(column: pl.Series, before: bytes) -> list[bytes]:
        head = before + length
        record = np.dtype([("head", f"S{len(head)}"), ("value", numpy_type), ("tail", f"S{len(tail)}")])
        records = np.empty(len(column), record)
        records["head"], records["value"], records["tail"] = head, column.to_numpy(), tail
        data = records.tobytes()
        return [data[at : at + record.itemsize] for at in range(0, len(data), record.itemsize)]

    return encode


def _strings() -> Encode:
    tag = value_tag("string_val", SIZED)

    def encode(column: pl.Series, before: bytes) -> list[bytes]:
        return [before + argument(tag + as_varint(len(value)) + value) for value in column.cast(pl.Binary).to_list()]

    return encode


def _packed(numbers: list[int]) -> bytes:
    """The message of a list of integers: all in one field, which an empty list has not."""
    data = b"".join(map(as_varint, numbers))
    return LIST_TAG + as_varint(len(data)) + data if numbers else b""


def _repeated(texts: list[str]) -> bytes:
    """The message of a list of strings: a field each."""
    return b"".join(LIST_TAG + as_varint(len(data)) + data for data in map(str.encode, texts))


def _lists(field: str, as_message: Callable[[list[Any]], bytes]) -> Encode:
    tag = value_tag(field, SIZED)

    def encode(column: pl.Series, before: bytes) -> list[bytes]:
        if column.list.eval(pl.element().is_null()).list.any().any():
            message = f"{column.name}: a list has null items, which Feast can't hold"
            raise ValueError(message)
        messages = map(as_message, column.to_list())
        return [before + argument(tag + as_varint(len(message)) + message) for message in messages]

    return encode


class ValueFormat(NamedTuple):
    """How a Feast type is written: the column's type, the encoder, and the placeholder for null."""

    dtype: Any
    encode: Encode
    filler: Any = 0


VALUE_FORMATS = {
    "Int64": ValueFormat(pl.Int64, _varints("int64_val")),
    "Int32": ValueFormat(pl.Int32, _varints("int32_val")),
    "Bool": ValueFormat(pl.Boolean, _varints("bool_val"), filler=False),
    "Float64": ValueFormat(pl.Float64, _fixed("double_val", FIXED64, "<f8")),
    "Float32": ValueFormat(pl.Float32, _fixed("float_val", FIXED32, "<f4")),
    "String": ValueFormat(pl.String, _strings(), ""),
    "Array(Int64)": ValueFormat(pl.List(pl.Int64), _lists("int64_list_val", _packed), []),
    "Array(String)": ValueFormat(pl.List(pl.String), _lists("string_list_val", _repeated), []),
}
"""By Feast type. Views with other types are left to Feast, whose encoding of some types depends on the batch."""


def encode_values(column: pl.Series, feast_type: str, before: bytes = b"") -> list[bytes]:
    """A feature column as Feast's values in RESP, each prefixed with `before`; null (and NaN, as in Feast) is empty.

    Raises:
        polars.exceptions.InvalidOperationError: a value does not fit into the declared type.
        ValueError: an item of a list is null: Feast fails, or makes it an empty string.
    """
    dtype, encode, filler = VALUE_FORMATS[feast_type]
    column = column.cast(dtype)
    if dtype.is_float():
        column = column.fill_nan(None)
    if not column.null_count():
        return encode(column, before)
    values, empty = encode(column.fill_null(filler), before), before + NULL
    return [empty if null else value for null, value in zip(column.is_null().to_list(), values, strict=True)]


def encode_times(column: pl.Series, before: bytes = b"") -> list[bytes]:
    """Event times (Datetime) as protobuf Timestamps in RESP, each prefixed with `before`; few of them differ."""
    microseconds = column.dt.epoch("us").to_list()
    encoded = {value: before + _timestamp(value) for value in set(microseconds)}
    return [encoded[value] for value in microseconds]


def _timestamp(microseconds: int) -> bytes:
    timestamp = Timestamp()
    timestamp.FromMicroseconds(microseconds)
    return argument(timestamp.SerializeToString())


def decode_time(data: bytes) -> int:
    """A stored protobuf Timestamp in nanoseconds."""
    return int(Timestamp.FromString(data).ToNanoseconds())


class RowFormat:
    """The encoding of one view's rows in Redis.

    `join_keys`, `features`: Feast type by name; the types must be among `keys.TYPE_CODES` and `VALUE_FORMATS`. The
    features are in the view's order.
    """

    def __init__(
        self, project: str, view: str, join_keys: Mapping[str, str], features: Mapping[str, str], key_version: int
    ) -> None:
        self._features = features
        self._keys = KeyFormat(project, join_keys, key_version)
        self.sentinel_key = self._keys.sentinel
        self.time_field = f"_ts:{view}".encode()
        self._time_field = argument(self.time_field)
        self._fields = [argument(_mmh3(f"{view}:{name}")) for name in features]

    @property
    def join_keys(self) -> dict[str, str]:
        """Feast type by name, in the order in which Feast serializes them."""
        return self._keys.join_keys

    def keys(self, rows: pl.DataFrame) -> list[bytes]:
        """The Redis keys of rows with the join keys' columns, in RESP.

        Raises:
            ValueError: a join key's value is null.
        """
        return self._keys.keys(rows)

    def write_commands(self, keys: list[bytes], rows: pl.DataFrame) -> Iterator[tuple[bytes, int]]:
        """HSET commands in RESP: payloads, each with the number of its commands.

        `keys`: of the rows, in RESP. `rows`: event_timestamp (Datetime), features.
        """
        command = b"*%d\r\n$4\r\nHSET\r\n" % (2 + self._arguments)
        for start in range(0, len(rows), ROWS_PER_PAYLOAD):
            part = rows[start : start + ROWS_PER_PAYLOAD]
            pieces = [command, keys[start : start + ROWS_PER_PAYLOAD], *self._fields_and_values(part)]
            yield _interleave(pieces, len(part)), len(part)

    def swap_commands(
        self, keys: list[bytes], stored: list[bytes | None], rows: pl.DataFrame, script: str
    ) -> Iterator[tuple[bytes, int]]:
        """Like `write_commands`, as calls of a script with the stored times that the rows may replace.

        The script gets the key, the expected `_ts:<view>` (empty: none), and the arguments of HSET after its key.
        """
        command = b"*%d\r\n$7\r\nEVALSHA\r\n%b$1\r\n1\r\n" % (5 + self._arguments, argument(script.encode()))
        for start in range(0, len(rows), ROWS_PER_PAYLOAD):
            part = rows[start : start + ROWS_PER_PAYLOAD]
            expected = [NULL if time is None else argument(time) for time in stored[start : start + ROWS_PER_PAYLOAD]]
            pieces = [command, keys[start : start + ROWS_PER_PAYLOAD], expected, *self._fields_and_values(part)]
            yield _interleave(pieces, len(part)), len(part)

    @property
    def _arguments(self) -> int:
        """The number of fields and values in a row, its time included."""
        return 2 + 2 * len(self._features)

    def _fields_and_values(self, rows: pl.DataFrame) -> list[bytes | list[bytes]]:
        # Each field is prefixed to its values before joining, which halves the pieces.
        values = (
            encode_values(rows[name], feature_type, field)
            for field, (name, feature_type) in zip(self._fields, self._features.items(), strict=True)
        )
        return [encode_times(rows["event_timestamp"], self._time_field), *values]

    def stored_values(self, rows: pl.DataFrame) -> list[list[bytes | None]]:
        """For each row the reply to `read_row_commands` once it is stored: its time, then its features."""
        columns = [
            encode_times(rows["event_timestamp"]),
            *(encode_values(rows[name], feature_type) for name, feature_type in self._features.items()),
        ]
        return [[one.partition(b"\r\n")[2][:-2] for one in row] for row in zip(*columns, strict=True)]

    def read_row_commands(self, keys: list[bytes]) -> Iterator[tuple[bytes, int]]:
        """HMGET commands in RESP for the times and features stored under keys: payloads, each with their number."""
        command = b"*%d\r\n$5\r\nHMGET\r\n" % (3 + len(self._fields))
        for start in range(0, len(keys), ROWS_PER_PAYLOAD):
            part = keys[start : start + ROWS_PER_PAYLOAD]
            yield _interleave([command, part, self._time_field, *self._fields], len(part)), len(part)

    def read_time_commands(self, keys: list[bytes]) -> Iterator[tuple[bytes, int]]:
        """HGET commands in RESP for the stored event times of keys in RESP: payloads, each with their number."""
        for start in range(0, len(keys), ROWS_PER_PAYLOAD):
            part = keys[start : start + ROWS_PER_PAYLOAD]
            yield _interleave([b"*3\r\n$4\r\nHGET\r\n", part, self._time_field], len(part)), len(part)


def _interleave(pieces: list[bytes | list[bytes]], rows: int) -> bytes:
    """Commands assembled row by row from pieces: constants that are the same in each row, and columns."""
    parts = [b""] * (len(pieces) * rows)
    for place, piece in enumerate(pieces):
        parts[place :: len(pieces)] = piece if isinstance(piece, list) else [piece] * rows
    return b"".join(parts)
