"""Keys that Bytewax spreads evenly over workers.

Bytewax sends a key to worker `SipHash-1-3(key) mod workers`, and short keys often collide: with two workers, "0" to "3"
all go to the same one. So the key of a Kafka partition gets a suffix that makes its hash the partition's number modulo
`BALANCED`; any number of workers that divides `BALANCED` then has equal shares. A key depends only on the partition, so
recovery state fits any number of workers.
"""

from __future__ import annotations

from functools import cache
from itertools import count

BALANCED = 120
"""Even shares for 1, 2, 3, 4, 5, 6, 8, 10, 12, 15, 20, 24, 30, 40, 60 and 120 workers."""

_MASK = (1 << 64) - 1


@cache
def key_of(stream: str, partition: int) -> str:
    """The routing key of a Kafka partition of a stream, such as `clickstream/00007-42`."""
    candidates = (f"{part_of(stream, partition)}-{suffix}" for suffix in count())
    return next(key for key in candidates if _bytewax_hash(key) % BALANCED == partition % BALANCED)


def key_of_worker(index: int, workers: int) -> str:
    """A key that goes to this one of so many workers."""
    return next(key for key in map(str, count()) if _bytewax_hash(key) % workers == index)


def part_of(stream: str, partition: int) -> str:
    """The name of a Kafka partition of a stream as a part of the source, such as `clickstream/00007`."""
    return f"{stream}/{partition:05d}"


def place_of(part: str) -> tuple[str, int]:
    """The stream and the Kafka partition of a part."""
    stream, _, partition = part.rpartition("/")
    return stream, int(partition)


def partition_of(key: str) -> int:
    """The Kafka partition of a routing key."""
    return place_of(key.rpartition("-")[0])[1]


def _bytewax_hash(key: str) -> int:
    """The hash of a string by Rust's default hasher: SipHash-1-3 with a zero key, over the UTF-8 bytes and 0xff.

    Aumasson and Bernstein, "SipHash: a fast short-input PRF" (2012), with one compression and three final rounds.
    """
    data = key.encode() + b"\xff"
    v0, v1, v2, v3 = 0x736F6D6570736575, 0x646F72616E646F6D, 0x6C7967656E657261, 0x7465646279746573
    tail = len(data) % 8
    words = [int.from_bytes(data[at : at + 8], "little") for at in range(0, len(data) - tail, 8)]
    words.append(int.from_bytes(data[len(data) - tail :], "little") | (len(data) & 0xFF) << 56)
    for word in words:
        v3 ^= word
        v0, v1, v2, v3 = _round(v0, v1, v2, v3)
        v0 ^= word
    v2 ^= 0xFF
    for _ in range(3):
        v0, v1, v2, v3 = _round(v0, v1, v2, v3)
    return v0 ^ v1 ^ v2 ^ v3


def _round(v0: int, v1: int, v2: int, v3: int) -> tuple[int, int, int, int]:
    v0 = (v0 + v1) & _MASK
    v1 = _rotate(v1, 13) ^ v0
    v0 = _rotate(v0, 32)
    v2 = (v2 + v3) & _MASK
    v3 = _rotate(v3, 16) ^ v2
    v0 = (v0 + v3) & _MASK
    v3 = _rotate(v3, 21) ^ v0
    v2 = (v2 + v1) & _MASK
    v1 = _rotate(v1, 17) ^ v2
    v2 = _rotate(v2, 32)
    return v0, v1, v2, v3


def _rotate(value: int, bits: int) -> int:
    return ((value << bits) | (value >> (64 - bits))) & _MASK
