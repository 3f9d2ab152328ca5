"""A feature that may be null: null in a row as seen is its value, whatever late events would make of it."""

from __future__ import annotations

import json
import random
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest

from feast_repo.settings import StreamSettings
from feast_repo.stores.offline.tables import features_folder
from sandbox.checks import rows_of
from tests.batch.archives import NOW_MS, stream
from tests.batch.other_repo import add, write_repo
from tests.commands import main_of

if TYPE_CHECKING:
    from pathlib import Path

    from tests.stream.reference import Record

FEATURES = """
from dataclasses import replace

from feast_repo.declare import Catalog, Count, Min, field
from tests.declared import card_features

features = {"card_count": Count(), "least_in_shop_2": Min("amount_cents", where=field("shop") == 2)}
catalog = Catalog(views=(replace(card_features, features=features),))
"""
MINUTE = 60_000
START = NOW_MS // (60 * MINUTE) * 60 * MINUTE


def payments(catalog: Any) -> dict[int, list[Record]]:
    """Six hours of three cards in shop 1, and in the last two hours also in shop 2; some more in shop 2 come late.

    0:00     1:00     2:00     3:00     4:00     5:00     6:00
    shop 1   shop 1   shop 1   shop 1   1 and 2  1 and 2
             (2)      (2)                                          (late by half an hour)
    """
    logs: dict[int, list[Record]] = {0: [], 1: []}
    (source,), chance = catalog.streams, random.Random(2)

    def pay(card: int, shop: int, minute: int, late: int = 0) -> None:
        number = len(logs[0]) + len(logs[1])
        add(logs, source, number, card, shop, START + (minute - late) * MINUTE, START + minute * MINUTE, chance)

    for minute in range(0, 360, 2):
        for card in range(3):
            pay(card, 2 if minute >= 240 and minute % 3 == 0 else 1, minute)
            if minute in {90, 150}:
                pay(card, 2, minute, late=30)
    for card in (0, 1):
        pay(card, 1, 600)
    return logs


@pytest.fixture
def root(tmp_path: Path, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FEATURE_REPO", str(write_repo(tmp_path / "repo", FEATURES)))
    monkeypatch.setenv("REDIS_URL", redis_url)
    settings = StreamSettings()
    stream(settings.data_root, settings.catalog.view(), payments(settings.catalog))
    return settings.data_root


def run(capsys: pytest.CaptureFixture[str], name: str, *arguments: str) -> dict[str, Any]:
    capsys.readouterr()
    assert main_of(name)([*arguments, "--json"]) == 0
    report: dict[str, Any] = json.loads(capsys.readouterr().out)
    return report


def stored(root: Path) -> pl.DataFrame:
    return rows_of(features_folder(root, "card_features")).sort("card_id", "event_timestamp", "created_timestamp")


def test_late_events_do_not_complete_a_row(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    seen = stored(root)
    assert 0 < seen["least_in_shop_2"].null_count() < len(seen)
    assert run(capsys, "batch.backfill", "--mode", "complete")["added"] == 0
    assert stored(root).equals(seen)


def test_late_events_explain_a_null(root: Path, engine_name: str, capsys: pytest.CaptureFixture[str]) -> None:
    report = run(capsys, "batch.parity", "--mode", "complete", "--engine", engine_name)
    counted = report["features"]["least_in_shop_2"]
    assert counted["undeclared"] == 0
    assert counted["compared"] == len(stored(root))
    assert 0 < counted["different"] == counted["explained"]
    healed = run(capsys, "batch.backfill", "--mode", "complete", "--heal", "--engine", engine_name)["healed"]
    assert healed == report["rows"]["explained"]
    report = run(capsys, "batch.parity", "--mode", "complete", "--engine", engine_name)
    assert report["rows"]["equal"] == report["rows"]["recomputed"]


def test_what_was_not_declared_is_completed(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = stored(root)
    for file in features_folder(root, "card_features").glob("*/*.parquet"):
        pl.read_parquet(file, hive_partitioning=False).drop("least_in_shop_2").write_parquet(file)
    known = whole["least_in_shop_2"].count()
    report = run(capsys, "batch.parity", "--mode", "complete")
    assert report["features"]["least_in_shop_2"]["undeclared"] == known
    assert run(capsys, "batch.backfill", "--mode", "complete")["added"] == known
    completed = stored(root).unique(["card_id", "event_timestamp"], keep="last", maintain_order=True)
    assert completed["least_in_shop_2"].equals(whole["least_in_shop_2"])
