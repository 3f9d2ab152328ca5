"""The whole path of a feature repository that lies outside of the project's packages: card payments."""

from __future__ import annotations

import contextlib
import io
import json
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest
from confluent_kafka import Producer

from feast_repo.codec.encoding import encode
from feast_repo.codec.heartbeats import heartbeat
from feast_repo.settings import PROJECT_ROOT, StreamSettings
from feast_repo.stores.offline.tables import dead_letters_folder, events_folder, features_folder, late_folder
from sandbox.checks import rows_of
from tests.commands import main_of
from tests.integration.conftest import Stack

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from feast_repo.declare.catalog import Catalog
    from feast_repo.declare.events import EventStream

EXAMPLE = PROJECT_ROOT / "examples" / "payments"
PARTITIONS = 3
MINUTE, HOUR = 60_000, 3_600_000
START_MS = int(datetime(2026, 3, 2, tzinfo=UTC).timestamp()) * 1000
HOURS = 30
TIMEOUT_S = 120


@pytest.fixture
def stack(
    kafka_broker: str,
    fresh_topic: Callable[[int], str],
    redis_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Stack:
    topics = {name: fresh_topic(PARTITIONS) for name in ("payments", "disputes")}
    environment = {
        "FEATURE_REPO": str(EXAMPLE),
        "KAFKA_BOOTSTRAP_SERVERS": kafka_broker,
        "KAFKA_TOPIC": ",".join(f"{stream}={topic}" for stream, topic in topics.items()),
        "REDIS_URL": redis_url,
        "DATA_ROOT": str(tmp_path / "data"),
        "FEAST_REGISTRY_URL": f"sqlite:///{tmp_path / 'registry.db'}",
    }
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    return Stack(environment)


@pytest.fixture
def catalog(stack: Stack) -> Catalog:
    return stack.settings.catalog


def payment(card: int, minute: float, *, merchant: int = 7, amount: int = 1999, status: str = "captured") -> Any:
    return {
        "card_id": f"card-{card}",
        "merchant_id": merchant,
        "amount": amount,
        "status": status,
        "created": START_MS + round(minute * MINUTE),
    }


def payments() -> list[dict[str, Any]]:
    """Thirty hours of ten cards, in order, then some that come too late."""
    events = [
        payment(
            number % 10,
            number * 3,
            merchant=number % 4,
            amount=number,
            status=("captured", "captured", "declined", "refunded")[number % 4],
        )
        for number in range(HOURS * 20)
    ]
    return [*events, payment(1, 60, amount=5), payment(2, HOURS * 60 - 20, amount=6)]


def send(
    settings: StreamSettings, stream: EventStream, events: list[dict[str, Any]], until_ms: int, *raw: bytes
) -> None:
    """Send events by their keys, some raw messages, and a heartbeat to each partition."""
    producer = Producer({"bootstrap.servers": settings.kafka_bootstrap_servers, "partitioner": "murmur2_random"})
    latest = 0
    for event in events:
        latest = max(latest, event[stream.time])
        producer.produce(stream.topic, encode(stream, event), str(event[stream.key]), timestamp=latest)
    for value in raw:
        producer.produce(stream.topic, value, "card-1", timestamp=latest)
    for partition in range(PARTITIONS):
        value, headers = heartbeat(stream, f"beat-{partition}", until_ms)
        producer.produce(stream.topic, value, partition=partition, timestamp=until_ms, headers=list(headers))
    assert producer.flush(TIMEOUT_S) == 0


def command(name: str, *arguments: str) -> dict[str, Any]:
    """Run a command of the project, and read the JSON object that it prints."""
    with contextlib.redirect_stdout(io.StringIO()) as said:
        assert main_of(name)([*arguments, "--json"]) == 0, said.getvalue()
    told: dict[str, Any] = json.loads(said.getvalue())
    return told


def by_hand(catalog: Catalog, name: str) -> dict[tuple[Any, ...], tuple[int, int]]:
    """Count and captured amount of each key and window of a view of payments, by plain Python over what was sent."""
    view = catalog.view(name)
    closed_ms = START_MS + HOURS * HOUR
    found: dict[tuple[Any, ...], tuple[int, int]] = {}
    for event in payments():
        first = event["created"] // view.slide_ms * view.slide_ms + view.slide_ms
        for end in range(first, first + view.window_ms, view.slide_ms):
            if end <= closed_ms:
                key = (*(event[one] for one in view.join_keys), end)
                count, amount = found.get(key, (0, 0))
                found[key] = count + 1, amount + event["amount"] * (event["status"] == "captured")
    return found


@pytest.mark.timeout(900)  # some twenty commands, one after the other, on a machine that may be busy
def test_the_whole_path(stack: Stack, catalog: Catalog, tmp_path: Path) -> None:
    root = stack.settings.data_root
    until_ms = START_MS + HOURS * HOUR + 5 * MINUTE
    sent = payments()
    send(
        stack.settings, catalog.stream("payments"), sent, until_ms, b"{", b'{"status": "PING"}', b'{"amount": "1.999"}'
    )
    disputes = [
        {
            "dispute_id": f"d{number % 6}",
            "card_id": f"card-{number % 3}",
            "reason": "fraud",
            "amount": 5,
            "opened": START_MS,
        }
        for number in range(9)  # three of them twice
    ]
    send(stack.settings, catalog.stream("disputes"), disputes, START_MS + 9 * 24 * HOUR)

    status, errors = stack.run("-r", str(tmp_path / "recovery"), "-s", "1", "-b", "0", "-w", "2")
    assert status == 0, errors
    assert "payments: read" in errors
    assert "disputes: read" in errors

    archived = rows_of(events_folder(root, catalog.stream("payments")))
    assert len(archived) == len(sent) + PARTITIONS
    assert archived["card_id"].null_count() == PARTITIONS
    letters = rows_of(dead_letters_folder(root, catalog.stream("payments")))
    assert sorted(letters["reason"]) == ["missing:card_id", "not_json"]
    assert len(rows_of(events_folder(root, catalog.stream("disputes")))) == len(disputes) + PARTITIONS
    assert not rows_of(late_folder(root, catalog.view("card_last_hour"))).is_empty()

    disputed = rows_of(features_folder(root, "card_disputes"))
    counted = disputed.filter(pl.col("disputes_7d") > 0).group_by("card_id").agg(pl.col("disputes_7d").max())
    assert dict(counted.iter_rows()) == {"card-0": 2, "card-1": 2, "card-2": 2}

    for view in catalog.windowed:
        for engine in ("polars", "spark") if view.name == "card_merchant_last_day" else ("polars",):
            report = command("batch.parity", "--view", view.name, "--engine", engine, "--online")
            assert report["holds"]
            assert report["rows"]["equal"] == len(rows_of(features_folder(root, view.name))) > 0

    for name, amount in (("card_last_day", "spent_cents_24h"), ("card_merchant_last_day", "merchant_spent_cents_24h")):
        report = command("batch.backfill", "--view", name, "--mode", "complete", "--heal")
        assert report["rows"] > 0
        view = catalog.view(name)
        rows = rows_of(features_folder(root, name)).sort("created_timestamp")
        rows = rows.unique((*view.join_keys, "event_timestamp"), keep="last")
        count = next(iter(view.features))
        kept = {
            (*row[: len(view.join_keys)], row[-3]): (row[-2], row[-1])
            for row in rows.with_columns(end=pl.col("event_timestamp").dt.epoch("ms"))
            .select(*view.join_keys, "end", count, amount)
            .iter_rows()
            if row[-2]
        }
        assert kept == by_hand(catalog, name)
        command("batch.parity", "--view", name, "--mode", "complete", "--online")

    command("batch.compaction")
    command("batch.restore_online")

    accounts = tmp_path / "accounts.csv"
    lines = [f"card-{card},{1000 * card},{'private' if card else 'secret'}" for card in range(10)]
    accounts.write_text("\n".join(["card_id,limit_cents,segment", *lines]) + "\n")
    gated = command("batch.quality", "gate", "--input", str(accounts), "--least-rows", "5")
    assert (gated["good"], gated["quarantined"]) == (9, 1)
    command("batch.materialize")

    trained = command("batch.training_set", "--as-created")
    assert trained["rows"] > 0
    command("serving.train", "--force")
    predicted = command("serving.predict", "--users", "card-1", "card-2")
    assert len(predicted["predictions"]) == 2
    last = f"{datetime.fromtimestamp((START_MS + HOURS * HOUR) / 1000, UTC):%Y-%m-%dT%H:%M}"
    middle = f"{datetime.fromtimestamp((START_MS + HOURS * HOUR // 2) / 1000, UTC):%Y-%m-%dT%H:%M}"
    first = f"{datetime.fromtimestamp(START_MS / 1000, UTC):%Y-%m-%dT%H:%M}"
    periods = ("--reference", first, middle, "--current", middle, last)
    command("batch.drift", *periods, "--fail-on", "never")


def test_both_repositories_in_one_process(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = stack.settings.catalog
    monkeypatch.delenv("KAFKA_TOPIC")
    monkeypatch.setenv("FEATURE_REPO", "feast_repo")
    ours = StreamSettings().catalog
    for kind in ("streams", "entities", "views", "services"):
        names = [{one.name for one in getattr(catalog, kind)} for catalog in (ours, theirs)]
        assert names[0]
        assert names[1]
        assert names[0].isdisjoint(names[1])
    assert "streams" not in sys.modules, "a neighbour of features.py hides none of another repository"
