from __future__ import annotations

import random
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest

from feast_repo.clickstream import clickstream
from feast_repo.declare.algebra import Max, Min, Ratio, field
from feast_repo.features import user_click_features
from feast_repo.stores.offline.parquet import day_folder, publish
from feast_repo.stores.offline.tables import event_columns, events_folder, features_folder
from sandbox.oracle import Differences, compare
from stream.log_table import LogTable
from stream.windows import WindowEngine
from tests.batch.archives import stream
from tests.declared import shop_of_card_features

if TYPE_CHECKING:
    from pathlib import Path

T0 = 1_767_225_600_000
VIEW = replace(
    user_click_features,
    features={
        **user_click_features.features,
        "cheapest": Min("price_cents"),
        "dearest_view": Max("price_cents", where=(field("event_type") == "view") & (field("price_cents") > 10)),
        "carts_per_click": Ratio("cart_count", "click_count"),
    },
)


def random_log(seed: int, records: int, partition: int = 0) -> pl.DataFrame:
    """Disorder, late records, heartbeats and a Kafka clock that jumps back."""
    chance = random.Random(seed)
    rows = []
    clock = T0
    for offset in range(records):
        clock += chance.choice([0, 1_000, 20_000, 90_000, 90_000, 1_500_000])
        late = chance.choice([0, 0, 0, 30_000, 150_000, 2_000_000, 9_000_000])
        heartbeat = chance.random() < 0.1
        create_time = chance.random() < 0.5
        far = 474 * 365 * 86_400_000 if create_time and chance.random() < 0.05 else 0
        rows.append(
            {
                "offset": offset,
                "kafka_timestamp": clock + chance.randrange(-5_000, 5_000) + far,
                "create_time": create_time,
                "event_id": f"e{offset}",
                "user_id": None if heartbeat else f"user_{partition}{chance.randrange(6)}",
                "event_type": "heartbeat" if heartbeat else chance.choice(["view", "click", "add_to_cart", "purchase"]),
                "event_timestamp": clock - late,
                "product_id": None,
                "session_id": "s",
                "price_cents": chance.choice([None, chance.randrange(1000)]),
            }
        )
    schema: dict[str, Any] = {
        "offset": pl.Int64,
        "kafka_timestamp": pl.Int64,
        "create_time": pl.Boolean,
        **VIEW.source.schema,
    }
    return pl.DataFrame(rows, schema=schema)


def store(root: Path, partition: int, log: pl.DataFrame) -> int:
    """What the stream would store of one partition; returns the number of feature rows."""
    processed = WindowEngine(VIEW.source, [VIEW]).process(log)
    events = LogTable(events_folder(root, clickstream), event_columns(VIEW.source))
    events.append(partition, processed.records)
    events.flush()
    rows = pl.concat([window.rows for window in processed.windows]).with_columns(writer=pl.lit("stream"))
    publish(day_folder(features_folder(root, VIEW.name), "2026-01-01") / f"stream-p{partition}.parquet", rows)
    return len(rows)


@pytest.mark.parametrize("seed", range(5))
def test_sql_and_engine_agree_on_every_row_and_column(tmp_path: Path, seed: int) -> None:
    rows = sum(store(tmp_path, partition, random_log(100 * seed + partition, 200, partition)) for partition in range(3))
    assert compare(tmp_path, VIEW) == Differences(rows, rows, 0, 0, 0, 0)


@pytest.mark.parametrize(
    ("harm", "expected"),
    [
        (lambda rows: rows.with_columns(pl.col("view_count") + 1), "different"),
        (lambda rows: rows.with_columns(pl.col("created_timestamp") + pl.duration(milliseconds=1)), "different"),
        (lambda rows: rows.head(len(rows) - 1), "only_recomputed"),
        (lambda rows: rows.with_columns(user_id=pl.lit("someone else")), "only_stored"),
        (lambda rows: pl.concat([rows, rows]), "stored_twice"),
    ],
)
def test_every_kind_of_difference_is_counted(tmp_path: Path, harm, expected: str) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001
    store(tmp_path, 0, random_log(7, 200))
    assert compare(tmp_path, VIEW).none
    victim = next(iter(features_folder(tmp_path, VIEW.name).glob("dt=*/*.parquet")))
    publish(victim, harm(pl.read_parquet(victim, hive_partitioning=False)))
    differences = compare(tmp_path, VIEW)
    assert getattr(differences, expected) > 0
    assert not differences.none


def payments_log(seed: int, records: int) -> list[dict[str, Any]]:
    """Few cards and few shops, so that pairs share either, and come and go."""
    chance = random.Random(seed)
    clock, log = T0, []
    for number in range(records):
        clock += chance.choice([0, 1_000, 90_000, 300_000])
        payment = {"payment_id": f"p{number}", "card_id": f"c{chance.randrange(3)}", "shop": chance.randrange(-1, 2)}
        times = {"paid_at": clock - chance.choice([0, 30_000, 2_000_000]), "kafka_timestamp": clock}
        log.append({**payment, **times, "amount_cents": chance.choice([None, chance.randrange(1_000)])})
    return log


def test_entities_of_several_keys_are_told_apart_by_all_of_them(tmp_path: Path) -> None:
    view = shop_of_card_features
    rows = stream(tmp_path, view, {0: payments_log(1, 600)})
    assert rows.select("card_id", "shop").n_unique() == 9
    expected = Differences(len(rows), len(rows), different=0, only_stored=0, only_recomputed=0, stored_twice=0)
    assert compare(tmp_path, view) == expected
    (file, *_) = features_folder(tmp_path, view.name).glob("*/*.parquet")
    stored = pl.read_parquet(file, hive_partitioning=False)
    stored.with_columns(pl.col("shop") + 10).write_parquet(file)
    changed = compare(tmp_path, view)
    assert (changed.only_stored, changed.only_recomputed) == (len(stored), len(stored))
