"""Faults of the topic itself, which would destroy the drill's own log: they hit a separate topic with separate data.

Each time a separate run must refuse what it finds, in one line with the remedy, and store nothing of it.
"""

from __future__ import annotations

import json
import uuid
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import polars as pl
from confluent_kafka import KafkaException, Producer
from confluent_kafka.admin import AdminClient, NewPartitions, NewTopic
from redis import Redis

from batch.recompute.archive import days_of, files_of
from feast_repo.clickstream import clickstream
from feast_repo.stores.offline.parquet import scan
from feast_repo.stores.offline.tables import events_folder, progress_folder
from sandbox.chaos.runs import PATIENCE_S, DrillError, Runs
from sandbox.processes import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from sandbox.chaos.scene import Scene

PARTITIONS, CLICKS, NEW_YEAR_MS = 2, 100, 1_767_225_600_000


@dataclass(frozen=True)
class Beside:
    """A separate topic, and the run that reads it."""

    admin: AdminClient
    bootstrap: str
    topic: str
    runs: Runs
    data_root: Path

    def create(self) -> None:
        """Create the topic as soon as its predecessor is gone."""

        def created() -> bool:
            try:
                self.admin.create_topics([NewTopic(self.topic, PARTITIONS, 1)])[self.topic].result(PATIENCE_S)
            except KafkaException:
                return False
            return True

        if not wait_until(created, PATIENCE_S):
            message = f"topic {self.topic} was not created within {PATIENCE_S:.0f} s"
            raise DrillError(message)

    def produce(self, user: str, count: int) -> None:
        """Produce `count` clicks of a user to each partition."""
        producer = Producer({"bootstrap.servers": self.bootstrap})
        for partition in range(PARTITIONS):
            for number in range(count):
                time_ms = NEW_YEAR_MS + number * 1000
                click = {"event_id": f"{user}-{partition}-{number}", "event_type": "click", "event_timestamp": time_ms}
                value = json.dumps(click | {"user_id": user})
                producer.produce(self.topic, value, user, partition=partition, timestamp=time_ms)
        producer.flush()

    def stored(self) -> dict[str, int]:
        """The number of archived clicks by user."""
        folder = events_folder(self.data_root, clickstream)
        rows = scan(files_of(folder, days_of(folder))).group_by("user_id").agg(pl.len()).collect()
        return dict(rows.iter_rows())


@contextmanager
def _beside(scene: Scene) -> Iterator[Beside]:
    """A run that has stored a separate topic, with a separate Redis database and registry."""
    name = f"beside-{uuid.uuid4().hex[:12]}"
    folder = scene.sandbox.root / name
    data_root = folder / "data"
    environment = {
        **scene.environment,
        "KAFKA_TOPIC": name,
        "DATA_ROOT": str(data_root),
        "REDIS_URL": scene.sandbox.redis_url.removesuffix("/0") + "/9",
        "FEAST_REGISTRY_URL": f"sqlite:///{folder / 'registry.db'}",
    }
    folder.mkdir()
    runs = Runs(environment, folder / "recovery", progress_folder(data_root, clickstream), folder / "dataflow.log")
    bootstrap = scene.sandbox.bootstrap
    beside = Beside(AdminClient({"bootstrap.servers": bootstrap}), bootstrap, name, runs, data_root)
    with Redis.from_url(environment["REDIS_URL"]) as redis:
        redis.flushdb()
    beside.create()
    try:
        beside.produce("before", CLICKS)
        runs.start()
        runs.wait_for_progress(PARTITIONS * CLICKS - runs.position())
        yield beside
    finally:
        runs.kill()
        beside.admin.delete_topics([name])[name].result(PATIENCE_S)


def topic_is_recreated(scene: Scene) -> str:
    """The topic is deleted and recreated, and grows past the stored offset, during a run or between runs."""

    def recreate(beside: Beside) -> None:
        beside.admin.delete_topics([beside.topic])[beside.topic].result(PATIENCE_S)
        beside.create()
        beside.produce("after", 2 * CLICKS)

    return _refused(scene, recreate, "it was recreated", "adopt")


def partitions_are_added(scene: Scene) -> str:
    """The topic gets more partitions, during a run or between runs."""

    def add(beside: Beside) -> None:
        new = NewPartitions(beside.topic, 2 * PARTITIONS)
        beside.admin.create_partitions([new])[beside.topic].result(PATIENCE_S)

    return _refused(scene, add, f"has {2 * PARTITIONS} partitions, and had {PARTITIONS}", "another DATA_ROOT")


def _refused(scene: Scene, change: Callable[[Beside], None], *words: str) -> str:
    in_a_run = scene.chance.choice([True, False])
    with _beside(scene) as beside:
        if in_a_run:
            change(beside)
            codes = beside.runs.codes()
            line = beside.runs.said().strip().rpartition("\n")[2]
            if codes != {1}:
                message = f"exit codes {codes}, not 1: {line}"
                raise DrillError(message)
        else:
            beside.runs.stop()
            change(beside)
            line = beside.runs.refused()
        if missing := [word for word in words if word not in line]:
            message = f"the line lacks {missing}: {line}"
            raise DrillError(message)
        if (stored := beside.stored()) != {"before": PARTITIONS * CLICKS}:
            message = f"stored are {stored}, not what the first topic held"
            raise DrillError(message)
    return "exit 1 in the run" if in_a_run else "refused at the start"


FAULTS = (topic_is_recreated, partitions_are_added)
