"""What a run says of itself: once a minute, at its end, and when most of what comes does not count."""

from __future__ import annotations

import logging
from collections import Counter

import polars as pl
import pytest

from feast_repo.features import user_click_features as view
from feast_repo.stores.progress import Progress
from stream.epoch import Epoch, Outcome
from stream.run_report import RunReport

NOON = 1_767_268_800_000  # 2026-01-01T12:00:00Z
MINUTE = 60_000


class Clock:
    def __init__(self) -> None:
        self.now_s = 1_000.0

    def __call__(self) -> float:
        return self.now_s


def epoch(messages: int, *, late: int = 0, uncounted: int = 0, **refused: int) -> Epoch:
    return Epoch(
        {view.name: view.panes_per_window},
        messages=messages,
        late=late,
        uncounted=uncounted,
        refused=Counter({name.replace("_", ":", 1): count for name, count in refused.items()}),
    )


def at(partition: int, watermark_ms: int) -> Progress:
    return Progress("clicks", partition, 1, watermark_ms)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def report(clock: Clock, caplog: pytest.LogCaptureFixture) -> RunReport:
    caplog.set_level(logging.INFO)
    report = RunReport(view.source, [view], clock)
    report.open_part()
    report.open_part()
    return report


def test_ignored_messages_are_counted_and_told(report: RunReport, caplog: pytest.LogCaptureFixture) -> None:
    counted = epoch(0)
    rows, letters = pl.DataFrame({"offset": [0]}), pl.DataFrame({"reason": ["empty"]})
    counted.take(Outcome("clickstream", at(0, NOON), rows, {}, letters, [], ignored=1_200), [])
    assert (counted.messages, counted.ignored) == (1_202, 1_200)
    report.received()
    report.stored(counted, [at(0, NOON)])
    for _ in range(2):
        report.close_part()
    assert "read 1,202 messages" in caplog.text
    assert "(1 empty) refused; 1,200 ignored" in caplog.text


def test_end_says_all(report: RunReport, clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    report.received()
    report.stored(epoch(300, late=20, uncounted=7, type_price_cents=2, missing_event_id=3), [at(0, NOON)])
    clock.now_s += 4
    report.stored(epoch(100, missing_event_id=1), [at(1, NOON - 9 * MINUTE)])
    clock.now_s += 30  # nothing came any more
    report.stored(epoch(0), [])
    report.close_part()
    assert not caplog.records
    report.close_part()
    (record,) = caplog.records
    assert record.message == (
        "clickstream: read 400 messages and stored 0 new feature rows; 20 late (7 of them counted in no window); "
        "6 (4 missing:event_id) refused; 4.0 s, 100 messages/s; lag 0 messages; event time 2026-01-01T11:53:00Z, "
        "the next window (2026-01-01T12:00:00Z) closes at 2026-01-01T12:02:00Z"
    )


def test_run_that_got_nothing_says_nothing(report: RunReport, caplog: pytest.LogCaptureFixture) -> None:
    report.stored(epoch(0), [])
    report.close_part()
    report.close_part()
    assert not caplog.records


def test_line_a_minute_tells_that_minute(report: RunReport, clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    report.received()
    for _ in range(5):
        clock.now_s += 15
        report.stored(epoch(10), [])
    assert [record.message.partition(" messages")[0] for record in caplog.records] == ["clickstream: in 60 s: read 40"]
    clock.now_s += 45
    report.stored(epoch(0), [])
    assert caplog.records[-1].message.startswith(
        "clickstream: in 60 s: read 10 messages and stored 0 new feature rows; none late"
    )


def test_most_refused_is_told_at_once_and_once_a_minute(
    report: RunReport, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    report.stored(epoch(10, not_json=5), [])
    assert not caplog.records
    report.stored(epoch(10, not_json=4, empty=2), [])
    report.stored(epoch(10, not_json=10), [])
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert record.message.startswith("most messages were refused: 6 (4 not:json) of 10; `python -m stream.dead_letters")
    clock.now_s += 60
    report.stored(epoch(10, not_json=10), [])
    assert sum(record.levelno == logging.WARNING for record in caplog.records) == 2


def test_most_late_is_told(report: RunReport, caplog: pytest.LogCaptureFixture) -> None:
    report.stored(epoch(10, late=5), [])
    assert not caplog.records
    report.stored(epoch(10, late=6, uncounted=4), [])
    assert caplog.records[0].message.startswith("most messages were late: 6 of 10, 4 of them counted in no window")
