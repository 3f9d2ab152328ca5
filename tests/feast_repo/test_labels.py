"""What a service predicts is declared with it, and must fit the events and its views."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from feast_repo.declare.algebra import field
from feast_repo.declare.catalog import Catalog
from feast_repo.declare.labels import Label
from feast_repo.declare.services import FeatureService
from feast_repo.features import catalog
from tests.declared import card_features, fraud, payments, shop_features, shop_windows

LARGE = Label("large", where=field("amount_cents") >= 9_000, within=timedelta(minutes=30))


@pytest.mark.parametrize(
    ("label", "says"),
    [
        (replace(LARGE, where=field("amount") > 1), "unknown event fields ['amount']"),
        (replace(LARGE, where=field("amount_cents") == "9000"), "the field is of type Int64"),
        (replace(LARGE, within=timedelta(0)), "within and spacing must be positive"),
        (replace(LARGE, spacing=-timedelta(minutes=1)), "within and spacing must be positive"),
        (replace(LARGE, name="card_count"), "a column has this name"),
        (replace(LARGE, name="shop"), "a column has this name"),
        (replace(LARGE, name="event_timestamp"), "a column has this name"),
        (replace(LARGE, stream=catalog.stream()), "'clickstream' has no fields for the join keys ['card_id', 'shop']"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_label_that_does_not_fit_is_refused_in_one_line(label: Label, says: str) -> None:
    with pytest.raises(ValueError, match="service 'fraud', label") as refused:
        replace(fraud, label=label)
    assert says in str(refused.value)


def test_the_stream_is_the_only_one_or_named() -> None:
    assert replace(fraud, label=LARGE).label_stream == payments
    with pytest.raises(ValueError, match="name the event stream that it is about, with stream="):
        FeatureService("both", (card_features, shop_windows), label=LARGE)
    named = FeatureService("shops", (shop_features,), label=replace(LARGE, stream=payments))
    assert named.label_stream == payments
    assert Catalog((named,)).streams == (payments,), "it belongs to the catalog without being listed"


def test_a_deployment_moves_the_stream_of_a_label() -> None:
    service = FeatureService("shops", (shop_features,), label=replace(LARGE, stream=payments))
    deployed = Catalog((service,)).deployed({"payments": "elsewhere"}, timedelta(minutes=5))
    label = deployed.service().label
    assert label is not None
    assert (
        label.stream == deployed.stream() == replace(payments, topic="elsewhere", allowed_lateness=timedelta(minutes=5))
    )


@pytest.mark.parametrize(
    ("within", "says"),
    [
        (timedelta(hours=1), "large within 1 h"),
        (timedelta(minutes=90), "large within 90 min"),
        (timedelta(days=7), "large within 7 d"),
        (timedelta(seconds=1.5), "large within 1.5 s"),
    ],
)
def test_a_label_is_said_in_words(within: timedelta, says: str) -> None:
    assert str(replace(LARGE, within=within)) == says
