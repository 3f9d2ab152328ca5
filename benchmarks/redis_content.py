"""What a Redis holds: to compare what two writers have left there, and to send the very same again."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, NamedTuple

from feast_repo.stores.online.format import argument
from feast_repo.stores.online.pipe import ask

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from redis import Redis

PER_PAYLOAD = 2_000


class Digest(NamedTuple):
    """Equal for equal contents, whatever the order of keys and fields."""

    hashes: int
    total: int


def hashes(redis: Redis) -> Iterator[tuple[bytes, list[bytes]]]:
    """Each key with its fields and values, one after the other, in order of the fields. All keys are hashes."""
    keys = sorted(set(redis.scan_iter(count=10_000)))
    for at in range(0, len(keys), PER_PAYLOAD):
        part = keys[at : at + PER_PAYLOAD]
        replies = ask(redis, payloads([[b"HGETALL", key] for key in part]))
        for key, reply in zip(part, replies, strict=True):
            yield key, [each for pair in sorted(zip(reply[::2], reply[1::2], strict=True)) for each in pair]


def digest(redis: Redis) -> Digest:
    """What to compare, in little memory."""
    found = 0
    total = 0
    for key, parts in hashes(redis):
        found += 1
        content = b"".join(argument(part) for part in (key, *parts))
        total += int.from_bytes(hashlib.blake2b(content, digest_size=16).digest())
    return Digest(found, total % 2**128)


def payloads(commands: Sequence[Sequence[bytes]]) -> list[tuple[bytes, int]]:
    """Commands as RESP, a few thousand in one piece: what `feast_repo.stores.online.pipe.ask` sends."""
    made = []
    for at in range(0, len(commands), PER_PAYLOAD):
        part = commands[at : at + PER_PAYLOAD]
        made.append(
            (b"".join(b"*%d\r\n%b" % (len(one), b"".join(map(argument, one))) for one in part), len(part)),
        )
    return made
