"""The rule of windows, case by case. Times in the timelines are minutes, `|` are window ends, `W` is the watermark."""

from __future__ import annotations

import uuid
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest

from feast_repo.clickstream import YEAR_2000_MS, clickstream
from feast_repo.declare.algebra import Count, Max, Min, Ratio, Sum, field
from feast_repo.declare.events import UTC_MICROSECONDS
from feast_repo.declare.views import WindowedView
from feast_repo.features import user, user_click_features
from stream import windows
from stream.windows import SnapshotError, WindowEngine
from tests.declared import on_stream
from tests.stream.reference import Record, records_frame

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stream.windows import Processed

MINUTE = 60_000
NOON = int(datetime(2026, 3, 1, 12, tzinfo=UTC).timestamp()) * 1000
"""Minute 0 of every timeline; a multiple of each slide that is used here."""

VIEW = WindowedView(
    name="clicks",
    entity=user,
    source=replace(clickstream, event_id=None),
    push_source="clicks_push",
    window=timedelta(minutes=60),
    slide=timedelta(minutes=10),
    ttl=timedelta(hours=24),
    features={"views": Count(where=field("event_type") == "view")},
)
TUMBLING = replace(VIEW, window=VIEW.slide)
"""One pane a window, so that each record is in one window and tables stay small."""

PRICES = replace(
    VIEW,
    features={
        "cheap_rate": Ratio("cheap", "bought"),
        "bought": Count(where=field("event_type") == "purchase"),
        "cheap": Count(where=(field("event_type") == "purchase") & (field("price_cents") < 1000)),
        "price_cents": Sum("price_cents"),
        "least": Min("price_cents", where=field("event_type") == "purchase"),
        "most": Max("price_cents", where=field("event_type") == "purchase"),
        "least_rate": Ratio("least", "most"),
    },
)


def at(minute: float, who: str = "u1", kind: str = "view", *, price: int | None = None, kafka: float = 0) -> Record:
    """Make a record at a minute of the timeline; `kafka` is the minute at which the broker took it."""
    return {
        "event_id": uuid.uuid4().hex,
        "user_id": who,
        "event_type": kind,
        "event_timestamp": NOON + round(minute * MINUTE),
        "product_id": None,
        "session_id": None,
        "price_cents": price,
        "kafka_timestamp": NOON + round(kafka * MINUTE),
    }


def beat(minute: float, *, kafka: float = 0) -> Record:
    """Make a heartbeat: it carries time and nothing else."""
    return {**at(minute, kind="heartbeat", kafka=kafka), "user_id": None}


def feed(engine: WindowEngine, *records: Record) -> Processed:
    return engine.process(records_frame(clickstream, records))


def minute_of(moment: datetime) -> float:
    return (moment.timestamp() * 1000 - NOON) / MINUTE


def table(*results: Processed) -> list[tuple[Any, ...]]:
    """List the rows of all closed windows as (end in minutes, user, features...)."""
    found = []
    for window in (window for result in results for window in result.windows):
        for who, end, _, *features in window.rows.rows():
            assert minute_of(end) == (window.end_ms - NOON) / MINUTE
            found.append((minute_of(end), who, *features))
    return found


def created(result: Processed) -> list[tuple[float, float]]:
    """List (end, created) of all rows in minutes."""
    rows = [row for window in result.windows for row in window.rows.rows()]
    return [(minute_of(row[1]), minute_of(row[2])) for row in rows]


def missed(result: Processed) -> list[int]:
    (missed,) = result.missed.values()
    return list(map(int, missed))


def seen(result: Processed) -> list[float | None]:
    """List the watermark that each record saw, in minutes."""
    return [None if value is None else (value - NOON) / MINUTE for value in result.records["watermark"]]


def closing_times(engine: WindowEngine) -> tuple[float, float]:
    """Give the watermark and the last closed end in minutes."""
    assert engine.watermark_ms is not None
    closed_ms = VIEW.closed_end_ms(engine.watermark_ms)
    assert closed_ms is not None
    return (engine.watermark_ms - NOON) / MINUTE, (closed_ms - NOON) / MINUTE


def test_before_the_first_record_there_is_no_watermark() -> None:
    engine = WindowEngine(VIEW.source, [VIEW])
    assert engine.watermark_ms is None


def test_first_record_sees_no_watermark_and_misses_nothing() -> None:
    # 0 ... 5x ... |10      W = 3
    engine = WindowEngine(VIEW.source, [VIEW])
    result = feed(engine, at(5))
    assert seen(result) == [None]
    assert missed(result) == [0]
    assert result.windows == []
    assert closing_times(engine) == (3, 0)


def test_window_closes_exactly_when_the_watermark_reaches_its_end() -> None:
    # 5x ... |10 . 12-1ms     W = 10-1ms: open
    #        |10 . 12         W = 10: closed
    engine = WindowEngine(TUMBLING.source, [TUMBLING])
    feed(engine, at(5))
    assert table(feed(engine, beat(12 - 1 / MINUTE))) == []
    assert closing_times(engine)[1] == 0
    assert table(feed(engine, beat(12))) == [(10, "u1", 1)]
    assert closing_times(engine) == (10, 10)


def test_record_on_a_window_end_belongs_to_the_next_window() -> None:
    # 0x --- 10-1ms x |10x --- 20-1ms x |20x     [0, 10) [10, 20)
    engine = WindowEngine(TUMBLING.source, [TUMBLING])
    result = feed(engine, at(0), at(10 - 1 / MINUTE), at(10), at(20 - 1 / MINUTE), at(20), beat(100))
    assert table(result) == [(10, "u1", 2), (20, "u1", 2), (30, "u1", 1), (40, "u1", 0)]


def test_record_counts_in_six_windows_and_expires_in_the_seventh() -> None:
    # 5x |10 |20 |30 |40 |50 |60 |70: zeros, once   |80: nothing
    result = feed(WindowEngine(VIEW.source, [VIEW]), at(5), beat(200))
    assert table(result) == [*((end, "u1", 1) for end in range(10, 61, 10)), (70, "u1", 0)]


def test_disorder_within_the_lateness_costs_nothing() -> None:
    # order of arrival: 11, 9, 11.5, 8      W <= 9.5, so |10 is open
    result = feed(WindowEngine(TUMBLING.source, [TUMBLING]), at(11), at(9), at(11.5), at(8), beat(30))
    assert missed(result) == [0, 0, 0, 0, 0]
    assert seen(result) == [None, 9, 9, 9.5, 9.5]
    assert table(result) == [(10, "u1", 2), (20, "u1", 2)]


def test_partially_late_record_counts_in_open_windows_only() -> None:
    # 5x  32 -> W = 30: |10 |20 |30 closed      then 6x: misses three, counts in |40 |50 |60
    engine = WindowEngine(VIEW.source, [VIEW])
    before = feed(engine, at(5), beat(32))
    late = feed(engine, at(6))
    assert missed(late) == [3]
    assert seen(late) == [30]
    after = feed(engine, beat(200))
    ones, twos = ((end, "u1", 1) for end in (10, 20, 30)), ((end, "u1", 2) for end in (40, 50, 60))
    assert table(before, late, after) == [*ones, *twos, (70, "u1", 0)]


def test_fully_late_record_counts_nowhere_but_stays_in_the_records() -> None:
    # 5x  62 -> W = 60: six windows closed      then 9x misses all of them
    engine = WindowEngine(VIEW.source, [VIEW])
    feed(engine, at(5), beat(62))
    late = feed(engine, at(9))
    assert missed(late) == [6]
    assert late.records.height == 1
    assert table(late, feed(engine, beat(300))) == [(70, "u1", 0)]


def test_late_record_does_not_move_the_watermark() -> None:
    engine = WindowEngine(VIEW.source, [VIEW])
    feed(engine, at(45))
    feed(engine, at(1))
    assert closing_times(engine) == (43, 40)


def test_late_only_user_gets_rows_from_the_first_open_window() -> None:
    # 42 -> W = 40, nobody counted       then u2 at 6: in |50 |60, expired in |70
    engine = WindowEngine(VIEW.source, [VIEW])
    assert feed(engine, beat(42)).windows == []
    late = feed(engine, at(6, "u2"))
    assert missed(late) == [4]
    assert table(late, feed(engine, beat(200))) == [(50, "u2", 1), (60, "u2", 1), (70, "u2", 0)]


def test_fully_late_user_gets_no_rows_at_all() -> None:
    engine = WindowEngine(VIEW.source, [VIEW])
    results = [feed(engine, beat(100)), feed(engine, at(6, "u2")), feed(engine, beat(300))]
    assert table(*results) == []


def test_fully_late_user_does_not_expire_from_a_window_that_never_counted_it() -> None:
    # W = 10: |10 is closed      u2 5x: too late for |10      W = 20: |20 has no row of u2
    result = feed(WindowEngine(TUMBLING.source, [TUMBLING]), at(3), beat(12), at(5, "u2"), beat(22))
    assert missed(result) == [0, 0, 1, 0]
    assert table(result) == [(10, "u1", 1), (20, "u1", 0)]


def test_user_who_comes_back_after_expiry_expires_again() -> None:
    # 5x |10 |20: zeros     |30 |40: nothing     45x |50 |60: zeros
    result = feed(WindowEngine(TUMBLING.source, [TUMBLING]), at(5), at(45), beat(100))
    assert table(result) == [(10, "u1", 1), (20, "u1", 0), (50, "u1", 1), (60, "u1", 0)]


def test_user_who_comes_back_in_the_very_next_window_does_not_expire() -> None:
    # 5x |10 15x |20 |30: zeros
    result = feed(WindowEngine(TUMBLING.source, [TUMBLING]), at(5), at(15), beat(100))
    assert table(result) == [(10, "u1", 1), (20, "u1", 1), (30, "u1", 0)]


def test_late_record_after_the_expiry_row_makes_no_row() -> None:
    # 5x |10 |20: zeros (W = 20)      then 6x: fully late
    engine = WindowEngine(TUMBLING.source, [TUMBLING])
    results = [feed(engine, at(5), beat(22)), feed(engine, at(6)), feed(engine, beat(100))]
    assert table(*results) == [(10, "u1", 1), (20, "u1", 0)]


def test_user_without_a_matching_event_still_has_a_counted_row() -> None:
    # A click counts its user in, though no feature counts clicks; only |70 is an expiry row.
    result = feed(WindowEngine(VIEW.source, [VIEW]), at(5, kind="click"), beat(200))
    assert table(result) == [(end, "u1", 0) for end in range(10, 71, 10)]


def test_expiry_rows_of_some_users_among_counted_rows_of_others() -> None:
    # u3: 5x 15x     u1: 8x     u2: 15x      |10: u1 u3   |20: u1 gone, u2 u3   |30: u2 u3 gone
    result = feed(
        WindowEngine(TUMBLING.source, [TUMBLING]), at(5, "u3"), at(8, "u1"), at(15, "u2"), at(15, "u3"), beat(50)
    )
    assert missed(result) == [0, 0, 0, 0, 0]
    tens = [(10, "u1", 1), (10, "u3", 1)]
    assert table(result) == [*tens, (20, "u1", 0), (20, "u2", 1), (20, "u3", 1), (30, "u2", 0), (30, "u3", 0)]


def test_rows_are_sorted_by_user_as_code_points() -> None:
    names = ["b", "a", "ä", "Z", "\U0001f600", "\uffff", "aa"]
    result = feed(WindowEngine(TUMBLING.source, [TUMBLING]), *(at(5, name) for name in names), beat(12))
    assert [row[1] for row in table(result)] == sorted(names)


def test_heartbeats_close_windows_and_count_nowhere() -> None:
    # h1  5x  h12 -> |10      h22 -> |20: zeros
    engine = WindowEngine(TUMBLING.source, [TUMBLING])
    result = feed(engine, beat(1), at(5), beat(12), beat(22))
    assert table(result) == [(10, "u1", 1), (20, "u1", 0)]
    assert result.records.height == 4
    assert missed(result) == [0, 0, 0, 0]


def test_late_heartbeat_misses_no_windows() -> None:
    engine = WindowEngine(VIEW.source, [VIEW])
    result = feed(engine, at(100), beat(1))
    assert missed(result) == [0, 0]
    assert closing_times(engine) == (98, 90)


def test_heartbeats_alone_close_nothing_that_has_rows() -> None:
    engine = WindowEngine(VIEW.source, [VIEW])
    assert feed(engine, beat(1), beat(500)).windows == []
    assert closing_times(engine) == (498, 490)


DEDUPLICATED = on_stream(VIEW, event_id="event_id")


def test_a_copy_of_an_event_counts_nowhere_and_is_not_late() -> None:
    """Put a click at 5, its copy at once, and another copy when one of its windows has closed.

    |5 5 . . . |12 . . . 5 |     W: 10 when the last copy comes
    """
    engine = WindowEngine(DEDUPLICATED.source, [DEDUPLICATED])
    click = at(5)
    first = feed(engine, click, click, at(12), click)
    assert missed(first) == [0, 0, 0, 0]
    assert table(first, feed(engine, beat(73)))[:2] == [(10, "u1", 1), (20, "u1", 2)]


@pytest.mark.parametrize(("reached", "misses"), [(62, 0), (76.999, 0), (77, 6)])
def test_a_copy_beyond_the_horizon_is_late(reached: float, misses: int) -> None:
    # 5x  W = 60, 74.999, 75     the horizon: a window and a slide after 5, so 75
    click = at(5)
    engine = WindowEngine(DEDUPLICATED.source, [DEDUPLICATED])
    assert missed(feed(engine, click, beat(reached), click)) == [0, 0, misses]


def test_a_declared_horizon_decides_which_copies_count() -> None:
    # 5x  7  5x: W = 5, not below 5 + 0.5      |10
    view = on_stream(DEDUPLICATED, deduplication_horizon=timedelta(seconds=30))
    click = at(5)
    assert table(feed(WindowEngine(view.source, [view]), click, click, beat(12)))[0] == (10, "u1", 1)
    assert table(feed(WindowEngine(view.source, [view]), click, beat(7.5), click, beat(12)))[0] == (10, "u1", 2)


def test_same_id_at_another_time_is_another_event() -> None:
    engine = WindowEngine(DEDUPLICATED.source, [DEDUPLICATED])
    click = at(5)
    assert table(feed(engine, click, {**at(6), "event_id": click["event_id"]}, beat(12))) == [(10, "u1", 2)]


def test_copies_are_found_after_a_restart() -> None:
    engine = WindowEngine(DEDUPLICATED.source, [DEDUPLICATED])
    click, other = at(5), at(15)
    feed(engine, click, other)
    engine = WindowEngine.restore(DEDUPLICATED.source, [DEDUPLICATED], engine.snapshot())
    assert table(feed(engine, other, click, beat(22))) == [(20, "u1", 2)]


def test_without_deduplicate_copies_count() -> None:
    click = at(5)
    assert table(feed(WindowEngine(VIEW.source, [VIEW]), click, click, beat(12))) == [(10, "u1", 2)]


def test_ids_of_dead_panes_are_let_go() -> None:
    engine = WindowEngine(DEDUPLICATED.source, [DEDUPLICATED])
    feed(engine, *(at(minute) for minute in range(60)))
    full = len(engine.snapshot())
    feed(engine, beat(600))
    assert len(engine.snapshot()) < full


def test_ids_that_were_hashed_otherwise_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    snapshot = WindowEngine(DEDUPLICATED.source, [DEDUPLICATED]).snapshot()
    monkeypatch.setattr(windows, "HASHING", "of another version of Polars")
    with pytest.raises(SnapshotError, match="Polars"):
        WindowEngine.restore(DEDUPLICATED.source, [DEDUPLICATED], snapshot)


def test_created_is_the_greatest_kafka_time_up_to_the_closing_record() -> None:
    # Kafka times 7, 3, 5: the heartbeat that closes |10 came with 3, and 7 had been seen; 9 comes too late to matter.
    engine = WindowEngine(TUMBLING.source, [TUMBLING])
    result = feed(engine, at(5, kafka=7), beat(12, kafka=3), beat(22, kafka=5), beat(23, kafka=9))
    assert created(result) == [(10, 7), (20, 7)]


def test_created_counts_the_closing_record_itself() -> None:
    result = feed(
        WindowEngine(TUMBLING.source, [TUMBLING]), at(5, kafka=1), beat(12, kafka=4), at(13, kafka=2), beat(32, kafka=8)
    )
    assert created(result) == [(10, 4), (20, 8), (30, 8)]


def test_created_remembers_late_records_and_earlier_batches() -> None:
    # The greatest Kafka time came with a record that counted nowhere, in an earlier batch.
    engine = WindowEngine(TUMBLING.source, [TUMBLING])
    feed(engine, at(45, kafka=1), at(2, kafka=30), at(46, kafka=3))
    engine = WindowEngine.restore(TUMBLING.source, [TUMBLING], engine.snapshot())
    assert created(feed(engine, beat(52, kafka=5))) == [(50, 30)]


def test_windows_that_one_record_closes_share_its_created_time() -> None:
    result = feed(WindowEngine(VIEW.source, [VIEW]), at(5, kafka=1), beat(42, kafka=2), beat(80, kafka=3))
    assert created(result) == [(10, 2), (20, 2), (30, 2), (40, 2), (50, 3), (60, 3), (70, 3)]


def test_several_closings_in_one_batch_split_it_at_the_right_records() -> None:
    # 1x 12x(W 10) 3x(late) 22x(W 20) 13x(late) 19x(late) 25x
    result = feed(
        WindowEngine(TUMBLING.source, [TUMBLING]), at(1), at(12), at(3), at(22), at(13), at(19), at(25), beat(60)
    )
    assert missed(result) == [0, 0, 1, 0, 1, 1, 0, 0]
    assert table(result) == [(10, "u1", 1), (20, "u1", 1), (30, "u1", 2), (40, "u1", 0)]


def test_windows_come_in_order_of_end_and_only_with_rows() -> None:
    result = feed(WindowEngine(TUMBLING.source, [TUMBLING]), at(5), at(55, "u2"), at(34, "u3"), beat(100))
    assert [(window.end_ms - NOON) // MINUTE for window in result.windows] == [10, 20, 60, 70]
    assert all(window.rows.height for window in result.windows)


@pytest.mark.timeout(30)
def test_gaps_of_years_are_skipped_not_stepped_through() -> None:
    # 2000-01-01 x      7,999 years (420 million slides)      9999-12-31 x
    first, last = YEAR_2000_MS, int(datetime(9999, 12, 31, tzinfo=UTC).timestamp()) * 1000
    engine = WindowEngine(VIEW.source, [VIEW])
    result = feed(engine, {**at(0), "event_timestamp": first}, {**at(0), "event_timestamp": last})
    ends = [(window.end_ms - first) // (10 * MINUTE) for window in result.windows]
    assert ends == [1, 2, 3, 4, 5, 6, 7]
    assert VIEW.closed_end_ms(engine.watermark_ms) == last - 10 * MINUTE
    assert missed(feed(engine, {**at(0), "event_timestamp": first + 1})) == [6]


@pytest.mark.timeout(30)
def test_slide_of_a_millisecond_over_a_gap_of_a_year() -> None:
    view = replace(VIEW, window=timedelta(milliseconds=2), slide=timedelta(milliseconds=1))
    result = feed(WindowEngine(view.source, [view]), at(0), at(365 * 24 * 60), beat(366 * 24 * 60))
    assert [window.end_ms - NOON for window in result.windows][:3] == [1, 2, 3]
    assert [row[2] for row in table(result)] == [1, 1, 0, 1, 1, 0]


def test_times_from_2000_to_far_ahead_are_exact_to_the_millisecond() -> None:
    engine = WindowEngine(TUMBLING.source, [TUMBLING])
    far = int(datetime(9998, 7, 1, tzinfo=UTC).timestamp()) * 1000
    result = feed(
        engine,
        {**at(0), "event_timestamp": YEAR_2000_MS, "kafka_timestamp": YEAR_2000_MS + 1},
        {**at(0), "event_timestamp": far + 123, "kafka_timestamp": far - 1},
        {**beat(0), "event_timestamp": far + 12 * MINUTE, "kafka_timestamp": far + 7},
    )
    rows = [row for window in result.windows for row in window.rows.rows()]
    assert [(row[1], row[2]) for row in rows] == [
        (datetime(2000, 1, 1, 0, 10, tzinfo=UTC), datetime(9998, 6, 30, 23, 59, 59, 999_000, tzinfo=UTC)),
        (datetime(2000, 1, 1, 0, 20, tzinfo=UTC), datetime(9998, 6, 30, 23, 59, 59, 999_000, tzinfo=UTC)),
        (datetime(9998, 7, 1, 0, 10, tzinfo=UTC), datetime(9998, 7, 1, 0, 0, 0, 7_000, tzinfo=UTC)),
    ]


def test_a_producers_clock_in_the_year_2500_counts_a_day_ahead_at_most() -> None:
    # 5x (year 2500)   15x: closes |10, created 5 + a day     25x: closes |20, the same     2 days later: its own time
    far, day = int(datetime(2500, 1, 1, tzinfo=UTC).timestamp()) * 1000, 24 * 60
    records = [{**at(5), "kafka_timestamp": far, "create_time": True}, at(15), at(25), at(2 * day, kafka=2 * day)]
    engine = WindowEngine(TUMBLING.source, [TUMBLING])
    halves = [feed(engine, *part) for part in (records[:2], records[2:])]
    created = [
        (minute_of(row[1]), minute_of(row[2]))
        for half in halves
        for window in half.windows
        for row in window.rows.rows()
    ]
    assert created == [(10, 5 + day), (20, 5 + day), (30, 2 * day), (40, 2 * day)]
    trusted = feed(WindowEngine(TUMBLING.source, [TUMBLING]), {**records[0], "create_time": False}, at(15))
    assert [row[2].year for window in trusted.windows for row in window.rows.rows()] == [2500]


def test_lateness_zero_closes_as_soon_as_time_reaches_the_end() -> None:
    # 5x |10x: closes |10 and is itself in |20      9x: late
    strict = on_stream(TUMBLING, allowed_lateness=timedelta(0))
    engine = WindowEngine(strict.source, [strict])
    result = feed(engine, at(5), at(10), at(9))
    assert table(result) == [(10, "u1", 1)]
    assert missed(result) == [0, 0, 1]


def test_lateness_longer_than_the_window_keeps_many_windows_open() -> None:
    # lateness 180: 5x ... 185x: W = 5      then 6x: in time for all six
    patient = on_stream(VIEW, allowed_lateness=timedelta(hours=3))
    engine = WindowEngine(patient.source, [patient])
    result = feed(engine, at(5), at(185), at(6), beat(600))
    assert missed(result) == [0, 0, 0, 0]
    assert table(result)[:7] == [*((end, "u1", 2) for end in range(10, 61, 10)), (70, "u1", 0)]
    assert table(result)[7:] == [*((end, "u1", 1) for end in range(190, 241, 10)), (250, "u1", 0)]


def test_windows_of_24_panes() -> None:
    # a day sliding by the hour: 30 min x |1h ... |24h |25h: zeros;  a record at 2 h, after W = 20 h, misses 18
    view = replace(VIEW, window=timedelta(days=1), slide=timedelta(hours=1))
    engine = WindowEngine(view.source, [view])
    result = feed(engine, at(30), beat(20 * 60 + 2), at(2 * 60, "u2"), beat(60 * 60))
    assert missed(result) == [0, 0, 18, 0]
    assert [row for row in table(result) if row[1] == "u1"] == [
        *((60 * hour, "u1", 1) for hour in range(1, 25)),
        (1500, "u1", 0),
    ]
    assert [row for row in table(result) if row[1] == "u2"] == [
        *((60 * hour, "u2", 1) for hour in range(21, 27)),
        (1620, "u2", 0),
    ]


def test_features_and_their_empty_values_in_expiry_rows() -> None:
    # purchases at 5 (300) and 15 (2000), a view of price 70 at 16     |10 ... |80: all gone
    records = [
        at(5, kind="purchase", price=300),
        at(15, kind="purchase", price=2000),
        at(16, kind="view", price=70),
        at(17, kind="purchase"),
        beat(200),
    ]
    result = feed(WindowEngine(PRICES.source, [PRICES]), *records)
    both = (1 / 3, 3, 1, 2370, 300, 2000, 300 / 2000)
    assert table(result) == [
        (10, "u1", 1.0, 1, 1, 300, 300, 300, 1.0),
        *((end, "u1", *both) for end in (20, 30, 40, 50, 60)),
        (70, "u1", 0.0, 2, 0, 2070, 2000, 2000, 1.0),
        (80, "u1", 0.0, 0, 0, 0, None, None, 0.0),
    ]


def test_ratio_is_zero_where_its_denominator_is() -> None:
    # a cart without a view: cart_rate = 1 / 0 = 0.0
    result = feed(WindowEngine(user_click_features.source, [user_click_features]), at(5, kind="add_to_cart"), beat(12))
    row = result.windows[0].rows.row(0, named=True)
    assert (row["cart_count"], row["view_count"], row["cart_rate"]) == (1, 0, 0.0)


def test_condition_may_ask_for_key_and_time() -> None:
    only = replace(
        TUMBLING, features={"n": Count(where=(field("user_id") == "u1") & (field("event_timestamp") > NOON))}
    )
    assert table(feed(WindowEngine(only.source, [only]), at(0), at(5), at(5, "u2"), beat(12))) == [
        (10, "u1", 1),
        (10, "u2", 0),
    ]


def test_sums_wrap_like_the_integer_they_are_stored_in() -> None:
    view = replace(TUMBLING, features={"total": Sum("price_cents")})
    result = feed(WindowEngine(view.source, [view]), at(5, price=2**63 - 1), at(6, price=2), beat(12))
    assert table(result) == [(10, "u1", -(2**63) + 1)]


def test_sums_outgrow_the_integers_that_their_parts_are_kept_in() -> None:
    # 100 x, 100 x | 100 x: a count of 100 fits 8 bits and a sum of 2e9 fits 32; those of a pane and of a window don't
    view = replace(VIEW, features={"n": Count(), "total": Sum("price_cents"), "most": Max("price_cents")})
    engine = WindowEngine(view.source, [view])
    for minute in (0, 5, 10):
        feed(engine, *(at(minute, price=20_000_000 + minute) for _ in range(100)))
        engine = WindowEngine.restore(view.source, [view], engine.snapshot())
    result = table(feed(engine, beat(22)))
    assert result == [(10, "u1", 200, 4_000_000_500, 20_000_005), (20, "u1", 300, 6_000_001_500, 20_000_010)]


@pytest.mark.parametrize("view", [VIEW, PRICES, user_click_features], ids=lambda view: str(view.name))
def test_row_columns_and_types_are_those_of_the_declaration(view: WindowedView) -> None:
    expected = {
        "user_id": pl.String(),
        "event_timestamp": UTC_MICROSECONDS,
        "created_timestamp": UTC_MICROSECONDS,
        **{name: pl.Float64() if kind == "Float64" else pl.Int64() for name, kind in view.value_types.items()},
    }
    result = feed(WindowEngine(view.source, [view]), at(5), at(35, "u2"), beat(300))
    assert len(result.windows) == 14 - 4
    for window in result.windows:
        assert list(window.rows.schema.items()) == list(expected.items())


def test_records_come_back_as_they_came_with_their_watermark() -> None:
    frame = records_frame(clickstream, [at(5), beat(6), at(1, "u2", price=7)]).with_columns(extra=pl.lit("x"))
    result = WindowEngine(VIEW.source, [VIEW]).process(frame)
    assert result.records.columns == [*frame.columns, "watermark"]
    assert result.records.select(frame.columns).equals(frame)
    assert result.records.schema["watermark"] == pl.Int64()


@pytest.mark.parametrize("after", [(), (at(5),)], ids=["fresh", "running"])
def test_empty_batch_changes_nothing(after: tuple[Record, ...]) -> None:
    engine = WindowEngine(VIEW.source, [VIEW])
    feed(engine, *after)
    before = engine.watermark_ms
    result = feed(engine)
    assert result.windows == []
    assert result.records.height == 0
    assert result.records.schema["watermark"] == pl.Int64()
    assert engine.watermark_ms == before


def test_end_of_input_closes_nothing() -> None:
    engine = WindowEngine(VIEW.source, [VIEW])
    assert feed(engine, at(5)).windows == []
    assert feed(engine).windows == []


# --- Snapshots


def test_snapshot_of_a_fresh_engine_restores_to_one() -> None:
    engine = WindowEngine.restore(VIEW.source, [VIEW], WindowEngine(VIEW.source, [VIEW]).snapshot())
    assert engine.watermark_ms is None
    assert seen(feed(engine, at(5))) == [None]


def test_restored_engine_goes_on_as_if_nothing_had_happened() -> None:
    # 5x 8x(u2) 32 -> |30     snapshot     6x(late: 3) 48x(u2) ... expiry of both
    engine = WindowEngine(PRICES.source, [PRICES])
    feed(engine, at(5, kind="purchase", price=5, kafka=9), at(8, "u2"), beat(32))
    restored = WindowEngine.restore(PRICES.source, [PRICES], engine.snapshot())
    assert closing_times(restored) == closing_times(engine) == (30, 30)
    rest = [at(6, kind="purchase", price=3, kafka=1), at(48, "u2"), beat(200)]
    old, new = feed(engine, *rest), feed(restored, *rest)
    assert missed(new) == missed(old) == [3, 0, 0]
    assert created(new) == created(old)
    assert table(new) == table(old)
    assert [row[:2] for row in table(new) if row[1] == "u1"] == [(end, "u1") for end in (40, 50, 60, 70)]


def test_expiry_survives_a_restart_between_the_two_windows() -> None:
    # 5x |10 (W = 10)     snapshot     |20: zeros, once
    engine = WindowEngine(TUMBLING.source, [TUMBLING])
    feed(engine, at(5), beat(12))
    engine = WindowEngine.restore(TUMBLING.source, [TUMBLING], engine.snapshot())
    assert table(feed(engine, beat(22))) == [(20, "u1", 0)]
    engine = WindowEngine.restore(TUMBLING.source, [TUMBLING], engine.snapshot())
    assert table(feed(engine, beat(100))) == []


def test_snapshots_add_up_what_came_before_and_after_them() -> None:
    # ten users at 5   snapshot   u1 at 6   snapshot and restart   u2 at 7   |10: u1 and u2 have two views
    engine = WindowEngine(TUMBLING.source, [TUMBLING])
    names = [f"u{number}" for number in range(10)]
    feed(engine, *(at(5, who) for who in names))
    engine.snapshot()
    feed(engine, at(6, "u1"))
    engine = WindowEngine.restore(TUMBLING.source, [TUMBLING], engine.snapshot())
    result = feed(engine, at(7, "u2"), beat(12))
    assert table(result) == [(10, who, 2 if who in {"u1", "u2"} else 1) for who in names]


def test_snapshot_is_a_value_of_its_moment() -> None:
    engine = WindowEngine(TUMBLING.source, [TUMBLING])
    feed(engine, at(5))
    snapshot = engine.snapshot()
    assert isinstance(snapshot, bytes)
    feed(engine, at(6), beat(500))
    assert table(feed(WindowEngine.restore(TUMBLING.source, [TUMBLING], snapshot), beat(12))) == [(10, "u1", 1)]


def test_taking_a_snapshot_changes_nothing() -> None:
    engine = WindowEngine(TUMBLING.source, [TUMBLING])
    feed(engine, at(5))
    assert engine.snapshot() == engine.snapshot()
    assert table(feed(engine, beat(12))) == [(10, "u1", 1)]


@pytest.mark.parametrize(
    "other",
    [
        on_stream(VIEW, allowed_lateness=timedelta(minutes=3)),
        replace(VIEW, slide=timedelta(minutes=20)),
        replace(VIEW, window=timedelta(minutes=30)),
        replace(VIEW, features={"views": Count(where=field("event_type") == "click")}),
        replace(VIEW, features={"views": Count()}),
        replace(VIEW, features={**VIEW.features, "more": Sum("price_cents")}),
        replace(VIEW, features={"renamed": VIEW.features["views"]}),
    ],
    ids=["lateness", "slide", "window", "condition", "no condition", "one more", "renamed"],
)
def test_snapshot_of_another_declaration_is_refused(other: WindowedView) -> None:
    engine = WindowEngine(VIEW.source, [VIEW])
    feed(engine, at(5))
    with pytest.raises(SnapshotError, match=r"\S") as caught:
        WindowEngine.restore(other.source, [other], engine.snapshot())
    assert "\n" not in str(caught.value)


def test_declarations_that_hold_the_same_state_share_snapshots() -> None:
    # A new ratio and a new description need no new state: the restored engine computes them at once.
    engine = WindowEngine(VIEW.source, [VIEW])
    feed(engine, at(5))
    other = replace(VIEW, description="new", features={**VIEW.features, "rate": Ratio("views", "views")})
    assert table(feed(WindowEngine.restore(other.source, [other], engine.snapshot()), beat(12))) == [(10, "u1", 1, 1.0)]


def test_snapshot_of_another_version_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(windows, "STATE_VERSION", windows.STATE_VERSION + 1)
        snapshot = WindowEngine(VIEW.source, [VIEW]).snapshot()
    with pytest.raises(SnapshotError, match="version"):
        WindowEngine.restore(VIEW.source, [VIEW], snapshot)


@pytest.mark.parametrize("garbage", [b"", b"\0", b"{}", b"garbage" * 100, bytes(range(256))], ids=repr)
def test_garbage_is_refused(garbage: bytes) -> None:
    with pytest.raises(SnapshotError):
        WindowEngine.restore(VIEW.source, [VIEW], garbage)


def test_truncated_snapshot_is_refused_wherever_it_was_cut() -> None:
    engine = WindowEngine(VIEW.source, [VIEW])
    feed(engine, at(5), at(7, "u2"), beat(12))
    snapshot = engine.snapshot()
    for length in range(0, len(snapshot), max(1, len(snapshot) // 200)):
        with pytest.raises(SnapshotError):
            WindowEngine.restore(VIEW.source, [VIEW], snapshot[:length])


def test_damaged_snapshot_is_refused_wherever_the_damage_is() -> None:
    # A flipped bit must neither crash the restart in some other way nor change a count unseen.
    engine = WindowEngine(VIEW.source, [VIEW])
    feed(engine, at(5), at(7, "u2"), beat(12))
    snapshot = engine.snapshot()
    for position in range(0, len(snapshot), 11):
        damaged = bytearray(snapshot)
        damaged[position] ^= 1
        with pytest.raises(SnapshotError):
            WindowEngine.restore(VIEW.source, [VIEW], bytes(damaged))


def test_snapshot_error_is_a_value_error() -> None:
    assert issubclass(SnapshotError, ValueError)


def _state_size(users: Sequence[str]) -> int:
    engine = WindowEngine(VIEW.source, [VIEW])
    feed(engine, *(at(5, who) for who in users), beat(71 + 2))
    return len(engine.snapshot())


def test_state_of_expired_users_is_let_go() -> None:
    # After |70 nobody's record is in an open window and nobody waits for an expiry row.
    assert _state_size([f"user_{number:06}" for number in range(300)]) <= _state_size(["u"]) + 8


def test_bytes_held_are_those_of_rows_and_ids() -> None:
    engine = WindowEngine(DEDUPLICATED.source, [DEDUPLICATED])
    assert engine.nbytes == (0, 0)
    feed(engine, at(5, "short"), at(6, "short"), at(7, "longer than twelve"))
    engine = WindowEngine.restore(DEDUPLICATED.source, [DEDUPLICATED], engine.snapshot())
    assert engine.nbytes == (16 + 1 + 16 + 18 + 1, 3 * 16)  # a row: 16 bytes, its long id, a count of one byte
    feed(engine, beat(82))
    assert engine.nbytes == (0, 16)  # the heartbeat's own id


def test_snapshot_survives_another_order_of_the_features() -> None:
    engine = WindowEngine(VIEW.source, [VIEW])
    feed(engine, at(5), at(7, "u2"))
    reordered = replace(VIEW, features=dict(reversed(list(VIEW.features.items()))))
    restored = WindowEngine.restore(reordered.source, [reordered], engine.snapshot())
    feed(restored, at(6))
    WindowEngine.restore(reordered.source, [reordered], restored.snapshot())
    [window] = feed(restored, beat(12)).windows
    assert window.rows["user_id"].to_list() == ["u1", "u2"]
    assert window.rows.columns[3:] == list(reordered.features)
