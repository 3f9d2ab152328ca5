"""What runs by itself runs for each windowed view and service of the catalog."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from feast_repo.settings import StreamSettings
from feast_repo.stores.offline.tables import progress_folder
from feast_repo.stores.progress import Progress, ProgressRecord
from flows.commands import choice
from flows.deployments import declared
from flows.ranges import last_closed_hours
from tests.batch.other_repo import write_repo

if TYPE_CHECKING:
    from pathlib import Path

SLOW = """
from dataclasses import replace
from datetime import timedelta

from feast_repo.declare import Catalog
from tests.declared import card_features

hours = {"window": timedelta(hours=6), "slide": timedelta(hours=3), "ttl": timedelta(hours=9)}
catalog = Catalog(views=(card_features, replace(card_features, name="slow", push_source="slow_push", **hours)))
"""


def test_deployments_are_made_for_each_view_and_service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = [one["name"] for one in declared()]
    assert not any("-card_features" in name for name in before)
    monkeypatch.setenv("FEATURE_REPO", str(write_repo(tmp_path / "repo")))
    found = {f"{one['entrypoint'].partition(':')[2]}/{one['name']}": one for one in declared()}
    views = ("card_features", "shop_of_card_features", "shop_windows")
    assert {name for name in found if name.startswith("parity/hourly")} == {f"parity/hourly-{view}" for view in views}
    assert {name for name in found if name.startswith("training/")} == {"training/weekly-fraud"}, "shops has no label"
    assert {name for name in found if name.startswith("backfill/")} == {
        "backfill/by-hand",
        *(f"backfill/heal-{view}" for view in views),
    }
    assert found["drift/daily-shops"]["parameters"] == {"reference": "day before", "service": "shops"}
    (trigger,) = found["backfill/heal-shop_windows"]["triggers"]
    assert trigger["match"]["ml-feature-store.view"] == "shop_windows"
    assert trigger["parameters"]["view"] == found["backfill/heal-shop_windows"]["parameters"]["view"] == "shop_windows"
    assert "compaction/hourly" in found


@pytest.mark.parametrize(
    ("name", "seen", "hours", "bounds"),
    [
        # Windows of card_features end every 10 minutes, those of slow at 9:00 and 12:00.
        ("card_features", "11:40", 1, ("10:00", "11:00")),
        ("card_features", "11:50", 1, ("11:00", "12:00")),
        ("slow", "11:50", 1, ("09:00", "12:00")),
        ("slow", "12:00", 1, ("12:00", "15:00")),
        ("slow", "12:00", 24, ("-15:00", "15:00")),
        (None, "12:10", 1, ("09:00", "12:00")),
    ],
)
def test_the_last_closed_hours_hold_a_window(
    name: str | None, seen: str, hours: int, bounds: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def at(time: str) -> datetime:
        hour, minute = map(int, time.removeprefix("-").split(":"))
        return datetime(2026, 3, 2 - time.startswith("-"), hour, minute, tzinfo=UTC)

    monkeypatch.setenv("FEATURE_REPO", str(write_repo(tmp_path / "repo", SLOW)))
    settings = StreamSettings()
    record = ProgressRecord(progress_folder(settings.data_root, settings.catalog.stream()))
    record.save(Progress("payments", 0, 1, round(at(seen).timestamp() * 1000)))
    start, stop = last_closed_hours(hours, None if name is None else [settings.catalog.view(name)])
    assert (start, stop) == tuple(map(at, bounds))
    slide = timedelta(hours=3) if name != "card_features" else timedelta(minutes=10)
    first = -(-start.timestamp() // slide.total_seconds()) * slide.total_seconds()
    assert first < stop.timestamp(), "a window ends in them"
    assert stop.timestamp() - slide.total_seconds() <= at(seen).timestamp(), "and the last one is closed"


def test_a_name_that_is_left_to_the_catalog_is_no_option() -> None:
    assert choice(view="card_features") == ["--view", "card_features"]
    assert choice(view=None, service=None) == []
