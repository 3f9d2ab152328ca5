"""An entity's rows in Feast's Redis format: the commands that read all views, and the decoding of their replies.

Everything that doesn't depend on the entity is computed once, with Feast's own functions. Values of common types are
decoded here and other bytes by Feast, so the result always equals that of `get_online_features`.
"""

from __future__ import annotations

import struct
from functools import cache
from typing import TYPE_CHECKING, Any, TypeAlias

from feast.infra.online_stores.helpers import _mmh3
from feast.protos.feast.types.Value_pb2 import Value
from feast.type_map import feast_value_type_to_python_type

from feast_repo.stores.online.format import (
    FIXED32,
    FIXED64,
    SIZED,
    VARINT,
    argument,
    as_varint,
    decode_time,
    value_tag,
)
from feast_repo.stores.online.keys import KeyFormat
from serving.freshness import Freshness
from serving.messages import features_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from serving.messages import Asked, EntityFeatures
    from serving.schema import ServedSchema

Decode: TypeAlias = "Callable[[bytes | None], Any]"

REMEMBERED = 1 << 14
"""Distinct decoded values cached per feature: counts, countries and window ends repeat."""


def _slowly(data: bytes) -> Any:
    return feast_value_type_to_python_type(Value.FromString(data))


def _remembering(known: dict[bytes, Any], decode: Callable[[bytes], Any]) -> Decode:
    """Wrap a decoder with a cache of its values; None and empty bytes are null."""

    def decode_known(data: bytes | None) -> Any:
        if not data:
            return None
        try:
            return known[data]
        except KeyError:
            value = decode(data)
            if len(known) < 2 * REMEMBERED:
                known[data] = value
            return value

    return decode_known


def _fixed(field: str, wire_type: int, code: str) -> Decode:
    tag, width = value_tag(field, wire_type)[0], 1 + struct.calcsize(code)
    unpack = struct.Struct(code).unpack_from

    def decode(data: bytes | None) -> Any:
        if not data:
            return None
        if len(data) == width and data[0] == tag:
            return unpack(data, 1)[0]
        return _slowly(data)

    return decode


def _strings() -> Decode:
    tag = value_tag("string_val", SIZED)[0]

    def decode(data: bytes) -> Any:
        if data[0] == tag and len(data) > 1 and data[1] == len(data) - 2 < 0x80:  # noqa: PLR2004  (a length of 7 bits)
            return data[2:].decode()
        return _slowly(data)

    return _remembering({}, decode)


@cache
def _integers(field: str) -> Decode:
    tag = value_tag(field, VARINT)
    return _remembering({tag + as_varint(number): number for number in range(REMEMBERED)}, _slowly)


DECODERS: Mapping[str, Callable[[], Decode]] = {
    "Int64": lambda: _integers("int64_val"),
    "Int32": lambda: _integers("int32_val"),
    "Float64": lambda: _fixed("double_val", FIXED64, "<d"),
    "Float32": lambda: _fixed("float_val", FIXED32, "<f"),
    "String": _strings,
}
"""By Feast type; Feast decodes all others."""


class RedisRows:
    """The rows of all views of a service. Threads may share it."""

    def __init__(self, schema: ServedSchema, key_version: int) -> None:
        self.schema = schema
        fields_of: dict[tuple[tuple[str, str], ...], list[bytes]] = {}
        # Views of one entity are read by one command.
        self._views: list[tuple[str, Freshness, int, int, int, list[Decode]]] = []
        for view in schema.views:
            fields = fields_of.setdefault(tuple(sorted(view.join_keys.items())), [])
            start, command = len(fields), list(fields_of).index(tuple(sorted(view.join_keys.items())))
            fields += [_mmh3(f"{view.name}:{name}") for name in view.types]
            decoders = [_decoder(feast_type) for feast_type in view.types.values()]
            self._views.append((view.name, Freshness(view), command, start, len(fields), decoders))
            fields.append(f"_ts:{view.name}".encode())
        self._commands = [
            (
                b"*%d\r\n$5\r\nHMGET\r\n" % (2 + len(fields)),
                KeyFormat(schema.project, dict(join_keys), key_version).key,
                b"".join(map(argument, fields)),
            )
            for join_keys, fields in fields_of.items()
        ]
        self._time = _remembering({}, lambda data: decode_time(data) / 1e6)

    def commands(self, entities: Sequence[Asked]) -> tuple[bytes, int]:
        """RESP commands and their number: an HMGET per entity and kind of key.

        Raises:
            ValueError: something is no entity of the service; the message names the join key.
        """
        parts: list[bytes] = []
        for asked in entities:
            entity = self.schema.entity(asked)
            for command, key, fields in self._commands:
                parts += (command, key(entity), fields)
        return b"".join(parts), len(entities) * len(self._commands)

    def rows(
        self,
        entities: Sequence[Asked],
        replies: Sequence[list[bytes | None]],
        now_ms: float,
        closed_ends: Mapping[str, int],
    ) -> list[EntityFeatures]:
        """The replies as features, in the order of the entities; `closed_ends` are in ms, by view."""
        rows, per_entity = [], len(self._commands)
        for first, asked in zip(range(0, len(replies), per_entity), entities, strict=True):
            read = {}
            for name, judge, command, start, stop, decoders in self._views:
                reply = replies[first + command]
                values = [decode(data) for decode, data in zip(decoders, reply[start:stop], strict=True)]
                read[name] = judge.read(values, self._time(reply[stop]), now_ms, closed_ends.get(name))
            rows.append(features_of(asked, read))
        return rows


def _decoder(feast_type: str) -> Decode:
    make = DECODERS.get(feast_type)
    return (lambda data: _slowly(data) if data else None) if make is None else make()
