"""What is a good message, and the first reason why a bad one is none."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from typing import Any

import polars as pl
import pytest

from feast_repo.clickstream import YEAR_2000_MS, clickstream
from feast_repo.codec.decoding import DecodedBatch, Decoder, RawBatch
from feast_repo.declare.events import EventStream
from feast_repo.declare.fields import Choice, Integer, Text, Timestamp

NOW = 1_772_366_400_000
AHEAD = 5 * 60_000
DECODER = Decoder(clickstream)

GOOD: dict[str, Any] = {
    "event_id": "e1",
    "user_id": "u1",
    "event_type": "purchase",
    "event_timestamp": NOW,
    "product_id": "p1",
    "session_id": "s1",
    "price_cents": 1999,
}
BEAT: dict[str, Any] = {"event_id": "e1", "event_type": "heartbeat", "event_timestamp": NOW}


def decode(value: bytes, key: bytes | None = b"u1", *, decoder: Decoder = DECODER) -> DecodedBatch:
    """Decode one message that the broker took at NOW, with offset 7 in partition 3."""
    return decoder.decode(RawBatch(partition=3, values=[value], keys=[key], kafka_timestamps=[NOW], offsets=[7]))


def reason(value: bytes | dict[str, Any], key: bytes | None = b"u1", *, decoder: Decoder = DECODER) -> str | None:
    """Give the reason of a dead letter, or None for a good message."""
    result = decode(value if isinstance(value, bytes) else json.dumps(value).encode(), key, decoder=decoder)
    assert len(result.records) + len(result.dead_letters) == 1
    return None if len(result.records) else str(result.dead_letters["reason"].item())


def good(**changes: Any) -> dict[str, Any]:
    return {**GOOD, **changes}


def without(*names: str) -> dict[str, Any]:
    return {name: value for name, value in GOOD.items() if name not in names}


def raw(**members: str) -> bytes:
    """Write the good message, with some members' values as they are to stand in the document."""
    written = {**{name: json.dumps(value) for name, value in GOOD.items()}, **members}
    return ("{" + ",".join(f'"{name}":{value}' for name, value in written.items()) + "}").encode()


def with_members(text: str, *, before: str = "") -> bytes:
    """Write the good message with more members after it, and maybe some before it."""
    return f"{{{before}{json.dumps(GOOD)[1:-1]},{text}}}".encode()


# --- Good messages


def test_good_message_becomes_one_row_of_declared_columns() -> None:
    result = decode(json.dumps(GOOD).encode())
    assert result.partition == 3
    assert result.dead_letters.is_empty()
    assert list(result.records.schema.items()) == [
        ("offset", pl.Int64()),
        ("kafka_timestamp", pl.Int64()),
        *clickstream.schema.items(),
    ]
    assert result.records.row(0, named=True) == {"offset": 7, "kafka_timestamp": NOW, **GOOD}


@pytest.mark.parametrize("kind", ["view", "click", "add_to_cart", "purchase"])
def test_each_kind_of_event_is_good(kind: str) -> None:
    assert reason(good(event_type=kind)) is None


@pytest.mark.parametrize("name", ["product_id", "session_id", "price_cents"])
def test_optional_fields_may_be_absent_or_null(name: str) -> None:
    for message in (without(name), good(**{name: None})):
        result = decode(json.dumps(message).encode())
        assert result.records.row(0, named=True)[name] is None


def test_heartbeat_has_neither_key_nor_user() -> None:
    for message in (BEAT, {**BEAT, "user_id": None}):
        result = decode(json.dumps(message).encode(), None)
        assert result.records["user_id"].to_list() == [None]
        assert result.records["event_type"].to_list() == ["heartbeat"]


def test_unknown_fields_are_ignored_whatever_they_hold() -> None:
    text = '"extra":[{"user_id":7},1e400,123456789012345678901234567890,"\\ud83d\\ude00",true],"":null,"User_id":1'
    assert reason(with_members(text)) is None


@pytest.mark.parametrize(
    ("before", "after", "field", "value"),
    [
        ("", '"price_cents":5', "price_cents", 5),
        ('"price_cents":"five",', '"price_cents":5', "price_cents", 5),
        ('"price_cents":{"a":[1.5]},', '"price_cents":5', "price_cents", 5),
        ('"user_id":7,', '"session_id":"s2"', "user_id", "u1"),
        ('"event_id":"",', '"session_id":null', "session_id", None),
        ('"event_type":"nonsense",', '"event_type":"view"', "event_type", "view"),
        ("", '"price\\u005fcents":6', "price_cents", 6),
    ],
)
def test_of_a_field_given_twice_the_last_counts(before: str, after: str, field: str, value: object) -> None:
    result = decode(with_members(after, before=before))
    assert result.records.row(0, named=True)[field] == value


@pytest.mark.parametrize(
    ("after", "expected"),
    [
        ('"price_cents":"five"', "type:price_cents"),
        ('"price_cents":1.0', "type:price_cents"),
        ('"event_id":null', "missing:event_id"),
        ('"user_id":"u2"', "key_mismatch"),
        ('"event_type":"nonsense"', "unknown_event_type"),
        ('"event\\u005ftimestamp":0', "timestamp_range"),
    ],
)
def test_a_good_value_does_not_count_when_a_bad_one_follows(after: str, expected: str) -> None:
    assert reason(with_members(after)) == expected


def test_whitespace_of_json_may_stand_anywhere() -> None:
    assert reason(json.dumps(GOOD, indent=3).replace("\n", "\r\n\t ").encode() + b" \n") is None


def test_embedded_newline_is_one_message() -> None:
    result = decode(b'{"event_id":"e1",\n"user_id":"u1","event_type":"view",\n"event_timestamp":%d}\n' % NOW)
    assert len(result.records) == 1


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ('"\\u00fc"', "ü"),
        ('"\\ud83d\\ude00"', "\U0001f600"),
        ('"\\uD83D\\uDE00"', "\U0001f600"),
        ('"\U0001f600"', "\U0001f600"),
        ('"a\\u0000b"', "a\0b"),
        ('"\\"\\\\\\/\\b\\f\\n\\r\\t"', '"\\/\b\f\n\r\t'),
        ('"\\\\ud800"', "\\ud800"),
        ('""', ""),
        ('"\x7f\u2028\uffff\ufeff"', "\x7f\u2028\uffff\ufeff"),
    ],
)
def test_strings_come_out_exactly(written: str, value: str) -> None:
    assert decode(raw(product_id=written)).records["product_id"].to_list() == [value]


@pytest.mark.parametrize("value", [0, 1, 2**53 + 1, 2**63 - 1])
def test_integers_come_out_exactly(value: int) -> None:
    assert decode(raw(price_cents=str(value))).records["price_cents"].to_list() == [value]


def test_minus_zero_is_the_integer_zero() -> None:
    assert decode(raw(price_cents="-0")).records["price_cents"].to_list() == [0]


# --- Each reason alone


def test_empty_message_is_empty() -> None:
    assert reason(b"") == "empty"


@pytest.mark.parametrize(
    "value",
    [
        b" ",
        b"\n",
        b"\0",
        b"{",
        b"}",
        b"{}{}",
        b"{} x",
        b"nonsense",
        b"{'a': 1}",
        b'{"a": 1,}',
        b'{"a" 1}',
        b"{a: 1}",
        b'{"a": 01}',
        b'{"a": +1}',
        b'{"a": .5}',
        b'{"a": 1.}',
        b'{"a": 1e}',
        b'{"a": 0x10}',
        b'{"a": -}',
        b'{"a": NaN}',
        b'{"a": Infinity}',
        b'{"a": -Infinity}',
        b'{"a": True}',
        b'{"a": [1,]}',
        b'{"a": "\\x41"}',
        b'{"a": "\\u12g4"}',
        b'{"a": "tab\there"}',
        b'{"a": "\x00"}',
        b'{"a": 1} // why',
        b'{"a":\x0b1}',
        "{\u00a0}".encode(),
        "{}".encode("utf-16"),
        b"\xef\xbb\xbf{}",
        b"\xff",
        b"Obj\x01",
    ],
    ids=repr,
)
def test_what_rfc_8259_does_not_allow_is_not_json(value: bytes) -> None:
    assert reason(value) == "not_json"


BAD_UTF_8 = [b"\xff", b"\xc3", b"\xc0\xaf", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\x80", b"\xe2\x82"]
LONE_SURROGATES = [b"\\ud800", b"\\udfff", b"\\ude00\\ud83d", b"\\ud83d\\u0041", b"\\uD83Dx", b"\\\\\\ud83d"]
PLACES = [
    b'{"user_id":"u%s"}',
    b'{"extra":"%s"}',
    b'{"extra%s":1}',
    b'{"extra":[[{"a":["%s"]}]]}',
    b'{"extra":{"a%s":1}}',
    b'{"extra":"%s","extra":"good"}',
    b'{"user_id":"%s","user_id":"u1"}',
    b'{"extra":{"a":"%s"},"extra":1}',
    b'["%s"]',
    b'"%s"',
]


@pytest.mark.parametrize("place", PLACES, ids=repr)
@pytest.mark.parametrize("broken", [*BAD_UTF_8, *LONE_SURROGATES], ids=repr)
def test_broken_text_is_not_json_wherever_it_stands(place: bytes, broken: bytes) -> None:
    assert reason(place % broken) == "not_json"
    assert reason(place.replace(b"}", b',"event_id":"e1"}') % broken) == "not_json"


def test_broken_text_in_an_otherwise_good_message_is_not_json() -> None:
    assert reason(with_members('"extra":"\\ud800"')) == "not_json"
    assert reason(with_members('"extra\\udc00":1')) == "not_json"
    assert reason(json.dumps(GOOD).encode()[:-1] + b',"extra":"\xff"}') == "not_json"
    assert reason(with_members("", before='"product_id":"\\ud800",').replace(b",}", b"}")) == "not_json"


@pytest.mark.parametrize("opening", ["[", '{"a":'])
def test_nesting_beyond_500_levels_is_not_json(opening: str) -> None:
    closing = "]" if opening == "[" else "}"
    for depth, expected in ((499, None), (500, "not_json"), (5000, "not_json"), (200_000, "not_json")):
        # The message's own object is one level more.
        assert reason(with_members(f'"extra":{opening * depth}1{closing * depth}')) == expected


def test_500_levels_among_more_brackets_are_allowed() -> None:
    assert reason(with_members(f'"extra":{"[" * 499}{"]" * 499},"more":[[],[]]')) is None


def test_brackets_in_strings_do_not_nest() -> None:
    assert reason(with_members('"extra":"' + '[{\\"' * 1000 + '"')) is None
    assert reason(with_members('"extra":"\\\\","more":"' + "[" * 1000 + '"')) is None


def test_many_objects_beside_each_other_do_not_nest() -> None:
    assert reason(with_members('"extra":[' + ",".join(["[]", "{}"] * 1000) + "]")) is None


def test_deeply_nested_array_alone_is_judged_by_its_depth() -> None:
    assert reason(b"[" * 500 + b"]" * 500) == "not_an_object"
    assert reason(b"[" * 501 + b"]" * 501) == "not_json"
    assert reason(b"[" * 100_000) == "not_json"


@pytest.mark.parametrize("value", [b"[]", b"5", b'"text"', b"null", b"true", b"1.5", b"[{}]", b" 5 ", b"1e999"])
def test_other_json_is_not_an_object(value: bytes) -> None:
    assert reason(value) == "not_an_object"


def test_number_of_any_length_is_json() -> None:
    digits = "1" * 10_000
    assert reason(digits.encode()) == "not_an_object"
    assert reason(with_members(f'"extra":{digits}')) is None
    assert reason(with_members(f'"extra":-{digits}.{digits}e-{digits}')) is None
    assert reason(raw(price_cents=digits)) == "type:price_cents"


@pytest.mark.parametrize("name", ["event_id", "user_id", "event_type", "event_timestamp"])
def test_required_field_that_is_absent_or_null_is_missing(name: str) -> None:
    assert reason(without(name)) == f"missing:{name}"
    assert reason(good(**{name: None})) == f"missing:{name}"


@pytest.mark.parametrize("name", ["event_id", "event_timestamp"])
def test_heartbeat_needs_all_but_the_user(name: str) -> None:
    assert reason({key: value for key, value in BEAT.items() if key != name}, None) == f"missing:{name}"


@pytest.mark.parametrize("name", ["event_id", "user_id", "event_type", "product_id", "session_id"])
@pytest.mark.parametrize("value", [5, 1.5, True, [], {}, ["u1"], {"user_id": "u1"}], ids=repr)
def test_what_is_no_string_has_the_wrong_type(name: str, value: object) -> None:
    assert reason(good(**{name: value})) == f"type:{name}"


@pytest.mark.parametrize("name", ["event_timestamp", "price_cents"])
@pytest.mark.parametrize(
    "written",
    [
        "1.0",
        "1e3",
        "1E0",
        "-0.0",
        "true",
        "false",
        '"5"',
        "[5]",
        "{}",
        str(2**63),
        str(2**64),
        str(-(2**63) - 1),
        "1e400",
    ],
)
def test_what_is_no_64_bit_integer_has_the_wrong_type(name: str, written: str) -> None:
    assert reason(raw(**{name: written})) == f"type:{name}"


@pytest.mark.parametrize(("name", "key"), [("event_id", b"u1"), ("user_id", None)])
@pytest.mark.parametrize(("text", "fits"), [("", False), ("x", True), ("x" * 64, True), ("x" * 65, False)])
def test_ids_have_1_to_64_characters(name: str, key: bytes | None, text: str, *, fits: bool) -> None:
    key = key or text.encode()
    assert reason(good(**{name: text}), key) == (None if fits else f"length:{name}")


def test_lengths_count_characters_not_bytes() -> None:
    for character in ("ü", "€", "\U0001f600"):
        assert reason(good(user_id=character * 64), (character * 64).encode()) is None
        assert reason(good(user_id=character * 65), (character * 65).encode()) == "length:user_id"


@pytest.mark.parametrize("kind", ["", "View", "view ", "heartbeats", "x" * 100_000])
def test_other_kinds_are_unknown(kind: str) -> None:
    assert reason(good(event_type=kind)) == "unknown_event_type"


@pytest.mark.parametrize("time", [YEAR_2000_MS - 1, 1_772_366_400, 0, -1, -(2**63)])
def test_times_before_2000_are_out_of_range(time: int) -> None:
    assert reason(good(event_timestamp=time)) == "timestamp_range"


def test_bounds_of_time_are_inclusive() -> None:
    assert reason(good(event_timestamp=YEAR_2000_MS)) is None
    assert reason(good(event_timestamp=NOW + AHEAD)) is None


@pytest.mark.parametrize("time", [NOW + AHEAD + 1, 2**63 - 1])
def test_times_more_than_5_minutes_ahead_are_future(time: int) -> None:
    assert reason(good(event_timestamp=time)) == "future_timestamp"
    assert reason({**BEAT, "event_timestamp": time}, None) == "future_timestamp"


def test_negative_price_is_negative() -> None:
    assert reason(good(price_cents=-1)) == "negative:price_cents"
    assert reason(good(price_cents=-(2**63))) == "negative:price_cents"


@pytest.mark.parametrize("key", [None, b"", b"u2", b"u1 ", b"U1", b"\xff", b'"u1"'], ids=repr)
def test_key_that_is_not_the_user_is_a_mismatch(key: bytes | None) -> None:
    assert reason(GOOD, key) == "key_mismatch"


def test_key_is_compared_as_utf_8() -> None:
    assert reason(good(user_id="ü"), "ü".encode()) is None
    assert reason(good(user_id="ü"), "ü".encode("latin-1")) == "key_mismatch"
    assert reason(good(user_id="\u00fc"), "u\u0308".encode()) == "key_mismatch"


def test_heartbeat_with_a_key_or_a_user_is_a_mismatch() -> None:
    assert reason(BEAT, b"u1") == "key_mismatch"
    assert reason({**BEAT, "user_id": "u1"}, b"u1") == "key_mismatch"
    assert reason({**BEAT, "user_id": "u1"}, None) == "key_mismatch"


# --- The first reason of several

LADDER: list[tuple[str, dict[str, Any]]] = [
    ("missing:event_id", {"event_id": None}),
    ("missing:event_timestamp", {"event_timestamp": None}),
    ("type:user_id", {"user_id": 7}),
    ("type:product_id", {"product_id": 7}),
    ("type:session_id", {"session_id": []}),
    ("type:price_cents", {"price_cents": 1.0}),
    ("length:event_id", {"event_id": ""}),
    ("length:user_id", {"user_id": "x" * 65}),
    ("unknown_event_type", {"event_type": "nonsense"}),
    ("timestamp_range", {"event_timestamp": 5}),
    ("future_timestamp", {"event_timestamp": NOW + AHEAD + 1}),
    ("negative:price_cents", {"price_cents": -1}),
]
"""Faults in the order of their reasons."""

PAIRS = [
    (first, second, {**two, **one})
    for index, (first, one) in enumerate(LADDER)
    for second, two in LADDER[index + 1 :]
    if one.keys().isdisjoint(two)
]


@pytest.mark.parametrize(
    ("first", "second", "faults"), PAIRS, ids=lambda value: value if isinstance(value, str) else ""
)
def test_of_two_faults_the_earlier_reason_is_given(first: str, second: str, faults: dict[str, Any]) -> None:
    assert first != second
    assert reason(good(**faults), b"other") == first
    assert reason(dict(reversed(good(**faults).items())), b"other") == first


@pytest.mark.parametrize(("expected", "fault"), LADDER)
def test_key_mismatch_is_the_last_reason(expected: str, fault: dict[str, Any]) -> None:
    assert reason(good(**fault), b"other") == expected


def test_missing_fields_are_named_in_the_order_of_the_table() -> None:
    assert reason({}) == "missing:event_id"
    assert reason({"event_id": "e"}) == "missing:user_id"
    assert reason({"event_id": "e", "user_id": "u1"}) == "missing:event_type"
    assert reason({"event_id": "e", "user_id": "u1", "event_type": "view"}) == "missing:event_timestamp"


def test_only_a_heartbeat_may_lack_its_user() -> None:
    for kind in ("view", "nonsense", 5, None):
        assert reason({**BEAT, "event_type": kind}, None) == "missing:user_id"


def test_faulty_user_of_a_heartbeat_is_judged_like_any_user() -> None:
    assert reason({**BEAT, "user_id": 7}, None) == "type:user_id"
    assert reason({**BEAT, "user_id": ""}, None) == "length:user_id"


# --- Batches


def test_empty_batch_gives_empty_columns_of_the_same_types() -> None:
    empty = DECODER.decode(RawBatch(partition=0, values=[], keys=[], kafka_timestamps=[], offsets=[]))
    full = decode(json.dumps(GOOD).encode())
    assert empty.records.schema == full.records.schema
    assert empty.dead_letters.schema == full.dead_letters.schema
    assert len(empty.records) == len(empty.dead_letters) == 0


@pytest.mark.parametrize("value", [b"", b"{", b"{}"])
def test_batch_of_dead_letters_alone_keeps_the_types(value: bytes) -> None:
    result = decode(value, None)
    assert result.records.schema == decode(json.dumps(GOOD).encode()).records.schema
    assert result.dead_letters["key"].to_list() == [None]


def test_dead_letters_keep_their_raw_bytes_and_place() -> None:
    values = [json.dumps(GOOD).encode(), b"", b"\xff\x00", json.dumps(BEAT).encode(), b"[]", json.dumps(GOOD).encode()]
    keys = [b"u1", b"k", None, None, b"\xff", b""]
    batch = RawBatch(partition=1, values=values, keys=keys, kafka_timestamps=[NOW] * 6, offsets=[5, 6, 9, 10, 20, 21])
    result = DECODER.decode(batch)
    assert result.records["offset"].to_list() == [5, 10]
    assert dict(result.dead_letters.schema) == {
        "offset": pl.Int64(),
        "kafka_timestamp": pl.Int64(),
        "key": pl.Binary(),
        "value": pl.Binary(),
        "reason": pl.String(),
    }
    assert result.dead_letters.rows() == [
        (6, NOW, b"k", b"", "empty"),
        (9, NOW, None, b"\xff\x00", "not_json"),
        (20, NOW, b"\xff", b"[]", "not_an_object"),
        (21, NOW, b"", values[5], "key_mismatch"),
    ]


def test_each_message_is_judged_by_its_own_kafka_time() -> None:
    value = json.dumps(GOOD).encode()
    times = [NOW, NOW - AHEAD, NOW - AHEAD - 1, -1, 2**63 - 1, 0]
    batch = RawBatch(partition=0, values=[value] * 6, keys=[b"u1"] * 6, kafka_timestamps=times, offsets=[*range(6)])
    result = DECODER.decode(batch)
    assert result.records["offset"].to_list() == [0, 1, 4]
    assert result.records["kafka_timestamp"].to_list() == [NOW, NOW - AHEAD, 2**63 - 1]
    assert result.dead_letters["reason"].to_list() == ["future_timestamp"] * 3


def test_one_bad_message_costs_its_neighbours_nothing() -> None:
    value = json.dumps(GOOD).encode()
    for bad in (b"", b"{", b"[]", b"\xff", b"[" * 10_000, raw(price_cents="1" * 5000), with_members('"x":"\\ud800"')):
        batch = RawBatch(0, [value, bad, value], [b"u1"] * 3, [NOW] * 3, [0, 1, 2])
        result = DECODER.decode(batch)
        assert result.records["offset"].to_list() == [0, 2]
        assert result.dead_letters["value"].to_list() == [bad]


# --- Other events

sensors = EventStream(
    name="sensors",
    topic="sensors",
    allowed_lateness=timedelta(0),
    fields=(
        Integer("delta", required=True),
        Text("class", max_length=3),
        Timestamp("größe", earliest_ms=10, max_ahead_ms=0),
        Text("device", required=True, min_length=2),
        Choice("mode", values=("on", "off"), required=False),
        Text("self", required=True),
        Choice("kind", values=("reading", "tick")),
        Integer("count", non_negative=True),
    ),
    key="device",
    time="größe",
    event_id="self",
    kind="kind",
    heartbeat="tick",
)
SENSORS = Decoder(sensors)
READING: dict[str, Any] = {
    "delta": -3,
    "class": "abc",
    "größe": NOW,
    "device": "d1",
    "mode": None,
    "self": "",
    "kind": "reading",
    "count": 0,
}


def test_own_event_becomes_a_row_of_its_columns() -> None:
    for message in (json.dumps(READING), json.dumps(READING, ensure_ascii=False)):
        result = decode(message.encode(), b"d1", decoder=SENSORS)
        assert result.records.row(0, named=True) == {"offset": 7, "kafka_timestamp": NOW, **READING}


@pytest.mark.parametrize("name", ["event-id", "@id", "an id", "1st", "a.b", "__class__"])
def test_names_of_fields_need_not_be_identifiers(name: str) -> None:
    fields = [replace(item, name=name) if item.name == "self" else item for item in sensors.fields]
    decoder = Decoder(replace(sensors, fields=tuple(fields), event_id=name))
    message = {name if key == "self" else key: value for key, value in READING.items()}
    result = decode(json.dumps(message).encode(), b"d1", decoder=decoder)
    assert result.records.row(0, named=True) == {"offset": 7, "kafka_timestamp": NOW, **message}
    assert reason({**message, name: 5}, b"d1", decoder=decoder) == f"type:{name}"


@pytest.mark.parametrize(
    ("expected", "changes"),
    [
        ("missing:delta", {"delta": None, "class": 5, "device": None}),
        ("missing:größe", {"größe": None, "device": None}),
        ("missing:device", {"device": None, "self": None}),
        ("type:delta", {"delta": "3", "class": 3}),
        ("type:mode", {"mode": 3, "class": "abcd"}),
        ("length:class", {"class": "abcd", "device": "d"}),
        ("length:device", {"device": "d", "mode": "x"}),
        ("unknown_mode", {"mode": "x", "kind": "x"}),
        ("unknown_kind", {"kind": "x", "größe": 9}),
        ("timestamp_range", {"größe": 9, "count": -1}),
        ("future_timestamp", {"größe": NOW + 1, "count": -1}),
        ("negative:count", {"count": -1, "delta": -1}),
        ("key_mismatch", {"device": "d2", "class": ""}),
    ],
)
def test_reasons_follow_from_the_declaration(expected: str, changes: dict[str, Any]) -> None:
    assert reason({**READING, **changes}, b"d1", decoder=SENSORS) == expected


def test_a_heartbeat_needs_its_time_and_its_id_only() -> None:
    tick = {"größe": NOW, "kind": "tick", "self": "r"}
    assert reason(tick, None, decoder=SENSORS) is None
    assert reason({**tick, "self": None}, None, decoder=SENSORS) == "missing:self"
    assert reason({**tick, "größe": None}, None, decoder=SENSORS) == "missing:größe"
    assert reason({**tick, "delta": "x"}, None, decoder=SENSORS) == "type:delta"
    assert reason({**tick, "device": "d1"}, None, decoder=SENSORS) == "key_mismatch"


def test_clickstream_words_mean_nothing_in_another_event() -> None:
    assert reason({**READING, "kind": "heartbeat", "device": None}, None, decoder=SENSORS) == "missing:device"
    assert reason({**READING, "kind": "heartbeat"}, b"d1", decoder=SENSORS) == "unknown_kind"
    assert reason({**READING, "price_cents": -1, "event_type": 7}, b"d1", decoder=SENSORS) is None


def test_range_comes_before_future_also_of_two_times() -> None:
    both = replace(sensors, fields=(*sensors.fields, Timestamp("until", earliest_ms=10, max_ahead_ms=0)))
    decoder = Decoder(both)
    assert reason({**READING, "until": NOW}, b"d1", decoder=decoder) is None
    assert reason(READING, b"d1", decoder=decoder) == "missing:until"
    assert reason({**READING, "until": NOW + 1}, b"d1", decoder=decoder) == "future_timestamp"
    assert reason({**READING, "größe": NOW + 1, "until": 9}, b"d1", decoder=decoder) == "timestamp_range"


def test_depth_of_the_callers_stack_does_not_matter() -> None:
    value = with_members(f'"extra":{"[" * 499}{"]" * 499}')

    def from_below(frames: int) -> str | None:
        return reason(value) if frames == 0 else from_below(frames - 1)

    assert from_below(500) is None
