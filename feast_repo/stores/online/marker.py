"""A mark in Redis that states that this server holds the rows that the view's Parquet requires.

It is set when the first rows are pushed, and again when a restore has refilled Redis. A server that loses its data
loses the mark too. Each filling has its own id, so an unchanged mark means that no loss was noticed in between. Several
restores may work on one filling, and the first to finish ends it.
"""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, cast

from redis.exceptions import NoPermissionError, ResponseError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from redis import Redis

FILLED, FILLING = b"filled ", b"filling "

SWAP_MARK = """
if (redis.call('GET', KEYS[1]) or '') ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[2])
for number = 2, #KEYS do redis.call('DEL', KEYS[number]) end
return 1
"""
"""Replaces a mark (empty: none) if it is the expected one, and then deletes the other keys."""


def marker_key(project: str, view_name: str) -> str:
    """The Redis key of a view's mark."""
    return f"{project}:online:{view_name}"


def read_mark(redis: Redis, key: str) -> bytes | None:
    """The mark, or None.

    Raises:
        redis.RedisError: the server is away.
    """
    return cast("bytes | None", redis.get(key))


def is_filled(mark: bytes | None) -> bool:
    """Whether the mark says that Redis is complete."""
    return mark is not None and mark.startswith(FILLED)


def mark_filled(redis: Redis, key: str) -> None:
    """Mark Redis as complete.

    Raises:
        redis.RedisError: the server is away.
    """
    redis.set(key, _new(FILLED))


def begin_filling(redis: Redis, key: str) -> bytes:
    """The mark under which a restore works: the existing one, else that of a new filling.

    Raises:
        redis.RedisError: the server is away.
    """
    while (mark := read_mark(redis, key)) is None:
        redis.eval(SWAP_MARK, 1, key, b"", _new(FILLING))
    return mark


def end_filling(redis: Redis, key: str, mine: bytes) -> bool:
    """Mark Redis as complete, unless a new filling has begun since `begin_filling`; returns whether it was marked.

    Raises:
        redis.RedisError: the server is away.
    """
    filled = FILLED + mine.rpartition(b" ")[2]
    return bool(redis.eval(SWAP_MARK, 1, key, mine, filled)) or read_mark(redis, key) == filled


def mark_lost(redis: Redis, key: str, seen: bytes | None, claims: Sequence[str]) -> None:
    """Mark Redis as incomplete, and delete the keys that claim how much it has.

    Does nothing if the mark is no longer the one that was `seen`. A restore that began earlier can't end its filling
    any more.

    Raises:
        redis.RedisError: the server is away.
    """
    redis.eval(SWAP_MARK, 1 + len(claims), key, *claims, seen or b"", _new(FILLING))


def server_id(redis: Redis) -> str:
    """The id that a server has from its start to its end; empty if this user may not ask for it.

    Raises:
        redis.RedisError: the server is away.
    """
    try:
        facts = cast("dict[str, object]", redis.info("server"))
    except (NoPermissionError, ResponseError):
        return ""
    return str(facts.get("run_id", ""))


def _new(state: bytes) -> bytes:
    return state + uuid.uuid4().hex.encode()
