"""Redis is refilled from Parquet and compared with it by all join keys of an entity."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from feast.infra.online_stores.helpers import _mmh3
from rich.console import Console

from batch.maintenance.restore_online import overwrite, restore
from batch.parity.online import compare_online
from feast_repo.declare.catalog import Catalog
from feast_repo.feast_objects import all_objects
from feast_repo.settings import StreamSettings
from feast_repo.stores.online.keys import KeyFormat
from feast_repo.stores.online.view import OnlineView
from sandbox.checks import newest_rows, online_equals_offline
from stream.redis_watch import RedisWatch
from tests.batch.archives import store as store_rows
from tests.declared import fraud, shop_of_card_features as view
from tests.feast_repo.conftest import opened, redis, store  # noqa: F401  (fixtures)
from tests.feast_repo.rows import table

if TYPE_CHECKING:
    from pathlib import Path

    from feast import FeatureStore
    from redis import Redis

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
PAIRS = [(f"c{card}", shop) for card in range(3) for shop in (-(1 << 63), -1, 0, (1 << 63) - 1)]
FIRST_DAY_ONLY = 3
"""So many pairs have no row on the second day, but their card has."""


@pytest.fixture
def root(store: FeatureStore) -> Path:  # noqa: F811
    """A window of every pair of card and shop in Parquet, and one of most on the next day; nothing in Redis."""
    store.apply(all_objects(Catalog(services=(fraud,))))
    store.refresh_registry()
    folder = StreamSettings().data_root
    for end, least in ((NOON, 0), (NOON + timedelta(days=1), FIRST_DAY_ONLY)):
        rows = [
            {"card_id": card, "shop": shop, "event_timestamp": end, "pair_count": number + end.day}
            for number, (card, shop) in enumerate(PAIRS)
            if number >= least
        ]
        values = table(view, rows, created_timestamp=end, pair_cents=7, pair_cents_each=0.5).drop("writer")
        store_rows(folder, view, values, "stream", 0, round(end.timestamp() * 1000))
    return folder


@pytest.fixture
def online(store: FeatureStore, root: Path) -> OnlineView:  # noqa: F811
    """The view in Redis, refilled."""
    online = OnlineView(store, store.get_feature_view(view.name))
    assert restore(root, view, online, store.project, Console(quiet=True)) == len(PAIRS)
    return online


def test_every_pair_gets_its_newest_row(store: FeatureStore, root: Path, online: OnlineView) -> None:  # noqa: F811
    assert online.has_sentinel()
    assert online_equals_offline(store, root, view).holds
    assert newest_rows(root, view)["pair_count"].sum() == sum(
        number + (1 if number < FIRST_DAY_ONLY else 2) for number in range(len(PAIRS))
    )
    found = compare_online(store, root, view, sample=None, most_examples=5)
    assert (found.users, found.equal, found.wrong) == (len(PAIRS), len(PAIRS), 0)


def test_one_pair_that_is_wrong_or_gone_is_named_and_put_right(
    store: FeatureStore,  # noqa: F811
    redis: Redis,  # noqa: F811
    root: Path,
    online: OnlineView,
) -> None:
    wrong, gone = ("c1", -1), ("c1", 0)
    keys = KeyFormat(store.project, view.entity.join_keys, store.config.entity_key_serialization_version)
    key_of = {pair: keys.key(dict(zip(("card_id", "shop"), pair, strict=True))) for pair in (wrong, gone)}
    key_of = {pair: key.partition(b"\r\n")[2][:-2] for pair, key in key_of.items()}
    redis.execute_command("HSET", key_of[wrong], _mmh3(f"{view.name}:pair_count"), b"\x20\x6f")
    redis.delete(key_of[gone])
    found = compare_online(store, root, view, sample=None, most_examples=5)
    assert (found.equal, found.different, found.missing) == (len(PAIRS) - 2, 1, 1)
    assert {one["entity"] for one in found.examples} == {"-1, c1", "0, c1"}
    assert overwrite(root, view, online) == 2
    assert online_equals_offline(store, root, view).holds


def test_the_stream_notices_single_pairs_that_are_gone(
    store: FeatureStore,  # noqa: F811
    redis: Redis,  # noqa: F811
    root: Path,
    online: OnlineView,
) -> None:
    watch = RedisWatch(redis, online, store.project, view, "p0")
    assert watch.look()[1] is None
    watch.pushed(b"token", newest_rows(root, view))
    assert watch.look()[1] is None
    (key, *_) = [key for key in redis.scan_iter(_type="hash") if b"card_id" in key and b"c1" in key]
    redis.delete(key)
    assert str(watch.look()[1]).endswith(f"1 of {len(PAIRS)} that were looked up are gone or older")
