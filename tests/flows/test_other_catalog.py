"""What runs by itself runs for each windowed view and service of the catalog."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flows.commands import choice
from flows.deployments import declared
from tests.batch.other_repo import write_repo

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


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


def test_a_name_that_is_left_to_the_catalog_is_no_option() -> None:
    assert choice(view="card_features") == ["--view", "card_features"]
    assert choice(view=None, service=None) == []
