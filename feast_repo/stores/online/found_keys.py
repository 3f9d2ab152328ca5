"""Finds the keys of an entity in Redis by what the keys themselves say.

Nothing stored elsewhere is needed, so keys are found of views that are no longer declared, and of entities that have
the given join keys among others.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from feast.infra.key_encoding_utils import deserialize_entity_key

from feast_repo.stores.online.features import KEYS_AT_ONCE, literally

if TYPE_CHECKING:
    from collections.abc import Mapping

    from redis import Redis


def keys_with(redis: Redis, project: str, values: Mapping[str, str | int]) -> list[bytes]:
    """The keys of entities that have these values among their join keys, sorted.

    It looks at all keys of the server, without blocking it: some seconds for ten million.

    Raises:
        redis.RedisError: Redis is away.
    """
    end = project.encode()
    part = max((_bytes(value) for value in values.values()), key=len)
    pattern = b"*" + literally(part) + b"*" + literally(end)
    hashes = redis.scan_iter(match=pattern, count=KEYS_AT_ONCE, _type="hash")
    return sorted({key for key in hashes if values.items() <= _entity(key.removesuffix(end)).items()})


def _bytes(value: str | int) -> bytes:
    return value.encode() if isinstance(value, str) else struct.pack("<q", value)


def _entity(key: bytes) -> dict[str, str | int]:
    """The join keys in a serialized entity key; empty for a key of another kind."""
    try:
        entity = deserialize_entity_key(key)
    except (ValueError, struct.error):
        return {}
    found = zip(entity.join_keys, entity.entity_values, strict=False)
    return {name: getattr(value, value.WhichOneof("val")) for name, value in found}
