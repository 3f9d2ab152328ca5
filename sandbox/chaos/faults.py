"""The faults of the drill. Each waits until it has taken effect, and leaves the stack intact again."""

from __future__ import annotations

import contextlib
import ctypes
import os
import random
import shutil
import sys
from typing import TYPE_CHECKING, Any

from redis import Redis
from rich.console import Console

from feast_repo import features
from sandbox.chaos import redis_faults, stops, topic_faults
from sandbox.chaos.runs import PATIENCE_S, DrillError
from sandbox.chaos.scene import AWAY, BACK, FILLED, LOST, Scene
from sandbox.processes import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

DISK_MIB = 192


def kill(scene: Scene) -> str:
    """SIGKILL at a random moment of an epoch."""
    scene.pause(2)
    scene.runs.kill()
    return scene.start()


def kill_while_starting(scene: Scene) -> str:
    """SIGKILL, and again before the next run has come up."""
    scene.runs.kill()
    scene.runs.start(scene.chance.choice([1, 2]))
    scene.pause(8)
    scene.runs.kill()
    return scene.start()


def terminate(scene: Scene) -> str:
    """SIGTERM: everything is drained and committed, exit 0."""
    seconds = scene.runs.stop()
    return f"exit 0 after {seconds:.1f} s, {scene.start()}"


def redis_stops(scene: Scene) -> str:
    """Redis stops cleanly and comes back."""
    return _without_redis(scene, scene.sandbox.redis.stop)


def redis_crashes(scene: Scene) -> str:
    """Redis is killed and comes back."""
    return _without_redis(scene, scene.sandbox.redis.kill)


def _without_redis(scene: Scene, end: Callable[[], None]) -> str:
    before = scene.runs.said().count(AWAY.format("Redis"))
    end()
    scene.runs.wait_to_say(AWAY.format("Redis"), more_than=before)
    scene.pause(2)
    back = scene.runs.said().count(BACK.format("Redis"))
    scene.sandbox.redis.start()
    scene.runs.wait_to_say(BACK.format("Redis"), more_than=back)
    return "held, and went on by itself"


def redis_freezes(scene: Scene) -> str:
    """Redis keeps its connections but stops answering."""
    before = scene.runs.said().count(AWAY.format("Redis"))
    scene.sandbox.redis.pause()
    try:
        scene.runs.wait_to_say(AWAY.format("Redis"), more_than=before)
        back = scene.runs.said().count(BACK.format("Redis"))
    finally:
        scene.sandbox.redis.resume()
    scene.runs.wait_to_say(BACK.format("Redis"), more_than=back)
    return "held, and went on by itself"


def terminate_without_redis(scene: Scene) -> str:
    """SIGTERM while Redis is away: exit 1 with the epoch uncommitted; 0 if one of two processes has committed all."""
    before = scene.runs.said().count(AWAY.format("Redis"))
    scene.sandbox.redis.stop()
    scene.runs.wait_to_say(AWAY.format("Redis"), more_than=before)
    scene.runs.terminate()
    codes = scene.runs.ended(0, 1)
    scene.sandbox.redis.start()
    if 1 not in codes:
        message = f"nobody says that the epoch is not committed: {scene.runs.said()[-2000:]}"
        raise DrillError(message)
    return f"exit {sorted(codes)}, {scene.start()}"


def redis_is_emptied(scene: Scene) -> str:
    """FLUSHALL; the stream notices, and a restore refills it while the stream runs."""
    scene.wait_until_filled()
    before, filled = (scene.runs.said().count(text) for text in (LOST, FILLED))
    with Redis.from_url(scene.sandbox.redis_url) as redis:
        redis.flushall()
    scene.runs.wait_to_say(LOST, more_than=before)
    said = scene.command("batch.restore_online")
    scene.runs.wait_to_say(FILLED, more_than=filled)
    return said


def redis_is_emptied_in_an_epoch(scene: Scene) -> str:
    """FLUSHALL and a restore right after a push, while Parquet doesn't have the pushed rows yet."""
    from batch.maintenance.restore_online import OvertakenError, restore  # noqa: PLC0415  (Feast takes seconds to import)
    from feast_repo.stores.online.view import OnlineView  # noqa: PLC0415
    from feast_repo.stores.opening import open_store  # noqa: PLC0415

    scene.wait_until_filled()
    store = open_store()
    online = OnlineView(store, store.get_feature_view(features.user_click_features.name))
    before = _writes(online.redis)
    if not wait_until(lambda: _writes(online.redis) > before, PATIENCE_S):
        message = f"no row was pushed within {PATIENCE_S:.0f} s"
        raise DrillError(message)
    online.redis.flushall()
    written = 0
    with contextlib.suppress(OvertakenError):  # the stream has noticed meanwhile and started its own refill
        written = restore(scene.data_root, features.user_click_features, online, store.project, Console(quiet=True))
    return f"restored {written} rows at once" if written else "refilled by the stream"


def _writes(redis: Redis) -> int:
    """The number of rows written so far."""
    statistics: Any = redis.info("commandstats")
    return int(statistics.get("cmdstat_hset", {}).get("calls", 0))


def kafka_goes(scene: Scene) -> str:
    """Kafka stops and comes back with its log."""
    away = scene.runs.said().count(AWAY.format("Kafka"))
    scene.sandbox.kafka.stop()
    scene.runs.wait_to_say(AWAY.format("Kafka"), more_than=away)
    back = scene.runs.said().count(BACK.format("Kafka"))
    scene.pause(2)
    scene.sandbox.kafka.start()
    scene.runs.wait_to_say(BACK.format("Kafka"), more_than=back)
    return "waited, and went on by itself"


def terminate_without_kafka(scene: Scene) -> str:
    """SIGTERM while Kafka is away: everything read is stored and committed, exit 0."""
    away = scene.runs.said().count(AWAY.format("Kafka"))
    scene.sandbox.kafka.stop()
    scene.runs.wait_to_say(AWAY.format("Kafka"), more_than=away)
    seconds = scene.runs.stop()
    scene.sandbox.kafka.start()
    return f"exit 0 after {seconds:.1f} s, {scene.start()}"


def recovery_is_lost(scene: Scene) -> str:
    """The recovery directory is deleted after a crash; the next start rebuilds it."""
    scene.runs.kill()
    shutil.rmtree(scene.runs.recovery)
    started = scene.start()
    scene.runs.wait_to_say("recovery state rebuilt")
    return f"rebuilt by the next start, {started}"


def recovery_is_damaged(scene: Scene) -> str:
    """The recovery files are damaged in a crash; a start is refused, a command rebuilds them."""
    scene.runs.kill()
    # All of them: from an intact log beside a cut file SQLite restores an older state, and resuming from it is exact.
    for part in scene.runs.recovery.glob("part-*.sqlite3*"):
        part.write_bytes(scene.chance.randbytes(part.stat().st_size // 2 + 1))
    line = scene.runs.refused()
    if "stream.recovery rebuild" not in line:
        message = f"the refusal doesn't name the remedy: {line}"
        raise DrillError(message)
    scene.command("stream.recovery", "rebuild", str(scene.runs.recovery))
    return f"refused, rebuilt by command, {scene.start()}"


def disk_is_full(scene: Scene) -> str:
    """The disk below DATA_ROOT is full: the run ends with one line, and a new one continues once there is room."""
    ballast = scene.data_root / "ballast"
    with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(b"\0" * (1 << 16))
    try:
        codes = scene.runs.codes()
        said = scene.runs.said()
    finally:
        ballast.unlink()
    if codes != {1} or "make room" not in said:
        message = f"on a full disk: exit codes {codes}, {said[-2000:]}"
        raise DrillError(message)
    return f"exit 1 in one line, {scene.start()}"


def second_run(scene: Scene) -> str:
    """Someone starts a second run on the same data."""
    line = scene.runs.refused()
    if "another run writes to" not in line:
        message = f"a second run was refused for another reason: {line}"
        raise DrillError(message)
    return "refused, exit 2"


FAULTS: dict[str, Callable[[Scene], str]] = {
    fault.__name__: fault
    for fault in (
        kill,
        redis_is_emptied,
        redis_is_emptied_in_an_epoch,
        recovery_is_lost,
        disk_is_full,
        kafka_goes,
        terminate,
        redis_freezes,
        kill_while_starting,
        redis_stops,
        recovery_is_damaged,
        terminate_without_redis,
        terminate_without_kafka,
        redis_crashes,
        second_run,
        *stops.FAULTS,
        *topic_faults.FAULTS,
        *redis_faults.FAULTS,
    )
}


def schedule(count: int, seed: int, *, small_disk: bool, real_kafka: bool = True) -> list[str]:
    """Kinds of faults in random order; each possible kind occurs before any is repeated."""
    impossible = {disk_is_full.__name__} if not small_disk else set()
    if not real_kafka:
        impossible |= {fault.__name__ for fault in topic_faults.FAULTS}
    kinds = [kind for kind in FAULTS if kind not in impossible]
    chance = random.Random(seed)  # noqa: S311  (a drill is repeatable)
    chosen: list[str] = []
    while len(chosen) < count:
        chosen += chance.sample(kinds, len(kinds))
    return chosen[:count]


@contextlib.contextmanager
def small_disk(folder: Path) -> Iterator[bool]:
    """Mount a separate in-memory disk at a folder; False if this process may not mount one."""
    folder.mkdir(parents=True)
    libc = ctypes.CDLL(None, use_errno=True)
    size = f"size={DISK_MIB}m".encode()
    mount = getattr(libc, "mount", None)
    mounted = (
        mount is not None and sys.platform == "linux" and (mount(b"tmpfs", os.fsencode(folder), b"tmpfs", 0, size) == 0)
    )
    try:
        yield mounted
    finally:
        if mounted:
            libc.umount2(os.fsencode(folder), 2)  # MNT_DETACH: readers may still hold files
