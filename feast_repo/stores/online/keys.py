"""Redis keys of entities, as Feast serializes them, from columns.

A key has the names of the join keys in Feast's order, then each value as type, length (32 bits each) and bytes, then
the project. A String's bytes are its UTF-8, an Int64's 8, least significant first.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
from feast.infra.online_stores.helpers import _redis_key
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Value, ValueType

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

TYPE_CODES = {"String": ValueType.STRING, "Int64": ValueType.INT64}
"""The types of join keys that are encoded here, with Feast's codes."""

PROBE = "\x01probe %d\x01"
SENTINEL = "the sentinel of this online store, no user: an id has at most 64 characters"

_sizes = struct.Struct("<II").pack
"""The type and the length in front of a value."""

_integer = struct.Struct("<q").pack


class _Ends(dict[int, tuple[bytes, bytes]]):
    """The bytes before and after a key's values, in RESP, by the length of the values; there are few of them.

    `bare`: what is between is one String without its type and length, which therefore belong to the bytes before it.
    """

    def __init__(self, head: bytes, tail: bytes, *, bare: bool) -> None:
        self._head, self._tail, self._bare = head, tail, bare

    def __missing__(self, length: int) -> tuple[bytes, bytes]:
        head = self._head + _sizes(TYPE_CODES["String"], length) if self._bare else self._head
        size = len(head) + length + len(self._tail)
        self[length] = b"$%d\r\n%b" % (size, head), self._tail + b"\r\n"
        return self[length]


class KeyFormat:
    """The encoding of one entity's keys. Threads may share it.

    `join_keys`: Feast type by name, each among `TYPE_CODES`.
    """

    def __init__(self, project: str, join_keys: Mapping[str, str], key_version: int) -> None:
        probes = {name: PROBE % number for number, name in enumerate(join_keys)}
        sample = _feast_key(project, probes, key_version)
        # Feast's own order, read from what it writes.
        order = sorted(join_keys, key=lambda name: sample.index(probes[name].encode()))
        self.join_keys = {name: join_keys[name] for name in order}
        self._first = order[0]
        head, _, _ = sample.partition(probes[order[0]].encode())
        _, _, tail = sample.partition(probes[order[-1]].encode())
        self._is_one_string = list(join_keys.values()) == ["String"]
        self._ends = _Ends(head[: -len(_sizes(0, 0))], tail, bare=self._is_one_string)
        self.sentinel: bytes = _feast_key(project, dict.fromkeys(join_keys, SENTINEL), key_version)
        """The key of no entity: all its values are Strings, which no Int64 is, and longer than ids usually may be."""

    def keys(self, rows: pl.DataFrame) -> list[bytes]:
        """The Redis keys of rows with the join keys' columns, in RESP.

        Raises:
            ValueError: a value is null.
        """
        columns = [rows[name] for name in self.join_keys]
        for column in columns:
            if missing := column.null_count():
                message = f"{missing} of {len(rows)} rows have no {column.name}"
                raise ValueError(message)
        bodies: Iterable[bytes]
        if self._is_one_string:
            bodies = columns[0].cast(pl.Binary).to_list()
        else:
            sized = [_SIZED[kind](column) for column, kind in zip(columns, self.join_keys.values(), strict=True)]
            bodies = sized[0] if len(sized) == 1 else map(b"".join, zip(*sized, strict=True))
        ends, made = self._ends, []
        for body in bodies:
            head, tail = ends[len(body)]
            made.append(head + body + tail)
        return made

    def key(self, entity: Mapping[str, Any]) -> bytes:
        """The Redis key of one entity, given as its values by join key, in RESP.

        Raises:
            KeyError: a join key is missing.
        """
        if self._is_one_string:
            body: bytes = entity[self._first].encode()
        else:
            body = b"".join([_sized(entity[name], kind) for name, kind in self.join_keys.items()])
        head, tail = self._ends[len(body)]
        return head + body + tail


def _feast_key(project: str, texts: Mapping[str, str], key_version: int) -> bytes:
    entity = EntityKey(join_keys=list(texts), entity_values=[Value(string_val=text) for text in texts.values()])
    key: bytes = _redis_key(project, entity, entity_key_serialization_version=key_version)
    return key


def _sized(value: Any, kind: str) -> bytes:
    data: bytes = value.encode() if kind == "String" else _integer(value)
    return _sizes(TYPE_CODES[kind], len(data)) + data


def _sized_strings(column: pl.Series) -> list[bytes]:
    code = TYPE_CODES["String"]
    return [_sizes(code, len(value)) + value for value in column.cast(pl.Binary).to_list()]


def _sized_integers(column: pl.Series) -> list[bytes]:
    head = _sizes(TYPE_CODES["Int64"], 8)
    records = np.empty(len(column), np.dtype([("head", f"S{len(head)}"), ("value", "<i8")]))
    records["head"], records["value"] = head, column.cast(pl.Int64).to_numpy()
    data, size = records.tobytes(), records.itemsize
    return [data[at : at + size] for at in range(0, len(data), size)]


_SIZED: dict[str, Callable[[pl.Series], list[bytes]]] = {"String": _sized_strings, "Int64": _sized_integers}
