"""One set of random logs, and one answer from engine, dataflow, Polars and Spark."""

from __future__ import annotations

import json
import random
import secrets
from typing import TYPE_CHECKING, Any

import polars as pl
from confluent_kafka import Producer
from polars.testing import assert_frame_equal

from batch.recompute.archive import reach_of
from batch.recompute.recomputation import opened, recompute, scope_of
from feast_repo.clickstream import clickstream
from feast_repo.features import user_click_features as view
from feast_repo.stores.offline.tables import dead_letters_folder, events_folder, features_folder, progress_folder
from feast_repo.stores.progress import ProgressRecord
from sandbox.checks import rows_of
from stream.windows import WindowEngine
from tests.batch.conftest import engine_name, spark_session  # noqa: F401  (fixtures)
from tests.integration.conftest import PARTITIONS
from tests.stream.reference import records_frame

if TYPE_CHECKING:
    from tests.integration.conftest import Stack
    from tests.stream.reference import Record

START_MS = 1_767_225_600_000
MONTH_MS = 30 * 86_400_000
RECORDS = 600
COLUMNS = ["user_id", "event_timestamp", "created_timestamp", *view.features]


def random_log(chance: random.Random, partition: int) -> list[Record]:
    """Steps of all lengths, edges of windows, disorder, late events, copies, and heartbeats."""
    log: list[Record] = []
    now = START_MS + chance.randrange(view.slide_ms)
    for number in range(RECORDS):
        now += chance.choice([0, 1, 1_000, 20_000, 60_000, 90_000, view.slide_ms - now % view.slide_ms])
        if chance.random() < 0.01:
            now += chance.randrange(4 * view.window_ms)
        behind = chance.choice(
            [0, 0, 0, 1, 30_000, view.lateness_ms, view.slide_ms, chance.randrange(view.window_ms * 2)]
        )
        record: Record = {
            "kafka_timestamp": now + chance.choice([0, 0, 5, -40_000]) + chance.choice([0] * 50 + [MONTH_MS]),
            "create_time": True,
            "event_id": f"e{number}",
            "user_id": f"p{partition}_user_{chance.randrange(8)}",
            "event_type": chance.choice(["view", "view", "click", "add_to_cart", "purchase"]),
            "event_timestamp": now - behind,
            "product_id": None,
            "session_id": None,
            "price_cents": chance.choice([None, 0, 1, 1_999]),
        }
        if log and chance.random() < 0.08:
            record = {**chance.choice(log), "kafka_timestamp": record["kafka_timestamp"]}
            record["kafka_timestamp"] = max(record["kafka_timestamp"], record["event_timestamp"])
        elif chance.random() < 0.05:
            record = {**record, "event_type": "heartbeat", "user_id": None, "price_cents": None}
        log.append(record)
    return log


def produce(stack: Stack, logs: dict[int, list[Record]]) -> None:
    settings = stack.settings
    producer = Producer({"bootstrap.servers": settings.kafka_bootstrap_servers})
    for partition, log in logs.items():
        for record in log:
            value = {name: record[name] for name in view.source.schema if record[name] is not None}
            producer.produce(
                settings.catalog.stream().topic,
                json.dumps(value).encode(),
                key=record["user_id"],
                partition=partition,
                timestamp=record["kafka_timestamp"],
            )
    assert producer.flush(30) == 0


def engines_rows(logs: dict[int, list[Record]]) -> pl.DataFrame:
    rows = [
        window.rows
        for log in logs.values()
        for window in WindowEngine(view.source, [view]).process(records_frame(view.source, log)).windows
    ]
    return in_order(pl.concat(rows))


def in_order(rows: pl.DataFrame) -> pl.DataFrame:
    return rows.select(COLUMNS).sort("user_id", "event_timestamp")


def test_engine_dataflow_and_batch_give_the_same_rows(stack: Stack, engine_name: str) -> None:  # noqa: F811
    chance = random.Random(seed := secrets.randbelow(2**32))
    print(f"seed {seed}")  # noqa: T201  (a failure shows it)
    logs = {partition: random_log(chance, partition) for partition in range(PARTITIONS)}
    produce(stack, logs)
    status, errors = stack.run()
    assert status == 0, errors
    settings: Any = stack.settings
    root = settings.data_root
    archived = rows_of(events_folder(root, clickstream))
    assert len(archived) == PARTITIONS * RECORDS, rows_of(dead_letters_folder(root, view.source))
    assert archived["create_time"].all()

    expected = engines_rows(logs)
    assert len(expected) > 1_000
    assert_frame_equal(in_order(rows_of(features_folder(root, view.name))), expected, check_exact=True)

    reach = reach_of(view, ProgressRecord(progress_folder(root, clickstream)).load())
    assert len(reach) == PARTITIONS
    with opened(engine_name, settings.data_root, view, master="local[2]", archive=None) as engine:
        recomputation = recompute(engine, scope_of(settings.data_root, view, None, None))
        assert recomputation.timeline.mismatched == 0, recomputation.timeline.mismatches
        rows = pl.concat([recomputation.rows(chunk, "as-seen") for chunk in recomputation.chunks()])
    assert_frame_equal(in_order(rows), expected, check_exact=True)
