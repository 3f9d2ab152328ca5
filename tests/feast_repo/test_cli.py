"""Feast's own commands, in feast_repo/ and unchanged."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from feast.repo_operations import get_repo_files

from feast_repo.catalog import OURS
from feast_repo.features import user_click_features, user_profile_features
from feast_repo.settings import StoreSettings
from feast_repo.stores.offline.parquet import day_folder, publish
from feast_repo.stores.offline.tables import features_folder
from feast_repo.stores.opening import ensure_applied
from tests.feast_repo.rows import table

if TYPE_CHECKING:
    from collections.abc import Callable

    import pytest
    from feast import FeatureStore

FEAST = Path(sys.executable).with_name("feast")


def feast(*arguments: str) -> str:
    result = subprocess.run([FEAST, *arguments], cwd=OURS, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def test_only_the_definitions_are_imported_by_feast_apply() -> None:
    assert get_repo_files(OURS) == [OURS / "definitions.py"]


def test_apply_and_materialize(
    redis_url: str, opened: Callable[[], FeatureStore], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("REDIS_URL", redis_url)
    monkeypatch.setenv("FEAST_REGISTRY_URL", f"sqlite:///{tmp_path / 'new' / 'registry.db'}")
    applied = feast("apply")
    assert user_click_features.name in applied
    assert user_profile_features.name in applied

    now = datetime.now(UTC).replace(microsecond=0)
    profile = {"user_id": "user_000001", "age": 41, "country": "DE", "activity_weight": 0.5}
    day = now - timedelta(days=1)
    rows = table(user_profile_features, [profile], event_timestamp=day, created_timestamp=day, writer="test")
    folder = features_folder(StoreSettings().data_root, user_profile_features.name)
    publish(day_folder(folder, day.strftime("%Y-%m-%d")) / "profiles.parquet", rows)
    feast("materialize-incremental", now.isoformat())

    store = opened()
    ensure_applied(store)  # what `feast apply` registered is what is declared
    service = store.get_feature_service("purchase_prediction")
    online = store.get_online_features(service, [{"user_id": "user_000001"}, {"user_id": "nobody"}]).to_dict()
    assert online["age"] == [41, None]
    assert online["country"] == ["DE", None]
    assert online["subscription_tier"] == [None, None]
    assert online["click_count"] == [None, None]
