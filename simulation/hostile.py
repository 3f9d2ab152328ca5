"""Seeded hostile messages: what a careless or malicious producer may send, mixed with good events."""

from __future__ import annotations

import json
import random
from typing import TYPE_CHECKING, Any, NamedTuple

from feast_repo.clickstream import clickstream

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

NOON_MS = 1_772_366_400_000  # 2026-03-01T12:00:00Z
SLIDE_MS = 600_000
YEAR_1_MS, YEAR_9999_MS = -62_135_596_800_000, 253_402_300_799_999
HUGE = 900_000
"""Size of the largest values in bytes: below a broker's usual limit."""
HUGE_EVERY = 10_000
CLOSED, ESCAPED, NAMELESS = 0.9, 0.5, 0.7
"""Shares: of nested values that close, of texts in ASCII, of heartbeats without user."""


class Sent(NamedTuple):
    """A message: its key, its value, and when the broker receives it."""

    key: bytes | None
    value: bytes
    kafka_timestamp: int


class Corpus:
    """An endless series of messages; equal seeds give equal messages."""

    def __init__(self, seed: int, *, messages_per_slide: int = 500) -> None:
        self._messages_per_slide = messages_per_slide
        self._chance = random.Random(seed)  # noqa: S311  (repeatable, not a secret)
        self._number = 0

    def messages(self, count: int) -> Iterator[Sent]:
        """The next `count` messages; every other one is a good event."""
        for number in range(count):
            event = self._event()
            now = event["event_timestamp"]
            key = event["user_id"].encode()
            if number % 2 == 0:
                yield Sent(key, json.dumps(event).encode(), now)
            elif number % HUGE_EVERY == 1:
                yield Sent(key, json.dumps({**event, "note": "x" * HUGE}).encode(), now)
            else:
                yield self._chance.choice(TRICKS)(self._chance, event, Sent(key, b"", now))

    def _event(self) -> dict[str, Any]:
        self._number += 1
        return {
            "event_id": f"e{self._number}",
            "user_id": f"user_{self._chance.randrange(50):06d}",
            "event_type": self._chance.choice(["view", "click", "add_to_cart", "purchase"]),
            # Forward in time, and often exactly on a window's edge.
            "event_timestamp": NOON_MS
            + (self._number // self._messages_per_slide) * SLIDE_MS
            + self._chance.choice([0, 0, 1, 7_000]),
            "price_cents": self._chance.randrange(10_000),
        }


Event = dict[str, Any]


def _truncated(chance: random.Random, event: Event, sent: Sent) -> Sent:
    value = json.dumps(event).encode()
    return sent._replace(value=value[: chance.randrange(len(value))])


def _flipped(chance: random.Random, event: Event, sent: Sent) -> Sent:
    value = bytearray(json.dumps(event).encode())
    for _ in range(chance.randint(1, 3)):
        value[chance.randrange(len(value))] = chance.randrange(256)
    return sent._replace(value=bytes(value))


def _deep(chance: random.Random, event: Event, sent: Sent) -> Sent:
    levels = chance.choice([1, 50, 498, 499, 500, 501, 3_000])
    opening, closing = chance.choice([(b"[", b"]"), (b'{"a":', b"}")])
    middle = b"1" if opening != b"[" else b""
    nested = opening * levels + middle + closing * (levels if chance.random() < CLOSED else levels - 1)
    return sent._replace(value=json.dumps(event).encode()[:-1] + b', "deep": ' + nested + b"}")


def _with_literal(chance: random.Random, event: Event, sent: Sent) -> Sent:
    """Put a literal of the wrong type into a field, or into a field that nobody reads."""
    literals = ["NaN", "Infinity", "-Infinity", "1e999", "-1e999", "1" + "0" * 400, "9223372036854775807"]
    literals += ["9223372036854775808", "-9223372036854775809", "1.0", "1e3", "-0", "01", "true", "null", "[]", "{}"]
    literals += ['""', '"7"', "+1", ".5", "5.", "0x10", "'a'", "undefined", '"\\u0000"', '"a\\tb"', '"\t"']
    name = chance.choice([*clickstream.by_name, "other"])
    rest = {field: value for field, value in event.items() if field != name}
    return sent._replace(value=json.dumps(rest).encode()[:-1] + f', "{name}": {chance.choice(literals)}}}'.encode())


def _lacking(chance: random.Random, event: Event, sent: Sent) -> Sent:
    names = chance.sample(sorted(event), chance.randint(1, len(event)))
    return sent._replace(value=json.dumps({name: event[name] for name in event if name not in names}).encode())


def _not_utf8(chance: random.Random, event: Event, sent: Sent) -> Sent:
    value = json.dumps({**event, "note": "here"}).encode()
    at = chance.choice([value.index(b"here"), value.index(b"user_") + 2, chance.randrange(len(value))])
    wrong = chance.choice([b"\xff", b"\xc3", b"\xe2\x82", b"\xed\xa0\x80", b"\xc0\x80", b"\xf4\x90\x80\x80", b"\x80"])
    return sent._replace(value=value[:at] + wrong + value[at:])


def _surrogates(chance: random.Random, event: Event, sent: Sent) -> Sent:
    text = chance.choice(["\\ud800", "\\udc00", "\\ud83d\\ude00", "\\ud83d x", "\\\\ud800", "\\uD800\\u0041", "\\u12"])
    name = chance.choice(["note", "product_id", "event_id"])
    rest = {field: value for field, value in event.items() if field != name}
    return sent._replace(value=json.dumps(rest).encode()[:-1] + f', "{name}": "{text}"}}'.encode())


def _odd_ids(chance: random.Random, event: Event, sent: Sent) -> Sent:
    one = chance.choice(["\u200b", "\U0001f600", "\u202e", "é", "e\u0301", "\ufeff", "\x00", "中", "\n"])
    text = one * chance.choice([1, 63, 64, 65])
    name = chance.choice(["event_id", "user_id"])
    changed = {**event, name: text}
    value = json.dumps(changed, ensure_ascii=chance.random() < ESCAPED).encode()
    return Sent(changed["user_id"].encode(), value, sent.kafka_timestamp)


def _odd_times(chance: random.Random, event: Event, sent: Sent) -> Sent:
    now = sent.kafka_timestamp
    edges = [
        YEAR_1_MS,
        YEAR_9999_MS,
        0,
        -1,
        946_684_799_999,
        946_684_800_000,
        now + 300_000,
        now + 300_001,
        now // 1000,
    ]
    # None that is accepted is far ahead, which would end the test's time line; what is before is late.
    return sent._replace(value=json.dumps({**event, "event_timestamp": chance.choice(edges)}).encode())


def _other_key(chance: random.Random, event: Event, sent: Sent) -> Sent:
    keys = [None, b"", b"user_999999", b"\xff\xfe", event["user_id"].upper().encode()]
    return Sent(chance.choice(keys), json.dumps(event).encode(), sent.kafka_timestamp)


def _twice(chance: random.Random, event: Event, sent: Sent) -> Sent:
    name = chance.choice(sorted(event))
    before = json.dumps({name: chance.choice(["other", 5, None, {"a": [1]}])}).encode()[:-1]
    both = [
        before + b", " + json.dumps(event).encode()[1:],
        json.dumps(event).encode()[:-1] + b", " + before[1:] + b"}",
    ]
    return sent._replace(value=chance.choice(both))


def _no_object(chance: random.Random, event: Event, sent: Sent) -> Sent:
    document = json.dumps(event)
    values = ["", " ", "\n", "null", "true", "1", '"text"', "[]", f"[{document}]", f"{document}{document}"]
    values += [f"{document},", f"\ufeff{document}", f"\n{document}\n", f"{document}\x00", "{", "}", "{}", "\x00" * 50]
    return sent._replace(value=chance.choice(values).encode())


def _odd_heartbeat(chance: random.Random, event: Event, sent: Sent) -> Sent:
    beat = {**event, "event_type": "heartbeat"}
    if chance.random() < NAMELESS:
        del beat["user_id"]
    return Sent(chance.choice([None, sent.key]), json.dumps(beat).encode(), sent.kafka_timestamp)


TRICKS: list[Callable[[random.Random, Event, Sent], Sent]] = [
    _truncated,
    _flipped,
    _deep,
    _with_literal,
    _lacking,
    _not_utf8,
    _surrogates,
    _odd_ids,
    _odd_times,
    _other_key,
    _twice,
    _no_object,
    _odd_heartbeat,
]
