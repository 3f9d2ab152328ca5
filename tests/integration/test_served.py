"""A feature file tells when Redis had acknowledged its rows: never before it had."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import polars as pl

from feast_repo.declare.rows import SERVED
from feast_repo.features import user_click_features as view
from feast_repo.settings import StreamSettings
from feast_repo.stores.offline.tables import features_folder
from feast_repo.stores.push import Pusher
from sandbox.checks import online_equals_offline
from sandbox.processes import wait_until
from stream.availability import redis
from tests.feast_repo.conftest import opened, store  # noqa: F401  (fixtures)
from tests.feast_repo.rows import PUSH_SOURCE
from tests.integration.conftest import TIMEOUT_S
from tests.integration.test_restore_in_an_epoch import closed
from tests.stream.parts import part_with

if TYPE_CHECKING:
    from feast import FeatureStore

    from sandbox.redis_server import RedisServer


def test_rows_are_served_when_redis_has_them(store: FeatureStore, redis_server: RedisServer) -> None:  # noqa: F811
    settings = StreamSettings()
    folder = features_folder(settings.data_root, view.name)
    part = part_with(Pusher(store, PUSH_SOURCE))
    redis_server.stop()
    try:
        part.write_batch([closed(0)])
        assert wait_until(lambda: redis.away, TIMEOUT_S)
        assert not list(folder.glob("dt=*/*.parquet"))
        back = datetime.now(UTC)
    finally:
        redis_server.start()
    part.snapshot()
    part.close()
    served = pl.read_parquet(folder / "*" / "*.parquet", hive_partitioning=False)[SERVED]
    assert len(served) == 2
    assert served.min() == served.max()
    assert back < served[0] < datetime.now(UTC)
    assert online_equals_offline(store, settings.data_root, view).holds
