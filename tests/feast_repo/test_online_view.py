"""Two ways to write rows online; neither replaces a newer row, and the second isn't disturbed by others' writes."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import polars as pl

from feast_repo.features import user_click_features
from feast_repo.stores.online.view import OnlineView
from sandbox.checks import online_rows

if TYPE_CHECKING:
    from feast import FeatureStore

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
USERS = [f"user_{number:06d}" for number in range(3_000)]


def rows(minute: int) -> pl.DataFrame:
    """A row of every user, with the minute as each value."""
    return pl.DataFrame(
        {
            "user_id": USERS,
            "event_timestamp": pl.Series([NOON + timedelta(minutes=minute)] * len(USERS)).dt.cast_time_unit("us"),
            **{
                name: [float(minute) if kind == "Float64" else minute] * len(USERS)
                for name, kind in user_click_features.value_types.items()
            },
        }
    )


def view_of(store: FeatureStore) -> OnlineView:
    return OnlineView(store, store.get_feature_view(user_click_features.name))


def test_writing_beside_writes_the_same_as_writing_forward(store: FeatureStore) -> None:
    online = view_of(store)
    assert online.write_beside(rows(3)) == len(USERS)
    beside = {key: online.redis.hgetall(key) for key in online.redis.scan_iter(_type="hash")}
    online.redis.flushall()
    assert online.write_forward(rows(3)) == len(USERS)
    assert {key: online.redis.hgetall(key) for key in online.redis.scan_iter(_type="hash")} == beside


def test_older_and_equal_rows_are_left_out(store: FeatureStore) -> None:
    online = view_of(store)
    online.write_forward(rows(5))
    assert online.write_beside(rows(4)) == online.write_beside(rows(5)) == 0
    assert online.write_beside(rows(6)) == len(USERS)


def test_newest_row_stays_whoever_writes_when(store: FeatureStore) -> None:
    """One goes forward while three others write every minute in turn, some of them far behind."""
    online = view_of(store)
    others = [
        threading.Thread(target=lambda start=start: [online.write_beside(rows(m)) for m in range(start, 12)])
        for start in (0, 3, 6)
    ]
    for thread in others:
        thread.start()
    for minute in range(13, 20):
        online.write_forward(rows(minute))
    for thread in others:
        thread.join()
    found = online_rows(store, user_click_features, USERS)
    assert found["click_count"].unique().to_list() == [19]
    assert found["event_timestamp"].unique().to_list() == [NOON + timedelta(minutes=19)]
