"""Faults that overlap with each other or with a stop; whatever is away or frozen, a stop takes at most 10 s."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

from feast_repo.errors import ExitCode
from sandbox.chaos.runs import DrillError
from sandbox.chaos.scene import AWAY, Scene

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sandbox.server import Server

LONGEST_FREEZE_S = 15.0
PEER_GONE = "another process of the cluster is gone"
NOT_COMMITTED = "read and not committed"


@contextmanager
def _at_about(scene: Scene, fault: Callable[[], None], longest_s: float = 4.0) -> Iterator[str]:
    """Cause a fault some time before the block or, equally often, during it."""
    after_s = scene.chance.choice([0.0, scene.chance.uniform(0, 1)])
    thread = threading.Timer(after_s, fault)
    thread.start()
    if not after_s:
        thread.join()
        scene.pause(longest_s)
    try:
        yield "before it" if not after_s else f"{after_s:.1f} s after it"
    finally:
        thread.join()


def _terminate_around(scene: Scene, server: Server, fault: Callable[[], None], mend: Callable[[], None]) -> str:
    """SIGTERM around a server's fault: exit 0, or 1 with a line that names what is not committed."""
    try:
        with _at_about(scene, fault) as when:
            scene.runs.terminate()
            codes = scene.runs.ended(0, 1)
            said = scene.runs.said()
    finally:
        mend()
    if 1 in codes and NOT_COMMITTED not in said:
        message = f"exit 1 without a line that says what is not committed: {said[-2000:]}"
        raise DrillError(message)
    return f"{server.role} failed {when}: exit {sorted(codes)}, {scene.start()}"


def terminate_as_kafka_goes(scene: Scene) -> str:
    """SIGTERM around a crash of Kafka, noticed or not."""
    kafka = scene.sandbox.kafka
    return _terminate_around(scene, kafka, kafka.kill, kafka.start)


def terminate_as_kafka_freezes(scene: Scene) -> str:
    """SIGTERM around the moment when Kafka freezes, with its connections open."""
    kafka = scene.sandbox.kafka
    return _terminate_around(scene, kafka, kafka.pause, kafka.resume)


def terminate_as_redis_goes(scene: Scene) -> str:
    """SIGTERM around a crash of Redis, noticed or not."""
    redis = scene.sandbox.redis
    return _terminate_around(scene, redis, redis.kill, redis.start)


def terminate_as_redis_freezes(scene: Scene) -> str:
    """SIGTERM around the moment when Redis freezes, with its connections open."""
    redis = scene.sandbox.redis
    return _terminate_around(scene, redis, redis.pause, redis.resume)


def kafka_freezes(scene: Scene) -> str:
    """Kafka freezes for a while, long enough to be noticed or not."""
    scene.sandbox.kafka.pause()
    try:
        scene.pause(LONGEST_FREEZE_S)
    finally:
        scene.sandbox.kafka.resume()
    return "waited, and went on by itself"


def start_as_kafka_is_frozen(scene: Scene) -> str:
    """A start without an answer from Kafka is refused in one line."""
    scene.runs.stop()
    scene.sandbox.kafka.pause()
    try:
        line = scene.runs.refused(ExitCode.TRY_AGAIN)
    finally:
        scene.sandbox.kafka.resume()
    if "no Kafka broker answers" not in line:
        message = f"a start with a frozen Kafka was refused for another reason: {line}"
        raise DrillError(message)
    return f"refused, exit {ExitCode.TRY_AGAIN}, {scene.start()}"


def one_of_two_is_killed(scene: Scene) -> str:
    """SIGKILL for one process of a cluster: the other ends with one line, exit 1."""
    scene.runs.stop()
    scene.runs.start(2)
    scene.runs.wait_for_progress(1)
    scene.pause(2)
    scene.runs.kill_one(scene.chance.randrange(2))
    codes, said = scene.runs.ended(1), scene.runs.said()
    if PEER_GONE not in said:
        message = f"the process that was left ended with {codes} and did not say why: {said[-2000:]}"
        raise DrillError(message)
    return f"the other ended with exit 1 in one line, {scene.start()}"


def kafka_and_redis_go(scene: Scene) -> str:
    """Both are away at once, in any order; meanwhile the processes use almost no CPU."""
    servers: list[tuple[str, Server]] = [("Kafka", scene.sandbox.kafka), ("Redis", scene.sandbox.redis)]
    scene.chance.shuffle(servers)
    first = servers[0][0]  # the other's absence is logged only if it is used meanwhile
    away = scene.runs.said().count(AWAY.format(first))
    for _, server in servers:
        server.kill()
        scene.pause(1)
    scene.runs.wait_to_say(AWAY.format(first), more_than=away)
    cores = scene.runs.require_calm()
    scene.chance.shuffle(servers)
    for _, server in servers:
        server.start()
    scene.wait_until_back()
    return f"held with {cores:.2f} cores, and went on by itself"


FAULTS = (
    terminate_as_kafka_goes,
    terminate_as_kafka_freezes,
    terminate_as_redis_goes,
    terminate_as_redis_freezes,
    kafka_freezes,
    start_as_kafka_is_frozen,
    one_of_two_is_killed,
    kafka_and_redis_go,
)
