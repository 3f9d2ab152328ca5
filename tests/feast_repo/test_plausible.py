"""What a batch view declares about its values must be possible."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from feast_repo.declare.batch_views import BatchFeature
from tests.declared import shop, shop_features, shop_of_card


@pytest.mark.parametrize(
    ("feature", "says"),
    [
        (BatchFeature("String", minimum=1), "a text has no minimum, above or maximum"),
        (BatchFeature("String", pattern="["), "pattern='[' is no regular expression"),
        (BatchFeature("Int64", values=("1",)), "only a text has values or a pattern"),
        (BatchFeature("Float64", pattern="1"), "only a text has values or a pattern"),
        (BatchFeature("Int64", minimum=1, above=0), "both minimum and above"),
        (BatchFeature("Int64", minimum=2, maximum=1), "no value is from 2 to 1"),
        (BatchFeature("Float64", above=2, maximum=1), "no value is from 2 to 1"),
        (BatchFeature("Float64", unique=True), "only a text or a whole number is unique"),
        (BatchFeature("Bool", unique=True), "only a text or a whole number is unique"),
        (BatchFeature("Bool", minimum=0), "a Bool has no minimum, above or maximum"),
        (BatchFeature("List(Int64)"), "tables for the quality gate have no lists"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_contradiction_is_refused_in_one_line(feature: BatchFeature, says: str) -> None:
    with pytest.raises(ValueError, match="view 'shop_features', feature 'x'") as refused:
        replace(shop_features, features={"x": feature})
    assert says in str(refused.value)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"name": "a/b"}, "it names folders"),
        ({"features": {"shop": BatchFeature("Int64")}}, "the name is reserved"),
        ({"features": {"writer": BatchFeature("String")}}, "the name is reserved"),
        ({"key_patterns": {"shop": "[0-9]+"}}, "a pattern is for a join key of type String"),
        ({"key_patterns": {"other": "[0-9]+"}}, "a pattern is for a join key of type String"),
        ({"rows": (2, 1)}, "rows=(2, 1): no table has so many rows"),
        ({"rows": (None, -1)}, "rows=(None, -1): no table has so many rows"),
        ({"max_age": timedelta(0)}, "max_age 0:00:00 must be positive"),
        ({"entity": shop_of_card, "key_patterns": {"card_id": "("}}, "is no regular expression"),
    ],
    ids=str,
)
def test_a_view_that_could_not_be_checked_is_refused(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match="view ") as refused:
        replace(shop_features, **changes)
    assert says in str(refused.value)


def test_what_fits_is_taken() -> None:
    features = {
        "score": BatchFeature("Float64", 0.5, nullable=True, above=0, maximum=1),
        "code": BatchFeature("String", values=("a", "b"), pattern="[a-z]"),
    }
    assert replace(shop_features, entity=shop, features=features).defaults == {"score": 0.5, "code": None}
