"""Adding a feature to a running store is one line in one file: it appears in the schema, in Redis and in Parquet."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl
import pytest

from feast_repo.clickstream import clickstream
from feast_repo.settings import PROJECT_ROOT
from feast_repo.stores.offline.tables import events_folder, features_folder
from sandbox.checks import rows_of

if TYPE_CHECKING:
    from tests.integration.conftest import Stack

BEFORE = '        "click_count": Count('
LINE = '        "dearest_view": Max("price_cents", where=field("event_type") == "view"),\n'
ASK = """
import json, sys
from feast_repo.stores.opening import open_store
store = open_store()
view = store.get_feature_view("user_click_features")
online = store.get_online_features(["user_click_features:dearest_view"], [{"user_id": u} for u in sys.argv[1:]])
print(json.dumps({"type": {f.name: str(f.dtype) for f in view.features}["dearest_view"], **online.to_dict()}))
"""


@pytest.mark.timeout(900)  # a feature's whole life
def test_one_line_reaches_schema_redis_and_parquet(  # noqa: PLR0915  (one run through a feature's life)
    stack: Stack, tmp_path: Path
) -> None:
    recovery = ["-r", str(tmp_path / "recovery"), "-s", "1", "-b", "0"]
    stack.produce(events=5_000, hours=1)
    status, errors = stack.run(*recovery)
    assert status == 0, errors
    before = rows_of(features_folder(stack.settings.data_root, "user_click_features"))
    assert "dearest_view" not in before.columns

    copy = tmp_path / "project"
    for package in ("feast_repo", "stream", "batch", "simulation"):
        shutil.copytree(PROJECT_ROOT / package, copy / package, ignore=shutil.ignore_patterns("__pycache__"))
    declarations = copy / "feast_repo" / "features.py"
    source = declarations.read_text()
    assert source.count(BEFORE) == 1
    declarations.write_text(source.replace(BEFORE, LINE + BEFORE).replace("import Count,", "import Count, Max,"))
    stack.folder = copy
    stack.environment["PYTHONPATH"] = str(copy)

    stack.produce(events=5_000, seed=2, hours_later=2)
    status, errors = stack.run(*recovery)
    assert status == 2, errors
    assert "feast apply" in errors.splitlines()[-1]
    environment = {**os.environ, **stack.environment}

    def run(*command: str, folder: Path = copy) -> str:
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    apply = str(Path(sys.executable).with_name("feast")), "apply"
    run(*apply, folder=copy / "feast_repo")
    status, errors = stack.run(*recovery)
    assert status == 0, errors

    rows = rows_of(features_folder(stack.settings.data_root, "user_click_features"))
    assert rows.schema["dearest_view"] == pl.Int64
    kept = rows.join(before.select("user_id", "event_timestamp"), on=["user_id", "event_timestamp"], how="semi")
    assert kept["dearest_view"].null_count() == len(kept) == len(before), "what is stored stays as it is"
    assert kept.select(before.columns).equals(before)
    newest = rows.sort("event_timestamp").group_by("user_id").last().filter(pl.col("dearest_view") > 0).head(5)
    # By hand for one of them: the dearest view among the archived events of the window's hour that were in time.
    user, end, dearest = newest.select("user_id", "event_timestamp", "dearest_view").row(0)
    viewed = rows_of(events_folder(stack.settings.data_root, clickstream)).filter(
        pl.col("user_id") == user,
        pl.col("event_type") == "view",
        pl.col("event_timestamp") >= end - pl.duration(hours=1),
        pl.col("event_timestamp") < end,
        pl.col("watermark").is_null() | (pl.col("watermark") < end),
    )
    assert viewed["price_cents"].max() == dearest

    users = newest["user_id"].to_list()
    expected = {"type": "Int64", "user_id": users, "dearest_view": newest["dearest_view"].to_list()}
    assert json.loads(run(sys.executable, "-c", ASK, *users)) == expected

    completed = json.loads(run(sys.executable, "-m", "batch.backfill", "--json"))
    assert completed["completed"] > 0
    assert completed["completed_online"] is not None
    run(sys.executable, "-m", "batch.parity", "--online")

    # Out, new rows for some users, and in again: they are not served the old values under the new rows' age.
    changed = declarations.read_text()
    declarations.write_text(source)
    run(*apply, folder=copy / "feast_repo")
    stack.produce(events=2_000, seed=3, hours_later=4)
    status, errors = stack.run(*recovery)
    assert status == 0, errors
    declarations.write_text(changed)
    run(*apply, folder=copy / "feast_repo")
    assert json.loads(run(sys.executable, "-c", ASK, *users))["dearest_view"] == [None] * len(users)
    completed = json.loads(run(sys.executable, "-m", "batch.backfill", "--json"))
    assert completed["completed_online"] > 0
    run(sys.executable, "-m", "batch.parity", "--online")
