"""Writers beside the stream, Feast among them, and others who write in between."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import polars as pl
import pytest
from feast.data_source import PushMode
from feast.infra.online_stores.redis import RedisOnlineStore

from feast_repo.features import user_click_features as view
from feast_repo.stores.online import store as online_store, view as online_view
from feast_repo.stores.online.format import decode_time
from feast_repo.stores.online.guard import SWAP_SHA
from feast_repo.stores.online.view import OnlineView
from sandbox.checks import online_rows
from tests.feast_repo.rows import NEW_YEAR, PUSH_SOURCE, clicks, everything, milliseconds

if TYPE_CHECKING:
    from collections.abc import Callable

    from feast import FeatureStore
    from redis import Redis

USERS = [f"user_{number:06d}" for number in range(2_500)]
LATER = NEW_YEAR + view.slide


@pytest.fixture
def online(store: FeatureStore) -> OnlineView:
    return OnlineView(store, store.get_feature_view(view.name))


def push_through_feast(store: FeatureStore, rows: pl.DataFrame) -> None:
    store.push(PUSH_SOURCE, rows.to_pandas(), to=PushMode.ONLINE)


def someone_writes_after_the_read(monkeypatch: pytest.MonkeyPatch, module: Any, writes: Callable[[], object]) -> None:
    """The stored times, all of the new year, are judged between read and write; the first one lets someone else in."""
    waiting = [writes]

    def judged(data: bytes) -> int:
        time = decode_time(data)
        while waiting and time == milliseconds(NEW_YEAR) * 1_000_000:
            waiting.pop()()
        return time

    monkeypatch.setattr(module, "decode_time", judged)


class TestFeastsWrites:
    def test_same_bytes_as_feasts_own_method(
        self, store: FeatureStore, redis: Redis, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        rows = pl.concat(
            [
                clicks(USERS),
                clicks(["ü€😀", "twice"], LATER, cart_rate=None),
                clicks(["twice"], NEW_YEAR, click_count=7),
                clicks(["twice"], LATER, click_count=8),
            ]
        )
        push_through_feast(store, rows)
        ours = everything(redis)
        redis.flushall()
        monkeypatch.delattr(online_store.RedisUrlOnlineStore, "online_write_batch")
        assert online_store.RedisUrlOnlineStore.online_write_batch is RedisOnlineStore.online_write_batch
        push_through_feast(store, rows)
        assert ours == everything(redis)
        assert len(ours) == len(USERS) + 2

    def test_older_and_equal_rows_are_left_out(self, store: FeatureStore, redis: Redis) -> None:
        push_through_feast(store, clicks(USERS[:3], LATER))
        before = everything(redis)
        push_through_feast(store, clicks(USERS[:3], NEW_YEAR, click_count=9))
        push_through_feast(store, clicks(USERS[:3], LATER, click_count=9))
        assert everything(redis) == before
        push_through_feast(store, clicks(USERS[:3], LATER + view.slide, click_count=9))
        assert online_rows(store, view, pl.DataFrame({"user_id": USERS[:3]}))["click_count"].to_list() == [9, 9, 9]

    def test_newer_row_that_comes_in_between_stays(
        self, store: FeatureStore, online: OnlineView, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        users = USERS[:100]
        online.write_forward(clicks(users, NEW_YEAR))
        newest = clicks(users, LATER + view.slide, click_count=99)
        someone_writes_after_the_read(monkeypatch, online_store, lambda: online.write_forward(newest))
        push_through_feast(store, clicks(users, LATER, click_count=1))
        assert set(online_rows(store, view, pl.DataFrame({"user_id": users}))["click_count"]) == {99}


class TestWritesBeside:
    def test_newer_row_that_comes_in_between_stays(
        self, store: FeatureStore, online: OnlineView, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        online.write_forward(clicks(USERS))
        newest = clicks(USERS, LATER + view.slide, click_count=9_999)
        someone_writes_after_the_read(monkeypatch, online_view, lambda: online.write_forward(newest))
        assert online.write_beside(clicks(USERS, LATER)) == 0
        assert set(online_rows(store, view, pl.DataFrame({"user_id": USERS}))["click_count"]) == {9_999}

    def test_older_row_that_comes_in_between_is_replaced(
        self, store: FeatureStore, online: OnlineView, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        online.write_forward(clicks(USERS))
        older = clicks(USERS, LATER)
        someone_writes_after_the_read(monkeypatch, online_view, lambda: online.write_forward(older))
        assert online.write_beside(clicks(USERS, LATER + view.slide, click_count=9_999)) == len(USERS)
        assert set(online_rows(store, view, pl.DataFrame({"user_id": USERS}))["click_count"]) == {9_999}


def test_a_server_that_has_forgotten_the_script_gets_it_again(online: OnlineView) -> None:
    online.write_beside(clicks(USERS))
    online.redis.script_flush()
    assert online.redis.script_exists(SWAP_SHA) == [False]
    assert online.write_beside(clicks(USERS, LATER)) == len(USERS)
