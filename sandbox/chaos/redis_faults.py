"""Faults that leave Redis's marks in place: the stream itself must notice and refill what is lost."""

from __future__ import annotations

import shutil
import uuid
from dataclasses import replace
from typing import TYPE_CHECKING, cast

from redis import Redis

from feast_repo import features
from feast_repo.stores.internals import online_store
from sandbox.chaos.runs import PATIENCE_S, DrillError
from sandbox.chaos.scene import FILLED, LOST
from sandbox.checks import online_equals_offline
from sandbox.held_proxy import HeldProxy
from sandbox.processes import LOOPBACK, wait_until

if TYPE_CHECKING:
    from feast import FeatureStore

    from feast_repo.declare.views import WindowedView
    from sandbox.chaos.scene import Scene

MESSAGES_LOST = 1_000
MESSAGES_OF_A_WINDOW = 15_000
"""Within this many messages each partition closes a window, so most users of the held rows have newer ones."""


def redis_goes_back(scene: Scene) -> str:
    """Redis goes back to an earlier state, as after a restart from a snapshot."""
    scene.wait_until_filled()
    with Redis.from_url(scene.sandbox.redis_url) as redis:
        saved = {key: cast("bytes", redis.dump(key)) for key in redis.scan_iter(count=5_000)}
        scene.runs.wait_for_progress(MESSAGES_LOST)
        told, filled = (scene.runs.said().count(text) for text in (LOST, FILLED))
        with redis.pipeline(transaction=True) as pipe:
            pipe.flushdb()
            for key, value in saved.items():
                pipe.restore(key, 0, value)
            pipe.execute()
    scene.runs.wait_to_say(LOST, more_than=told)
    scene.runs.wait_to_say(FILLED, more_than=filled)
    return f"{len(saved)} keys as they had been, refilled by the stream"


def redis_fails_over(scene: Scene) -> str:
    """Redis crashes and fails over to a replica that lost contact a while before."""
    scene.wait_until_filled()
    primary = scene.sandbox.redis
    replica = primary.beside(f"redis-{uuid.uuid4().hex[:8]}")
    replica.start()
    try:
        replica.follow(primary)
        replica.lose_primary()
        scene.runs.wait_for_progress(MESSAGES_LOST)
        told, filled = (scene.runs.said().count(text) for text in (LOST, FILLED))
        primary.fail_over(replica)
    except BaseException:
        replica.kill()
        raise
    scene.runs.wait_to_say(LOST, more_than=told)
    scene.runs.wait_to_say(FILLED, more_than=filled)
    return "a replica that lagged took over, refilled by the stream"


def redis_gets_bytes_late(scene: Scene) -> str:
    """The network holds a push back until it times out; its bytes arrive after newer rows have been written."""
    view = features.user_click_features
    scene.runs.stop()
    with HeldProxy(scene.sandbox.redis.port) as proxy:
        processes = scene.start(f"redis://{LOOPBACK}:{proxy.port}/0")
        scene.runs.wait_for_progress(1)
        proxy.keep_back(push_of(view))
        if not wait_until(lambda: proxy.held_bytes > 0, PATIENCE_S):
            message = f"no row was pushed within {PATIENCE_S:.0f} s"
            raise DrillError(message)
        scene.runs.wait_for_progress(MESSAGES_OF_A_WINDOW)
        held = proxy.held_bytes
        proxy.deliver()
        scene.runs.stop()
    check = online_equals_offline(_opened(), scene.data_root, view)
    if not check.holds:
        message = f"{held} bytes that arrived late have changed rows: {check.figures}"
        raise DrillError(message)
    return f"{held:,} bytes came too late to change anything, {processes}; {scene.start()}"


def push_of(view: WindowedView) -> bytes:
    """The prefix of the command of each pushed row, which no other command of the stream has."""
    names_and_values = 2 * (len(view.features) + 1)
    return b"*%d\r\n$4\r\nHSET\r\n" % (2 + names_and_values)


def redis_is_torn_down(scene: Scene) -> str:
    """`feast teardown` deletes all rows but none of the stream's marks."""
    scene.wait_until_filled()
    store = _opened()
    told, filled = (scene.runs.said().count(text) for text in (LOST, FILLED))
    online = online_store(store)  # what the command does, without the registry's part
    online.teardown(store.config, store.list_feature_views(), store.list_entities())
    scene.runs.wait_to_say(LOST, more_than=told)
    scene.runs.wait_to_say(FILLED, more_than=filled)
    return "refilled by the stream"


def second_owner(scene: Scene) -> str:
    """Another DATA_ROOT with the same Redis, and another registry with the same DATA_ROOT: both are refused."""
    other = scene.data_root.parent / "another"
    try:
        _require_refusal(scene, "another DATA_ROOT", "batch.restore_online", DATA_ROOT=str(other))
        url = f"sqlite:///{other / 'registry.db'}"
        _require_refusal(scene, "another registry", "batch.restore_online", FEAST_REGISTRY_URL=url)
    finally:
        shutil.rmtree(other, ignore_errors=True)
    return "refused, exit 2"


def _require_refusal(scene: Scene, words: str, command: str, **settings: str) -> None:
    try:
        replace(scene, environment={**scene.environment, **settings}).command(command)
    except DrillError as error:
        if "ended with 2" not in str(error) or words not in str(error):
            raise
        return
    message = f"{command} with {settings} was not refused"
    raise DrillError(message)


def _opened() -> FeatureStore:
    from feast_repo.stores.opening import open_store  # noqa: PLC0415  (Feast takes seconds to import)

    return open_store()


FAULTS = (redis_goes_back, redis_fails_over, redis_gets_bytes_late, redis_is_torn_down, second_owner)
