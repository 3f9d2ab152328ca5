"""What can't be declared is refused in one line that names the field."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from feast_repo.clickstream import clickstream
from feast_repo.declare.fields import Bool, Choice, Decimal, Integer, Text, Timestamp
from tests.feast_repo.payments import payments

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.mark.parametrize(
    ("declare", "said"),
    [
        (lambda: Text("a", path=""), "field 'a': '' can't be the path of a field"),
        (lambda: Text("a", path="b..c"), "field 'a': 'b..c' can't be the path"),
        (lambda: Text("a", path=".b"), "field 'a': '.b' can't be the path"),
        (lambda: Text("a", path=()), r"field 'a': \(\) can't be the path"),
        (lambda: Text("a", path=("b", "")), "field 'a': .* can't be the path"),
        (lambda: Text("a", path='b"'), "field 'a': .* can't be the path"),
        (lambda: Text("a", path="b\\"), "field 'a': .* can't be the path"),
        (lambda: Text("a", path="b\n"), "field 'a': .* can't be the path"),
        (lambda: Decimal("a", scale=-1), "field 'a': scale=-1 is not from 0 to 18"),
        (lambda: Decimal("a", scale=19), "field 'a': scale=19 is not from 0 to 18"),
        (lambda: timestamp("ns"), "field 'a': format='ns' is none of ms, s, us, iso8601"),
        (lambda: choice(foreign={"X": "z"}), r"field 'a': foreign names translate into \['z'\], which are no values"),
        (lambda: choice(foreign={"x": "y"}), r"field 'a': \['x'\] are both foreign names and values"),
        (lambda: choice(ignore=("x", "p")), r"field 'a': \['x'\] are both ignored and accepted"),
        (lambda: choice(foreign={"X": "x"}, ignore=("X",)), r"field 'a': \['X'\] are both ignored and accepted"),
    ],
)
def test_a_field_that_contradicts_itself_is_refused(declare: Callable[[], object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        declare()


def timestamp(unit: Any) -> Timestamp:
    return Timestamp("a", earliest_ms=0, max_ahead_ms=0, format=unit)


def choice(**options: Any) -> Choice:
    return Choice("a", values=("x", "y"), **options)


@pytest.mark.parametrize(
    ("one", "other", "path"),
    [
        (Text("a", path="b"), Bool("c", path="b.c"), "b.c"),
        (Text("a"), Bool("c", path="a.b.c"), "a.b.c"),
        (Text("a", path="b.c"), Integer("c", path="b.c.d"), "b.c.d"),
    ],
)
def test_a_path_through_another_fields_value_is_refused(one: Any, other: Any, path: str) -> None:
    for fields in ((one, other), (other, one)):
        with pytest.raises(ValueError, match=f"field 'c': its path '{path}' leads through the value of field 'a'"):
            replace(clickstream, fields=(*clickstream.fields, *fields))


def test_paths_that_go_beside_each_other_are_fine() -> None:
    beside = (Text("a", path="b.c"), Text("b", path=("b.c",)), Text("c", path="b.d"), Bool("d", path="b.c"))
    assert len(replace(clickstream, fields=(*clickstream.fields, *beside)).fields) == len(clickstream.fields) + 4


def test_a_path_is_a_name_unless_it_has_dots() -> None:
    assert Text("a").components == ("a",)
    assert Text("a.b").components == ("a.b",)
    assert Text("a", path="userId").components == ("userId",)
    assert Text("a", path="b.c").components == ("b", "c")
    assert Text("a", path=("b.c", "d")).components == ("b.c", "d")


def test_declarations_are_values() -> None:
    assert replace(payments) == payments
    assert hash(replace(payments)) == hash(payments)
    assert replace(payments, fields=(*payments.fields[:-1], Text("tier"))) != payments
