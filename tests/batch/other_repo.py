"""A feature repository beside the shop's, with other names for everything, several views and two services."""

from __future__ import annotations

import random
import shutil
from typing import TYPE_CHECKING, Any

from feast_repo.catalog import OURS
from tests.batch.archives import NOW_MS
from tests.declared import payments

if TYPE_CHECKING:
    from pathlib import Path

    from feast_repo.declare.events import EventStream
    from tests.stream.reference import Record

FEATURES = """
from dataclasses import replace
from datetime import timedelta

from feast_repo.declare.algebra import field
from feast_repo.declare.catalog import Catalog
from feast_repo.declare.labels import Label
from feast_repo.declare.services import FeatureService
from tests.declared import fraud, shop_features, shop_windows

large = Label("large", where=field("amount_cents") >= 9_000, within=timedelta(minutes=30))
shops = FeatureService("shops", (shop_windows, shop_features))
catalog = Catalog(services=(replace(fraud, label=large), shops))
"""
CARDS, SHOPS, HOURS = 12, 4, 4


def write_repo(folder: Path, features: str = FEATURES) -> Path:
    """Write the repository; FEATURE_REPO is its folder."""
    folder.mkdir()
    (folder / "features.py").write_text(features)
    shutil.copy(OURS / "feature_store.yaml", folder)
    return folder


def paid(events: EventStream = payments, *, count: int = 600, seed: int = 1) -> dict[int, list[Record]]:
    """Logs of payments in two partitions, some of them late, and a last one that closes all windows before it."""
    chance = random.Random(seed)
    logs: dict[int, list[Record]] = {0: [], 1: []}
    for number in range(count):
        at_ms = NOW_MS + number * HOURS * 3_600_000 // count
        late_ms = 1_800_000 if chance.random() < 0.05 else 0
        add(logs, events, number, chance.randrange(CARDS), chance.randrange(SHOPS), at_ms - late_ms, at_ms, chance)
    for partition in logs:
        end_ms = NOW_MS + 2 * HOURS * 3_600_000
        add(logs, events, count + partition, partition, partition, end_ms, end_ms, chance)
    return logs


def add(
    logs: dict[int, list[Record]],
    events: EventStream,
    number: int,
    card: int,
    shop: int,
    event_ms: int,
    kafka_ms: int,
    chance: random.Random,
) -> None:
    """Append a payment to its partition's log."""
    record: dict[str, Any] = {"payment_id": f"p{number}", "card_id": f"c{card}", "shop": shop, "paid_at": event_ms}
    record |= {"amount_cents": chance.randrange(10_000), "kafka_timestamp": kafka_ms}
    logs[(card if events.key == "card_id" else shop) % 2].append(record)
