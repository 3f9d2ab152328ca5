"""Two ways to write rows online; neither replaces a newer row, and the second isn't disturbed by others' writes.

Entities have one or several join keys, String or Int64.
"""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import polars as pl
import pytest
from feast.data_source import PushMode

from feast_repo.declare.catalog import Catalog
from feast_repo.feast_objects import all_objects
from feast_repo.features import user_click_features
from feast_repo.stores.online.view import OnlineView, newest_rows
from sandbox.checks import online_rows
from tests.declared import shop_of_card_features, shop_windows
from tests.feast_repo.rows import everything

if TYPE_CHECKING:
    from feast import FeatureStore

    from feast_repo.declare.views import WindowedView

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
COUNT = 3_000
NUMBER = pl.int_range(COUNT)
ENTITIES = {
    user_click_features.name: pl.select(user_id=pl.format("user_{}", NUMBER)),
    # Each shop has several cards, and each card several shops.
    shop_of_card_features.name: pl.select(card_id=pl.format("card_{}", NUMBER // 3), shop=NUMBER % 3 - 1),
    shop_windows.name: pl.select(shop=pl.when(NUMBER == 1).then(2**63 - 1).otherwise(-NUMBER)),
}


@pytest.fixture(params=[user_click_features, shop_of_card_features, shop_windows], ids=lambda view: view.name)
def view(request: pytest.FixtureRequest, store: FeatureStore) -> WindowedView:
    """Views of an entity with a String key, two keys, and an Int64 key."""
    declared: WindowedView = request.param
    store.apply(all_objects(Catalog(views=(declared,))))
    store.refresh_registry()
    return declared


def rows(view: WindowedView, minute: int) -> pl.DataFrame:
    """A row of every entity, with the minute as each value."""
    values = {name: pl.lit(minute, getattr(pl, kind)) for name, kind in view.value_types.items()}
    time = pl.lit(NOON + timedelta(minutes=minute)).dt.cast_time_unit("us")
    return ENTITIES[view.name].with_columns(event_timestamp=time, **values)


def view_of(store: FeatureStore, view: WindowedView) -> OnlineView:
    return OnlineView(store, store.get_feature_view(view.name))


def test_all_ways_of_writing_write_the_same_as_feast(store: FeatureStore, view: WindowedView) -> None:
    online = view_of(store, view)
    pushed = rows(view, 3).with_columns(created_timestamp="event_timestamp").sample(fraction=1, shuffle=True, seed=1)
    store.push(view.push_source, pushed.to_pandas(), to=PushMode.ONLINE)
    theirs = everything(online.redis)
    assert len(theirs) == COUNT
    for write in (online.write_forward, online.write_beside, online.write_over):
        online.redis.flushall()
        assert write(pl.concat([rows(view, 3), rows(view, 1)])) == COUNT
        assert everything(online.redis) == theirs


def test_older_and_equal_rows_are_left_out(store: FeatureStore, view: WindowedView) -> None:
    online = view_of(store, view)
    online.write_forward(rows(view, 5))
    for write in (online.write_forward, online.write_beside):
        assert write(rows(view, 4)) == write(rows(view, 5)) == 0
    assert online.write_over(rows(view, 4)) == online.write_over(rows(view, 5)) == 0
    assert online.write_beside(rows(view, 6)) == COUNT


def test_each_entity_is_compared_by_all_of_its_keys(store: FeatureStore, view: WindowedView) -> None:
    online = view_of(store, view)
    some = rows(view, 5)[1:2]
    assert online.write_forward(some) == 1
    assert online.behind(rows(view, 5)) == COUNT - 1
    assert online.behind(rows(view, 6)) == COUNT
    assert online.write_forward(rows(view, 5)) == COUNT - 1
    assert online.behind(pl.concat([rows(view, 5), rows(view, 4)])) == 0
    online.redis.delete(next(iter(everything(online.redis))))
    assert online.behind(rows(view, 5)) == 1


def test_newest_row_stays_whoever_writes_when(store: FeatureStore, view: WindowedView) -> None:
    """One goes forward while three others write every minute in turn, some of them far behind."""
    online = view_of(store, view)
    others = [
        threading.Thread(target=lambda start=start: [online.write_beside(rows(view, m)) for m in range(start, 12)])
        for start in (0, 3, 6)
    ]
    for thread in others:
        thread.start()
    for minute in range(13, 20):
        online.write_forward(rows(view, minute))
    for thread in others:
        thread.join()
    found = online_rows(store, view, ENTITIES[view.name])
    assert {tuple(row) for row in found.select(*view.features).iter_rows()} == {(19,) * len(view.features)}
    assert found["event_timestamp"].unique().to_list() == [NOON + timedelta(minutes=19)]


def test_the_sentinel_is_no_entitys_and_goes_with_the_views_rows(store: FeatureStore, view: WindowedView) -> None:
    online = view_of(store, view)
    assert not online.has_sentinel()
    assert online.write_forward(rows(view, 5)) == COUNT
    assert not online.has_sentinel()
    online.set_sentinel()
    assert online.has_sentinel()
    assert len(everything(online.redis)) == COUNT + 1
    store.teardown()
    assert not online.has_sentinel()


def test_the_newest_row_is_of_all_keys() -> None:
    declared = shop_of_card_features
    newest = newest_rows(pl.concat([rows(declared, 1), rows(declared, 2)]), list(declared.join_keys))
    assert newest.sort(declared.join_keys).equals(rows(declared, 2).sort(declared.join_keys))
