"""A feature that is taken out and declared again does not bring its old values back."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, cast

import pytest
from feast.infra.online_stores.helpers import _mmh3

from feast_repo.features import user_click_features as view
from feast_repo.stores.online import features as online_features
from feast_repo.stores.online.features import features_key, settle
from feast_repo.stores.online.view import OnlineView
from tests.feast_repo.rows import NEW_YEAR, clicks

if TYPE_CHECKING:
    from feast import FeatureStore, FeatureView
    from redis import Redis

PROJECT = "ml_feature_store"
FEATURES = list(view.features)
WITHOUT = [name for name in FEATURES if name != "view_count"]
FIELD = _mmh3(f"{view.name}:view_count")
USERS = [f"user_{number:06d}" for number in range(2_500)]


def holders(redis: Redis) -> int:
    """How many entities have a value of the feature."""
    return sum(bool(redis.hexists(key, FIELD)) for key in redis.scan_iter(_type="hash"))


def rows(redis: Redis) -> dict[bytes, dict[bytes, bytes]]:
    keys = redis.scan_iter(_type="hash")
    return {key: cast("dict[bytes, bytes]", redis.hgetall(key)) for key in keys}


def declared(store: FeatureStore, names: list[str]) -> FeatureView:
    """The view as Feast knows it, with some of its features."""
    declaration = copy.copy(store.get_feature_view(view.name))
    declaration.features = [field for field in declaration.features if field.name in names]
    return declaration


def write(store: FeatureStore, names: list[str], later: int) -> None:
    """Each user's next row, by a stream of that declaration."""
    online = OnlineView(store, declared(store, names))
    online.settle()
    online.write_forward(clicks(USERS[:10], NEW_YEAR + later * view.slide))


def test_a_feature_that_was_away_comes_back_without_its_old_values(store: FeatureStore, redis: Redis) -> None:
    online = OnlineView(store, store.get_feature_view(view.name))
    assert online.settle() == 0
    online.write_forward(clicks(USERS))
    write(store, WITHOUT, later=1)
    assert holders(redis) == len(USERS), "nobody reads them"
    kept = rows(redis)
    assert online.settle() == len(USERS)
    assert holders(redis) == 0
    for fields in kept.values():
        del fields[FIELD]
    assert rows(redis) == kept
    write(store, FEATURES, later=2)
    assert (online.settle(), holders(redis)) == (0, 10)


def test_feast_apply_removes_them_before_the_stream_starts(store: FeatureStore, redis: Redis) -> None:
    online = OnlineView(store, store.get_feature_view(view.name))
    online.settle()
    online.write_forward(clicks(USERS))
    whole = store.get_feature_view(view.name)
    store.apply([declared(store, WITHOUT)])
    assert holders(redis) == len(USERS)
    store.apply([whole])
    assert holders(redis) == 0


def test_apply_leaves_a_redis_alone_that_no_stream_has_written(store: FeatureStore, redis: Redis) -> None:
    store.apply([declared(store, WITHOUT)])
    assert redis.keys() == []


def test_what_another_process_has_written_since_stays(
    store: FeatureStore, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two workers start with the new declaration; one is still looking for old values when the other writes."""
    settle(redis, PROJECT, view.name, WITHOUT)
    OnlineView(store, declared(store, FEATURES)).write_forward(clicks(USERS))
    look, others = type(redis).scan_iter, [lambda: write(store, FEATURES, later=1)]

    def let_the_other_in(*arguments: object, **options: object) -> object:
        keys = list(look(*arguments, **options))  # type: ignore[arg-type]
        while others:
            others.pop()()
        return iter(keys)

    monkeypatch.setattr(type(redis), "scan_iter", let_the_other_in)
    assert settle(redis, PROJECT, view.name, FEATURES) == 0
    monkeypatch.undo()
    assert holders(redis) == 10


@pytest.mark.parametrize("project", ["a*b", "[x]", "a\\b"])
def test_other_projects_keep_theirs(redis: Redis, project: str) -> None:
    keys = [f"entity{project}".encode(), b"entityxml", b"entityaxb", b"entityx", b"entityab"]
    for key in keys:
        redis.execute_command("HSET", key, FIELD, b"1")
    settle(redis, project, view.name, WITHOUT)
    assert settle(redis, project, view.name, FEATURES) == 1
    assert holders(redis) == len(keys) - 1
    assert redis.get(features_key(project, view.name)) is not None
    assert len(USERS) > online_features.KEYS_AT_ONCE
