"""A declaration is checked when it is made, says all that is derived from it, and has one fingerprint."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import polars as pl
import pytest

from feast_repo.clickstream import clickstream
from feast_repo.declare.algebra import Count, Max, Mean, Min, Ratio, Sum, field
from feast_repo.declare.batch_views import BatchFeature, BatchView
from feast_repo.declare.entities import Entity
from feast_repo.declare.events import UTC_MICROSECONDS, EventStream
from feast_repo.declare.fields import Bool, Integer, Text
from feast_repo.declare.services import FeatureService
from feast_repo.declare.stored import offline_columns
from feast_repo.declare.views import WindowedView
from feast_repo.declare.vocabulary import POLARS
from feast_repo.features import purchase_prediction, user, user_click_features, user_profile_features
from tests.aggregates import Greatest, Strings
from tests.declared import on_stream

VIEW = WindowedView(
    name="carts",
    entity=user,
    source=replace(clickstream, allowed_lateness=timedelta(seconds=90), event_id=None),
    push_source="carts_push",
    window=timedelta(minutes=30),
    slide=timedelta(minutes=5),
    ttl=timedelta(hours=1),
    features={
        "rate": Ratio("carts", "views"),
        "views": Count(where=field("event_type") == "view"),
        "carts": Count(where=field("event_type") == "add_to_cart"),
        "spent": Sum("price_cents", where=(field("event_type") == "purchase") & (field("price_cents") > 0)),
        "least": Min("price_cents"),
    },
)


# --- What is refused


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"slide": timedelta(minutes=7)}, ["window 0:30:00", "slide 0:07:00"]),
        ({"slide": timedelta(hours=1)}, ["window", "slide"]),
        ({"slide": timedelta(0)}, ["slide"]),
        ({"slide": timedelta(minutes=-5)}, ["slide"]),
        ({"window": timedelta(0)}, ["window"]),
        ({"window": timedelta(minutes=-30)}, ["window"]),
        ({"slide": timedelta(microseconds=100)}, ["slide"]),
        ({"entity": Entity(name="shop", join_keys={"shop_id": "String"})}, ["'shop_id'", "'user_id'"]),
        ({"features": {"user_id": Count()}}, ["'user_id'", "reserved"]),
        ({"features": {"event_timestamp": Count()}}, ["'event_timestamp'", "reserved"]),
        ({"features": {"created_timestamp": Count()}}, ["'created_timestamp'", "reserved"]),
        ({"features": {"writer": Count()}}, ["'writer'", "reserved"]),
        ({"features": {"total": Sum("price")}}, ["'total'", "'price'", "price_cents"]),
        ({"features": {"total": Min("price")}}, ["'total'", "'price'", "price_cents"]),
        ({"features": {"total": Sum("price_cents", where=field("kind") == "x")}}, ["'total'", "'kind'", "event_type"]),
        (
            {"features": {"n": Count(where=(field("event_type") == "x") & (field("country") == "x"))}},
            ["'n'", "'country'"],
        ),
        ({"features": {"n#sum": Count()}}, ["'n#sum'", "reserved"]),
        ({"features": {"who": Greatest("user_id"), "rate": Ratio("who", "who")}}, ["'rate'", "numbers", "'who'"]),
        ({"features": {"rate": Ratio("carts", "views")}}, ["'rate'", "'carts'", "'views'"]),
        ({"features": {"n": Count(), "rate": Ratio("n", "views")}}, ["'rate'", "'views'"]),
        ({"features": {"n": Count(), "r": Ratio("n", "n"), "rate": Ratio("r", "n")}}, ["'rate'", "'r'"]),
        ({"features": {"total": Sum("event_type")}}, ["'total'", "Sum", "'event_type'", "integer"]),
        ({"features": {"total": Mean("event_type")}}, ["'total'", "Mean", "'event_type'", "integer"]),
        ({"features": {"who": Max("user_id"), "rate": Ratio("who", "who")}}, ["'rate'", "numbers", "'who'"]),
        ({"features": {"n": Count(where=field("price_cents") == "x")}}, ["'n'", "price_cents == 'x'", "Int64"]),
        (
            {"features": {"n": Count(where=(field("event_type") == "view") & (field("event_type") > 1))}},
            ["'n'", "event_type > 1", "String"],
        ),
        ({"features": {"n": Count(where=field("event_type") == "veiw")}}, ["'n'", "event_type == 'veiw'", "'view'"]),
        (
            {"features": {"total": Sum("price_cents", where=field("event_type") != "View")}},
            ["'total'", "event_type != 'View'", "'view'"],
        ),
    ],
    ids=str,
)
def test_contradiction_is_refused_in_one_line_that_names_it(changes: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(ValueError, match="view 'carts'") as caught:
        replace(VIEW, **changes)
    message = str(caught.value)
    assert "\n" not in message
    assert [word for word in words if word not in message] == []


@pytest.mark.parametrize(
    ("name", "owner"),
    [("age", "a feature of view 'user_profile_features'"), ("user_id", "the join key of entity 'user'")],
)
def test_feature_of_a_service_has_a_name_of_its_own(name: str, owner: str) -> None:
    other = BatchView("others", Entity("shop", {"shop_id": "String"}), timedelta(days=1), {name: BatchFeature("Int64")})
    with pytest.raises(ValueError, match=f"feature '{name}' of view 'others' has the name of {owner}"):
        FeatureService("both", (user_profile_features, other))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"key": "user"}, "key='user'"),
        ({"key": "price_cents"}, "key='price_cents'"),
        ({"time": "price_cents"}, "time='price_cents'"),
        ({"event_id": "event_type"}, "event_id='event_type'"),
        ({"kind": "product_id"}, "kind='product_id'"),
        ({"heartbeat": "pulse"}, "heartbeat='pulse'"),
    ],
    ids=str,
)
def test_event_that_contradicts_itself_is_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match="event stream 'clickstream'") as caught:
        replace(clickstream, **changes)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["", "^.*$", 'quo"te', "back\\slash", "new\nline"])
def test_impossible_name_of_an_event_field_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"event stream 'clickstream'.*can't be the name") as caught:
        replace(clickstream, fields=(*clickstream.fields, Text(name)))
    assert "\n" not in str(caught.value)


def test_event_field_declared_twice_is_refused() -> None:
    with pytest.raises(ValueError, match=r"event stream 'clickstream'.*twice"):
        replace(clickstream, fields=(*clickstream.fields, Text("product_id")))


@pytest.mark.parametrize("name", ["partition", "offset", "kafka_timestamp", "watermark", "missed_windows"])
def test_event_field_named_like_a_column_of_the_log_tables_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"event stream 'clickstream'.*'{name}'"):
        replace(clickstream, fields=(*clickstream.fields, Text(name)))


def test_edges_that_are_allowed() -> None:
    assert on_stream(VIEW, allowed_lateness=timedelta(0)).lateness_ms == 0
    assert replace(VIEW, slide=VIEW.window).panes_per_window == 1
    assert replace(VIEW, features={"price_cents": Sum("price_cents")}).input_columns == ("price_cents",)


# --- What is derived


def test_times_are_whole_milliseconds() -> None:
    assert (VIEW.window_ms, VIEW.slide_ms, VIEW.lateness_ms, VIEW.panes_per_window) == (1_800_000, 300_000, 90_000, 6)


def test_columns_are_in_declared_order() -> None:
    assert list(VIEW.value_types) == ["rate", "views", "carts", "spent", "least"]
    assert list(VIEW.aggregates) == ["views", "carts", "spent", "least"]
    assert list(VIEW.derived) == ["rate"]
    assert VIEW.input_columns == ("event_type", "price_cents")
    assert VIEW.value_types == {"rate": "Float64", **dict.fromkeys(["views", "carts", "spent", "least"], "Int64")}


def test_defaults_are_the_empty_values_of_the_algebra() -> None:
    assert VIEW.defaults == {"rate": 0.0, "views": 0, "carts": 0, "spent": 0, "least": None}


def test_an_extreme_has_the_type_of_its_field() -> None:
    flagged = replace(clickstream, fields=(*clickstream.fields, Bool("flag")))
    of_text = {"first": Min("event_type"), "last": Max("user_id"), "dearest": Max("price_cents")}
    view = replace(VIEW, source=flagged, features=of_text)
    assert view.value_types == {"first": "String", "last": "String", "dearest": "Int64"}
    assert view.state_types == {"first": pl.String(), "last": pl.String(), "dearest": pl.Int64()}
    assert view.defaults == {"first": None, "last": None, "dearest": None}
    assert view.features["dearest"].meaning == ["Max", {"column": "price_cents", "where": None}]  # type: ignore[attr-defined]
    assert view.features["first"].meaning == ["Min", {"column": "event_type", "where": None, "of": "String"}]  # type: ignore[attr-defined]
    other = replace(
        clickstream,
        fields=(*(one for one in flagged.fields if one.name != "event_type"), Integer("event_type")),
        kind=None,
        heartbeat=None,
    )
    assert replace(view, source=other).value_types["first"] == "Int64"
    with pytest.raises(ValueError, match="Min needs an integer or text field, and 'flag' is none"):
        replace(view, features={"flags": Min("flag")})


def test_state_has_a_column_for_each_part() -> None:
    view = replace(VIEW, features={"n": Count(), "kinds": Strings("event_type"), "mean": Mean("price_cents")})
    assert view.state_types == {
        "n": pl.Int64(),
        "kinds#set": pl.List(pl.String()),
        "mean#high": pl.Int64(),
        "mean#low": pl.Int64(),
        "mean#count": pl.Int64(),
    }
    assert view.empty_state == {"n": 0, "kinds#set": [], "mean#high": 0, "mean#low": 0, "mean#count": 0}
    assert view.defaults == {"n": 0, "kinds": [], "mean": None}
    events = pl.DataFrame({"pane": [1, 1, 2], "event_type": ["b", "a", "b"], "price_cents": [1, None, 4]})
    states = events.group_by("pane", maintain_order=True).agg(view.lift(POLARS))
    assert states.rows() == [(1, 2, ["a", "b"], 0, 1, 1), (2, 1, ["b"], 0, 4, 1)]
    assert view.finished(states.group_by(pl.lit(7).alias("of")).agg(view.merge(POLARS))).rows(named=True) == [
        {"of": 7, "n": 3, "kinds": ["a", "b"], "mean": 2.5}
    ]


def test_stored_columns() -> None:
    assert list(offline_columns(VIEW).items()) == [
        ("user_id", pl.String()),
        ("event_timestamp", UTC_MICROSECONDS),
        ("created_timestamp", UTC_MICROSECONDS),
        ("served_timestamp", UTC_MICROSECONDS),
        ("writer", pl.String()),
        ("rate", pl.Float64()),
        ("views", pl.Int64()),
        ("carts", pl.Int64()),
        ("spent", pl.Int64()),
        ("least", pl.Int64()),
    ]


def test_expressions_lead_from_events_to_features() -> None:
    # Two panes of one user, worked out by hand: 2 views and 1 cart in the first, 1 view and 2 purchases in the second.
    kinds = ["view", "view", "add_to_cart", "view", "purchase", "purchase"]
    prices = [70, None, 90, 50, 300, -5]
    events = pl.DataFrame({"pane": [1, 1, 1, 2, 2, 2], "event_type": kinds, "price_cents": prices})
    panes = events.group_by("pane", maintain_order=True).agg(VIEW.lift(POLARS))
    assert panes.rows() == [(1, 2, 1, 0, 70), (2, 1, 0, 300, -5)]
    window = panes.group_by(pl.lit(1).alias("user_id")).agg(VIEW.merge(POLARS))
    features = VIEW.finished(window)
    assert set(features.columns) == {"user_id", *VIEW.features}
    assert features.select("user_id", *VIEW.features).rows() == [(1, 1 / 3, 3, 1, 300, -5)]


# --- The fingerprint


def test_fingerprint_is_pinned() -> None:
    # A change of this value makes every deployment rebuild its recovery state: it must not happen by accident.
    assert VIEW.fingerprint == "f6b974326b2c5a32a16cc5328ba6beda"
    assert replace(VIEW).fingerprint == VIEW.fingerprint


def _with(**features: Any) -> dict[str, Any]:
    return {"features": {**VIEW.features, **features}}


@pytest.mark.parametrize(
    "changes",
    [
        {"window": timedelta(minutes=60)},
        {"slide": timedelta(minutes=10)},
        {"source": replace(VIEW.source, allowed_lateness=timedelta(seconds=91))},
        {"source": replace(VIEW.source, allowed_lateness=timedelta(milliseconds=90_001))},
        {"source": replace(VIEW.source, name="other")},
        {"source": replace(VIEW.source, heartbeat="view")},
        {
            "entity": Entity(name="event", join_keys={"event_id": "String"}),
            "source": replace(VIEW.source, key="event_id"),
        },
        _with(more=Count()),
        _with(views=Count()),
        _with(views=Count(where=field("event_type") != "view")),
        _with(views=Count(where=field("event_type") == "click")),
        _with(views=Count(where=field("product_id") == "view")),
        _with(views=Count(where=(field("event_type") == "view") & (field("price_cents") > 0))),
        _with(least=Max("price_cents")),
        _with(least=Sum("price_cents")),
        _with(least=Min("event_timestamp")),
        _with(least=Min("price_cents", where=field("event_type") == "view")),
        _with(spent=Sum("price_cents", where=(field("event_type") == "purchase") & (field("price_cents") > 1))),
        {"features": {("seen" if name == "least" else name): value for name, value in VIEW.features.items()}},
    ],
    ids=str,
)
def test_fingerprint_changes_with_what_state_means(changes: dict[str, Any]) -> None:
    assert replace(VIEW, **changes).fingerprint != VIEW.fingerprint


@pytest.mark.parametrize(
    "changes",
    [
        {"description": "other words"},
        {"name": "renamed"},
        {"push_source": "renamed"},
        {"ttl": timedelta(days=1)},
        {"freshness": timedelta(hours=3)},
        {"entity": replace(user, name="shopper", description="other words")},
        _with(rate=Ratio("views", "carts")),
        _with(other_rate=Ratio("least", "spent")),
        {"features": VIEW.aggregates},
        {"features": dict(reversed(list(VIEW.features.items())))},
    ],
    ids=str,
)
def test_fingerprint_stays_with_what_holds_no_state(changes: dict[str, Any]) -> None:
    assert replace(VIEW, **changes).fingerprint == VIEW.fingerprint


# --- The declarations that are shipped


def test_click_features_are_those_of_the_contract() -> None:
    assert user_click_features.value_types == {
        "click_count": "Int64",
        "view_count": "Int64",
        "cart_count": "Int64",
        "purchase_count": "Int64",
        "revenue_cents": "Int64",
        "cart_rate": "Float64",
        "conversion_rate": "Float64",
    }
    assert user_click_features.push_source == "user_clicks_push"
    assert (user_click_features.window, user_click_features.slide) == (timedelta(hours=1), timedelta(minutes=10))
    assert user_click_features.source.allowed_lateness == timedelta(seconds=120)
    assert user_click_features.ttl == timedelta(hours=24)


def test_profile_features_are_those_of_the_contract() -> None:
    assert user_profile_features.value_types == {
        "age": "Int64",
        "country": "String",
        "subscription_tier": "String",
        "activity_weight": "Float64",
    }
    assert user_profile_features.ttl == timedelta(days=365)
    assert purchase_prediction.views == (user_click_features, user_profile_features)


def test_batch_view_defaults() -> None:
    features = {"age": BatchFeature("Int64", default=30), "country": BatchFeature("String")}
    view = BatchView(name="profile", entity=user, ttl=timedelta(days=1), features=features)
    assert view.defaults == {"age": 30, "country": None}


def test_clickstream_fields_are_those_of_the_contract() -> None:
    assert list(clickstream.schema) == [
        "event_id",
        "user_id",
        "event_type",
        "event_timestamp",
        "product_id",
        "session_id",
        "price_cents",
    ]
    assert isinstance(clickstream, EventStream)
    assert [name for name, item in clickstream.by_name.items() if item.required] == list(clickstream.schema)[:4]
    assert isinstance(clickstream.by_name["product_id"], Text)
