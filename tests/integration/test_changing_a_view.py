"""A view is changed by declaring the new one beside it: its state and its history come from the archive."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest

from feast_repo.catalog import OURS
from feast_repo.settings import PROJECT_ROOT
from feast_repo.stores.offline.tables import features_folder
from sandbox.checks import rows_of

if TYPE_CHECKING:
    from pathlib import Path

    from tests.integration.conftest import Stack

OLD = """
from feast_repo.features import catalog, purchase_prediction, user_click_features, user_profile_features
"""
BESIDE = """
from dataclasses import replace
from datetime import timedelta

from feast_repo.declare import Catalog
from feast_repo.features import purchase_prediction, user_click_features, user_profile_features

second = replace(
    user_click_features,
    name="user_click_features_2",
    push_source="user_clicks_push_2",
    window=timedelta(hours=2),
    slide=timedelta(minutes=20),
)
catalog = Catalog(services=(purchase_prediction,), views=(second,))
"""
SWITCHED = BESIDE.replace(
    "catalog = Catalog(services=(purchase_prediction,), views=(second,))",
    "catalog = Catalog(services=(replace(purchase_prediction, views=(second, user_profile_features)),))",
)


@pytest.fixture
def repository(stack: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "repository"
    folder.mkdir()
    for name in ("feature_store.yaml", "definitions.py"):
        shutil.copy(OURS / name, folder / name)
    monkeypatch.setenv("FEATURE_REPO", str(folder))
    stack.environment["FEATURE_REPO"] = str(folder)
    return folder


def command(stack: Stack, *arguments: str) -> Any:
    done = subprocess.run(
        [sys.executable, "-m", *arguments, "--json"],
        cwd=PROJECT_ROOT,
        env={**os.environ, **stack.environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr or done.stdout
    return json.loads(done.stdout)


@pytest.mark.timeout(600)  # a view's whole life
def test_the_new_view_runs_beside_the_old_one_until_it_takes_over(
    stack: Stack, repository: Path, tmp_path: Path
) -> None:
    recovery = ["-r", str(tmp_path / "recovery"), "-s", "1", "-b", "0"]
    root = stack.settings.data_root
    (repository / "features.py").write_text(OLD)
    stack.produce(events=6_000, hours=3)
    status, errors = stack.run(*recovery)
    assert status == 0, errors
    before = rows_of(features_folder(root, "user_click_features"))

    (repository / "features.py").write_text(BESIDE)
    stack.produce(events=4_000, seed=2, hours=2, hours_later=2)
    status, errors = stack.run(*recovery)
    assert status == 0, errors
    assert "+user_click_features_2" in errors, "the recovery state is rebuilt for it"
    assert "Redis was emptied" not in errors, "a view that never had rows has lost none"
    streamed = rows_of(features_folder(root, "user_click_features_2"))
    assert set(streamed["writer"]) == {"stream"}
    kept = rows_of(features_folder(root, "user_click_features"))
    assert kept.join(before, on=before.columns, how="semi", nulls_equal=True).height == len(before)

    filled = command(stack, "batch.backfill", "--view", "user_click_features_2")
    assert filled["added"] > 0
    rows = rows_of(features_folder(root, "user_click_features_2"))
    assert set(rows["writer"]) == {"stream", "backfill"}
    command(stack, "batch.restore_online")
    for view in ("user_click_features", "user_click_features_2"):
        report = command(stack, "batch.parity", "--view", view, "--online")
        assert report["holds"]
        assert report["rows"]["equal"] == len(rows_of(features_folder(root, view)))

    (repository / "features.py").write_text(SWITCHED)
    stack.produce(events=2_000, seed=3, hours=1, hours_later=3)
    status, errors = stack.run(*recovery)
    assert status == 0, errors
    assert "-user_click_features" in errors
    assert len(rows_of(features_folder(root, "user_click_features"))) == len(kept), "what was there stays"
    assert command(stack, "batch.parity", "--online")["holds"], "there is one view again, so nobody has to name it"


def test_a_view_is_not_changed_under_its_name(stack: Stack, repository: Path, tmp_path: Path) -> None:
    recovery = ["-r", str(tmp_path / "recovery"), "-s", "1", "-b", "0"]
    (repository / "features.py").write_text(OLD)
    stack.produce(events=1_000)
    (repository / "features.py").write_text(BESIDE)
    assert stack.run(*recovery)[0] == 0
    (repository / "features.py").write_text(BESIDE.replace("hours=2", "hours=4"))
    status, errors = stack.run(*recovery)
    assert status == 2
    assert "declare the new one under another name beside it" in errors.splitlines()[-1]


def test_tables_of_an_older_version_are_moved(stack: Stack, tmp_path: Path) -> None:
    """It knew one stream, whose tables lay directly in the folders."""
    root, recovery = stack.settings.data_root, ["-r", str(tmp_path / "recovery"), "-s", "1", "-b", "0"]
    stack.produce(events=2_000)
    assert stack.run(*recovery)[0] == 0
    tables = ("events", "dead_letters", "progress")
    before = {table: rows_of(root / table / "clickstream").height for table in ("events", "dead_letters")}
    for table in tables:
        for path in (root / table / "clickstream").iterdir():
            path.rename(root / table / path.name)
        (root / table / "clickstream").rmdir()
    shutil.rmtree(tmp_path / "recovery")
    identity = json.loads((root / "identity.json").read_text())
    identity["declaration"] = identity.pop("declarations")["user_click_features"]
    (root / "identity.json").write_text(json.dumps(identity))

    stack.produce(events=2_000, seed=2, hours_later=2)
    status, errors = stack.run(*recovery)
    assert status == 0, errors
    assert "comes from an older version" in errors
    assert not [path for table in tables for path in (root / table).iterdir() if path.name != "clickstream"]
    for table, count in before.items():
        rows = rows_of(root / table / "clickstream")
        assert rows.height > count
        assert rows.select(pl.struct("partition", "offset").is_duplicated().any()).item() is False
    assert command(stack, "batch.parity", "--online")["holds"]
