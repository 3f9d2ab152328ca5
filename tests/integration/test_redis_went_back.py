"""Redis goes back to an earlier state or loses rows while its marks stay: noticed at the next epoch, and refilled."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from redis import Redis

from batch.maintenance import restore_online
from feast_repo.features import user_click_features as view
from feast_repo.settings import StreamSettings
from feast_repo.stores.online.marker import is_filled, marker_key, read_mark
from feast_repo.stores.opening import open_store
from feast_repo.stores.progress import progress_key
from feast_repo.stores.push import Pusher
from sandbox.checks import online_equals_offline
from stream.redis_watch import EMPTIED
from tests.feast_repo.conftest import opened, store  # noqa: F401  (fixtures)
from tests.feast_repo.rows import PUSH_SOURCE
from tests.integration.test_restore_in_an_epoch import closed
from tests.stream.parts import part_with

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from feast import FeatureStore

    from sandbox.redis_server import RedisServer
    from tests.integration.conftest import Stack

PROJECT = "ml_feature_store"
WENT_BACK, LOST_ROWS = "Redis went back to an earlier state", "Redis has lost rows"


class Running:
    """A part of the stores, and what happens around it."""

    def __init__(self, store: FeatureStore, server: RedisServer) -> None:  # noqa: F811
        self.store, self.server = store, server
        self.redis = Redis.from_url(server.url)
        self.start()

    def start(self) -> None:
        self.part = part_with(Pusher(self.store, PUSH_SOURCE))

    def epoch(self, *windows: int) -> None:
        for number in windows:
            self.part.write_batch([closed(number)])
        self.part.snapshot()

    def go_back(self) -> None:
        """Kill Redis; it comes back with its last snapshot."""
        self.server.kill()
        self.server.start()

    def is_filled(self) -> bool:
        return is_filled(read_mark(self.redis, marker_key(PROJECT, view.name)))

    @property
    def announced(self) -> dict[int, int]:
        told: Any = self.redis.hgetall(progress_key(PROJECT, view.name))
        return {int(partition): json.loads(one)["next_offset"] for partition, one in told.items()}


@pytest.fixture
def running(store: FeatureStore, redis_server: RedisServer, caplog: pytest.LogCaptureFixture) -> Any:  # noqa: F811
    del caplog
    running = Running(store, redis_server)
    yield running
    running.part.close()
    running.redis.close()
    (redis_server.folder / "dump.rdb").unlink(missing_ok=True)


def in_the_epoch_between_pushes(running: Running) -> None:
    running.part.write_batch([closed(2)])
    running.part.snapshot()
    running.redis.save()
    running.epoch(3)
    running.go_back()
    running.epoch(4)


def and_nothing_is_pushed_afterwards(running: Running) -> None:
    running.redis.save()
    running.epoch(2)
    running.go_back()
    running.epoch()


def between_two_runs(running: Running) -> None:
    running.redis.save()
    running.epoch(2)
    running.part.close()
    running.go_back()
    running.start()
    running.epoch(3)


def within_an_epoch(running: Running) -> None:
    """The announcement is in the snapshot, and a push that followed it is not."""
    running.redis.save()
    running.part.write_batch([closed(2)])
    running.part._streams["clickstream"]._online.finish()  # noqa: SLF001  (Redis has it)
    running.go_back()
    running.epoch()


def torn_down(running: Running) -> None:
    feast = running.store
    provider = feast._get_provider()  # noqa: SLF001
    provider.online_store.teardown(feast.config, feast.list_feature_views(), feast.list_entities())
    running.epoch(2)


def torn_down_between_two_runs(running: Running) -> None:
    running.part.close()
    running.start()
    torn_down(running)


def users_are_deleted(running: Running) -> None:
    keys = [key for key in running.redis.scan_iter() if b"everywhere" in key or b"only in" in key]
    assert keys
    running.redis.delete(*keys)
    running.epoch()


def users_are_deleted_between_two_runs(running: Running) -> None:
    running.part.close()
    running.start()
    users_are_deleted(running)


def users_are_deleted_while_no_run_is_there(running: Running) -> None:
    """Some come again before anybody looks."""
    running.part.close()
    running.redis.delete(*(key for key in running.redis.scan_iter() if b"everywhere" in key or b"only in" in key))
    running.start()
    running.epoch(2)


def emptied_during_the_look(running: Running) -> None:
    """Its mark was read before, its rows are looked up afterwards."""
    online: Any = running.part._streams["clickstream"]._online._views[view.name]._watch._online  # type: ignore[union-attr]  # noqa: SLF001  (between the two)
    behind = online.behind

    def emptied(rows: object) -> int:
        running.redis.flushall()
        online.behind = behind
        return int(behind(rows))

    online.behind = emptied
    running.epoch()


def keys_are_evicted(running: Running) -> None:
    redis = running.redis
    redis.config_set("maxmemory-policy", "allkeys-random")
    facts: Any = redis.info("memory")
    redis.config_set("maxmemory", facts["used_memory"] - 200)
    redis.set("something", "else")
    redis.config_set("maxmemory", 0)
    redis.config_set("maxmemory-policy", "noeviction")
    running.epoch(2)


@pytest.mark.parametrize(
    ("loses", "told"),
    [
        (in_the_epoch_between_pushes, WENT_BACK),
        (and_nothing_is_pushed_afterwards, WENT_BACK),
        (between_two_runs, f"{WENT_BACK}: it has the rows up to offset 2 of partition 0, and 3 is stored"),
        (within_an_epoch, WENT_BACK),
        (torn_down, f"{LOST_ROWS}: its sentinel was deleted"),
        (torn_down_between_two_runs, f"{LOST_ROWS}: its sentinel was deleted"),
        (users_are_deleted, f"{LOST_ROWS}: 3 of 3 that were looked up"),
        (users_are_deleted_between_two_runs, f"{LOST_ROWS}: "),
        (users_are_deleted_while_no_run_is_there, f"{LOST_ROWS}: 2 of 4 that were looked up"),
        (emptied_during_the_look, EMPTIED),
        (keys_are_evicted, "Redis "),
    ],
)
def test_a_loss_is_told_once_and_readers_wait_for_the_refill(
    running: Running, caplog: pytest.LogCaptureFixture, loses: Callable[[Running], None], told: str
) -> None:
    running.epoch(0)
    running.epoch(1)
    assert running.announced == {0: 2}
    loses(running)
    assert [record.getMessage() for record in caplog.records if "refilling it" in record.getMessage()] == [
        message for message in caplog.messages if message.startswith(told)
    ]
    assert len([message for message in caplog.messages if "refilling it" in message]) == 1
    assert not running.is_filled()
    assert running.announced == {}, "readers would take what is left for fresh"
    assert restore_online.main([]) == 0
    running.epoch(9)
    assert "Redis is filled again" in caplog.messages
    assert running.is_filled()
    assert running.announced == {0: 10}
    check = online_equals_offline(running.store, StreamSettings().data_root, view)
    assert check.holds, check.figures
    running.epoch(10)
    assert running.is_filled()


def test_a_run_refills_redis_by_itself(stack: Stack, redis_server: RedisServer, tmp_path: Path) -> None:
    """Snapshot; a run whose expiry rows are lost; Redis comes back with the snapshot; the next run."""
    recovery = ["-r", str(tmp_path / "recovery"), "-s", "10", "-b", "0"]
    try:
        stack.produce(events=3_000, hours=1)
        assert stack.run(*recovery)[0] == 0
        with Redis.from_url(redis_server.url) as redis:
            redis.save()
        stack.produce(events=3_000, seed=2, hours=1, hours_later=1)
        assert stack.run(*recovery)[0] == 0
        redis_server.kill()
        redis_server.start()
        stack.produce(events=20, seed=3, hours=0.1, hours_later=2)
        status, errors = stack.run(*recovery)
    finally:
        (redis_server.folder / "dump.rdb").unlink(missing_ok=True)
    assert status == 0, errors
    assert errors.count(WENT_BACK) == 1
    assert errors.count("Redis is filled again") == 1
    check = online_equals_offline(open_store(), stack.settings.data_root, view)
    assert check.holds, check.figures
    status, errors = stack.run(*recovery)
    assert status == 0, errors
    assert "refilling" not in errors
