"""Where a value stands in a message: paths into objects, foreign names, and what is not on the way."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from feast_repo.codec.decoding import Decoder
from feast_repo.declare.fields import Bool, Choice, Integer, Text
from tests.feast_repo.payments import NOW, PAYMENTS, batch, clocks
from tests.feast_repo.test_field_forms import GOOD, decode, reason, row

NOON = "2026-03-01T12:00:00Z"


def with_members(text: str) -> bytes:
    return f"{json.dumps(GOOD)[:-1]},{text}}}".encode()


@pytest.mark.parametrize("card", [None, {}, {"brand": None}, {"Brand": "visa"}, "absent"], ids=repr)
def test_a_value_is_absent_if_its_path_ends_early(card: Any) -> None:
    message = {name: value for name, value in GOOD.items() if name != "card"}
    if card != "absent":
        message["card"] = card
    assert (row(message)["brand"], row(message)["contactless"]) == (None, None)


@pytest.mark.parametrize("context", [None, {}, {"user": None}, {"user": {}}, {"user": {"id": None}}], ids=repr)
def test_a_required_value_is_missing_if_its_path_ends_early(context: Any) -> None:
    assert reason({**GOOD, "context": context}) == "missing:user_id"


@pytest.mark.parametrize("on_the_way", [5, "u1", True, [], [{"user": {"id": "u1"}}], 1.5, 0, "", False], ids=repr)
def test_a_path_through_what_is_no_object_is_a_wrong_type(on_the_way: Any) -> None:
    assert reason({**GOOD, "context": on_the_way}) == "type:user_id"
    assert reason({**GOOD, "context": {"user": on_the_way}}) == "type:user_id"
    assert reason({**GOOD, "card": on_the_way}) == "type:contactless"
    assert reason({**GOOD, "card": on_the_way, "id": None}) == "missing:payment_id"


@pytest.mark.parametrize("on_the_way", ["5", '{"state": 1e2}', '{"state": 5}'])
def test_what_is_no_string_is_never_ignored(on_the_way: str) -> None:
    state = Choice("state", values=("a",), ignore=("type", "1e2"), path="card.state")
    stream = replace(clocks, fields=(*clocks.fields, state))
    message = f'{{"flag":true,"key":"k","a":{{"at":1772366400,"us":0,"b":{{"text":"{NOON}"}}}},"card":{on_the_way}}}'
    decoded = Decoder(stream).decode(batch([message.encode()], [b"k"]))
    assert (decoded.dead_letters["reason"].to_list(), decoded.ignored) == (["type:state"], 0)


@pytest.mark.parametrize(
    ("after", "expected"),
    [
        ('"card":{"brand":"last"}', {"brand": "last", "contactless": None}),
        ('"card":5,"card":{"brand":"last"}', {"brand": "last", "contactless": None}),
        ('"card":{"brand":5,"brand":"last"}', {"brand": "last", "contactless": None}),
        ('"card":{"brand":"first"},"card":null', {"brand": None, "contactless": None}),
        ('"context":{"user":{"id":"u2"},"user":{"id":"u1"}}', {"user_id": "u1"}),
        ('"money":{"amount":"x","amount":5}', {"amount": None}),
        ('"money":{"amount":"x"},"money":{"amount":"5"}', {"amount": 500, "amount_text": "5"}),
        ('"rate":[1],"rate":2', {"rate": 20_000}),
        ('"created":5,"created":"2026-03-01T12:00:00Z"', {"paid_at": NOW}),
        ('"c\\u0061rd":{"br\\u0061nd":"last"}', {"brand": "last", "contactless": None}),
    ],
)
def test_of_a_member_given_twice_the_last_counts_also_within_objects(after: str, expected: dict[str, Any]) -> None:
    message = with_members(after)
    if expected == {"amount": None}:
        assert reason(message) == "type:amount_text"  # a number, where another field reads text
    else:
        assert row(message).items() >= expected.items()


def test_a_later_object_hides_the_values_of_an_earlier_one() -> None:
    assert reason(with_members('"context":{"session":"s"}')) == "missing:user_id"
    assert reason(with_members('"context":{"user":[]}')) == "type:user_id"


def test_the_name_of_a_member_may_hold_a_dot() -> None:
    assert row({**GOOD, "card.tier": "2", "card": {"tier": "1"}})["tier"] == "2"
    assert reason({**GOOD, "card.tier": 2}) == "type:tier"
    assert row({name: value for name, value in GOOD.items() if name != "card.tier"})["tier"] is None


def test_our_own_name_means_nothing_where_another_is_declared() -> None:
    assert reason({**{name: value for name, value in GOOD.items() if name != "id"}, "payment_id": "p"}) == (
        "missing:payment_id"
    )
    assert row({**GOOD, "payment_id": 5, "user_id": [], "kind": {}, "brand": 1})["payment_id"] == "p1"


def test_broken_text_within_objects_is_not_json() -> None:
    for broken in (b"\xff", b"\\ud800"):
        for place in (
            b'{"card":{"brand":"%s"}}',
            b'{"card":{"x":"%s"}}',
            b'{"money":{"amount":"%s"}}',
            b'{"rate":"%s"}',
        ):
            assert reason(place % broken) == "not_json"


def test_fields_of_different_types_may_read_the_same_value() -> None:
    decoder = Decoder(clocks)
    at = {"at": NOW // 1000, "us": 0, "b": {"text": "2026-03-01T12:00:00Z", "number": 5}}
    message = {"a": at, "flag": True, "key": "k"}
    result = decoder.decode(batch([json.dumps(message).encode()], [b"k"]))
    assert result.records.row(0)[2:] == (NOW, 0, NOW, 5, 5 * 10**18, 5, True, "k", None)
    for number, expected in (
        ("5.0", "type:number"),
        ('"5"', "type:number"),
        ("10", "type:fine"),
        ("5.5", "type:number"),
        ("true", "type:whole"),
        ("[]", "type:whole"),
    ):
        value = json.dumps(message).replace('"number": 5', f'"number": {number}').encode()
        assert decoder.decode(batch([value], [b"k"])).dead_letters["reason"].to_list() == [expected]


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
def test_fields_of_one_path_never_disturb_each_other(order: tuple[int, ...]) -> None:
    kinds = (Text("one", path="z"), Integer("two", path="z"), Bool("three", path="z"))
    fields = [kinds[place] for place in order]
    decoder = Decoder(replace(clocks, fields=(*clocks.fields, *fields)))
    at = {"at": NOW // 1000, "us": 0, "b": {"text": "2026-03-01T12:00:00Z"}}
    values = [json.dumps({"a": at, "flag": True, "key": "k", "z": z}).encode() for z in ("x", 5, True, None)]
    result = decoder.decode(batch(values, [b"k"] * 4))
    fitting = ["one", "two", "three"]
    wrong = [next(f"type:{field.name}" for field in fields if field.name != name) for name in fitting]
    assert result.dead_letters["reason"].to_list() == wrong
    assert result.records["offset"].to_list() == [3]


def test_deep_nesting_is_judged_alike_below_a_path() -> None:
    for depth, expected in ((498, "type:brand"), (499, "not_json")):
        nested = "[" * depth + "]" * depth
        assert reason(with_members(f'"card":{{"brand":{nested}}}')) == expected


def test_the_payments_of_these_tests_are_good() -> None:
    assert len(decode(GOOD).records) == len(PAYMENTS.decode(batch([json.dumps(GOOD).encode()], [b"u1"])).records) == 1
