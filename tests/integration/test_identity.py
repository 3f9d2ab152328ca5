"""Data goes on with the topic that it came from, and with no other one: at the start and while it runs."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import polars as pl
import pytest
from confluent_kafka import Consumer, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewPartitions, NewTopic

from feast_repo.clickstream import clickstream
from feast_repo.features import user_click_features as view
from feast_repo.stores import identity
from feast_repo.stores.offline.tables import events_folder, progress_folder
from sandbox.checks import contents
from sandbox.oracle import compare
from sandbox.processes import wait_until
from tests.conftest import runs_apache
from tests.integration.conftest import PARTITIONS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.integration.conftest import Stack

real_kafka = pytest.mark.skipif(not runs_apache(), reason="the embedded broker tells no ids and adds no partitions")
NEAR_MS = 2_000
"""How soon the topic is looked at in these tests."""


@pytest.fixture
def admin(stack: Stack) -> AdminClient:
    return AdminClient({"bootstrap.servers": stack.environment["KAFKA_BOOTSTRAP_SERVERS"]})


def arguments(folder: Path) -> list[str]:
    return ["-r", str(folder), "-s", "1", "-b", "0"]


def said(stack: Stack, *arguments: str, **environment: str) -> str:
    """The one line of a run that is refused."""
    status, errors = stack.run(*arguments, **environment)
    lines = [line for line in errors.splitlines() if " WARNING " not in line and " INFO " not in line]
    assert (status, len(lines)) == (2, 1), errors
    return lines[0]


def command(stack: Stack, module: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-m", module, *arguments]
    return subprocess.run(
        words, capture_output=True, text=True, check=False, cwd=stack.folder, env={**os.environ, **environment}
    )


def adopt(stack: Stack, folder: Path, **environment: str) -> tuple[int, str]:
    done = command(stack, "stream.recovery", "adopt", str(folder), **environment)
    return done.returncode, done.stdout + done.stderr


def create(admin: AdminClient, topic: str, partitions: int) -> None:
    """Create a topic, as soon as one of its name is gone."""

    def created() -> bool:
        return admin.create_topics([NewTopic(topic, partitions, 1)])[topic].exception() is None

    assert wait_until(created, 30)


def recreate(stack: Stack, admin: AdminClient, partitions: int) -> None:
    topic = stack.settings.catalog.stream().topic
    admin.delete_topics([topic])[topic].result()
    create(admin, topic, partitions)


def stored(stack: Stack) -> object:
    return contents(stack.settings.data_root, stack.settings.redis_url)


def assert_exact(stack: Stack) -> None:
    found = compare(stack.settings.data_root, view)
    assert found.none, found
    assert found.recomputed > 0


@real_kafka
def test_a_recreated_topic_is_refused_also_when_it_has_grown(stack: Stack, admin: AdminClient, tmp_path: Path) -> None:
    folder = tmp_path / "recovery"
    stack.produce(events=2_000)
    assert stack.run(*arguments(folder))[0] == 0
    before = stored(stack)
    recreate(stack, admin, PARTITIONS)
    stack.produce(events=6_000, seed=2, hours_later=1)

    assert "this is another topic, or it was recreated" in said(stack, *arguments(folder))
    assert "this is another topic, or it was recreated" in said(stack)
    shutil.rmtree(folder)
    assert f"stream.recovery adopt {folder}" in said(stack, *arguments(folder))
    status, line = adopt(stack, folder)
    assert (status, line.count("\n")) == (2, 1), line
    assert "another record at offset" in line
    assert stored(stack) == before


@real_kafka
def test_added_partitions_are_refused(stack: Stack, admin: AdminClient, tmp_path: Path) -> None:
    folder = tmp_path / "recovery"
    stack.produce(events=2_000)
    assert stack.run(*arguments(folder))[0] == 0
    before = stored(stack)
    topic = stack.settings.catalog.stream().topic
    admin.create_partitions([NewPartitions(topic, PARTITIONS + 2)])[topic].result()
    words = f"has {PARTITIONS + 2} partitions, and had {PARTITIONS}"
    assert words in said(stack, *arguments(folder))
    assert words in said(stack)
    shutil.rmtree(folder)
    assert words in said(stack, *arguments(folder))
    assert stored(stack) == before


def test_a_redefined_aggregate_is_refused_without_its_recovery_directory(stack: Stack, tmp_path: Path) -> None:
    folder = tmp_path / "recovery"
    stack.produce(events=2_000)
    assert stack.run(*arguments(folder))[0] == 0
    known = identity.load(stack.settings.data_root)
    assert known is not None
    file = stack.settings.data_root / identity.FILE
    told = json.loads(file.read_text())
    told["declarations"]["user_click_features"]["aggregates"]["click_count"] = ["Count", {"where": None}]
    file.write_text(json.dumps(told))
    shutil.rmtree(folder)
    assert f"`python -m stream.recovery rebuild {folder}`" in said(stack, *arguments(folder))
    assert "another declaration of click_count" in said(stack)
    assert command(stack, "stream.recovery", "rebuild", str(folder)).returncode == 0
    assert stack.run(*arguments(folder))[0] == 0
    assert identity.load(stack.settings.data_root) == known


@real_kafka
def test_retention_that_ate_what_open_windows_need_is_refused(stack: Stack, admin: AdminClient, tmp_path: Path) -> None:
    folder = tmp_path / "recovery"
    stack.produce(events=4_000, hours=3)
    assert stack.run(*arguments(folder))[0] == 0
    events = pl.read_parquet(list(events_folder(stack.settings.data_root, clickstream).rglob("*.parquet")))
    needed = _needed(events)
    topic = stack.settings.catalog.stream().topic

    def delete(ends: dict[int, int]) -> None:
        parts = [TopicPartition(topic, partition, offset) for partition, offset in ends.items()]
        for deleted in admin.delete_records(parts).values():
            deleted.result()

    delete(needed)
    stack.produce(events=4_000, seed=2, hours_later=1)
    assert stack.run()[0] == 0, "all that open windows need is there"
    assert_exact(stack)

    needed = _needed(pl.read_parquet(list(events_folder(stack.settings.data_root, clickstream).rglob("*.parquet"))))
    delete({**needed, 2: needed[2] + 1})
    line = said(stack)
    assert f"{topic}[2]" in line
    assert f"from offset {needed[2]} on" in line
    assert stack.run("-r", str(tmp_path / "other"), "-s", "1", "-b", "0")[0] == 0, "a rebuild has them from the archive"
    assert_exact(stack)


def _needed(events: pl.DataFrame) -> dict[int, int]:
    """The first offset of each partition whose event an open window or its expiry row can need."""
    needed = {}
    for (partition,), log in events.partition_by("partition", as_dict=True).items():
        time = log[view.source.time].dt.epoch("ms")
        last_closed_ms = (time.max() - view.lateness_ms) // view.slide_ms * view.slide_ms  # type: ignore[operator]
        needed[partition] = log.filter(time >= last_closed_ms - view.window_ms)["offset"].min()
    return needed  # type: ignore[return-value]


@real_kafka
def test_a_renamed_topic_with_the_same_records_is_adopted(stack: Stack, admin: AdminClient, tmp_path: Path) -> None:
    folder = tmp_path / "recovery"
    stack.produce(events=2_000)
    assert stack.run(*arguments(folder))[0] == 0
    known = identity.load(stack.settings.data_root)
    assert known is not None
    other = f"{stack.settings.catalog.stream().topic}-renamed"
    create(admin, other, PARTITIONS)
    _copy(stack, other)
    stack.environment["KAFKA_TOPIC"] = os.environ["KAFKA_TOPIC"] = other
    stack.produce(events=2_000, seed=2, hours_later=1)

    assert f"stream.recovery adopt {folder}" in said(stack, *arguments(folder))
    status, text = adopt(stack, folder)
    assert status == 0, text
    assert "stored records compared, all equal" in text
    adopted = identity.load(stack.settings.data_root)
    assert adopted is not None
    assert (adopted.id, adopted.streams[view.source.name].topic) == (known.id, other)
    assert f"keeps its id {known.id}" in adopt(stack, folder)[1], "adopting again changes nothing"
    assert stack.run(*arguments(folder))[0] == 0
    assert_exact(stack)

    root, copy = stack.settings.data_root, tmp_path / "copy"
    shutil.copytree(root, copy)
    shutil.copytree(folder, tmp_path / "copied-recovery")
    elsewhere = {"DATA_ROOT": str(copy), "FEAST_REGISTRY_URL": f"sqlite:///{tmp_path}/other.db"}
    status, text = adopt(stack, tmp_path / "copied-recovery", **elsewhere)
    assert status == 0, text
    assert "is a copy, or was restored" in text
    assert (identity.data_id(copy) != known.id) & (identity.data_id(root) == known.id)
    assert "if both were restored or copied" in said(stack, *arguments(folder), **elsewhere)


def test_another_registry_is_refused_until_it_is_adopted(stack: Stack, tmp_path: Path) -> None:
    folder = tmp_path / "recovery"
    other = {"FEAST_REGISTRY_URL": f"sqlite:///{tmp_path / 'other.db'}"}
    stack.produce(events=2_000)
    assert stack.run(*arguments(folder))[0] == 0
    before = stored(stack)
    known = identity.load(stack.settings.data_root)
    assert known is not None
    line = said(stack, *arguments(folder), **other)
    assert "belongs to another registry" in line
    assert "`python -m stream.recovery adopt RECOVERY_DIRECTORY`" in line
    refused = command(stack, "batch.restore_online", **other)
    assert (refused.returncode, refused.stderr.count("\n")) == (2, 1), refused.stderr
    assert "belongs to another registry" in refused.stderr
    assert stored(stack) == before
    assert identity.load(stack.settings.data_root) == known

    status, text = adopt(stack, folder, **other)
    assert status == 0, text
    assert f"registry at sqlite:///{tmp_path / 'other.db'} describes this data from now on" in text
    stack.produce(events=2_000, seed=2, hours_later=1)
    assert stack.run(*arguments(folder), **other)[0] == 0
    assert_exact(stack)
    assert "belongs to another registry" in said(stack, *arguments(folder)), "the first one is the other one now"


@pytest.mark.parametrize("content", ["", "{", '{"id": "x", "project": "p", "streams": {}, "declaration": 1}'])
def test_a_damaged_identity_is_refused_until_it_is_adopted(stack: Stack, tmp_path: Path, content: str) -> None:
    folder = tmp_path / "recovery"
    stack.produce(events=2_000)
    assert stack.run(*arguments(folder))[0] == 0
    known = identity.load(stack.settings.data_root)
    assert known is not None
    (stack.settings.data_root / identity.FILE).write_text(content)
    assert "identity.json is damaged" in said(stack, *arguments(folder))
    status, text = adopt(stack, folder)
    assert status == 0, text
    assert stack.run(*arguments(folder))[0] == 0
    made = identity.load(stack.settings.data_root)
    assert made is not None
    assert (made.streams, made.declarations, made.registries) == (known.streams, known.declarations, known.registries)
    assert made.id != known.id


def _copy(stack: Stack, other: str) -> None:
    """Copy all records of the topic to another one, to the same offsets and with the same times."""
    servers = stack.environment["KAFKA_BOOTSTRAP_SERVERS"]
    consumer = Consumer({"bootstrap.servers": servers, "group.id": other, "enable.partition.eof": True})
    consumer.assign(
        [TopicPartition(stack.settings.catalog.stream().topic, partition, 0) for partition in range(PARTITIONS)]
    )
    producer, left = Producer({"bootstrap.servers": servers}), PARTITIONS

    def messages() -> Iterator[Message]:
        nonlocal left
        while left:
            for message in consumer.consume(1_000, timeout=1):
                left -= message.error() is not None
                if message.error() is None:
                    yield message

    for message in messages():
        at = {"partition": message.partition(), "timestamp": message.timestamp()[1]}
        producer.produce(other, message.value(), message.key(), **at)
    producer.flush()
    consumer.close()


class TestInARun:
    """The run ends with the remedy before anything of the other topic is stored."""

    @pytest.fixture
    def near(self, stack: Stack, tmp_path: Path) -> Stack:
        properties = tmp_path / "kafka.properties"
        properties.write_text(f"topic.metadata.refresh.interval.ms={NEAR_MS}\n")
        stack.environment["KAFKA_PROPERTIES_FILE"] = str(properties)
        return stack

    @real_kafka
    def test_partitions_are_added_while_nothing_comes(self, near: Stack, admin: AdminClient, tmp_path: Path) -> None:
        near.produce(events=2_000)
        run = near.start(*arguments(tmp_path / "recovery"), stop_at_end=False)
        assert wait_until(lambda: _archived(near) > 0, 60)
        topic = near.settings.catalog.stream().topic
        admin.create_partitions([NewPartitions(topic, PARTITIONS + 2)])[topic].result()
        _, errors = run.communicate(timeout=30)
        assert run.returncode == 1, errors
        assert f"has {PARTITIONS + 2} partitions, and had {PARTITIONS}" in errors

    @real_kafka
    def test_a_topic_is_recreated_while_the_run_is_held_up(
        self, stack: Stack, admin: AdminClient, tmp_path: Path
    ) -> None:
        count = stack.produce(events=2_000)
        run = stack.start(*arguments(tmp_path / "recovery"), stop_at_end=False)
        assert wait_until(lambda: _archived(stack) > count * 0.9, 60)
        assert wait_until(
            lambda: len(list(progress_folder(stack.settings.data_root, clickstream).glob("*"))) == PARTITIONS, 60
        )
        archived = _archived(stack)
        run.send_signal(signal.SIGSTOP)
        recreate(stack, admin, PARTITIONS)
        stack.produce(events=6_000, seed=2, hours_later=1)
        run.send_signal(signal.SIGCONT)
        _, errors = run.communicate(timeout=30)
        assert run.returncode == 1, errors
        assert "this is another topic, or it was recreated" in errors
        assert _archived(stack) == archived, "nothing of the new topic is stored"

    @real_kafka
    def test_a_recreated_topic_that_is_shorter_is_no_retention(
        self, stack: Stack, admin: AdminClient, tmp_path: Path
    ) -> None:
        stack.produce(events=2_000)
        run = stack.start(*arguments(tmp_path / "recovery"), stop_at_end=False)
        assert wait_until(lambda: _archived(stack) > 0, 60)
        recreate(stack, admin, PARTITIONS)
        stack.produce(events=100, seed=2, hours_later=1)
        _, errors = run.communicate(timeout=60)
        assert run.returncode == 1, errors
        assert "this is another topic, or it was recreated" in errors


def _archived(stack: Stack) -> int:
    files = list(events_folder(stack.settings.data_root, clickstream).rglob("*.parquet"))
    return pl.scan_parquet(files).select(pl.len()).collect().item() if files else 0
