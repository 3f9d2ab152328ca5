"""Rules follow from what a view declares, whatever its keys and features are."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from batch.quality.rules import batch_suite, joined_suite, table_suite, windowed_suite
from feast_repo.declare.batch_views import BatchFeature
from tests.declared import payments, shop_features, shop_of_card, shop_of_card_features


def test_a_batch_view_with_two_keys() -> None:
    view = replace(
        shop_features,
        entity=shop_of_card,
        key_patterns={"card_id": "c[0-9]+"},
        features={
            "score": BatchFeature("Float64", nullable=True, above=0),
            "count": BatchFeature("Int64", maximum=9),
            "code": BatchFeature("String", nullable=True, values=("a", "b"), pattern="[a-z]", unique=True),
            "number": BatchFeature("Int64", unique=True),
            "active": BatchFeature("Bool", nullable=True),
        },
    )
    rules = {rule.name: rule for rule in batch_suite(view, [payments]).rules}
    assert list(rules) == [
        *("shop_present", "shop_readable"),
        *("card_id_present", "card_id_length", "card_id_well_formed", "shop_card_id_unique"),
        *("score_readable", "score_range"),
        *("count_present", "count_readable", "count_range"),
        *("code_known", "code_well_formed", "code_unique"),
        *("number_present", "number_readable", "number_unique"),
        "active_readable",
    ]
    assert rules["shop_card_id_unique"].arguments == {"column_list": ["shop", "card_id"]}
    assert rules["score_range"].says == "score is above 0"
    assert rules["count_range"].says == "count is at most 9"
    assert rules["code_known"].set_by == rules["code_unique"].set_by == "code of shop_features"
    assert [rule.name for rule in joined_suite(view).rules] == ["code_not_published", "number_not_published"]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({}, ["5 or more good rows", None]),
        ({"rows": (5, None)}, ["5 or more good rows", "rows of shop_features"]),
        ({"rows": (None, 1_000)}, ["5 to 1,000 good rows", "rows of shop_features"]),
    ],
    ids=str,
)
def test_how_many_rows_a_publication_has(changes: dict[str, Any], says: list[str]) -> None:
    count, *_ = table_suite(replace(shop_features, **changes), least_rows=5, most_days_old=2).rules
    assert [count.says, count.set_by] == says


@pytest.mark.parametrize(
    ("days", "says"),
    [(2, "at most 2 days old"), (0.25, "at most 6 hours old"), (None, "not of the future")],
)
def test_how_old_a_publication_is(days: float | None, says: str) -> None:
    view = replace(shop_features, max_age=timedelta(days=1))
    *_, age = table_suite(view, least_rows=1, most_days_old=days).rules
    assert (age.says, age.set_by) == (f"the rows are {says}", "max_age of shop_features")


def test_a_windowed_view_with_two_keys() -> None:
    rules = {rule.name: rule for rule in windowed_suite(shop_of_card_features).rules}
    assert list(rules)[:3] == ["shop_present", "card_id_present", "card_id_length"]
    assert rules["row_unique"].arguments["column_list"][:2] == ["shop", "card_id"]
