from __future__ import annotations

import json
import math
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings, strategies as st

from feast_repo.clickstream import YEAR_2000_MS, clickstream
from feast_repo.codec.decoding import Decoder, RawBatch
from feast_repo.declare.fields import Integer
from feast_repo.features import user_click_features
from simulation.clicks import MALFORMED_KINDS, RECORD
from simulation.clock import FutureError, Simulation, Traffic, historical, live
from simulation.events import simulate
from simulation.malformed import flaws
from simulation.profiles import make_profiles
from simulation.records import EVENT, HEARTBEAT, LATE
from simulation.sessions import STEP_TYPES, browse
from tests.declared import on_stream

if TYPE_CHECKING:
    from collections.abc import Iterator

MINUTE = 60_000
P = 10 * MINUTE
L = 2 * MINUTE
NOW = 1_790_000_123_456
EVENTS = 40_000
VIEWS = [user_click_features]
SIMULATION = historical(
    clickstream,
    VIEWS,
    Traffic(users=500, seed=5, disorder_ms=20_000, late_share=0.05, malformed_share=0.03),
    events=EVENTS,
    hours=4,
    now_ms=NOW,
    partitions=(0, 1, 2),
)


def run(simulation: Simulation) -> pl.DataFrame:
    return pl.concat(simulate(simulation))


@pytest.fixture(scope="module")
def records() -> pl.DataFrame:
    return run(SIMULATION)


@pytest.fixture(scope="module")
def sound(records: pl.DataFrame) -> pl.DataFrame:
    return records.filter(pl.col("kind").is_in([EVENT, LATE]))


def reason_of(value: bytes, key: str | None, arrival_ms: int) -> str | None:
    """The contract's dead-letter rules once more, with the standard library only."""

    def no_constant(name: str) -> None:
        raise ValueError(name)

    if not value:
        return "empty"
    try:
        event = json.loads(value.decode("utf-8"), parse_constant=no_constant)
        json.dumps(event, ensure_ascii=False).encode("utf-8")  # fails on lone surrogates
    except ValueError:
        return "not_json"
    if not isinstance(event, dict):
        return "not_an_object"
    present = {name: content for name, content in event.items() if content is not None}
    return next(broken_rules(present, key, arrival_ms), None)


def broken_rules(event: dict[str, Any], key: str | None, arrival_ms: int) -> Iterator[str]:
    """The rules that a JSON object breaks, in the contract's order; a later one may rely on the earlier ones."""
    texts, numbers = (
        ("event_id", "user_id", "event_type", "product_id", "session_id"),
        ("event_timestamp", "price_cents"),
    )
    is_heartbeat = event.get("event_type") == "heartbeat"
    required = ("event_id", "event_type", "event_timestamp") + (() if is_heartbeat else ("user_id",))
    fields = ("event_id", "user_id", "event_type", "event_timestamp", "product_id", "session_id", "price_cents")
    yield from (f"missing:{name}" for name in fields if name in required and name not in event)
    is_text = {name: type(event[name]) is str for name in texts if name in event}
    is_integer = {name: type(event[name]) is int and abs(event[name]) < 2**63 for name in numbers if name in event}
    yield from (f"type:{name}" for name in fields if not {**is_text, **is_integer}.get(name, True))
    yield from (f"length:{name}" for name in ("event_id", "user_id") if not 1 <= len(event.get(name, "-")) <= 64)
    last = {
        "unknown_event_type": event["event_type"] not in {"view", "click", "add_to_cart", "purchase", "heartbeat"},
        "timestamp_range": event["event_timestamp"] < YEAR_2000_MS,
        "future_timestamp": event["event_timestamp"] > arrival_ms + 5 * MINUTE,
        "negative:price_cents": event.get("price_cents", 0) < 0,
        "key_mismatch": (None if is_heartbeat else event.get("user_id")) != key
        or (is_heartbeat and "user_id" in event),
    }
    yield from (reason for reason, holds in last.items() if holds)


def test_an_equal_simulation_gives_the_same_bytes_in_the_same_order(records: pl.DataFrame) -> None:
    assert run(replace(SIMULATION)).equals(records)


def test_another_seed_gives_other_records(records: pl.DataFrame) -> None:
    other = run(replace(SIMULATION, traffic=replace(SIMULATION.traffic, seed=6)))
    assert set(other["value"]).isdisjoint(records.filter(pl.col("kind") == EVENT)["value"])


def test_all_events_are_there_within_their_hours(records: pl.DataFrame, sound: pl.DataFrame) -> None:
    assert dict(records.schema) == RECORD
    assert records.filter(pl.col("kind") != HEARTBEAT).height == EVENTS
    times = sound["event_timestamp"].to_numpy()
    assert SIMULATION.start_ms <= times.min()
    assert times.max() < SIMULATION.end_ms
    per_hour = np.histogram(times, bins=4, range=(SIMULATION.start_ms, SIMULATION.end_ms))[0]
    assert per_hour == pytest.approx(np.full(4, sound.height / 4), rel=0.03)


def test_event_ids_are_unique_also_between_runs(sound: pl.DataFrame) -> None:
    other = run(replace(SIMULATION, start_ms=SIMULATION.start_ms - 1, events=500))
    ids = pl.concat([sound["event_id"], other["event_id"].drop_nulls()])
    assert ids.n_unique() == len(ids)


def test_values_are_compact_json_of_the_fields(sound: pl.DataFrame) -> None:
    for record in sound.head(500).iter_rows(named=True):
        fields = {name: record[name] for name in clickstream.schema}
        assert record["value"] == json.dumps(fields, separators=(",", ":")).encode()
        assert record["key"] == record["user_id"]


def test_records_come_in_the_order_of_their_arrival(records: pl.DataFrame) -> None:
    assert records["arrival_ms"].is_sorted()
    assert not records["event_timestamp"].drop_nulls().is_sorted()


def test_delays_are_within_disorder_or_beyond_the_lateness(sound: pl.DataFrame) -> None:
    delay = pl.col("arrival_ms") - pl.col("event_timestamp")
    ranges = sound.group_by("kind").agg(least=delay.min(), most=delay.max())
    least, most = {k: n for k, n, _ in ranges.iter_rows()}, {k: n for k, _, n in ranges.iter_rows()}
    assert 0 <= least[EVENT] < 100
    assert 19_900 < most[EVENT] <= 20_000
    assert L < least[LATE] < L + MINUTE
    assert 75 * MINUTE < most[LATE] <= 80 * MINUTE


def test_shares_are_as_asked(records: pl.DataFrame) -> None:
    counts = dict(records["kind"].value_counts().iter_rows())
    assert counts[LATE] == pytest.approx(0.05 * EVENTS, rel=0.1)
    assert sum(counts[kind] for kind in MALFORMED_KINDS) == pytest.approx(0.03 * EVENTS, rel=0.1)


def test_late_records_miss_from_one_to_all_six_windows(sound: pl.DataFrame) -> None:
    watermark = pl.col("event_timestamp").cum_max().shift(1) - L
    first_end = pl.col("event_timestamp") // P * P + P
    missed = ((watermark - first_end) // P + 1).clip(0, 6).alias("missed")
    by_kind = sound.select("kind", missed).group_by("kind", "missed").len()
    late = {n: count for kind, n, count in by_kind.iter_rows() if kind == LATE}
    assert all(late[n] > 100 for n in range(1, 7))
    assert {n for kind, n, _ in by_kind.iter_rows() if kind == EVENT} <= {0, None}


def test_every_malformed_record_is_refused_for_its_reason(records: pl.DataFrame) -> None:
    malformed = records.filter(pl.col("kind").is_in(MALFORMED_KINDS))
    assert set(malformed["kind"]) == set(MALFORMED_KINDS)
    found = [reason_of(*row) for row in malformed.select("value", "key", "arrival_ms").iter_rows()]
    assert found == malformed["kind"].to_list()
    assert malformed.select(pl.col(*clickstream.schema).is_null().all()).row(0) == (True,) * len(clickstream.schema)


def test_every_other_record_is_accepted(records: pl.DataFrame) -> None:
    accepted = records.filter(~pl.col("kind").is_in(MALFORMED_KINDS)).select("value", "key", "arrival_ms")
    assert {reason_of(*row) for row in accepted.iter_rows()} == {None}


def test_the_decoder_sees_what_the_simulation_says(records: pl.DataFrame) -> None:
    decoded = Decoder(clickstream).decode(
        RawBatch(
            partition=0,
            values=records["value"].to_list(),
            keys=records["key"].cast(pl.Binary).to_list(),
            kafka_timestamps=records["arrival_ms"].to_list(),
            offsets=list(range(records.height)),
        )
    )
    malformed = records["kind"].is_in(MALFORMED_KINDS)
    assert decoded.dead_letters["reason"].to_list() == records["kind"].filter(malformed).to_list()
    expected = records.filter(~malformed).select(clickstream.schema.keys())
    assert decoded.records.select(clickstream.schema.keys()).equals(expected)


def test_flaws_follow_from_the_declaration() -> None:
    field = Integer("quantity", required=True, non_negative=True)
    more = replace(clickstream, fields=(*clickstream.fields, field))
    new = {flaw.reason for flaw in flaws(more)} - {flaw.reason for flaw in flaws(clickstream)}
    assert new == {"missing:quantity", "type:quantity", "negative:quantity"}


def test_sessions_lead_from_views_to_purchases() -> None:
    profiles = make_profiles(300, 1)
    steps = pl.concat(islice(browse(profiles, steps_per_second=20.0, seed=1), 4))
    counts = dict(steps["step"].value_counts().iter_rows())
    assert counts[0] > 1.5 * counts[1] > 1.5 * counts[2] > 1.2 * counts[3] > 0
    assert steps.group_by("session").agg(pl.col("user").n_unique())["user"].max() == 1
    # Each step but a view follows the step before it on the same product in the same session.
    whole = steps.filter(pl.col("session") > steps["session"].head(2_000).max())  # begun after the first row
    before = whole.with_columns(pl.col("step", "product").shift(1).over("session").name.prefix("last_"))
    onward = before.filter(pl.col("step") > 0)
    assert onward.filter(pl.col("last_step") != pl.col("step") - 1).is_empty()
    assert onward.filter(pl.col("last_product") != pl.col("product")).is_empty()


def test_gaps_inside_a_session_are_seconds_to_minutes(sound: pl.DataFrame) -> None:
    gaps = sound.sort("event_timestamp").select(pl.col("event_timestamp").diff().over("session_id")).to_series()
    median, most = gaps.median(), gaps.max()
    assert 5_000 < median < 60_000  # type: ignore[operator]  # gaps are numbers
    assert most < 30 * MINUTE  # type: ignore[operator]  # some records in between are malformed


def test_activity_follows_the_profiles(sound: pl.DataFrame) -> None:
    profiles = make_profiles(500, 5)
    sessions = sound.group_by("user_id").agg(pl.col("session_id").n_unique())
    both = profiles.join(sessions, on="user_id", how="left").fill_null(0)
    assert np.corrcoef(both["activity_weight"], both["session_id"])[0, 1] > 0.95


def test_few_products_get_most_views_and_each_has_one_price(sound: pl.DataFrame) -> None:
    products = sound.group_by("product_id").agg(pl.len(), pl.col("price_cents").n_unique())
    assert products["price_cents"].max() == 1
    most = products["len"].sort(descending=True)
    assert sum(most.to_list()[:50]) > 0.35 * sound.height
    assert sound["price_cents"].min() >= 99  # type: ignore[operator]  # prices are integers


def test_the_last_records_are_one_heartbeat_for_each_partition(records: pl.DataFrame) -> None:
    last = records.tail(3)
    assert last["kind"].to_list() == [HEARTBEAT] * 3
    assert last["partition"].to_list() == [0, 1, 2]
    assert last["key"].to_list() == [None] * 3
    assert records["partition"].drop_nulls().len() == 3
    for record in last.iter_rows(named=True):
        value = json.loads(record["value"])
        assert value == {
            "event_id": record["event_id"],
            "event_type": "heartbeat",
            "event_timestamp": SIMULATION.heartbeat_ms,
        }
        assert record["arrival_ms"] == SIMULATION.heartbeat_ms


@given(
    now_ms=st.integers(1_500_000_000_000, 2_500_000_000_000),
    hours=st.floats(0.01, 100),
    lateness=st.sampled_from([0, 90, 120, 4000]),
    drain=st.booleans(),
)
def test_history_ends_just_before_now(now_ms: int, hours: float, lateness: int, *, drain: bool) -> None:
    view = on_stream(user_click_features, allowed_lateness=np.timedelta64(lateness, "s").item())
    plan = historical(
        view.source, [view], Traffic(), events=100, hours=hours, now_ms=now_ms, drain=drain, partitions=(0,)
    )
    assert plan.heartbeat_ms is not None
    closed_ms = plan.heartbeat_ms - lateness * 1000
    assert closed_ms % P == 0
    assert now_ms - P < plan.heartbeat_ms <= now_ms
    last_window_ms = closed_ms - (7 * P if drain else 0)
    assert last_window_ms - 1 <= plan.end_ms <= last_window_ms + 1  # rounding of the hours and of the interval
    assert plan.end_ms - plan.start_ms == pytest.approx(hours * 3_600_000, abs=2)


def test_a_given_start_decides_the_end() -> None:
    start_ms = NOW // P * P - 300 * MINUTE
    arguments = {"events": 60, "now_ms": NOW, "start_ms": start_ms, "partitions": (0,)}
    closing = historical(clickstream, VIEWS, Traffic(), hours=1.05, **arguments)  # type: ignore[arg-type]
    draining = historical(clickstream, VIEWS, Traffic(), hours=1.05, drain=True, **arguments)  # type: ignore[arg-type]
    assert closing.end_ms == start_ms + 63 * MINUTE
    assert closing.heartbeat_ms == start_ms + 70 * MINUTE + L
    assert draining.heartbeat_ms == start_ms + 140 * MINUTE + L


def test_a_start_too_late_is_refused_with_the_latest_one() -> None:
    latest_ms = (NOW - L) // P * P - 60 * MINUTE
    arguments = {"events": 60, "hours": 1, "now_ms": NOW, "partitions": (0,)}
    assert historical(clickstream, VIEWS, Traffic(), start_ms=latest_ms, **arguments).start_ms == latest_ms  # type: ignore[arg-type]
    with pytest.raises(FutureError, match=str(np.datetime64(latest_ms, "ms"))[:16]):
        historical(clickstream, VIEWS, Traffic(), start_ms=latest_ms + 1, **arguments)  # type: ignore[arg-type]


def test_a_live_stream_follows_the_clock_without_end() -> None:
    stream = live(clickstream, Traffic(users=50, disorder_ms=0), rate=40.0, events=None, now_ms=NOW)
    assert stream.end_ms == math.inf
    records = pl.concat(islice(simulate(stream), 100))
    assert set(records["kind"]) == {EVENT}
    number = np.arange(records.height)
    behind = records["event_timestamp"].to_numpy() - (NOW + number * 25)
    assert behind.min() >= 0
    assert behind.max() <= 25
    assert records["arrival_ms"].equals(records["event_timestamp"].alias("arrival_ms"))


def test_a_finite_live_stream_ends_in_time_without_heartbeats() -> None:
    traffic = Traffic(users=50, late_share=0.5)
    records = run(live(clickstream, traffic, rate=100.0, events=1_000, now_ms=NOW))
    assert records.height == 1_000
    assert records["arrival_ms"].max() == NOW + 10_000
    assert HEARTBEAT not in set(records["kind"])


@settings(max_examples=20)
@given(events=st.integers(1, 200), block=st.integers(10, 150), malformed=st.sampled_from([0.0, 0.5, 1.0]))
def test_any_block_size_gives_every_event_once(events: int, block: int, malformed: float) -> None:
    traffic = Traffic(users=20, late_share=(1 - malformed) / 2, malformed_share=malformed)
    simulation = historical(clickstream, VIEWS, traffic, events=events, hours=2, now_ms=NOW, partitions=(0,))
    records = run(replace(simulation, block=block))
    assert records.height == events + 1
    assert records["arrival_ms"].is_sorted()
    numbers = records["event_id"].head(events).drop_nulls().str.extract(r"-(\d+)$").cast(pl.Int64)
    assert numbers.n_unique() == len(numbers)


def test_steps_are_named_as_the_declaration_has_them() -> None:
    kind = clickstream.by_name["event_type"]
    assert set(STEP_TYPES) == {*kind.values} - {clickstream.heartbeat}  # type: ignore[union-attr]  # a Choice
