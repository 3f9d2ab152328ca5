from __future__ import annotations

import hashlib
import json
import math
import re
from dataclasses import replace
from datetime import timedelta
from functools import cache
from itertools import islice
from typing import TYPE_CHECKING, Any, get_args

import polars as pl
import pytest
from hypothesis import given, settings, strategies as st

from feast_repo.clickstream import YEAR_2000_MS, clickstream
from feast_repo.codec.decoding import DecodedBatch, Decoder, RawBatch
from feast_repo.codec.encoding import document
from feast_repo.declare.events import EventStream
from feast_repo.declare.fields import Bool, Choice, Decimal, Integer, Text, TimeFormat, Timestamp
from feast_repo.features import user_click_features
from simulation.clicks import RECORD
from simulation.clock import BLOCK, Simulation, Traffic, historical, live
from simulation.declared import Declared, SimulationError
from simulation.events import simulate
from simulation.malformed import flaws
from simulation.records import COPY, EVENT, HEARTBEAT, LATE, message_schema
from simulation.values import TEXTS
from tests import declared
from tests.feast_repo import payments as others

if TYPE_CHECKING:
    from feast_repo.declare.fields import EventField

MINUTE = 60_000
NOW = 1_790_000_123_456
AHEAD = 5 * MINUTE
USERS = 40

payments = EventStream(
    name="payments",
    topic="payments",
    fields=(
        Choice("state", values=("paid", "refunded"), path="type", foreign={"SALE": "paid"}, ignore=("ping",)),
        Text("card_id", required=True, min_length=3, max_length=12, path="card.id"),
        Text("brand", path="card.brand"),
        Bool("contactless", path="card.terminal.contactless"),
        Timestamp("paid_at", format="iso8601", earliest_ms=YEAR_2000_MS, max_ahead_ms=AHEAD, path="times.created"),
        Timestamp("opened_at", format="us", earliest_ms=YEAR_2000_MS, max_ahead_ms=AHEAD, path="times.opened"),
        Decimal("amount", scale=2, required=True, non_negative=True),
        Integer("items", from_string=True, non_negative=True),
    ),
    key="card_id",
    time="paid_at",
    kind="state",
    allowed_lateness=timedelta(minutes=2),
)
"""Nested objects, another producer's names, neither ids nor a kind of heartbeats."""

meters = EventStream(
    name="meters",
    topic="meters",
    fields=(
        Integer("meter", required=True, non_negative=True),
        Timestamp("at", format="s", earliest_ms=YEAR_2000_MS, max_ahead_ms=0),
        Text("reading", required=True, max_length=9),
        Choice("what", values=("power", "tick"), required=False),
        Decimal("watts", scale=18),
    ),
    key="meter",
    time="at",
    event_id="reading",
    kind="what",
    heartbeat="tick",
    allowed_lateness=timedelta(milliseconds=1_500),
)
"""Numbers as keys, times in whole seconds, short ids."""

STREAMS = {
    "payments": payments,
    "meters": meters,
    "cards": declared.payments,
    "shops": declared.shop_windows.source,
    "one value read twice": others.payments,
}


def plan(stream: EventStream, events: int = 4_000, **traffic: Any) -> Simulation:
    people = Traffic(**{"users": USERS, "seed": 5, "disorder_ms": 1_000, **traffic})
    return historical(stream, [], people, events=events, hours=4, now_ms=NOW, partitions=(0, 1))


@cache
def run(simulation: Simulation) -> pl.DataFrame:
    return pl.concat(simulate(simulation))


@pytest.fixture(params=STREAMS)
def stream(request: pytest.FixtureRequest) -> EventStream:
    return STREAMS[request.param]


def decoded(stream: EventStream, records: pl.DataFrame) -> DecodedBatch:
    """The messages as the stream decodes them."""
    headers = records["headers"].to_list() if "headers" in records.columns else [None] * len(records)
    return Decoder(stream).decode(
        RawBatch(
            partition=0,
            values=records["value"].to_list(),
            keys=records["key"].cast(pl.Binary).to_list(),
            kafka_timestamps=records["arrival_ms"].to_list(),
            offsets=list(range(len(records))),
            heartbeats=[told and told[0]["value"] for told in headers],
        )
    )


def test_the_decoder_sees_what_the_simulation_says(stream: EventStream) -> None:
    records = run(plan(stream, late_share=0.05, malformed_share=0.2))
    assert dict(records.schema) == message_schema(stream)
    seen = decoded(stream, records)
    sound = pl.col("kind").is_in([EVENT, LATE, HEARTBEAT])
    assert seen.dead_letters["reason"].to_list() == records.filter(~sound)["kind"].to_list()
    assert set(seen.dead_letters["reason"]) == {flaw.reason for flaw in flaws(stream)}
    assert seen.records[stream.key].cast(pl.String).to_list() == records.filter(sound)["key"].to_list()
    late = seen.records.select(pl.col("kafka_timestamp") - pl.col(stream.time) > stream.lateness_ms).to_series()
    assert late.to_list() == (records.filter(sound)["kind"] == LATE).to_list()


def test_the_last_records_are_heartbeats(stream: EventStream) -> None:
    simulation = plan(stream)
    last = run(simulation).tail(2)
    assert last["kind"].to_list() == [HEARTBEAT] * 2
    assert last["partition"].to_list() == [0, 1]
    beats = decoded(stream, last).records
    assert beats[stream.time].to_list() == [simulation.heartbeat_ms] * 2
    assert beats[stream.key].to_list() == [None] * 2


def test_reasons_cover_every_form_of_field() -> None:
    reasons = {flaw.reason for flaw in flaws(payments)}
    assert {"timezone:paid_at", "precision:amount", "negative:items", "length:card_id", "unknown_state"} <= reasons
    assert {f"type:{name}" for name in payments.by_name} <= reasons
    assert {f"missing:{name}" for name, field in payments.by_name.items() if field.required} <= reasons
    assert {"timestamp_range", "future_timestamp", "key_mismatch", "empty", "not_json", "not_an_object"} <= reasons


def test_shares_are_as_asked_and_events_in_order_of_arrival(stream: EventStream) -> None:
    records = run(plan(stream, late_share=0.05, malformed_share=0.2))
    assert records["arrival_ms"].is_sorted()
    counts = dict(records["kind"].value_counts().iter_rows())
    assert len(records) == 4_000 + counts[HEARTBEAT]
    assert counts[LATE] == pytest.approx(0.05 * 4_000, rel=0.2)
    assert 4_000 - counts[LATE] - counts[EVENT] == pytest.approx(0.2 * 4_000, rel=0.2)


def test_copies_are_bytes_that_came_before_and_change_nothing_else(stream: EventStream) -> None:
    records = run(plan(stream, late_share=0.05, malformed_share=0.2, copied_share=0.1)).with_row_index()
    is_copy = pl.col("kind") == COPY
    copies, others = records.filter(is_copy), records.filter(~is_copy)
    assert len(others) == 4_000 + 2
    assert len(copies) == pytest.approx(0.1 * 0.8 * 4_000, rel=0.2)
    first = others.group_by("key", "value").agg(
        pl.col("index").min().alias("first"), pl.col("arrival_ms").min().alias("at")
    )
    found = copies.join(first, on=["key", "value"])
    assert len(found) == len(copies)
    assert (found["index"] > found["first"]).all()
    assert (found["arrival_ms"] - found["at"]).is_between(0, 1_000).all()
    seen = decoded(stream, records.drop("index"))
    assert len(seen.dead_letters) == len(others.filter(~pl.col("kind").is_in([EVENT, LATE, HEARTBEAT])))


def test_copies_come_on_top_of_the_same_events(stream: EventStream) -> None:
    kinds = [
        run(plan(stream, events=600, late_share=0.1, **more)).filter(pl.col("kind") != COPY)["kind"].to_list()
        for more in ({}, {"copied_share": 1.0})
    ]
    assert kinds[0] == kinds[1]


@pytest.mark.parametrize("block", [1, 37, 1_000, BLOCK])
def test_an_equal_simulation_gives_the_same_bytes_whatever_the_block(stream: EventStream, block: int) -> None:
    simulation = plan(stream, events=600, late_share=0.1, malformed_share=0.1, copied_share=0.1)
    again = pl.concat(simulate(replace(simulation, block=block)))
    assert again.equals(run(simulation))


def test_a_clicks_block_changes_no_byte() -> None:
    simulation = plan(clickstream, events=600, late_share=0.1)
    assert pl.concat(simulate(replace(simulation, block=7))).equals(run(simulation))


def test_another_seed_gives_other_records(stream: EventStream) -> None:
    one, other = (set(run(plan(stream, seed=seed)).head(4_000)["value"]) for seed in (5, 6))
    assert len(one & other) < 40


def test_keys_follow_the_law_of_zipf(stream: EventStream) -> None:
    keys = run(plan(stream))["key"].drop_nulls().value_counts().sort("count", descending=True)["count"].to_list()
    total = sum(1 / rank for rank in range(1, USERS + 1))
    assert keys[0] == pytest.approx(4_000 / total, rel=0.1)
    assert sum(keys[:5]) == pytest.approx(4_000 * sum(1 / rank for rank in range(1, 6)) / total, rel=0.1)
    assert len(keys) == USERS


def test_keys_are_numbered_within_their_length() -> None:
    keys = {"payments": r"card_i0000[0-4][0-9]", "cards": r"card_id_0000[0-4][0-9]", "meters": r"[1-9]|[1-4][0-9]"}
    for name, pattern in keys.items():
        found = run(plan(STREAMS[name]))["key"].drop_nulls().unique()
        assert all(re.fullmatch(pattern, key) for key in found), found


def test_many_entities_have_as_many_keys() -> None:
    stream = declared.payments
    rows = {"users": 2_000_000, "seed": 1}
    keys = run(plan(stream, 3_000, **rows))["key"].drop_nulls()
    assert keys.str.len_chars().unique().to_list() == [len("card_id_1234567")]


@pytest.mark.parametrize("stream", [meters, declared.payments])
def test_ids_are_unique_within_their_length(stream: EventStream) -> None:
    assert stream.event_id is not None
    records = run(plan(stream)).filter(pl.col("kind") == EVENT)
    assert decoded(stream, records).records[stream.event_id].n_unique() == len(records)


def test_values_are_plausible() -> None:
    records = run(plan(payments)).filter(pl.col("kind") == EVENT)
    seen = decoded(payments, records).records
    assert set(seen["state"]) == {"paid", "refunded"}
    assert 10 < seen["brand"].n_unique() <= TEXTS + 1
    assert seen["brand"].null_count() == pytest.approx(0.1 * len(seen), rel=0.2)
    assert seen["card_id"].null_count() == seen["amount"].null_count() == 0
    amounts = seen["amount"].to_numpy()
    assert 100 <= amounts.min() < 110
    assert 90_000 < amounts.max() < 100_000
    opened_before = (seen["paid_at"] - seen["opened_at"]).to_numpy()
    assert 0 <= opened_before.min() < opened_before.max() < 60 * MINUTE
    assert seen["contactless"].mean() == pytest.approx(0.5, abs=0.05)
    kinds = decoded(meters, run(plan(meters)).head(4_000)).records["what"]
    assert set(kinds) == {"power", None}


def test_events_are_written_as_the_producer_does() -> None:
    record = run(plan(payments)).filter(pl.col("kind") == EVENT)["value"].to_list()
    events = [json.loads(value) for value in record]
    assert {event["type"] for event in events} == {"SALE", "refunded"}
    assert all(re.fullmatch(r"20..-..-..T..:..:..\....Z", event["times"]["created"]) for event in events)
    assert all(re.fullmatch(r"[0-9]+\.[0-9]{2}", event["amount"]) for event in events)


FORMATS: st.SearchStrategy[TimeFormat] = st.sampled_from(get_args(TimeFormat))
PATHS = st.sampled_from(["{}", "in.{}", "in.deep.{}", "out.{}"])


@st.composite
def fields(draw: st.DrawFn, name: str) -> EventField:
    path = draw(PATHS).format(name)
    required, non_negative = draw(st.booleans()), draw(st.booleans())
    shortest = draw(st.integers(0, 5))
    longest = draw(st.none() | st.integers(shortest + 1, 30))
    form = draw(FORMATS)
    names = draw(st.sampled_from([{}, {"A": "a"}, {"A": "a", "B": "b"}]))
    forms: list[EventField] = [
        Text(name, required=required, min_length=shortest, max_length=longest, path=path),
        Choice(name, values=("a", "b"), required=required, foreign=names, ignore=("type", "c"), path=path),
        Integer(name, required=required, non_negative=non_negative, from_string=draw(st.booleans()), path=path),
        Decimal(name, scale=draw(st.integers(0, 18)), required=required, non_negative=non_negative, path=path),
        Bool(name, required=required, path=path),
        Timestamp(name, earliest_ms=draw(st.sampled_from([-(2**63), 0])), max_ahead_ms=0, format=form, path=path),
    ]
    return draw(st.sampled_from(forms))


@st.composite
def streams(draw: st.DrawFn) -> EventStream:
    longest = draw(st.none() | st.integers(4, 30))
    key: EventField = Integer("key", required=True, from_string=draw(st.booleans()), path=draw(PATHS).format("key"))
    if draw(st.booleans()):
        key = Text("key", required=True, min_length=draw(st.integers(0, 4)), max_length=longest)
    form = draw(FORMATS)
    time = Timestamp("time", earliest_ms=YEAR_2000_MS, max_ahead_ms=AHEAD, format=form, path=draw(PATHS).format("time"))
    kind = Choice("kind", values=("go", "beat"), foreign=draw(st.sampled_from([{}, {"BEAT": "beat"}])))
    others = [draw(fields(name)) for name in draw(st.sets(st.sampled_from("abcd")))]
    id_field = Text("id", required=True, min_length=draw(st.integers(0, 4)), max_length=longest)
    declared_fields = draw(st.permutations([key, time, kind, id_field, *others]))
    return EventStream(
        name="any",
        topic="any",
        fields=tuple(declared_fields),
        key="key",
        time="time",
        event_id=draw(st.sampled_from([None, "id"])),
        kind=(named := draw(st.sampled_from([None, "kind"]))),
        heartbeat=None if named is None else draw(st.sampled_from([None, "beat"])),
        allowed_lateness=timedelta(minutes=1),
    )


@settings(max_examples=60, deadline=None)
@given(stream=streams())
def test_any_streams_events_are_accepted_and_each_flaw_is_its_reason(stream: EventStream) -> None:
    records = pl.concat(simulate(plan(stream, events=300)))
    seen = decoded(stream, records)
    assert seen.dead_letters.is_empty()
    assert seen.ignored == 0
    event = seen.records.row(0, named=True)
    key = str(event[stream.key]).encode()
    arrival_ms = event["kafka_timestamp"]
    broken = flaws(stream)
    values = [flaw.apply(document(stream, event), arrival_ms) for flaw in broken]
    batch = RawBatch(0, values, [key] * len(values), [arrival_ms] * len(values), list(range(len(values))))
    assert Decoder(stream).decode(batch).dead_letters["reason"].to_list() == [flaw.reason for flaw in broken]


def test_a_flaw_leaves_its_event_as_it_is() -> None:
    event = document(payments, decoded(payments, run(plan(payments)).head(1)).records.row(0, named=True))
    before = json.dumps(event)
    for flaw in flaws(payments):
        flaw.apply(event, NOW)
    assert json.dumps(event) == before


def test_what_the_stream_would_reject_is_refused() -> None:
    impossible = replace(payments, fields=(*payments.fields, Choice("never", values=(), required=True)))
    with pytest.raises(SimulationError, match=r"'payments'.*missing:never"):
        Declared(plan(impossible))
    early = historical(payments, [], Traffic(), events=9, hours=1, now_ms=NOW, start_ms=0, partitions=())
    with pytest.raises(SimulationError, match="timestamp_range"):
        next(simulate(early))


def test_a_drift_is_known_to_the_shop_only() -> None:
    with pytest.raises(SimulationError, match="'payments' knows no drift"):
        next(simulate(plan(payments, drift="visits")))
    assert run(plan(clickstream, drift="visits"))["kind"].len() > 4_000


def test_a_deployments_topic_and_lateness_leave_the_shop_what_it_is() -> None:
    moved = replace(clickstream, topic="clicks", allowed_lateness=timedelta(minutes=9))
    assert dict(run(plan(moved)).schema) == RECORD
    other = replace(clickstream, name="clicks")
    assert dict(run(plan(other)).schema) == message_schema(other) != RECORD


def test_the_shops_bytes_are_those_of_earlier_versions() -> None:
    people = Traffic(users=500, seed=5, disorder_ms=20_000, late_share=0.05, malformed_share=0.03)
    simulation = historical(
        clickstream, [user_click_features], people, events=60_000, hours=4, now_ms=NOW, partitions=(0, 1, 2)
    )
    records = run(simulation).filter(pl.col("kind").is_in([EVENT, LATE, HEARTBEAT]))
    digest = hashlib.blake2b(digest_size=8)
    for row in records.select("arrival_ms", "partition", "key", "value", "kind").iter_rows():
        digest.update(repr(row).encode())
    assert digest.hexdigest() == "6a0fd80b42e5e1c6"


def test_the_longest_slide_and_window_of_the_views_decide_the_end() -> None:
    short = replace(user_click_features, name="short", window=timedelta(minutes=30), slide=timedelta(minutes=15))
    start_ms = NOW // (30 * MINUTE) * (30 * MINUTE) - 300 * MINUTE
    arguments: dict[str, Any] = {
        "events": 60,
        "hours": 64 / 60,
        "now_ms": NOW,
        "start_ms": start_ms,
        "partitions": (0,),
    }
    views = [user_click_features, short]  # an hour by ten minutes, and half an hour by a quarter
    closing = historical(clickstream, views, Traffic(), **arguments)
    draining = historical(clickstream, views, Traffic(), drain=True, **arguments)
    assert closing.heartbeat_ms == start_ms + (75 + 2) * MINUTE
    assert draining.heartbeat_ms == start_ms + (75 + 60 + 15 + 2) * MINUTE


def test_heartbeats_in_whole_seconds_close_the_windows_all_the_same() -> None:
    people, hour = Traffic(users=3), {"events": 9, "hours": 1, "now_ms": NOW, "partitions": (0,)}
    simulation = historical(meters, [user_click_features], people, **hour)  # type: ignore[arg-type]
    assert simulation.heartbeat_ms is not None
    assert simulation.heartbeat_ms == simulation.end_ms + 2_000 <= NOW  # the lateness is 1.5 s


def test_times_in_whole_seconds_arrive_in_order_however_dense_they_are() -> None:
    people, dense = Traffic(users=3, disorder_ms=900), {"events": 600, "hours": 0.01, "now_ms": NOW, "partitions": (0,)}
    simulation = historical(meters, [], people, **dense)  # type: ignore[arg-type]
    records = pl.concat(simulate(replace(simulation, block=7)))
    assert records["arrival_ms"].is_sorted()
    assert records.equals(run(simulation))


def test_a_live_stream_follows_the_clock_without_end() -> None:
    stream = live(payments, Traffic(users=50, disorder_ms=0), rate=40.0, events=None, now_ms=NOW)
    assert stream.end_ms == math.inf
    records = pl.concat(islice(simulate(stream), 50))
    assert set(records["kind"]) == {EVENT}
    times = decoded(payments, records).records["paid_at"]
    assert times.to_list() == records["arrival_ms"].to_list()
    assert times[-1] - NOW == pytest.approx(len(records) * 25, abs=25)
