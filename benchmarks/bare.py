"""The least that serves features: one HMGET of ready-made fields, values decoded by hand, no status, no model.

What the service is measured against; `uvicorn benchmarks.bare:app` is the same over HTTP.
"""

from __future__ import annotations

import struct
from typing import Any

import msgspec
from feast.infra.online_stores.helpers import _mmh3, _redis_key
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Value
from redis import asyncio as redis_asyncio

from feast_repo.features import purchase_prediction
from feast_repo.settings import StoreSettings

FIELDS = [
    field
    for view in purchase_prediction.views
    for field in [*(_mmh3(f"{view.name}:{name}") for name in view.features), f"_ts:{view.name}".encode()]
]
NAMES = [name for view in purchase_prediction.views for name in [*view.features, f"_ts:{view.name}"]]
_double = struct.Struct("<d").unpack_from


def key(user: str) -> bytes:
    """A user's key, as Feast makes it."""
    entity = EntityKey(join_keys=["user_id"], entity_values=[Value(string_val=user)])
    made: bytes = _redis_key("ml_feature_store", entity, entity_key_serialization_version=3)
    return made


SAMPLE = key("user_000000")


def quick_key(user: str) -> bytes:
    """The same for ids of eleven characters."""
    return SAMPLE.replace(b"user_000000", user.encode())


def decoded(data: bytes | None) -> Any:
    """A stored value: integers, doubles and short strings."""
    if not data:
        return None
    tag = data[0]
    if tag == 0x29:  # noqa: PLR2004  (field 5, 64 bits)
        return _double(data, 1)[0]
    if tag == 0x12:  # noqa: PLR2004  (field 2, with a length)
        return data[2:].decode()
    number = shift = 0
    for byte in data[1:]:
        number |= (byte & 0x7F) << shift
        shift += 7
    return number


def row(reply: list[bytes | None]) -> dict[str, Any]:
    """A reply as values; the times stay as bytes, which nobody looks at."""
    return {name: None if name.startswith("_ts:") else decoded(data) for name, data in zip(NAMES, reply, strict=True)}


_redis = redis_asyncio.Redis.from_url(StoreSettings().redis_url)


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Answer {"user_ids": [...]}."""
    if scope["type"] != "http":
        return
    users = msgspec.json.decode((await receive())["body"])["user_ids"]
    pipeline = _redis.pipeline(transaction=False)
    for user in users:
        pipeline.execute_command("HMGET", quick_key(user), *FIELDS)
    replies = await pipeline.execute() if len(users) > 1 else [
        await _redis.execute_command("HMGET", quick_key(users[0]), *FIELDS)
    ]  # fmt: skip
    body = msgspec.json.encode([row(reply) for reply in replies])
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})
