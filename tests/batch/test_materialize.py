"""Batch features reach the online store, newest first, and what is served is compared with what is stored."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from redis import Redis

from batch.maintenance.materialize import main
from feast_repo.features import user_profile_features as view
from feast_repo.settings import StoreSettings
from simulation.profiles import make_profiles, publish_profiles
from tests.feast_repo.conftest import opened, store  # noqa: F401  (fixtures)

if TYPE_CHECKING:
    from feast import FeatureStore

NOW = datetime.now(UTC).replace(microsecond=0)


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, dict[str, Any]]:
    capsys.readouterr()
    status = main(["--json", *arguments])
    report: dict[str, Any] = json.loads(capsys.readouterr().out)
    return status, report


def test_newest_rows_are_served(store: FeatureStore, capsys: pytest.CaptureFixture[str]) -> None:  # noqa: F811
    root = StoreSettings().data_root
    publish_profiles(make_profiles(300, 1), NOW - timedelta(days=3), root)
    publish_profiles(make_profiles(200, 2), NOW - timedelta(days=1), root)
    status, report = run(capsys)
    found = report["views"][view.name]
    assert (status, found["written"], found["users"], found["equal"], found["wrong"]) == (0, 300, 300, 300, 0)
    users = [{"user_id": f"user_{number:06d}"} for number in (1, 250)]
    ages = store.get_online_features([f"{view.name}:age"], users).to_dict()["age"]
    assert ages == [make_profiles(300, 2)["age"][0], make_profiles(300, 1)["age"][249]]
    status, report = run(capsys)
    assert (status, report["views"][view.name]["written"]) == (0, 0), "what is there is left alone"


def test_older_rows_than_asked_for_stay_away(store: FeatureStore, capsys: pytest.CaptureFixture[str]) -> None:  # noqa: F811
    del store
    root = StoreSettings().data_root
    publish_profiles(make_profiles(300, 1), NOW - timedelta(days=3), root)
    publish_profiles(make_profiles(200, 2), NOW - timedelta(days=1), root)
    status, report = run(capsys, "--look-back-days", "2")
    found = report["views"][view.name]
    assert (status, found["written"], found["equal"], found["missing"]) == (1, 200, 200, 100)
    status, report = run(capsys, "--sample", "10")
    assert (status, report["views"][view.name]["users"]) == (0, 10)


def test_what_differs_is_named(
    store: FeatureStore,  # noqa: F811
    redis_url: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    del store
    publish_profiles(make_profiles(20, 1), NOW, StoreSettings().data_root)
    run(capsys)
    with Redis.from_url(redis_url) as redis:
        redis.delete(next(iter(redis.scan_iter(match=b"*user_000007*"))))
        assert main(["--look-back-days", "0.0000001"]) == 1
    assert "user_000007" in capsys.readouterr().out


def test_redis_away_is_told(
    store: FeatureStore,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    del store
    publish_profiles(make_profiles(20, 1), NOW, StoreSettings().data_root)
    monkeypatch.setenv("REDIS_URL", "redis://127.0.0.1:1/0")
    with pytest.raises(SystemExit, match="75"):
        main([])
    assert "Redis does not answer" in capsys.readouterr().err


def test_an_identity_that_can_not_be_read_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    identity = StoreSettings().data_root / "identity.json"
    identity.mkdir(parents=True)
    with pytest.raises(SystemExit, match="2"):
        main([])
    assert str(identity) in capsys.readouterr().err
