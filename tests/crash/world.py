"""The product's source, decoder, windows and stores in one process, driven by a seed through crashes and restarts.

Replaced are only input and output and time: the disk's operations, the connections to Redis, the consumer's client, the
threads and the pauses. What Bytewax does is done here as Bytewax does it: it snapshots source, windows and stores at
the epoch's end, and commits the epoch after all of them.
"""

from __future__ import annotations

import errno
import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NoReturn, Self, cast

import pytest
from redis import Redis
from redis.exceptions import TimeoutError as RedisTimeoutError
from rich.console import Console

from batch.maintenance.compaction import compact
from batch.maintenance.restore_online import restore
from feast_repo.clickstream import clickstream
from feast_repo.codec.decoding import Decoder
from feast_repo.settings import StreamSettings
from feast_repo.stores.identity import UNKNOWN, StreamIdentity
from feast_repo.stores.offline import disk
from feast_repo.stores.offline.tables import progress_folder
from feast_repo.stores.online.store import CONNECTION
from feast_repo.stores.progress import ProgressRecord, progress_key
from feast_repo.stores.push import Pusher
from stream.archive_tail import ArchiveTail
from stream.routing import key_of, part_of
from stream.source import KafkaSource
from stream.stores import Stores
from stream.window_step import Windows
from tests.crash.disk import SimulatedDisk
from tests.crash.kafka import TOPIC, Log, SameTopic, SimulatedConsumer
from tests.crash.outcome import Outcome, difference, expected, found, missing
from tests.crash.redis import breaking_client
from tests.crash.scheduling import Scheduler

if TYPE_CHECKING:
    from collections.abc import Callable

    from feast import FeatureStore

    from stream.epoch import Outcome as StreamOutcome
    from stream.source import KafkaPartition
    from stream.stores import StorePart


class KilledError(BaseException):
    """The process is gone: nothing it would do any more is done."""


class EndedError(BaseException):
    """The process ended itself, with an exit code and a line."""

    def __init__(self, reason: str, code: int) -> None:
        super().__init__(f"exit {code}: {reason}")
        self.code = code


@dataclass(frozen=True)
class Committed:
    """The recovery state of an epoch: offsets by part of the source, window states by key."""

    offsets: dict[str, int] = field(default_factory=dict)
    states: dict[str, bytes] = field(default_factory=dict)


class StopRequested:
    """`stop_requested` without pauses."""

    def __init__(self) -> None:
        self.stopped = False

    def is_set(self) -> bool:
        return self.stopped

    def wait(self, seconds: float) -> bool:
        del seconds
        return self.stopped


class InlineRefill:
    """Refills Redis at once, where the product starts a process that does so in a while."""

    def __init__(self, world: World) -> None:
        self._world = world

    def ask_for(self) -> None:
        self._world.restore_online()

    def finish(self) -> None:
        """It is done."""


class World:
    """Everything outside of the process, and when it stops.

        world.run()                # until the topic's end, or a KilledError
        world.check()

    `stop_at`: the number of the point at which the process dies; `trouble`: how likely an operation fails for now.
    `between`: what happens beside it once, at the point `between_at` or, without that, at any.
    """

    def __init__(self, bench: Bench, seed: int, logs: list[Log]) -> None:
        self.bench = bench
        self.chance = random.Random(seed)
        self.logs = logs
        self.settings = StreamSettings()
        self.points: list[str] = []
        self.stop_at = 0
        self.trouble = 0.0
        self.dead = False
        self.between: Callable[[], None] | None = None
        self.between_at = 0
        self.stop_requested = StopRequested()
        self.disk = SimulatedDisk(self.settings.data_root, self._disk_point)
        self.scheduler = Scheduler(self.chance)
        self.committed = [Committed()]
        self.saved: list[dict[bytes, bytes]] = [{}]
        """What Redis held at some times; at first nothing."""
        self.redis_is_behind = False

    def __enter__(self) -> Self:
        self._patch = patch = pytest.MonkeyPatch()
        self.bench.redis.flushall()
        self.disk.put({})
        self.disk.install(patch)
        self.scheduler.install(patch)
        self.bench.on_point = self._redis_point
        patch.setattr("stream.consumer.Consumer", lambda config: SimulatedConsumer(config, self.logs, self.chance))
        topic = StreamIdentity(TOPIC, UNKNOWN, UNKNOWN, len(self.logs))
        patch.setattr(KafkaSource, "_known", lambda _: {clickstream.name: topic})
        patch.setattr("stream.source.TopicWatch", lambda *_: SameTopic())
        pushers = {self.settings.catalog.view().name: self.bench.pusher}
        patch.setattr("stream.stores._open_pushers", lambda _: pushers)
        patch.setattr("stream.stores._spare_the_collector", lambda: None)
        patch.setattr("stream.stopping.end", _end)
        patch.setattr("stream.stores.Refill", lambda: InlineRefill(self))
        for module in ("availability", "sinks", "source"):
            patch.setattr(f"stream.{module}.stop_requested", self.stop_requested)
        return self

    def __exit__(self, *_: object) -> None:
        self.bench.on_point = _nothing
        self._patch.undo()

    def point(self, name: str) -> None:
        """Something that the process does to the world is about to happen, or has just happened."""
        self.points.append(name)
        if self.dead or len(self.points) == self.stop_at:
            self.dead = True
            raise KilledError(name)
        if self.between is not None and self._is_time():
            happens, self.between = self.between, None
            happens()

    def _is_time(self) -> bool:
        return len(self.points) == self.between_at if self.between_at else self.chance.random() < 0.02

    def _disk_point(self, name: str) -> None:
        self.point(name)
        if self.trouble and self.chance.random() < self.trouble:
            raise OSError(errno.EIO, "the disk does not answer")

    def _redis_point(self, name: str) -> None:
        self.point(name)
        if self.trouble and self.chance.random() < self.trouble:
            message = "too slow"
            raise RedisTimeoutError(message)

    def start(self, resume: Committed, workers: int = 1) -> Cluster:
        """Start the processes, after what was there has died."""
        self.dead = False
        self.scheduler.executors.clear()
        disk._durable.clear()  # noqa: SLF001  (what a new process does not know)
        if (redis := self.bench.pusher.redis) is not None:
            redis.connection_pool.disconnect()
        return Cluster(self, resume, workers)

    def rebuilt(self) -> Committed:
        """Recovery state from the archive, as `python -m stream.recovery rebuild` makes it."""
        record, view = (
            ProgressRecord(progress_folder(self.settings.data_root, clickstream)).load(),
            self.settings.catalog.view(),
        )
        return Committed(
            {part_of(clickstream.name, partition): one.next_offset for partition, one in record.items()},
            {
                key_of(clickstream.name, partition): ArchiveTail(self.settings.data_root, view.source, [view], one)
                .engine()
                .snapshot()
                for partition, one in record.items()
            },
        )

    def restore_online(self) -> None:
        """Refill Redis, as `python -m batch.restore_online` does: another process, which nothing happens to."""
        settings, pusher = self.settings, self.bench.pusher
        self.bench.on_point, mine = _nothing, self.bench.on_point
        restore(settings.data_root, settings.catalog.view(), pusher.online[0], pusher.project, Console(quiet=True))
        self.bench.on_point, self.redis_is_behind = mine, False

    def roll_redis_back(self) -> None:
        """Redis comes up with what it held once, or empty, and nobody tells."""
        self.load_redis(self.chance.choice(self.saved))
        self.redis_is_behind = True

    def delete_old_messages(self) -> None:
        """Retention: Kafka deletes messages that were committed, some or all of them, in each partition."""
        for partition, log in enumerate(self.logs):
            committed = self.committed[-1].offsets.get(part_of(clickstream.name, partition), 0)
            log.low = self.chance.randint(log.low, max(log.low, committed))

    def lose_redis(self) -> None:
        """Empty Redis, and have someone refill it at once."""
        self.bench.redis.flushall()
        self.restore_online()

    def compact(self) -> None:
        """Merge files, as `python -m batch.compaction` does, and let the disk come to rest."""
        self.disk.point, mine = _nothing, self.disk.point
        compact(self.settings.data_root, self.settings.catalog, Console(quiet=True))
        self.disk.point = mine
        self.disk.settle()

    def run_to_the_end(self, resume: Committed | None = None, workers: int = 1) -> None:
        """Run, from the last commit unless told otherwise, until everything is stored and committed."""
        self.start(self.committed[-1] if resume is None else resume, workers).run()

    def save_redis(self) -> dict[bytes, bytes]:
        """All that Redis holds."""
        redis = self.bench.redis
        return {key: cast("bytes", redis.dump(key)) for key in redis.scan_iter()}

    def load_redis(self, saved: dict[bytes, bytes]) -> None:
        """Have Redis hold this, and nothing else."""
        self.bench.redis.flushall()
        for key, value in saved.items():
            self.bench.redis.restore(key, 0, value)

    def check(self) -> None:
        """Compare what is stored with what follows from the topic.

        Raises:
            AssertionError: it is something else.
        """
        want = expected(self.settings.catalog.view(), self.logs, self.bench.store)
        differs = difference(want, self._found(list(want.online)))
        assert not differs, differs

    def check_what_is_told(self) -> None:
        """See that what the progress record and its announcement tell of is stored.

        Raises:
            AssertionError: it is not, so whoever reads while the stream is down would miss it.
        """
        record = ProgressRecord(progress_folder(self.settings.data_root, clickstream)).load()
        told = [Log(log.messages[: record[p].next_offset] if p in record else []) for p, log in enumerate(self.logs)]
        want = expected(self.settings.catalog.view(), told, self.bench.store)
        lacking = missing(want, self._found(list(want.online)))
        assert not lacking, lacking

    def _found(self, users: list[bytes]) -> Outcome:
        view, bench = self.settings.catalog.view(), self.bench
        announcements = progress_key(bench.pusher.project, view.name)
        return found(view, self.settings.data_root, bench.redis, announcements, users)


class Cluster:
    """One life of the processes: workers with their partitions of the topic and their parts of the stores."""

    def __init__(self, world: World, resume: Committed, workers: int) -> None:
        self._world = world
        self._resume = resume
        self._chance = world.chance
        settings, chance = world.settings, world.chance
        self._decoder = Decoder(settings.catalog.view().source)
        sources = [KafkaSource(settings) for _ in range(workers)]
        stores = [Stores(settings) for _ in range(workers)]
        self._windows: dict[str, Windows] = {}
        self._sources: dict[str, KafkaPartition] = {
            part: chance.choice(sources).build_part("kafka", part, resume.offsets.get(part))
            for part in sources[0].list_parts()
        }
        self._of_key: Callable[[str], int] = stores[0].part_fn
        self._stores: list[StorePart] = [
            chance.choice(stores).build_part("stores", part, None) for part in stores[0].list_parts()
        ]
        self._on_the_way: list[list[StreamOutcome]] = [[] for _ in self._stores]
        self._live = dict(self._sources)

    def run(self) -> None:
        """Go on until each partition has ended, then commit and close."""
        while self._live:
            self.step()
        self.commit()
        self.close()

    def step(self) -> None:
        """Read a batch, have what is on the way stored, or commit."""
        chance = self._chance
        part = chance.choice(sorted(self._live))
        try:
            batches = self._live[part].next_batch()
        except StopIteration:
            del self._live[part]
            return
        for stream, batch in batches:
            decoded = self._decoder.decode(batch)
            key = key_of(stream, batch.partition)
            if key not in self._windows:
                self._windows[key] = Windows(self._world.settings.catalog, self._resume.states.get(key))
            outcomes, _ = self._windows[key].on_batch([(stream, decoded)])
            self._on_the_way[self._of_key(key) % len(self._stores)] += outcomes
        if chance.random() < 0.5:
            self._store(chance.randrange(len(self._stores)))
        if chance.random() < 0.15:
            self.commit()

    def _store(self, number: int) -> None:
        if arrived := self._on_the_way[number]:
            self._on_the_way[number] = []
            self._stores[number].write_batch(arrived)

    def commit(self) -> None:
        """End the epoch as Bytewax does."""
        world = self._world
        offsets = {part: source.snapshot() for part, source in self._sources.items()}
        states = {key: windows.snapshot() for key, windows in self._windows.items()}
        for number in self._chance.sample(range(len(self._stores)), len(self._stores)):
            self._store(number)
            self._stores[number].snapshot()
        world.point("Bytewax commits")
        world.committed.append(Committed(offsets, {**self._resume.states, **states}))
        world.point("Bytewax has committed")

    def close(self) -> None:
        """End the processes."""
        for source in self._sources.values():
            source.close()
        for part in self._stores:
            part.close()


class Bench:
    """What one process opens once for many worlds: Feast's store, its pusher, and the server."""

    def __init__(self, store: FeatureStore, redis_url: str) -> None:
        self.store = store
        self.on_point: Callable[[str], None] = _nothing
        client = breaking_client(redis_url, self._point, **CONNECTION)
        store._get_provider().online_store._client = client  # noqa: SLF001  (where our store keeps its client)
        self.pusher = Pusher(store, StreamSettings().catalog.view().push_source)
        self.redis = Redis.from_url(redis_url)

    def _point(self, name: str) -> None:
        self.on_point(name)


def _nothing(_: str) -> None:
    """Let it happen."""


def _end(code: int, line: str = "") -> NoReturn:
    raise EndedError(line, code)
