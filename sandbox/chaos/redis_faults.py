"""Faults that leave Redis's marks in place: what it lost must be noticed, and refilled by the stream itself."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, cast

from redis import Redis

from sandbox.chaos.runs import DrillError
from sandbox.chaos.scene import FILLED, LOST

if TYPE_CHECKING:
    from sandbox.chaos.scene import Scene

MESSAGES_LOST = 1_000


def redis_goes_back(scene: Scene) -> str:
    """Redis holds what it held a while ago, as after a restart from a snapshot."""
    return _back(scene, fails_over=False)


def redis_fails_over(scene: Scene) -> str:
    """The same with connections that break, as after a fail-over to a replica that lagged."""
    return _back(scene, fails_over=True)


def _back(scene: Scene, *, fails_over: bool) -> str:
    with Redis.from_url(scene.sandbox.redis_url) as redis:
        saved = {key: cast("bytes", redis.dump(key)) for key in redis.scan_iter(count=5_000)}
        scene.runs.wait_for_progress(MESSAGES_LOST)
        told, filled = (scene.runs.said().count(text) for text in (LOST, FILLED))
        with redis.pipeline(transaction=True) as pipe:
            pipe.flushdb()
            for key, value in saved.items():
                pipe.restore(key, 0, value)
            pipe.execute()
        if fails_over:
            redis.client_kill_filter(_type="normal", skipme=True)
    scene.runs.wait_to_say(LOST, more_than=told)
    scene.runs.wait_to_say(FILLED, more_than=filled)
    return f"{len(saved)} keys as they had been, refilled by the stream"


def redis_is_torn_down(scene: Scene) -> str:
    """`feast teardown` deletes all rows, and none of the stream's marks."""
    from feast_repo.store import open_store  # noqa: PLC0415  (Feast takes seconds to import)

    store = open_store()
    told, filled = (scene.runs.said().count(text) for text in (LOST, FILLED))
    online = store._get_provider().online_store  # noqa: SLF001  (what the command does, without the registry's part)
    online.teardown(store.config, store.list_feature_views(), store.list_entities())
    scene.runs.wait_to_say(LOST, more_than=told)
    scene.runs.wait_to_say(FILLED, more_than=filled)
    return "refilled by the stream"


def second_owner(scene: Scene) -> str:
    """A command with another DATA_ROOT writes to the same Redis: refused."""
    other = scene.data_root.parent / "another"
    try:
        scene.environment["DATA_ROOT"] = str(other)
        scene.command("batch.restore_online")
    except DrillError as error:
        if "another DATA_ROOT" not in str(error):
            raise
        return "refused, exit 2"
    finally:
        scene.environment["DATA_ROOT"] = str(scene.data_root)
        shutil.rmtree(other, ignore_errors=True)
    message = "a second DATA_ROOT wrote to Redis"
    raise DrillError(message)


FAULTS = (redis_goes_back, redis_fails_over, redis_is_torn_down, second_owner)
