"""Any bytes whatever: a batch equals its messages one by one, equals the reference, and nothing raises."""

from __future__ import annotations

import json
from datetime import timedelta
from functools import cache
from typing import TYPE_CHECKING, Any, TypeAlias
from unittest.mock import patch

from hypothesis import example, given, settings, strategies as st

from feast_repo.clickstream import YEAR_2000_MS, clickstream
from feast_repo.codec import json_codec
from feast_repo.codec.decoding import Decoder, RawBatch
from feast_repo.declare.events import EventStream
from feast_repo.declare.fields import INT64_MAX, INT64_MIN, Choice, Integer, Text, Timestamp
from tests.stream.reference import judge

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hypothesis.strategies import DrawFn, SearchStrategy

EXAMPLES = 250
NOW = 1_772_366_400_000

Message: TypeAlias = tuple[bytes, bytes | None, int]
"""Value, key and Kafka timestamp."""
Good: TypeAlias = list[tuple[Any, ...]]
Dead: TypeAlias = list[tuple[Any, ...]]


@cache
def decoder_of(events: EventStream) -> Decoder:
    return Decoder(events)


def decoded(events: EventStream, messages: Sequence[Message], first_offset: int = 0) -> tuple[Good, Dead]:
    """Decode messages as one batch: rows of good ones, rows of dead ones."""
    batch = RawBatch(
        partition=0,
        values=[value for value, _, _ in messages],
        keys=[key for _, key, _ in messages],
        kafka_timestamps=[time for _, _, time in messages],
        offsets=list(range(first_offset, first_offset + len(messages))),
    )
    with patch.object(json_codec, "MESSAGES_AT_ONCE", 3):  # few enough that most batches need more than one go
        result = decoder_of(events).decode(batch)
    assert len(result.records) + len(result.dead_letters) + result.ignored == len(messages)
    return result.records.rows(), result.dead_letters.rows()


def judged(events: EventStream, messages: Sequence[Message]) -> tuple[Good, Dead]:
    """Judge messages by the reference, in the same shape."""
    good, dead = [], []
    for offset, (value, key, time) in enumerate(messages):
        verdict = judge(events, value, key, time)
        if verdict == "ignored":
            continue
        if isinstance(verdict, str):
            dead.append((offset, time, key, value, verdict))
        else:
            good.append((offset, time, *verdict.values()))
    return good, dead


def one_by_one(events: EventStream, messages: Sequence[Message]) -> tuple[Good, Dead]:
    results = [decoded(events, [message], offset) for offset, message in enumerate(messages)]
    return [row for good, _ in results for row in good], [row for _, dead in results for row in dead]


# --- Messages

STRINGS = st.sampled_from(
    [
        '""',
        '"u1"',
        '"u2"',
        '"ü"',
        '"\\u00fc"',
        '"view"',
        '"vi\\u0065w"',
        '"purchase"',
        '"heartbeat"',
        '"View"',
        '"\\ud83d\\ude00"',
        '"\\ud83d"',
        '"\\ude00\\ud83d"',
        '"\\\\ud83d"',
        '"\\\\\\ud83d"',
        '"\\ud83d\\\\ude00"',
        '"\\uD83D\\uDE00\\uDE00"',
        '"\\u0000"',
        '"\\x"',
        '"\\u12"',
        '"\t"',
        '"[[[{{{"',
        '"5"',
        '"' + "x" * 64 + '"',
        '"' + "x" * 65 + '"',
        '"' + "\\u00fc" * 64 + '"',
        '"' + "€" * 65 + '"',
        '"' + "\\ud83d\\ude00" * 64 + '"',
        '"unclosed',
    ]
)
NUMBERS = st.sampled_from(
    [
        *map(str, (0, 1, -1, 2**31, 2**53 + 1, INT64_MAX, INT64_MIN, INT64_MAX + 1, INT64_MIN - 1, 2**64, 10**30)),
        *map(str, (NOW, NOW + 300_000, NOW + 300_001, YEAR_2000_MS, YEAR_2000_MS - 1)),
        *("-0", "0.0", "-0.0", "1.0", "1e3", "1E+2", "1e-2", "1e400", "-1e400", "1e-400", "0e9999999999"),
        *("01", "+1", ".5", "1.", "1e", "-", "0x1", "NaN", "Infinity", "-Infinity", "1_0", "٣"),
        *("9" * 19, "9" * 20, "-" + "9" * 19, "1" * 400, "1" * 5000, "0." + "3" * 400),
    ]
)
OTHERS = st.sampled_from(
    ["null", "true", "false", "[]", "{}", "[1,]", '{"a":1}', "nul", "True", "", " null ", "[null]"]
)


def _nested(depth: int, opening: str, inside: str) -> str:
    return opening * depth + inside + ("]" if opening == "[" else "}") * depth


NESTED = st.builds(
    _nested,
    st.sampled_from([1, 2, 498, 499, 500, 501, 3000]),
    st.sampled_from(["[", '{"a":', '{"user_id":']),
    st.sampled_from(["1", "", '"x"', '"\\ud800"', '"\\"', "NaN"]),
)
VALUES = st.one_of(STRINGS, NUMBERS, OTHERS, NESTED)
SPACES = st.sampled_from(["", "", "", "", " ", "\n", "\r\n\t ", "\x0b", "\u00a0"])


def names(events: EventStream) -> SearchStrategy[str]:
    """Make names of members as they stand in a document: declared, escaped, unknown and broken ones."""
    declared = st.sampled_from([field.name for field in events.fields])
    plain = declared.map(lambda name: json.dumps(name, ensure_ascii=False))
    escaped = declared.map(lambda name: '"' + "".join(f"\\u{ord(character):04x}" for character in name) + '"')
    return st.one_of(plain, plain, plain, escaped, st.sampled_from(['""', '"x"', '"\\udc00"', '"USER_ID"', "x"]))


def usual(events: EventStream) -> dict[str, SearchStrategy[str]]:
    """Give each field values that are mostly good, so that messages come through to the last checks."""
    texts = st.sampled_from(['"u1"', '"u1"', '"ü"', '"x"'])
    times = st.sampled_from([NOW, NOW, NOW + 300_000, YEAR_2000_MS])
    fields = {}
    for field in events.fields:
        if isinstance(field, Choice):
            fields[field.name] = st.sampled_from([json.dumps(value) for value in field.values])
        elif isinstance(field, Text):
            fields[field.name] = texts
        else:
            fields[field.name] = (times if isinstance(field, Timestamp) else st.integers(0, 9)).map(str)
    return fields


@st.composite
def documents(draw: DrawFn, events: EventStream) -> bytes:
    """Make objects that are nearly good: each field at most changed, dropped, or given again."""
    members = []
    for name, values in usual(events).items():
        fate = draw(st.integers(0, 11))
        if fate > 0:
            members.append((json.dumps(name), draw(VALUES if fate == 1 else values)))
    members += draw(st.lists(st.tuples(names(events), VALUES), max_size=1))
    if draw(st.integers(0, 3)) == 0:
        members = draw(st.permutations(members))
    space = draw(SPACES) if draw(st.booleans()) else ""
    inside = ("," + space).join(f"{name}{space}:{value}" for name, value in members)
    return f"{space}{{{inside}{space}}}{space}".encode()


@st.composite
def damaged(draw: DrawFn, events: EventStream) -> bytes:
    """Make a document and damage some of its bytes."""
    value = bytearray(draw(documents(events)))
    junk = st.sampled_from(
        [b"", b"\xff", b"\x00", b'"', b"\\", b"{", b"}", b"[", b"]", b",", b":", b"\xed\xa0\x80", b"1"]
    )
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, len(value)))
        value[start : start + draw(st.integers(0, 2))] = draw(junk | st.binary(max_size=2))
    return bytes(value)


def anything(events: EventStream) -> SearchStrategy[bytes]:
    marks = st.sampled_from([b"\xef\xbb\xbf", b"\xfe\xff", b"\x00", b"\x1e", b" ", b""])
    scalars = VALUES.map(lambda text: text.encode())
    whole = documents(events)
    return st.one_of(
        whole,
        whole,
        whole,
        damaged(events),
        scalars,
        st.binary(max_size=30),
        st.builds(lambda mark, value: mark + value, marks, whole),
        st.builds(lambda one, two: one + b"\n" + two, whole, whole),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(exclude_categories=())),
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
            max_leaves=5,
        ).map(lambda value: json.dumps(value).encode()),
    )


def messages(events: EventStream) -> SearchStrategy[list[Message]]:
    keys = st.sampled_from([b"u1", b"u1", b"u1", "ü".encode(), None, b"", b"x", b"\xff"])
    times = st.sampled_from([NOW, NOW, NOW, NOW - 300_000, NOW + 1, 0, -1])
    return st.lists(st.tuples(anything(events), keys, times), max_size=8)


rides = EventStream(
    name="rides",
    topic="rides",
    allowed_lateness=timedelta(0),
    fields=(
        Integer("fare", required=True, non_negative=True),
        Timestamp("at", earliest_ms=0, max_ahead_ms=0),
        Text("rider", required=True, max_length=2),
        Choice("what", values=("u1", "tick", "x")),
        Choice("mode", values=("view", "u1"), required=False),
        Text("ride_id", min_length=1),
        Integer("balance"),
        Timestamp("until", earliest_ms=YEAR_2000_MS, max_ahead_ms=300_000),
    ),
    key="rider",
    time="at",
    kind="what",
    heartbeat="tick",
)
"""Other names, another order, a choice that is optional, and no event id."""


@settings(max_examples=EXAMPLES, deadline=None)
@given(messages(clickstream))
@example([])
@example([(b"", None, NOW), (b"\xef\xbb\xbf{}", None, NOW), (b"[" * 100_000, b"u1", NOW)])
def test_any_batch_equals_the_reference(batch: list[Message]) -> None:
    assert decoded(clickstream, batch) == judged(clickstream, batch)


@settings(max_examples=EXAMPLES // 3, deadline=None)
@given(messages(rides))
def test_any_batch_of_other_events_equals_the_reference(batch: list[Message]) -> None:
    assert decoded(rides, batch) == judged(rides, batch)


@settings(max_examples=EXAMPLES // 6, deadline=None)
@given(messages(clickstream))
def test_any_batch_equals_its_messages_one_by_one(batch: list[Message]) -> None:
    assert decoded(clickstream, batch) == one_by_one(clickstream, batch)


@settings(max_examples=EXAMPLES, deadline=None)
@given(st.lists(st.binary(max_size=60), max_size=8))
def test_arbitrary_bytes_never_raise_and_are_never_lost(values: list[bytes]) -> None:
    good, dead = decoded(clickstream, [(value, b"u1", NOW) for value in values])
    assert [(row[0], row[3]) for row in dead] == list(enumerate(values))
    assert good == []


@settings(max_examples=EXAMPLES // 3, deadline=None)
@given(st.integers() | st.sampled_from([INT64_MIN, INT64_MAX]), st.integers(INT64_MIN, INT64_MAX))
def test_times_are_compared_without_overflow(time: int, kafka_timestamp: int) -> None:
    value = json.dumps({"event_id": "e", "user_id": "u1", "event_type": "view", "event_timestamp": time}).encode()
    batch = [(value, b"u1", kafka_timestamp), (value, b"u1", INT64_MAX), (value, b"u1", INT64_MIN)]
    assert decoded(clickstream, batch) == judged(clickstream, batch)
