"""The age of stored values is judged by the objectives of views and services."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from batch.freshness import main
from feast_repo.clickstream import clickstream
from feast_repo.features import user_click_features as clicks, user_profile_features as profiles
from feast_repo.settings import StreamSettings
from feast_repo.stores.offline.tables import progress_folder
from feast_repo.stores.progress import Progress, ProgressRecord
from simulation.profiles import make_profiles, publish_profiles
from tests.batch.other_repo import write_repo

if TYPE_CHECKING:
    from pathlib import Path

MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
FEATURES = """
from dataclasses import replace
from datetime import timedelta
from feast_repo.declare import Catalog
from feast_repo.features import purchase_prediction, user_click_features as clicks, user_profile_features as profiles
daily = replace(purchase_prediction, views=(replace(clicks, freshness=timedelta(days=1)), profiles))
catalog = Catalog(services=({}))
"""
OF_VIEW = "replace(purchase_prediction, views=(replace(clicks, freshness=timedelta(hours=2)), profiles)),"
OF_SERVICE = "replace(daily, freshness=timedelta(hours=2)),"
OF_ANOTHER = f"daily, {OF_SERVICE[:-2]}, name='other'),"


@pytest.fixture
def root() -> Path:
    return StreamSettings().data_root


def closed(root: Path, partition: int, ago: timedelta) -> datetime:
    """A partition whose windows are closed up to some time ago; returns the end of the last one."""
    slide_s, time = clicks.slide.total_seconds(), (datetime.now(UTC) - ago).timestamp()
    end = time // slide_s * slide_s
    ProgressRecord(progress_folder(root, clickstream)).save(Progress("topic", partition, 1, round(end * 1000) + 1))
    return datetime.fromtimestamp(end, UTC)


def told(capsys: pytest.CaptureFixture[str], *arguments: str, status: int = 0) -> dict[str, dict[str, Any]]:
    capsys.readouterr()
    assert main([*arguments, "--json"]) == status
    report = json.loads(capsys.readouterr().out)
    assert report["holds"] is (status == 0)
    return {one["view"]: one for one in report["views"]}


def test_a_windowed_view_is_as_old_as_the_partition_that_is_behind(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    closed(root, 0, 0 * MINUTE)
    assert not told(capsys, "--view", clicks.name)[clicks.name]["stale"]
    end = closed(root, 1, HOUR)
    found = told(capsys, "--view", clicks.name, status=1)[clicks.name]
    assert (found["newest"], found["stale"], found["limit_seconds"]) == (end.isoformat(), True, 780)
    assert found["age_seconds"] == pytest.approx((datetime.now(UTC) - end).total_seconds(), abs=60)


def test_a_view_of_which_nothing_is_stored_is_stale_if_it_may_be(capsys: pytest.CaptureFixture[str]) -> None:
    found = told(capsys, status=1)
    assert found[clicks.name] | {"limit_seconds": 0} == {
        "view": clicks.name, "newest": None, "age_seconds": None, "limit_seconds": 0, "stale": True
    }  # fmt: skip
    assert (found[profiles.name]["stale"], found[profiles.name]["limit_seconds"]) == (False, None)


@pytest.mark.parametrize("services", [OF_VIEW, OF_SERVICE, OF_ANOTHER], ids=["view", "service", "another"])
@pytest.mark.parametrize(("ago", "stale"), [(HOUR, False), (3 * HOUR, True)], ids=str)
def test_the_shortest_objective_of_view_and_services_holds(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    services: str, ago: timedelta, stale: bool,  # noqa: FBT001
) -> None:  # fmt: skip
    monkeypatch.setenv("FEATURE_REPO", str(write_repo(tmp_path / "repo", FEATURES.format(services))))
    closed(root, 0, ago)
    found = told(capsys, "--view", clicks.name, status=int(stale))[clicks.name]
    assert (found["stale"], found["limit_seconds"]) == (stale, 7200)


def test_a_batch_view_is_as_old_as_its_newest_publication(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FEATURE_REPO", str(write_repo(tmp_path / "repo", FEATURES.format(OF_SERVICE))))
    assert told(capsys, "--view", profiles.name, status=1)[profiles.name]["newest"] is None
    publish_profiles(make_profiles(5, 1), datetime.now(UTC) - DAY, root)
    assert told(capsys, "--view", profiles.name, status=1)[profiles.name]["stale"]
    publish_profiles(make_profiles(5, 1), datetime.now(UTC) - HOUR, root)
    assert not told(capsys, "--view", profiles.name)[profiles.name]["stale"]


def test_a_person_sees_a_table(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    end = closed(root, 0, HOUR)
    assert main([]) == 1
    lines = [line.split("│") for line in capsys.readouterr().out.splitlines() if "user_" in line]
    rows = [[cell.strip() for cell in line] for line in lines]
    assert [(row[1], row[2], row[4], row[5]) for row in rows] == [
        (clicks.name, end.isoformat(), "780", "STALE"),
        (profiles.name, "none", "-", "fresh"),
    ]


def test_an_unknown_view_is_refused_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["--view", "other"])
    assert capsys.readouterr().err.count("\n") == 1
