"""The features that rows in Redis may be read by, listed in `<project>:features:<view>`.

Feast keeps a field per feature in the entity's hash, and a row that is written without a feature leaves its field
unchanged. If the feature were declared again, its old value would be served with the new row's age. So when a feature
is added to the list, its fields are first removed from all rows; it is null until rows are written with it.
"""

from __future__ import annotations

import json
import logging
import re
from itertools import islice
from typing import TYPE_CHECKING, cast

from feast.infra.online_stores.helpers import _mmh3

if TYPE_CHECKING:
    from collections.abc import Iterable

    from redis import Redis

logger = logging.getLogger(__name__)

KEYS_AT_ONCE = 1_000

REMOVE = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return -1 end
local removed = 0
for number = 2, #KEYS do removed = removed + redis.call('HDEL', KEYS[number], unpack(ARGV, 2)) end
return removed
"""
"""Removes fields from hashes only while the list still lacks their features: once they are listed, rows may have been
written with them."""

REPLACE = """
if (redis.call('GET', KEYS[1]) or '') ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[2])
return 1
"""


def features_key(project: str, view: str) -> str:
    """The Redis key of a view's list: a JSON array of names."""
    return f"{project}:features:{view}"


def settle(redis: Redis, project: str, view: str, features: Iterable[str], *, begins: bool = True) -> int:
    """Set the list to the declared features; returns how many fields were removed for that.

    Call it before rows are written with these features. Any number of processes may do so at once: no field is removed
    that one of them writes afterwards. A server without a list gets one if `begins`; its rows are assumed to match the
    declaration.

    Raises:
        redis.RedisError: Redis is away or refuses; it can be repeated.
    """
    key, declared = features_key(project, view), sorted(features)
    wanted, removed = json.dumps(declared).encode(), 0
    while (held := cast("bytes | None", redis.get(key))) != wanted and (held is not None or begins):
        known = declared if held is None else json.loads(held)
        if coming := sorted(set(declared) - set(known)):
            removed += _remove(redis, key, cast("bytes", held), project, view, coming)
        redis.eval(REPLACE, 1, key, held or b"", wanted)
    return removed


def _remove(redis: Redis, key: str, held: bytes, project: str, view: str, features: list[str]) -> int:
    fields = [_mmh3(f"{view}:{name}") for name in features]
    script, removed = redis.register_script(REMOVE), 0
    hashes = redis.scan_iter(match=b"*" + literally(project.encode()), count=KEYS_AT_ONCE, _type="hash")
    while some := list(islice(hashes, KEYS_AT_ONCE)):
        done = int(script([key, *some], [held, *fields]))
        if done < 0:
            return removed
        removed += done
    if removed:
        names = ", ".join(features)
        logger.warning("removed %d values of %s from Redis, from before it was declared again", removed, names)
    return removed


def literally(part: bytes) -> bytes:
    """A part of a key as a pattern that matches nothing else."""
    return re.sub(rb"([*?\[\]\\])", rb"\\\1", part)
