"""Rules follow from what a view declares, whatever its keys and features are."""

from __future__ import annotations

from dataclasses import replace

from batch.quality.rules import batch_suite, windowed_suite
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
            "code": BatchFeature("String", nullable=True, values=("a", "b"), pattern="[a-z]"),
        },
    )
    rules = {rule.name: rule for rule in batch_suite(view, [payments]).rules}
    assert list(rules) == [
        *("shop_present", "shop_readable"),
        *("card_id_present", "card_id_length", "card_id_well_formed", "shop_card_id_unique"),
        *("score_readable", "score_range"),
        *("count_present", "count_readable", "count_range"),
        *("code_known", "code_well_formed"),
    ]
    assert rules["shop_card_id_unique"].arguments == {"column_list": ["shop", "card_id"]}
    assert rules["score_range"].says == "score is above 0"
    assert rules["count_range"].says == "count is at most 9"
    assert rules["code_known"].set_by == "code of shop_features"


def test_a_windowed_view_with_two_keys() -> None:
    rules = {rule.name: rule for rule in windowed_suite(shop_of_card_features).rules}
    assert list(rules)[:3] == ["shop_present", "card_id_present", "card_id_length"]
    assert rules["row_unique"].arguments["column_list"][:2] == ["shop", "card_id"]
