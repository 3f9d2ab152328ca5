"""Any log, cut into any batches, restarted anywhere: the engine equals the one-at-a-time reference."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING

import polars as pl
import pytest
from hypothesis import example, given, settings, strategies as st

from feast_repo.clickstream import YEAR_2000_MS, clickstream
from feast_repo.declare.algebra import Count, Max, Mean, Min, Ratio, Sum
from feast_repo.declare.conditions import field
from feast_repo.declare.entities import Entity
from feast_repo.declare.events import EventStream
from feast_repo.declare.fields import INT64_MAX, INT64_MIN, Choice, Integer, Text, Timestamp
from feast_repo.declare.views import WindowedView
from feast_repo.features import user, user_click_features
from stream import panes, spans
from stream.windows import SnapshotError, WindowEngine
from tests.aggregates import Ever, Greatest, Integers, Strings
from tests.stream.reference import Record, ReferenceWindow, ReferenceWindows, records_frame

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from hypothesis.strategies import DrawFn, SearchStrategy

    from feast_repo.declare.algebra import Aggregate, Feature
    from feast_repo.declare.conditions import Condition
    from stream.view_windows import ClosedWindow

EXAMPLES = 80
YEAR_2500_MS = 16_725_225_600_000
"""Enough for each of the cases below to come up many times, and few enough to take seconds."""

rides = EventStream(
    name="rides",
    topic="rides",
    fields=(
        Timestamp("at", earliest_ms=0, max_ahead_ms=0),
        Text("rider", required=True, min_length=1),
        Integer("pane"),
        Integer("balance"),
        Choice("what", values=("start", "stop", "tick")),
        Text("city"),
        Text("ride_id", required=True),
    ),
    key="rider",
    time="at",
    allowed_lateness=timedelta(0),
    event_id="ride_id",
    kind="what",
    heartbeat="tick",
)
"""Events with other names and another order of fields than the clickstream's."""


@dataclass(frozen=True)
class Outcome:
    """All that the engine says about a log, as plain values."""

    watermarks: list[int | None]
    missed: list[int]
    windows: list[ReferenceWindow]
    watermark_ms: int | None


def expected(view: WindowedView, records: Sequence[Record]) -> Outcome:
    reference = ReferenceWindows(view)
    steps = [reference.add(record) for record in records]
    return Outcome(
        [step[0] for step in steps],
        [step[1] for step in steps],
        [window for step in steps for window in step[2]],
        reference.watermark_ms,
    )


def plain(window: ClosedWindow) -> ReferenceWindow:
    """Give a window of the engine as the reference gives it: times in ms."""
    times = pl.col("event_timestamp", "created_timestamp")
    assert window.rows.select((times.dt.timestamp("us") % 1000 == 0).all()).row(0) == (True, True)
    return ReferenceWindow(window.end_ms, tuple(window.rows.with_columns(times.dt.epoch("ms")).rows()))


def found(view: WindowedView, records: Sequence[Record], cuts: Mapping[int, bool] = {}) -> Outcome:
    """Run the engine; `cuts` are where a batch ends, and whether the engine is restored from a snapshot there."""
    engine = WindowEngine(view.source, [view])
    frame = records_frame(view.source, records)
    watermarks: list[int | None] = []
    missed: list[int] = []
    windows: list[ReferenceWindow] = []
    bounds = sorted({0, *cuts, len(records)})
    for start, end in [*itertools.pairwise(bounds), (len(records), len(records))]:
        if cuts.get(start):
            engine = WindowEngine.restore(view.source, [view], engine.snapshot())
        result = engine.process(frame[start:end])
        assert result.records.select(frame.columns).equals(frame[start:end])
        watermarks += result.records["watermark"].to_list()
        missed += result.missed[view.name].tolist()
        windows += map(plain, result.windows)
    return Outcome(watermarks, missed, windows, engine.watermark_ms)


# --- Views


def conditions(events: EventStream) -> SearchStrategy[Condition]:
    """Make conditions on fields of each type."""
    assert events.kind is not None
    kind = field(events.kind)
    choice = events.by_name[events.kind]
    assert isinstance(choice, Choice)
    integers = [field_.name for field_ in events.fields if isinstance(field_, Integer)]
    optional = [field_.name for field_ in events.fields if not field_.required]
    numbers = st.one_of(st.integers(-3, 3), st.sampled_from([INT64_MIN, INT64_MAX]))
    simple: SearchStrategy[Condition] = st.one_of(
        st.sampled_from(choice.values).map(lambda value: kind == value),
        st.sampled_from(choice.values).map(lambda value: kind != value),
        st.sampled_from(["a", "b"]).map(lambda value: field(events.key) == value),
        st.sampled_from(["a", "b"]).map(lambda value: field(events.key) < value),
        st.lists(st.sampled_from(choice.values), min_size=1, max_size=3).map(kind.is_in),
        st.tuples(st.sampled_from(integers), st.lists(numbers, min_size=1, max_size=3)).map(
            lambda asked: field(asked[0]).is_in(asked[1])
        ),
        st.sampled_from(optional).map(lambda name: field(name).is_null()),
        *(
            st.builds(lambda name, value, compare=compare: getattr(field(name), compare)(value), names, numbers)
            for names in [st.sampled_from(integers)]
            for compare in ("__eq__", "__ne__", "__gt__", "__ge__", "__lt__", "__le__")
        ),
    )
    return st.recursive(
        simple,
        lambda inner: (
            inner.map(lambda one: ~one)
            | st.tuples(inner, inner).map(lambda two: two[0] & two[1])
            | st.tuples(inner, inner).map(lambda two: two[0] | two[1])
        ),
        max_leaves=4,
    )


def kinds_of_aggregates(events: EventStream) -> dict[type[Aggregate], SearchStrategy[Aggregate]]:
    """Make every kind of aggregate of these events, those that only tests know included."""
    where = st.none() | conditions(events)
    numbers = st.sampled_from([item.name for item in events.fields if isinstance(item, Integer | Timestamp)])
    texts = st.sampled_from([item.name for item in events.fields if isinstance(item, Text | Choice)])
    return {
        **{kind: st.builds(kind, where=where) for kind in (Count, Ever)},
        **{kind: st.builds(kind, numbers, where=where) for kind in (Sum, Mean, Integers)},
        **{kind: st.builds(kind, numbers | texts, where=where) for kind in (Min, Max)},
        **{kind: st.builds(kind, texts, where=where) for kind in (Greatest, Strings)},
    }


@st.composite
def views(draw: DrawFn, events: EventStream | None = None) -> WindowedView:
    """Make views of all shapes; a feature may have the name of the field that it reads, and ratios come anywhere."""
    events = draw(st.sampled_from([clickstream, rides])) if events is None else events
    integers = [item.name for item in events.fields if isinstance(item, Integer)]
    names = draw(st.lists(st.sampled_from(["n", "pane", "B", *integers]), min_size=1, max_size=4, unique=True))
    kinds = st.one_of(*kinds_of_aggregates(events).values())
    features: dict[str, Feature] = {name: draw(kinds).bound(events) for name in names}
    numbers = [name for name in names if features[name].value_type in {"Int64", "Float64"}]
    for name in draw(st.lists(st.sampled_from(["r", "a"]), max_size=2, unique=True)) if numbers else ():
        features[name] = Ratio(draw(st.sampled_from(numbers)), draw(st.sampled_from(numbers)))
    slide = timedelta(milliseconds=draw(st.sampled_from([1, 7, 10, 1000])))
    return WindowedView(
        name="any",
        entity=user if events is clickstream else Entity(name="rider", join_keys={"rider": "String"}),
        source=replace(
            events,
            allowed_lateness=draw(st.sampled_from([timedelta(0), slide / 10, slide, slide * 3])),
            event_id=draw(st.sampled_from([events.event_id, None])),
        ),
        push_source="any_push",
        window=slide * draw(st.sampled_from([1, 2, 3, 6, 24])),
        slide=slide,
        ttl=timedelta(days=1),
        features={name: features[name] for name in draw(st.permutations(sorted(features)))},
    )


# --- Logs


@st.composite
def logs(draw: DrawFn, view: WindowedView) -> list[Record]:
    """Make logs of few users: mostly forward in small steps, with edges hit often, disorder, late records and gaps."""
    events, slide = view.source, view.slide_ms
    assert events.kind is not None
    event_id = "ride_id" if events.name == "rides" else "event_id"
    now = draw(st.sampled_from([YEAR_2000_MS, 1_772_366_400_000, 0, slide - 1])) // slide * slide
    steps = st.one_of(
        st.integers(-slide, 2 * slide),
        st.integers(-2, 2).map(lambda panes: panes * slide),
        st.sampled_from([0, 1, -1, view.lateness_ms, view.window_ms, -view.window_ms, 50 * view.window_ms]),
    )
    kinds = st.sampled_from(choices.values if isinstance(choices := events.by_name[events.kind], Choice) else ())
    users = st.sampled_from(["a", "b", "ü", "aa"])
    numbers = st.none() | st.integers(-5, 5) | st.sampled_from([INT64_MIN, INT64_MAX])
    integers = [item.name for item in events.fields if isinstance(item, Integer)]
    strings = st.none() | st.sampled_from(["", "a", "B", "ab", "ü", "😀", "\uffff", "longer than 12 bytes"])
    texts = [item.name for item in events.fields if isinstance(item, Text) and not item.required]
    log: list[Record] = []
    for _ in range(draw(st.integers(0, 25))):
        if log and draw(st.integers(0, 4)) == 0:  # delivered again, perhaps with another content
            copy = draw(st.sampled_from(log))
            log.append(copy if draw(st.booleans()) or copy[events.key] is None else {**copy, events.key: draw(users)})
            continue
        now += draw(steps)
        edge = draw(st.sampled_from([0, 0, view.lateness_ms]))
        record: Record = {"kafka_timestamp": max(0, 1_000_000 + draw(st.integers(-50, 50)))}
        if draw(st.booleans()):
            record = {"kafka_timestamp": draw(st.integers(0, 2) | st.just(YEAR_2500_MS)), "create_time": True}
        record |= dict.fromkeys(events.schema)
        record |= {events.time: now + edge, events.kind: draw(kinds), event_id: draw(st.sampled_from("efgh"))}
        if record[events.kind] != events.heartbeat:
            record[events.key] = draw(users)
            record |= {name: draw(numbers) for name in integers} | {name: draw(strings) for name in texts}
        log.append(record)
    return log


@st.composite
def cases(draw: DrawFn) -> tuple[WindowedView, list[Record], dict[int, bool]]:
    """Make a view, a log for it, and where to cut the log into batches and to restart."""
    view = draw(views())
    log = draw(logs(view))
    return view, log, draw(cuts_of(log))


def cuts_of(log: Sequence[Record]) -> SearchStrategy[dict[int, bool]]:
    return st.dictionaries(st.integers(0, len(log)), st.booleans(), max_size=4)


@settings(max_examples=EXAMPLES, deadline=None)
@given(cases())
def test_engine_equals_the_reference(case: tuple[WindowedView, list[Record], dict[int, bool]]) -> None:
    view, log, cuts = case
    assert found(view, log, cuts) == expected(view, log)


@settings(max_examples=EXAMPLES // 3, deadline=None)
@given(st.data())
def test_shipped_view_equals_the_reference(data: st.DataObject) -> None:
    log = data.draw(logs(user_click_features))
    assert found(user_click_features, log, data.draw(cuts_of(log))) == expected(user_click_features, log)


@settings(max_examples=EXAMPLES // 5, deadline=None)
@given(st.data())
def test_batches_and_restarts_never_change_results(data: st.DataObject) -> None:
    view = data.draw(views(clickstream))
    log = data.draw(logs(view))
    whole = found(view, log)
    assert found(view, log, dict.fromkeys(range(len(log)), False)) == whole
    assert found(view, log, dict.fromkeys(range(len(log)), True)) == whole
    assert found(view, log, data.draw(cuts_of(log))) == whole


@settings(max_examples=EXAMPLES // 2, deadline=None)
@given(cases(), st.sampled_from([1, 3]), st.sampled_from([0, 40]), st.sampled_from([2, 3]))
def test_how_rows_wait_and_are_merged_never_changes_results(
    case: tuple[WindowedView, list[Record], dict[int, bool]], waiting: int, merged: int, fan: int
) -> None:
    view, log, cuts = case
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(panes, "FLUSH_ROWS", waiting)
        patch.setattr(panes, "MERGED_ROWS", merged)
        patch.setattr(spans, "FAN", fan)
        assert found(view, log, cuts) == expected(view, log)


@settings(max_examples=EXAMPLES // 5, deadline=None)
@given(st.data())
def test_rows_follow_from_the_rule_whatever_the_log(data: st.DataObject) -> None:
    """Say what any output must fulfil, without computing one: the reference itself is held to it too."""
    view = data.draw(views(clickstream))
    for outcome in outcomes(view, data.draw(logs(view))):
        ends = [window.end_ms for window in outcome.windows]
        assert ends == sorted(set(ends))
        assert all(end % view.slide_ms == 0 for end in ends)
        assert all(end <= (view.closed_end_ms(outcome.watermark_ms) or 0) for end in ends)
        created = [row[2] for window in outcome.windows for row in window.rows]
        assert created == sorted(created)
        for window in outcome.windows:
            users = [row[0] for row in window.rows]
            assert users == sorted(set(users))


def outcomes(view: WindowedView, log: list[Record]) -> Iterator[Outcome]:
    yield found(view, log)
    yield expected(view, log)


@settings(max_examples=EXAMPLES, deadline=None)
@given(st.binary(max_size=200))
@example(b"")
def test_no_bytes_but_a_snapshot_restore(garbage: bytes) -> None:
    with pytest.raises(SnapshotError):
        WindowEngine.restore(user_click_features.source, [user_click_features], garbage)


def test_a_large_log_equals_the_reference() -> None:
    """Take 110,000 records of 40 users, the first window open until the 103,000th, disorder beyond the lateness."""
    count, noon = 110_000, 1_772_366_400_000
    view = replace(user_click_features, features={**user_click_features.features, "least": Min("price_cents")})
    number = pl.col("n")
    frame = pl.DataFrame({"n": range(count)}).select(
        kafka_timestamp=noon + number * 7 - number * 7919 % 5000,
        event_id=pl.format("e{}", number),
        user_id=pl.format("u{}", number * 31 % 40),
        event_type=pl.when(number % 3 == 0).then(pl.lit("purchase")).otherwise(pl.lit("view")),
        event_timestamp=noon + number * 7 - number * 104_729 % 400_000,
        product_id=pl.lit(None, pl.String),
        session_id=pl.lit(None, pl.String),
        price_cents=number % 1000,
    )
    # Each fiftieth record is the copy of one before it, some of them of one whose windows have closed.
    source = [max(0, n - n * 13 % 60_000 - 1) if n % 50 == 49 else n for n in range(count)]
    frame = frame[source]
    end = {"event_type": "heartbeat", "event_timestamp": noon + view.window_ms * 3, "kafka_timestamp": noon}
    records: list[Record] = [*frame.to_dicts(), {**dict.fromkeys(frame.columns), **end}]
    outcome = expected(view, records)
    assert sum(map(bool, outcome.missed)) > count // 100
    assert len(outcome.windows) == 9
    assert found(view, records) == outcome
    assert found(view, records, {20_000: False, 50_000: False, 80_000: False, 90_000: True}) == outcome


def test_a_long_window_equals_the_reference() -> None:
    """Windows of 144 panes over four days: spans of two levels, late records for all of them, a gap, and restarts."""
    count, noon, hour = 4_000, 1_772_366_400_000, 3_600_000
    view = replace(
        user_click_features,
        window=timedelta(hours=24),
        features={**user_click_features.features, "least": Min("price_cents"), "kinds": Strings("event_type")},
    )
    number = pl.col("n")
    gap = pl.when(number > count * 3 // 4).then(20 * hour).otherwise(0)
    late = pl.when(number % 4 == 0).then(number * 104_729 % (30 * hour)).otherwise(number * 7919 % 400_000)
    frame = pl.DataFrame({"n": range(count)}).select(
        kafka_timestamp=noon + number,
        event_id=pl.format("e{}", number),
        user_id=pl.format("u{}", number * 31 % 7),
        event_type=pl.when(number % 3 == 0).then(pl.lit("purchase")).otherwise(pl.lit("view")),
        event_timestamp=noon + number * 72_000 + gap - late,
        product_id=pl.lit(None, pl.String),
        session_id=pl.lit(None, pl.String),
        price_cents=number % 1000,
    )
    outcome = expected(view, records := frame.to_dicts())
    assert sum(map(bool, outcome.missed)) > count // 5
    assert len(outcome.windows) > 400
    assert found(view, records, dict.fromkeys(range(0, count, 40), False)) == outcome
    assert found(view, records, {number: number % 3 == 0 for number in range(0, count, 170)}) == outcome
