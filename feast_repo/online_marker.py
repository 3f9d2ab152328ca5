"""A mark in Redis that says: this server holds what the view's Parquet says it should.

It is set when the first rows are pushed, and again when a restore has refilled Redis. A server that lost its data has
lost the mark with them. No two marks are equal, so one that is still the same says that nothing was lost in between.
"""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from redis import Redis

FILLED, FILLING = b"filled ", b"filling "

SWAP_MARK = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[2])
return 1
"""


def marker_key(project: str, view_name: str) -> str:
    """The Redis key of a view's mark."""
    return f"{project}:online:{view_name}"


def read_mark(redis: Redis, key: str) -> bytes | None:
    """The mark, None where there is none.

    Raises:
        redis.RedisError: the server is away.
    """
    return cast("bytes | None", redis.get(key))


def is_filled(mark: bytes | None) -> bool:
    """Whether it says that Redis holds what it should."""
    return mark is not None and mark.startswith(FILLED)


def mark_filled(redis: Redis, key: str) -> None:
    """Say that Redis holds what it should.

    Raises:
        redis.RedisError: the server is away.
    """
    redis.set(key, _new(FILLED))


def begin_filling(redis: Redis, key: str) -> bytes:
    """The mark under which a restore works: the one that is there if Redis is filled, else a new one of its own.

    Raises:
        redis.RedisError: the server is away.
    """
    if is_filled(mark := read_mark(redis, key)):
        return cast("bytes", mark)
    redis.set(key, mine := _new(FILLING))
    return mine


def end_filling(redis: Redis, key: str, mine: bytes) -> bool:
    """Say that Redis holds what it should, unless the mark of `begin_filling` is gone; whether it was still there.

    Raises:
        redis.RedisError: the server is away.
    """
    return bool(redis.eval(SWAP_MARK, 1, key, mine, mine if is_filled(mine) else _new(FILLED)))


def _new(state: bytes) -> bytes:
    return state + uuid.uuid4().hex.encode()
