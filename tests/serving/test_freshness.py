"""Readers judge values by the declared freshness objective."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from feast_repo.declare.freshness import MARGIN
from feast_repo.features import purchase_prediction, user_click_features as clicks, user_profile_features as profiles
from serving import metrics
from serving.reader import RedisReader, open_reader
from serving.schema import read_schema
from serving.service import Service
from serving.settings import ServingSettings
from tests.serving.conftest import USERS, now_slide, push, tell_progress, write_profiles

if TYPE_CHECKING:
    from feast import FeatureStore
    from redis import Redis

    from feast_repo.declare.stored import View

SERVICE = "purchase_prediction"
AGE, SECOND, HOUR, DAY = timedelta(hours=5), timedelta(seconds=30), timedelta(hours=1), timedelta(days=1)


def statuses(store: FeatureStore, *views: View, service: timedelta | None = None) -> list[str]:
    schema = read_schema(store, SERVICE, views, service)
    reader = RedisReader(schema, store.config.entity_key_serialization_version, ServingSettings().redis_url, 5)
    (row,) = reader.read(USERS[:1])
    return [row.views[view.name].status for view in views]


def test_a_windowed_view_by_the_age_of_the_last_closed_window(store: FeatureStore, redis: Redis) -> None:
    push(store, USERS, now_slide())
    tell_progress(store, redis, datetime.now(UTC) - AGE)
    assert statuses(store, clicks, profiles)[0] == "stale"  # by the derived limit
    assert statuses(store, replace(clicks, freshness=AGE + SECOND), profiles)[0] == "fresh"
    assert statuses(store, replace(clicks, freshness=AGE - SECOND), profiles)[0] == "stale"


def test_an_old_row_of_a_stream_that_is_not_behind_is_fresh(store: FeatureStore, redis: Redis) -> None:
    push(store, USERS, datetime.now(UTC) - AGE)  # nothing has happened since, so its values still hold
    tell_progress(store, redis, datetime.now(UTC))
    assert statuses(store, replace(clicks, freshness=HOUR), profiles)[0] == "fresh"


def test_a_batch_view_by_the_age_of_the_row(store: FeatureStore) -> None:
    write_profiles(store, USERS, datetime.now(UTC) - AGE)
    assert statuses(store, clicks, profiles)[1] == "fresh"
    assert statuses(store, clicks, replace(profiles, freshness=AGE + SECOND))[1] == "fresh"
    assert statuses(store, clicks, replace(profiles, freshness=AGE - SECOND))[1] == "stale"


def test_a_batch_view_is_told_no_lag_of_a_stream(store: FeatureStore) -> None:
    write_profiles(store, USERS, datetime.now(UTC))
    schema = read_schema(store, SERVICE, [clicks, replace(profiles, freshness=DAY)])
    (row,) = RedisReader(schema, 3, ServingSettings().redis_url, 5).read(USERS[:1])
    assert (row.views[profiles.name].status, row.views[profiles.name].stream_lag_seconds) == ("fresh", None)


@pytest.mark.parametrize(("objective", "status"), [(AGE + SECOND, "fresh"), (AGE - SECOND, "stale")], ids=str)
def test_a_service_bounds_all_its_views(store: FeatureStore, redis: Redis, objective: timedelta, status: str) -> None:
    push(store, USERS, now_slide())
    tell_progress(store, redis, datetime.now(UTC) - AGE)
    write_profiles(store, USERS, datetime.now(UTC) - AGE)
    views = replace(clicks, freshness=DAY), replace(profiles, freshness=DAY)
    assert statuses(store, *views, service=objective) == [status, status]


def test_the_limit_in_force_is_a_metric(store: FeatureStore) -> None:
    def limits() -> list[float]:
        return [metrics.freshness.labels(SERVICE, view)._value.get() for view in (clicks.name, profiles.name)]  # noqa: SLF001

    settings = ServingSettings()
    service = Service(store, open_reader(store, settings), settings, purchase_prediction)
    assert limits() == [12 * 60 + MARGIN.total_seconds(), float("inf")]
    service.declared = replace(purchase_prediction, freshness=AGE)
    service.use(*service.look())
    assert limits() == [12 * 60 + MARGIN.total_seconds(), AGE.total_seconds()]
