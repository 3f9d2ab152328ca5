"""A stream goes on without an entity that was forgotten, though its topic still has the events."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import polars as pl
from confluent_kafka import Producer

from batch.maintenance.forget import main as forget
from feast_repo.clickstream import clickstream
from feast_repo.features import user_click_features as view
from feast_repo.stores.offline.tables import dead_letters_folder, events_folder, features_folder
from feast_repo.stores.opening import open_store
from sandbox.checks import online_equals_offline, rows_of
from sandbox.oracle import compare
from tests.integration.conftest import PARTITIONS

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

    from tests.integration.conftest import Stack

HOUR_MS = 3_600_000


def close_windows(stack: Stack, after_ms: int) -> None:
    """Heartbeats in all partitions, which close the windows that were open."""
    producer = Producer({"bootstrap.servers": stack.environment["KAFKA_BOOTSTRAP_SERVERS"]})
    at = after_ms + 3 * HOUR_MS
    value = json.dumps({"event_id": "beat", "event_type": "heartbeat", "event_timestamp": at})
    for partition in range(PARTITIONS):
        producer.produce(stack.settings.catalog.stream().topic, value, None, partition=partition, timestamp=at)
    producer.flush()


def test_the_next_run_goes_on_without_it(stack: Stack, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "recovery"
    arguments = ["-r", str(folder), "-s", "1", "-b", "0"]
    stack.produce(events=6_000)
    assert stack.run(*arguments)[0] == 0
    root = stack.settings.data_root
    events = rows_of(events_folder(root, clickstream)).drop_nulls("user_id")
    last = events.sort("event_timestamp").row(-1, named=True)
    user: str = last["user_id"]

    assert forget(["--entity", user, "--yes", "--recovery", str(folder)]) == 0
    assert not list(folder.glob("*.sqlite3"))
    adopt = [sys.executable, "-m", "stream.recovery", "adopt", str(folder)]
    adopted = subprocess.run(adopt, capture_output=True, text=True, check=False, cwd=stack.folder)
    assert adopted.returncode == 0, "the topic still has what the archive lacks: " + adopted.stderr

    close_windows(stack, round(last["event_timestamp"].timestamp() * 1000))
    before = len(rows_of(features_folder(root, view.name)))
    status, errors = stack.run(*arguments)
    assert status == 0, errors
    rows = rows_of(features_folder(root, view.name))
    assert len(rows) > before
    assert rows.filter(user_id=user).is_empty()
    assert rows_of(events_folder(root, clickstream)).filter(user_id=user).is_empty()
    assert rows_of(dead_letters_folder(root, clickstream)).filter(pl.col("key") == user.encode()).is_empty()
    assert compare(root, view).none
    assert online_equals_offline(open_store(), root, view).holds
    capsys.readouterr()
    assert forget(["--entity", user, "--yes", "--recovery", str(folder), "--json"]) == 0
    places = json.loads(capsys.readouterr().out)["places"]
    assert {name for name, one in places.items() if one["found"]} == {str(folder)}
