"""Writes rows online beside other writers, with an atomic compare-and-set for each row.

The stored event times are read and compared here; the server then sets a row only if its stored time is still the one
that was read. Rows that another writer has changed in between are compared again.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, TypeVar

from redis.exceptions import NoScriptError

from feast_repo.stores.online.pipe import ask

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from redis import Redis

    Commands = Iterable[tuple[bytes, int]]

Stored = TypeVar("Stored")

SWAP = """
if (redis.call('HGET', KEYS[1], ARGV[2]) or '') ~= ARGV[1] then return 0 end
for first = 2, #ARGV, 4000 do
    redis.call('HSET', KEYS[1], unpack(ARGV, first, math.min(first + 3999, #ARGV)))
end
return 1
"""
"""Sets a hash (key; expected time or empty, time's field, time, fields and values) if its time is the expected one.

Lua can't pass more than about 8,000 arguments at once. A script is atomic, so nothing comes between its parts.
"""

SWAP_SHA = hashlib.sha1(SWAP.encode()).hexdigest()  # noqa: S324  (the name that Redis gives to scripts)


def swap(redis: Redis, commands: Callable[[], Commands]) -> list[bool]:
    """Send calls of `SWAP_SHA`; returns whether each has set its row. Loads the script if the server lacks it.

    Raises:
        redis.RedisError: Redis is away or refuses; the call can be repeated.
    """
    while True:
        try:
            return [reply == 1 for reply in ask(redis, commands())]
        except NoScriptError:  # also after a server restart between two payloads: rows that are set stay set
            redis.script_load(SWAP)


def swap_until_settled(
    redis: Redis,
    count: int,
    read: Callable[[list[int]], Sequence[Stored]],
    wanted: Callable[[int, Stored], bool],
    commands: Callable[[list[int], list[Stored]], Commands],
) -> int:
    """Write those of `count` rows that should replace the stored ones; returns how many were written.

    `read`: the stored values for rows, by row number. `commands`: the calls of `SWAP_SHA` for rows and stored values.

    Raises:
        redis.RedisError: Redis is away or refuses; the call can be repeated.
    """
    left, written = list(range(count)), 0
    while left:
        pairs = [(row, stored) for row, stored in zip(left, read(left), strict=True) if wanted(row, stored)]
        rows, stored = [row for row, _ in pairs], [one for _, one in pairs]
        done = swap(redis, lambda: commands(rows, stored)) if rows else []  # noqa: B023  (called before the next round)
        written += sum(done)
        # Another writer changed these in between: compare again.
        left = [row for row, swapped in zip(rows, done, strict=True) if not swapped]
    return written
