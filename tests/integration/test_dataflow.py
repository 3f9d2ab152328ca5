"""The dataflow through `bytewax.run`, with a real broker, a real Redis-compatible server and real files."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import polars as pl
import pytest
from confluent_kafka import Producer

from feast_repo.clickstream import clickstream
from feast_repo.declare.rows import SERVED
from feast_repo.errors import ExitCode
from feast_repo.features import user_click_features as view
from feast_repo.stores.offline.tables import (
    dead_letters_folder,
    events_folder,
    features_folder,
    late_folder,
    progress_folder,
)
from feast_repo.stores.opening import open_store
from feast_repo.stores.progress import ProgressRecord
from sandbox.checks import contents, online_equals_offline, rows_of
from sandbox.oracle import compare

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from sandbox.redis_server import RedisServer
    from tests.integration.conftest import Stack

T0 = 1_767_225_600_000  # 2026-01-01, a multiple of the slide
MINUTE = 60_000


def assert_all_stored(stack: Stack, messages: int) -> None:
    """Every message in one place, every row as SQL over the archive has it, Redis equal to the newest rows."""
    root = stack.settings.data_root
    events, letters = rows_of(events_folder(root, clickstream)), rows_of(dead_letters_folder(root, clickstream))
    positions = pl.concat([events.select("partition", "offset"), letters.select("partition", "offset")])
    assert positions.n_unique() == len(positions) == messages
    differences = compare(root, view)
    assert differences.none, differences
    assert differences.recomputed > 0
    assert len(rows_of(late_folder(root, view))) > 0
    check = online_equals_offline(open_store(), root, view)
    assert check.holds, check.figures


@pytest.mark.parametrize("arguments", [[], ["-w", "2"]], ids=["one worker", "two threads"])
def test_one_process(stack: Stack, arguments: list[str]) -> None:
    messages = stack.produce()
    status, errors = stack.run(*arguments)
    assert status == 0, errors
    assert f"read {messages:,} messages" in errors
    assert_all_stored(stack, messages)

    before = contents(stack.settings.data_root, stack.settings.redis_url)
    assert stack.run(*arguments)[0] == 0
    assert contents(stack.settings.data_root, stack.settings.redis_url) == before


def test_two_processes_share_the_topic(stack: Stack) -> None:
    messages = stack.produce()
    finished = stack.run_processes(2)
    assert [status for status, _ in finished] == [0, 0], finished
    assert_all_stored(stack, messages)
    # Both did their share: three of six partitions each.
    assert all("stored" in errors for _, errors in finished)


def test_topic_that_another_producer_filled(stack: Stack) -> None:
    #             0:00      0:05        0:12           0:20   event time
    #  user ann   view     cart
    #  heartbeat                        0:12 = W 0:10 -> window 0:10 closes
    producer = Producer({"bootstrap.servers": stack.environment["KAFKA_BOOTSTRAP_SERVERS"]})

    def send(key: str | None, at: int, **event: object) -> None:
        value = {"event_id": f"e{at}", "event_timestamp": T0 + at, **event}
        producer.produce(
            stack.settings.catalog.stream().topic, json.dumps(value), key, partition=0, timestamp=T0 + at + 5
        )

    send("ann", 0, user_id="ann", event_type="view", anything="else")
    send("ann", 5 * MINUTE, user_id="ann", event_type="add_to_cart", product_id=None)
    producer.produce(stack.settings.catalog.stream().topic, b"{", "ann", partition=0, timestamp=T0)
    send(None, 12 * MINUTE, event_type="heartbeat")
    producer.flush()

    status, errors = stack.run()
    assert status == 0, errors
    rows = rows_of(features_folder(stack.settings.data_root, view.name))
    assert rows.drop(SERVED).to_dicts() == [
        {
            "user_id": "ann",
            "event_timestamp": _utc(T0 + 10 * MINUTE),
            "created_timestamp": _utc(T0 + 12 * MINUTE + 5),
            "writer": "stream",
            "click_count": 0,
            "view_count": 1,
            "cart_count": 1,
            "purchase_count": 0,
            "revenue_cents": 0,
            "cart_rate": 1.0,
            "conversion_rate": 0.0,
        }
    ]
    online = open_store().get_online_features([f"{view.name}:cart_rate"], [{"user_id": "ann"}]).to_dict()
    assert online == {"user_id": ["ann"], "cart_rate": [1.0]}
    letters = rows_of(dead_letters_folder(stack.settings.data_root, clickstream))
    assert letters.select("offset", "value", "reason").rows() == [(2, b"{", "not_json")]
    progress = ProgressRecord(progress_folder(stack.settings.data_root, clickstream)).load()
    assert (progress[0].next_offset, progress[0].watermark_ms) == (4, T0 + 10 * MINUTE)


def test_resume_goes_on_where_the_last_epoch_ended(stack: Stack, tmp_path: Path) -> None:
    arguments = recovery_arguments(tmp_path / "recovery")
    first = stack.produce(events=8_000)
    assert stack.run(*arguments)[0] == 0
    second = stack.produce(events=8_000, seed=2)  # the same hours again: much of it is late now
    status, errors = stack.run(*arguments, "-w", "2")
    assert status == 0, errors
    assert f"read {second:,} messages" in errors
    assert_all_stored(stack, first + second)


def test_sigterm_drains_and_commits(stack: Stack, tmp_path: Path) -> None:
    arguments = recovery_arguments(tmp_path / "recovery")
    messages = stack.produce(events=8_000)
    process = stack.start(*arguments, stop_at_end=False)
    record = ProgressRecord(progress_folder(stack.settings.data_root, clickstream))
    _wait_until(lambda: sum(one.next_offset for one in record.load().values()) == messages, process)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 0, errors
    assert_all_stored(stack, messages)
    status, errors = stack.run(*arguments)
    assert status == 0, errors
    assert "new feature rows" not in errors, "nothing was left to do"


def test_redis_that_is_away_holds_the_epoch(stack: Stack, redis_server: RedisServer, tmp_path: Path) -> None:
    messages = stack.produce(events=8_000)
    redis_server.stop()
    try:
        log = tmp_path / "log"
        process = stack.start(errors=log)
        _wait_until(lambda: "Redis is away" in log.read_text(), process)
        assert not list(progress_folder(stack.settings.data_root, clickstream).glob("*")), "no progress without Redis"
    finally:
        redis_server.start()
    assert process.wait(timeout=60) == 0, log.read_text()
    assert "Redis is back" in log.read_text()
    assert_all_stored(stack, messages)


def test_second_run_on_the_same_data_is_refused(stack: Stack, tmp_path: Path) -> None:
    messages = stack.produce(events=2_000)
    log = tmp_path / "log"
    first = stack.start(stop_at_end=False, errors=log)
    record = ProgressRecord(progress_folder(stack.settings.data_root, clickstream))
    _wait_until(lambda: sum(one.next_offset for one in record.load().values()) == messages, first)
    status, errors = stack.run()
    assert status == 2, errors
    assert "another run writes to" in errors
    first.send_signal(signal.SIGTERM)
    assert first.wait(timeout=30) == 0, log.read_text()
    assert_all_stored(stack, messages)


class TestRefusals:
    """One line that names what is wrong and the remedy, and nothing written."""

    def refused(self, stack: Stack, *arguments: str, code: ExitCode = ExitCode.REFUSED, **environment: str) -> str:
        status, errors = stack.run(*arguments, **environment)
        lines = [line for line in errors.splitlines() if "WARNING" not in line and "INFO" not in line]
        assert status == code, errors
        assert len(lines) == 1, errors
        return lines[0]

    def test_no_broker(self, stack: Stack) -> None:
        line = self.refused(stack, code=ExitCode.TRY_AGAIN, KAFKA_BOOTSTRAP_SERVERS="127.0.0.1:1")
        assert "127.0.0.1:1" in line
        assert "KAFKA_BOOTSTRAP_SERVERS" in line

    def test_data_of_another_topic(self, stack: Stack, fresh_topic: Callable[[int], str]) -> None:
        stack.produce(events=2_000)
        assert stack.run()[0] == 0
        before = contents(stack.settings.data_root, stack.settings.redis_url)
        line = self.refused(stack, KAFKA_TOPIC=fresh_topic(6))
        assert "KAFKA_TOPIC" in line
        assert "DATA_ROOT" in line
        assert contents(stack.settings.data_root, stack.settings.redis_url) == before

    def test_state_of_another_declaration(self, stack: Stack, tmp_path: Path) -> None:
        arguments = recovery_arguments(tmp_path / "recovery")
        stack.produce(events=2_000)
        assert stack.run(*arguments)[0] == 0
        assert "another declaration" in self.refused(stack, *arguments, ALLOWED_LATENESS_SECONDS="60")

    def test_setting_of_a_wrong_type(self, stack: Stack) -> None:
        line = self.refused(stack, ALLOWED_LATENESS_SECONDS="soon")
        assert "ALLOWED_LATENESS_SECONDS" in line
        assert "soon" not in line, "a wrong value may be a secret in the wrong place"

    def test_registry_that_describes_another_folder(self, stack: Stack, tmp_path: Path) -> None:
        registry = f"sqlite:///{tmp_path / 'registry.db'}"
        stack.produce(events=2_000)
        assert stack.run(FEAST_REGISTRY_URL=registry)[0] == 0
        line = self.refused(stack, FEAST_REGISTRY_URL=registry, DATA_ROOT=str(tmp_path / "elsewhere"))
        assert "feast apply" in line


def _utc(milliseconds: int) -> datetime:
    return datetime.fromtimestamp(milliseconds / 1000, tz=UTC)


def recovery_arguments(folder: Path) -> list[str]:
    """A new recovery store, and the arguments that use it."""
    folder.mkdir()
    subprocess.run([sys.executable, "-m", "bytewax.recovery", str(folder), "1"], check=True)
    return ["-r", str(folder), "-s", "1", "-b", "0"]


def _wait_until(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    tick = threading.Event()
    for _ in range(1_200):
        if condition():
            return
        assert process.poll() is None, "the run ended too early"
        tick.wait(0.05)
    pytest.fail("the condition did not come true")
