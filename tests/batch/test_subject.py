"""How an entity is named on the command line, and by what rows, messages and other text name it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest

from batch.maintenance.subject import Subject, SubjectError
from feast_repo.declare.catalog import Catalog
from feast_repo.features import catalog as shop
from tests.declared import fraud, shop_windows
from tests.feast_repo.payments import payments as nested

if TYPE_CHECKING:
    from collections.abc import Mapping

PAIRS = Catalog(services=(fraud,), views=(shop_windows,))


def subject(text: str, catalog: Catalog = PAIRS) -> Subject:
    return Subject.parse(catalog, text)


@pytest.mark.parametrize(
    ("catalog", "text", "values"),
    [
        (shop, "user_000001", {"user_id": "user_000001"}),
        (shop, "user_id=a", {"user_id": "a"}),
        (shop, "a=b,c", {"user_id": "a=b,c"}),
        (PAIRS, "shop=-7", {"shop": -7}),
        (PAIRS, "card_id=a,b=c,shop=007", {"card_id": "a,b=c", "shop": 7}),
    ],
)
def test_named(catalog: Catalog, text: str, values: Mapping[str, Any]) -> None:
    assert dict(subject(text, catalog).values) == values


@pytest.mark.parametrize(
    ("catalog", "text", "message"),
    [
        (PAIRS, "c1", "as card_id=...,shop=..., or by some of them"),
        (PAIRS, "colour=red", "name the entity by its join keys"),
        (PAIRS, "shop=1,shop=2", "name the entity by its join keys"),
        (PAIRS, "shop=1.5", "'1.5' is no shop, which is of type Int64"),
        (PAIRS, "shop=9223372036854775808", "of type Int64"),
        (PAIRS, "card_id=,shop=1", "'' is no card_id, which is of type String"),
        (shop, "", "'' is no user_id"),
        (Catalog(), "a", "name the entity"),
    ],
)
def test_named_wrongly(catalog: Catalog, text: str, message: str) -> None:
    with pytest.raises(SubjectError, match=message.replace(".", "[.]")):
        subject(text, catalog)


def rows_of(text: str, columns: Mapping[str, list[Any]]) -> list[bool] | None:
    table = pl.DataFrame(columns)
    is_own = subject(text).in_row(table.schema)
    return None if is_own is None else table.select(is_own).to_series().to_list()


def test_rows() -> None:
    cards: dict[str, list[Any]] = {"card_id": ["a", "a", "b", None], "shop": [1, 2, 1, 1]}
    assert rows_of("card_id=a", cards) == [True, True, False, False]
    assert rows_of("card_id=a,shop=1", cards) == [True, False, False, False]
    assert rows_of("shop=1", {"shop": ["1", " 1", "1.0", "10", "1.5", None]}) == [True, True, True, False, False, False]
    assert rows_of("card_id=1", {"card_id": [1, 10]}) == [True, False], "also of another type"
    assert rows_of("card_id=a,shop=1", {"card_id": ["a"]}) is None


@pytest.mark.parametrize(
    ("text", "message", "is_named"),
    [
        ("card_id=a", b'{"card_id": "a"}', True),
        ("card_id=a", b'{"card_id": "\\u0061"}', True),
        ("card_id=a", b'[{"somewhere": ["a"]}]', True),
        ("card_id=a", b'{"a": 1}', True),
        ("card_id=a", b'{"card_id": "a", "card_id": "b"}', True),
        ("card_id=a", b'{"card_id": "b", "text": "a b"}', False),
        ("card_id=a", b'{"card_id": "b", "text": "a', True),
        ("card_id=a", b'{"card_id": "ba', False),
        ("card_id=a", b"", False),
        ("shop=7", b'{"shop": 7}', True),
        ("shop=7", b'{"in": {"shop": "7"}}', True),
        ("shop=7", b'{"shop": 7.0}', True),
        ("shop=7", b'{"amount": 7, "shop": 8}', False),
        ("shop=1", b'{"shop": true}', False),
        ("shop=7", b'{"amount": 7, "shop": 7', True),
        ("shop=7", b'{"amount": 7, "shop": 7.5', False),
        ("shop=7", b'{"amount": 7, "shop": 77', False),
        ("card_id=a,shop=7", b'{"card_id": "a", "shop": 7}', True),
        ("card_id=a,shop=7", b'{"card_id": "a", "shop": 8}', False),
        ("card_id=a,shop=7", b'{"shop": 7}', False),
    ],
)
def test_messages(text: str, message: bytes, is_named: bool) -> None:  # noqa: FBT001
    assert subject(text).in_message(message) == is_named


def test_message_keys() -> None:
    assert subject("card_id=a").in_message(b"", ("card_id", b"a"))
    assert not subject("card_id=a").in_message(b"", ("card_id", None))
    assert not subject("card_id=a").in_message(b"", ("shop", b"a"))
    assert subject("shop=7").in_message(b"\xff", ("shop", b"7"))
    assert subject("card_id=a,shop=7").in_message(b'{"shop": 7}', ("card_id", b"a"))
    assert not subject("card_id=a,shop=7").in_message(b"{}", ("card_id", b"a"))


def test_values_deeper_in_a_message_have_the_declared_name() -> None:
    catalog = Catalog(streams=(nested,), views=(shop_windows,))
    assert subject("shop=7", catalog).members == {"shop": {"shop"}}
    assert not subject("shop=7", catalog).in_message(b'{"user": {"id": 7}}')


@pytest.mark.parametrize("name", ["a", 'qu"ote', "<b>&", "ü", "a.b+c", "back\\slash"])
def test_text_in_any_form(name: str) -> None:
    own = subject(f"card_id={name}")
    for text in (name, json.dumps({"entity": name}), json.dumps([name], ensure_ascii=False)):
        assert own.in_text(text.encode())
    assert own.in_text(
        b"<td>" + name.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").encode() + b"</td>"
    )
    assert not own.in_text(f"x{name}x".encode())


def test_numbers_in_text_stand_behind_their_name() -> None:
    own = subject("shop=7")
    for text in ('{"shop": 7}', "shop=7", '"entity": "7"', '"entity": "c_1, 7"', "shop: 7"):
        assert own.in_text(text.encode()), text
    for text in ('{"rows": 7}', '"shop": 17', '"shop": 7.5', '"entity": "77, c"', '{"shop": 1, "rows": 7}'):
        assert not own.in_text(text.encode()), text
