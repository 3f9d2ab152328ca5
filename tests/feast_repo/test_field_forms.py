"""Each form of a field: what becomes which value, and the reason against what does not."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest

from feast_repo.codec.decoding import DecodedBatch, Decoder
from feast_repo.declare.events import EventStream
from feast_repo.declare.fields import Bool, Decimal, EventField, Integer, Text, Timestamp
from tests.feast_repo.payments import NOW, PAYMENTS, batch

GOOD: dict[str, Any] = {
    "id": "p1",
    "context": {"user": {"id": "u1", "name": "Ada"}, "ip": "::1"},
    "type": "SALE",
    "created": "2026-03-01T12:00:00.123456Z",
    "money": {"amount": "19.99"},
    "rate": 0.1,
    "items": "3",
    "plain": 4,
    "card": {"contactless": True, "brand": "visa"},
    "card.tier": "1",
}


def decode(message: object, key: bytes | None = b"u1") -> DecodedBatch:
    value = message if isinstance(message, bytes) else json.dumps(message).encode()
    return PAYMENTS.decode(batch([value], [key]))


def row(message: object, key: bytes | None = b"u1") -> dict[str, Any]:
    result = decode(message, key)
    assert result.dead_letters["reason"].to_list() == []
    return result.records.row(0, named=True)


def reason(message: object, key: bytes | None = b"u1") -> str:
    return str(decode(message, key).dead_letters["reason"].item())


def test_columns_have_our_names_and_types_wherever_the_values_stand() -> None:
    assert row(GOOD) == {
        "offset": 0,
        "kafka_timestamp": NOW,
        "payment_id": "p1",
        "user_id": "u1",
        "kind": "payment",
        "paid_at": NOW + 123,
        "amount": 1999,
        "amount_text": "19.99",
        "rate": 1000,
        "items": 3,
        "plain": 4,
        "contactless": True,
        "brand": "visa",
        "tier": "1",
    }


# --- One field alone


def values_of(field: EventField, written: list[str]) -> list[Any]:
    """Decode values as they stand in JSON: each one's value, or the reason against it."""
    declaration = EventStream(
        name="one",
        topic="one",
        allowed_lateness=timedelta(0),
        fields=(
            field,
            Text("key", required=True),
            Timestamp("at", earliest_ms=0, max_ahead_ms=0),
        ),
        key="key",
        time="at",
    )
    documents = [f'{{"key":"k","at":1,"{field.name}":{value}}}'.encode() for value in written]
    result = Decoder(declaration).decode(batch(documents, [b"k"] * len(documents), 2**63 - 1))
    kept = zip(result.records["offset"], result.records[field.name], strict=True)
    found = dict(kept) | dict(result.dead_letters.select("offset", "reason").iter_rows())
    return [found[offset] for offset in range(len(written))]


@pytest.mark.parametrize(
    ("written", "cents"),
    [
        ("19.99", 1999),
        ('"19.99"', 1999),
        ("0.1", 10),
        ("0.29", 29),
        ("-0.07", -7),
        ("1.10", 110),
        ("1.5", 150),
        ("19", 1900),
        ('"19"', 1900),
        ("1e2", 10_000),
        ("1.5E+1", 1500),
        ("1500e-2", 1500),
        ("-0", 0),
        ("-0.0", 0),
        ('"-0.000"', 0),
        ("0e999999999999999999999", 0),
        ("0e-999999999999999999999", 0),
        ("1.990000000000000000000000000000000000000000000000000", 199),
        ("92233720368547758.07", 2**63 - 1),
        ("-92233720368547758.08", -(2**63)),
        ("922337203685477580700e-4", 2**63 - 1),
        ('"\\u0031\\u002e5"', 150),
        ("null", None),
        ("1.999", "precision:field"),
        ('"0.001"', "precision:field"),
        ("0.1000000000000000055511151231257827", "precision:field"),
        ("1e-3", "precision:field"),
        ("1e-999999999999999999999", "precision:field"),
        ("-92233720368547758.079", "precision:field"),
        ("92233720368547758.079", "type:field"),
        ("92233720368547758.08", "type:field"),
        ("-92233720368547758.09", "type:field"),
        ("1e17", "type:field"),
        ("1e999999999999999999999", "type:field"),
        ("1" * 25, "type:field"),
        ("1" * 5000, "type:field"),
        ('"' + "1" * 5000 + '"', "type:field"),
        *(
            (f'"{text}"', "type:field")
            for text in ("", " ", "NaN", "Infinity", "-inf", "1_000", "+1", " 1", "1 ", ".5", "1.", "01", "1,5", "0x1")
        ),
        ('"null"', "type:field"),
        ('"\\"5\\""', "type:field"),
        ('"٣"', "type:field"),
        ('"5\\n"', "type:field"),
        ("true", "type:field"),
        ("[5]", "type:field"),
        ('{"a":5}', "type:field"),
    ],
)
def test_decimals_are_exact(written: str, cents: object) -> None:
    assert values_of(Decimal("field", scale=2), [written]) == [cents]
    assert values_of(Decimal("field", scale=2), ["1.25", written, '"1.25"', "7"]) == [125, cents, 125, 700]


@pytest.mark.parametrize("scale", range(19))
def test_decimals_of_each_scale_reach_from_the_least_to_the_greatest(scale: int) -> None:
    def text(value: int) -> str:
        digits = f"{abs(value):0{scale + 1}}"
        whole, fraction = digits[: len(digits) - scale], digits[len(digits) - scale :]
        return ("-" if value < 0 else "") + whole + ("." + fraction if fraction else "")

    values = [2**63 - 1, -(2**63), 1, -1, 0, 10**scale, 10**18 - 1]
    field = Decimal("field", scale=scale)
    assert values_of(field, [text(value) for value in values]) == values
    assert values_of(field, [text(2**63), text(-(2**63) - 1)]) == ["type:field"] * 2


def test_decimals_may_not_be_negative() -> None:
    field = Decimal("field", scale=2, non_negative=True)
    assert values_of(field, ["-0.01", '"-1"', "0", "-0.00"]) == ["negative:field"] * 2 + [0, 0]


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("5", 5),
        ('"5"', 5),
        ('"-9223372036854775808"', -(2**63)),
        ("9223372036854775807", 2**63 - 1),
        ('"-0"', 0),
        ("null", None),
        *((text, "type:field") for text in ("5.0", '"5.0"', "1e3", '"1e3"', '"05"', '"+5"', '" 5"', '""', "true")),
        *((text, "type:field") for text in (str(2**63), f'"{2**63}"', f'"-{2**63 + 1}"', '"' + "9" * 5000 + '"')),
    ],
)
def test_integers_from_strings(written: str, value: object) -> None:
    assert values_of(Integer("field", from_string=True), [written, "1", '"2"']) == [value, 1, 2]


def test_a_string_is_no_integer_unless_declared() -> None:
    assert values_of(Integer("field"), ['"5"', "5"]) == ["type:field", 5]


def test_only_true_and_false_are_booleans() -> None:
    wrong = ["0", "1", '"true"', '"false"', '""', "[]", "1.0"]
    expected = [True, False, None, *["type:field"] * len(wrong)]
    assert values_of(Bool("field"), ["true", "false", "null", *wrong]) == expected
    assert values_of(Bool("field", required=True), ["null"]) == ["missing:field"]


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("2026-03-01T12:00:00Z", NOW),
        ("2026-03-01t12:00:00z", NOW),
        ("2026-03-01 12:00:00+00:00", NOW),
        ("2026-03-01T13:30:00+01:30", NOW),
        ("2026-03-01T13:30:00+0130", NOW),
        ("2026-03-01T10:00:00-02", NOW),
        ("2026-03-02T11:59:00+23:59", NOW),
        ("2026-03-01T12:00:00-00:00", NOW),
        ("2026-03-01T12:00:00.1Z", NOW + 100),
        ("2026-03-01T12:00:00.1239Z", NOW + 123),
        ("2026-03-01T12:00:00.123456789+00:00", NOW + 123),
        ("2024-02-29T00:00:00Z", 1_709_164_800_000),
        ("2000-02-29T00:00:00Z", 951_782_400_000),
        ("1970-01-01T00:00:00Z", 0),
        ("1969-12-31T23:59:59.9999Z", -1),
        ("1969-12-31T23:59:59.9990001Z", -1),
        ("0001-01-01T00:00:00+14:00", -62_135_596_800_000 - 14 * 3_600_000),
        ("9999-12-31T23:59:59.999999999-23:59", 253_402_300_799_999 + (23 * 60 + 59) * 60_000),
        ("2026-03-01T12:00:00", "timezone:field"),
        ("2026-03-01T12:00:00.5", "timezone:field"),
        ("2026-02-29T12:00:00Z", "type:field"),
        ("1900-02-29T12:00:00Z", "type:field"),
        ("2026-02-29T12:00:00", "type:field"),
        ("2026-04-31T12:00:00Z", "type:field"),
        ("2026-13-01T12:00:00Z", "type:field"),
        ("2026-00-01T12:00:00Z", "type:field"),
        ("2026-03-00T12:00:00Z", "type:field"),
        ("0000-01-01T00:00:00Z", "type:field"),
        ("2026-03-01T24:00:00Z", "type:field"),
        ("2026-03-01T23:60:00Z", "type:field"),
        ("2016-12-31T23:59:60Z", "type:field"),
        ("2026-03-01T12:00:00+24:00", "type:field"),
        ("2026-03-01T12:00:00+01:60", "type:field"),
        ("2026-03-01T12:00:00+1:00", "type:field"),
        ("2026-03-01T12:00:00 Z", "type:field"),
        ("2026-03-01T12:00:00.Z", "type:field"),
        ("2026-03-01T12:00:00.1234567890Z", "type:field"),
        ("2026-03-01T12:00:00,5Z", "type:field"),
        ("2026-03-01T12:00Z", "type:field"),
        ("2026-03-01", "type:field"),
        ("20260301T120000Z", "type:field"),
        ("2026-W09-7T12:00:00Z", "type:field"),
        ("+2026-03-01T12:00:00Z", "type:field"),
        ("٢026-03-01T12:00:00Z", "type:field"),
        ("2026-03-01T12:00:00Z ", "type:field"),
        ("1772366400000", "type:field"),
        ("", "type:field"),
    ],
)
def test_times_as_text(written: str, expected: object) -> None:
    field = Timestamp("field", format="iso8601", earliest_ms=-(2**63), max_ahead_ms=0)
    usual = '"2026-03-01T12:00:00.000Z"'
    assert values_of(field, [usual, json.dumps(written), usual]) == [NOW, expected, NOW]


@pytest.mark.parametrize(
    ("unit", "written", "expected"),
    [
        ("s", 1_772_366_400, NOW),
        ("s", -1, -1000),
        ("s", 9_223_372_036_854_775, 9_223_372_036_854_775_000),
        ("s", -9_223_372_036_854_775, -9_223_372_036_854_775_000),
        ("s", 9_223_372_036_854_776, "type:field"),
        ("s", -9_223_372_036_854_776, "type:field"),
        ("s", -(2**63), "type:field"),
        ("s", 2**63 - 1, "type:field"),
        ("us", 1_772_366_400_000_999, NOW),
        ("us", -1, -1),
        ("us", -1000, -1),
        ("us", -1001, -2),
        ("us", -(2**63), -9_223_372_036_854_776),
        ("us", 2**63 - 1, 9_223_372_036_854_775),
        ("us", 2**63, "type:field"),
        ("ms", NOW, NOW),
    ],
)
def test_times_in_units(unit: Any, written: int, expected: object) -> None:
    field = Timestamp("field", format=unit, earliest_ms=-(2**63), max_ahead_ms=0)
    assert values_of(field, [str(written)]) == [expected]
    wrong = ["1.0", "1e3", '"1772366400"', "true", '"2026-03-01T12:00:00Z"']
    assert values_of(field, wrong) == ["type:field"] * len(wrong)


# --- Choices


@pytest.mark.parametrize(
    ("written", "kind"), [("SALE", "payment"), ("payment", "payment"), ("BACK", "refund"), ("refund", "refund")]
)
def test_foreign_names_become_ours(written: str, kind: str) -> None:
    assert row({**GOOD, "type": written})["kind"] == kind


def test_other_names_are_unknown() -> None:
    for name in ("sale", "", "SALE ", "Ping"):
        assert reason({**GOOD, "type": name}) == "unknown_kind"


def test_a_heartbeat_may_have_a_foreign_name() -> None:
    beat = {key: value for key, value in GOOD.items() if key != "context"}
    for name in ("TICK", "heartbeat"):
        assert row({**beat, "type": name}, None)["user_id"] is None
    assert reason({**GOOD, "type": "TICK"}) == "key_mismatch"


@pytest.mark.parametrize(
    "message",
    [
        {**GOOD, "type": "ping"},
        {**GOOD, "type": "PONG", "created": 5},
        {"type": "ping"},
        {"type": "ping", "id": 5, "context": "none", "money": [], "created": "yesterday", "plain": 2**70},
        b'{"type":"nonsense","type":"p\\u0069ng","more":"\\ud83d\\ude00"}',
    ],
    ids=repr,
)
def test_what_is_no_business_of_ours_is_counted_whatever_else_it_holds(message: object) -> None:
    for key in (b"u1", None, b"\xff"):
        result = decode(message, key)
        assert (len(result.records), len(result.dead_letters), result.ignored) == (0, 0, 1)


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (b'{"type":"ping"', "not_json"),
        (b'{"type":"ping","x":"\xff"}', "not_json"),
        (b'{"type":"ping","x":"\\ud800"}', "not_json"),
        (b'["ping"]', "not_an_object"),
        (b'{"type":"ping","type":"SALE"}', "missing:payment_id"),
        (b'{"type":["ping"]}', "missing:payment_id"),
        (json.dumps({**GOOD, "brand": "ping", "kind": "ping", "type": "?"}).encode(), "unknown_kind"),
    ],
)
def test_only_an_object_of_that_kind_is_ignored(message: bytes, expected: str) -> None:
    assert reason(message) == expected
    assert decode(message).ignored == 0


def test_ignored_messages_move_on_and_leave_their_neighbours_alone() -> None:
    messages = [{"type": "ping"}, GOOD, b"{", {"type": "ping", "id": 5}, {**GOOD, "rate": "x"}]
    values = [message if isinstance(message, bytes) else json.dumps(message).encode() for message in messages]
    result = PAYMENTS.decode(batch(values, [b"u1"] * 5))
    assert result.records["offset"].to_list() == [1]
    assert result.dead_letters.select("offset", "reason").rows() == [(2, "not_json"), (4, "type:rate")]
    assert (result.ignored, result.next_offset) == (2, 5)
    assert PAYMENTS.decode(batch(values[:1], [None])).records.schema == result.records.schema


# --- The first reason of several

LADDER: list[tuple[str, dict[str, Any]]] = [
    ("missing:payment_id", {"id": None}),
    ("missing:amount", {"money": {}}),
    ("type:user_id", {"context": {"user": "u1"}}),
    ("type:rate", {"rate": "x"}),
    ("timezone:paid_at", {"created": "2026-03-01T12:00:00"}),
    ("precision:amount", {"money": {"amount": "1.999"}}),
    ("precision:rate", {"rate": "0.00001"}),
    ("length:payment_id", {"id": ""}),
    ("unknown_kind", {"type": "x"}),
    ("timestamp_range", {"created": "1999-12-31T23:59:59Z"}),
    ("future_timestamp", {"created": "2026-03-01T12:05:00.001Z"}),
    ("negative:amount", {"money": {"amount": "-0.01"}}),
    ("negative:items", {"items": "-1"}),
]


@pytest.mark.parametrize("second", range(len(LADDER)))
@pytest.mark.parametrize("first", range(len(LADDER)))
def test_of_two_faults_the_earlier_reason_is_given(first: int, second: int) -> None:
    (expected, one), (_, two) = LADDER[min(first, second)], LADDER[max(first, second)]
    assert reason({**GOOD, **two, **one}, b"u1" if first == second else b"other") == expected
