"""Heartbeats by a header, for streams without a kind of their own for them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from feast_repo.clickstream import clickstream
from feast_repo.codec.decoding import DecodedBatch, Decoder, RawBatch
from feast_repo.codec.encoding import encode
from feast_repo.codec.heartbeats import HEADER, heartbeat, is_heartbeat
from feast_repo.declare.fields import Choice

NOW = 1_772_366_400_000
bare = replace(clickstream, heartbeat=None)
CLICK = {"event_id": "e", "user_id": "u1", "event_type": "view", "event_timestamp": NOW}
DECODER = Decoder(bare)


def decode(*messages: tuple[bytes, bytes | None, bytes | None]) -> DecodedBatch:
    values, keys, headers = map(list, zip(*messages, strict=True))
    count = len(values)
    return DECODER.decode(RawBatch(0, values, keys, [NOW] * count, list(range(count)), heartbeats=headers))


def reason(value: bytes, key: bytes | None, header: bytes) -> str | None:
    letters = decode((value, key, header)).dead_letters
    return None if letters.is_empty() else letters["reason"].item()


def test_a_heartbeat_carries_time_and_nothing_else() -> None:
    value, headers = heartbeat(bare, "id", NOW - 5)
    assert (value, headers) == (b"", [(HEADER, b"%d" % (NOW - 5))])
    records = decode((value, None, headers[0][1])).records
    assert records.row(0, named=True) == {
        "offset": 0,
        "kafka_timestamp": NOW,
        **dict.fromkeys(bare.schema),
        "event_timestamp": NOW - 5,
    }


@pytest.mark.parametrize(
    ("header", "key", "expected"),
    [
        (b"%d" % NOW, None, None),
        (b"%d" % NOW, b"u1", "key_mismatch"),
        (b"", None, "type:event_timestamp"),
        (b"soon", None, "type:event_timestamp"),
        (b"1.5", None, "type:event_timestamp"),
        (b" 1", None, "type:event_timestamp"),
        (b"1_0", None, "type:event_timestamp"),
        ("\u0661".encode(), None, "type:event_timestamp"),
        (b"9" * 19, None, "type:event_timestamp"),
        (b"9" * 5000, None, "type:event_timestamp"),
        (b"1767225600", None, "timestamp_range"),
        (b"-1", None, "timestamp_range"),
        (b"%d" % (NOW + 300_001), None, "future_timestamp"),
    ],
)
def test_its_time_is_judged_as_an_events(header: bytes, key: bytes | None, expected: str | None) -> None:
    assert reason(b"", key, header) == expected


@pytest.mark.parametrize("value", [b"", b"{", b"[]", b'{"user_id": "u1"}', encode(bare, CLICK)])
def test_its_value_is_not_read(value: bytes) -> None:
    assert reason(value, None, b"%d" % NOW) is None


message = st.tuples(
    st.sampled_from([b"", b"{", encode(bare, CLICK), encode(bare, {**CLICK, "user_id": "u2"})]),
    st.sampled_from([None, b"u1"]),
    st.sampled_from([None, None, b"%d" % NOW, b"x"]),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(message, min_size=1, max_size=8))
def test_a_batch_is_decoded_as_each_message_alone(messages: list[Any]) -> None:
    together = decode(*messages)
    alone = [decode(one) for one in messages]
    assert together.records.drop("offset").rows() == [row for one in alone for row in one.records.drop("offset").rows()]
    assert together.dead_letters.drop("offset").rows() == [
        row for one in alone for row in one.dead_letters.drop("offset").rows()
    ]


def test_it_is_recognized_by_kind_or_by_header() -> None:
    value, headers = heartbeat(clickstream, "id", NOW)
    assert headers == []
    assert is_heartbeat(clickstream, value)
    assert not is_heartbeat(bare, value)
    assert is_heartbeat(bare, b"", [("other", b""), (HEADER, b"1")])
    assert not is_heartbeat(clickstream, b"", [(HEADER, b"1")])


def test_a_kind_may_have_a_foreign_name_and_a_path() -> None:
    kind = Choice("event_type", values=("view", "heartbeat"), path="meta.kind", foreign={"TICK": "heartbeat"})
    fields = tuple(kind if field.name == "event_type" else field for field in clickstream.fields)
    stream = replace(clickstream, fields=fields)
    value, _ = heartbeat(stream, "id", NOW)
    assert value == b'{"event_id":"id","meta":{"kind":"TICK"},"event_timestamp":%d}' % NOW
    assert is_heartbeat(stream, value)
    assert Decoder(stream).decode(RawBatch(0, [value], [None], [NOW], [0])).dead_letters.is_empty()
