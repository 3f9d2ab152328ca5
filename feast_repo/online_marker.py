"""A mark in Redis that says: this server holds what the view's Parquet says it should.

It is set when the first rows are pushed, and again when a restore has refilled Redis. A server that lost its data has
lost the mark with them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from redis import Redis

FILLED = b"filled"


def marker_key(project: str, view_name: str) -> str:
    """The Redis key of a view's mark."""
    return f"{project}:online:{view_name}"


def is_filled(redis: Redis, key: str) -> bool:
    """Whether Redis holds what it should.

    Raises:
        redis.RedisError: the server is away.
    """
    return bool(redis.get(key) == FILLED)


def mark_filled(redis: Redis, key: str) -> None:
    """Say that Redis holds what it should.

    Raises:
        redis.RedisError: the server is away.
    """
    redis.set(key, FILLED)
