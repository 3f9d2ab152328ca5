"""Each flow against real stores and a real Prefect server, also when things go wrong."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from batch.profiles import make_profiles
from feast_repo.features import user_click_features as clicks, user_profile_features as profiles_view
from feast_repo.settings import PROJECT_ROOT
from feast_repo.tables import features_folder
from flows import commands
from flows.backfill import backfill
from flows.commands import CommandError
from flows.compaction import compaction
from flows.deployments import declared, flow_of, served
from flows.drift import drift
from flows.materialize import materialize
from flows.parity import parity
from flows.profiles import profiles
from flows.ranges import by_day, last_closed_hours
from flows.serve import main as serve
from flows.telling import CheckFailedError
from flows.training import training
from tests.batch.archives import NOW_MS
from tests.browser import look, needs_chromium
from tests.flows.conftest import PREFECT, artifact, ask, events, wait_for

NOW = datetime.fromtimestamp(NOW_MS / 1000, tz=UTC)


def contents(root: Path, view: str) -> str:
    """A digest of the names and bytes of a view's files."""
    digest = hashlib.sha256()
    for file in sorted(features_folder(root, view).glob("dt=*/*.parquet")):
        digest.update(file.name.encode() + file.read_bytes())
    return digest.hexdigest()


class TestDeclarations:
    @pytest.mark.parametrize("one", declared(), ids=lambda one: f"{one['entrypoint']} {one['name']}")
    def test_can_be_served(self, one: dict[str, Any]) -> None:
        flow = flow_of(one)
        assert one["entrypoint"] == f"flows/{flow.name}.py:{flow.name}"
        given = {**one["parameters"], "start": NOW, "end": NOW} if flow.name == "backfill" else one["parameters"]
        flow.validate_parameters(given)
        deployment = served(one)
        assert deployment.name == one["name"]
        assert [str(entry.schedule.cron) for entry in deployment.schedules or []] == [  # type: ignore[union-attr]
            entry["cron"] for entry in one.get("schedules", [])
        ]
        assert len(deployment.triggers) == len(one.get("triggers", []))
        assert one["tags"]
        assert one["description"].endswith(".")

    def test_names_are_unique_and_every_flow_is_there(self) -> None:
        names = [(flow_of(one).name, one["name"]) for one in declared()]
        assert len(set(names)) == len(names)
        assert {name for name, _ in names} == {
            "profiles", "materialize", "backfill", "parity", "compaction", "drift", "training"
        }  # fmt: skip

    def test_only_explained_differences_start_a_heal_and_drift_a_training(self) -> None:
        started = {
            (event, flow_of(one).name, json.dumps(trigger.get("parameters", {}).get("heal", False)))
            for one in declared()
            for trigger in one.get("triggers", [])
            for event in trigger["expect"]
        }
        assert started == {("parity.explained", "backfill", "true"), ("drift.detected", "training", "false")}

    @pytest.mark.parametrize(
        ("flow", "wrong"),
        [
            (profiles, {"users": 0}),
            (parity, {"mode": "approximate"}),
            (drift, {"reference": "the year before"}),
            (backfill, {"start": "yesterday", "end": NOW}),
            (materialize, {"look_back_days": -1}),
        ],
    )
    def test_wrong_parameters_are_refused(self, flow: Any, wrong: dict[str, Any]) -> None:
        with pytest.raises(Exception, match=next(iter(wrong))):
            flow.validate_parameters(wrong)


def test_days_cover_a_range_once() -> None:
    start, end = NOW - timedelta(hours=50), NOW
    days = by_day(start, end)
    assert (days[0][0], days[-1][1]) == (start, end)
    assert [first for first, _ in days[1:]] == [last for _, last in days[:-1]]
    assert all(first.date() == (last - timedelta(seconds=1)).date() for first, last in days)
    assert by_day(start, start) == []


class TestProfiles:
    def test_good_ones_are_published_and_served(self, land: Path) -> None:
        report = profiles(users=300, seed=5)
        assert (report["good"], report["quarantined"]) == (300, 0)
        assert "300 rows are published" in artifact("profiles")["data"]
        (row,) = json.loads(artifact("materialize")["data"])
        assert (row["users"], row["equal"], row["missing"]) == (300, 300, 0)
        assert land.exists()

    def test_a_broken_table_changes_nothing_and_is_told(self, land: Path, tmp_path: Path) -> None:
        file = tmp_path / "broken.csv"
        make_profiles(250, 5).with_columns(age=pl.lit(7)).write_csv(file)
        before = contents(land, profiles_view.name)
        with pytest.raises(CheckFailedError, match="Nothing is published"):
            profiles(source=file)
        assert contents(land, profiles_view.name) == before
        (payload,) = wait_for(lambda: events("quality.failed", str(file)))
        assert payload["rules"]


class TestMaterialize:
    def test_redis_away_is_tried_again_and_then_told(self, land: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        del land
        monkeypatch.setenv("REDIS_URL", "redis://127.0.0.1:1/0")
        quick = commands.run_command.with_options(retries=1, retry_delay_seconds=0.1)
        monkeypatch.setattr(commands, "run_command", quick)
        with pytest.raises(CommandError, match="Redis does not answer"):
            materialize()
        run = ask("POST", "/task_runs/filter", {"sort": "EXPECTED_START_TIME_DESC", "limit": 1})[0]
        assert (run["name"], run["run_count"]) == ("batch.materialize", 2)

    def test_what_is_not_outside_is_not_tried_again(self, land: Path) -> None:
        del land
        with pytest.raises(CommandError, match="there-is-none"):
            profiles(source=Path("there-is-none.csv"))
        run = ask("POST", "/task_runs/filter", {"sort": "EXPECTED_START_TIME_DESC", "limit": 1})[0]
        assert (run["name"], run["run_count"]) == ("batch.quality", 1)


class TestBackfillAndParity:
    def test_late_events_are_explained_healed_once_and_then_gone(self, land: Path) -> None:
        start, end = NOW - timedelta(hours=20), NOW - timedelta(hours=2)
        span: dict[str, Any] = {"start": start, "end": end}
        report = parity(**span)
        assert report["holds"]
        assert report["rows"]["equal"] == report["rows"]["recomputed"] > 500
        assert report["online"]["wrong"] == 0
        assert "file://" in artifact("parity")["data"]

        report = parity(**span, mode="complete", online=False)
        late = report["rows"]["explained"]
        assert late > 0
        (payload,) = wait_for(lambda: events("parity.explained", start.isoformat()))
        assert (payload["explained"], payload["unexplained"]) == (late, 0)
        with pytest.raises(CheckFailedError, match="as before their heal"):
            parity(**span, mode="complete", online=False)

        healed = backfill(start=payload["start"], end=payload["end"], heal=True)
        assert [one["day"] for one in healed] == [f"{first:%Y-%m-%d}" for first, _ in by_day(start, end)]
        assert sum(one["healed"] for one in healed) == late
        before = contents(land, clicks.name)
        (again,) = backfill(start=by_day(start, end)[-1][0], end=end, heal=True)
        assert again["healed"] == 0
        assert contents(land, clicks.name) == before
        report = parity(**span, mode="complete")
        assert report["rows"]["equal"] == report["rows"]["recomputed"]

    def test_unexplained_differences_only_raise_the_alarm(self, land: Path) -> None:
        start, stop = last_closed_hours(3)
        slide = timedelta(milliseconds=clicks.slide_ms)
        files = [
            file
            for file in sorted(features_folder(land, clicks.name).glob("dt=*/*.parquet"))
            if start <= pl.read_parquet(file)["event_timestamp"][0] < stop - slide
        ]
        rows = pl.read_parquet(files[0], hive_partitioning=False)
        rows.with_columns(pl.col("view_count") + 1).write_parquet(files[0])
        with pytest.raises(CheckFailedError, match="differ without a reason"):
            parity(hours=3, online=False)
        (payload,) = wait_for(lambda: events("parity.failed", f"'unexplained': {len(rows)}"))
        assert payload["start"] == start.isoformat()
        assert events("parity.explained", start.isoformat()) == []

    def test_an_empty_range_is_refused(self, prefect_environment: dict[str, str]) -> None:
        del prefect_environment
        with pytest.raises(ValueError, match="must be before end"):
            backfill(start=NOW, end=NOW)


def test_compaction_keeps_every_row(land: Path) -> None:
    rows = pl.concat([pl.read_parquet(file) for file in features_folder(land, clicks.name).glob("dt=*/*.parquet")])
    report = compaction()
    files = sorted(features_folder(land, clicks.name).glob("dt=*/*.parquet"))
    assert sum(one["after"] for one in report["tables"].values()) < sum(
        one["before"] for one in report["tables"].values()
    )
    assert len(pl.concat([pl.read_parquet(file) for file in files])) == len(rows)
    assert json.loads(artifact("compaction")["data"])


def test_drift_is_told_and_does_not_fail(land: Path) -> None:
    rows = pl.concat([pl.read_parquet(file) for file in features_folder(land, clicks.name).glob("dt=*/*.parquet")])
    end: datetime = rows["event_timestamp"].max()  # type: ignore[assignment]  # a column of times
    calm = drift(hours=12, end=end, reference="day before")  # too few users then: nothing is claimed
    assert calm["status"] == 0
    for file in features_folder(land, clicks.name).glob("dt=*/*.parquet"):
        part = pl.read_parquet(file, hive_partitioning=False)
        late = part["event_timestamp"][0] > end - timedelta(hours=14)
        part.with_columns(pl.col("view_count") + (50 if late else 0)).write_parquet(file)
    found = drift(hours=14, end=end + timedelta(seconds=1), reference="day before")
    assert isinstance(found["verdict"], str)
    assert "Drift" in artifact("drift")["description"]
    if found["status"]:
        assert wait_for(lambda: events("drift.detected", "view_count"))


def test_training_serves_a_model_and_tells(land: Path) -> None:
    report = training()
    assert report["promoted"]
    current = json.loads((land / "models" / "purchase_prediction" / "current.json").read_text())
    assert current["version"] == report["version"]
    assert report["version"] in artifact("training")["data"]


class TestServe:
    def test_without_a_server_it_says_what_to_do(self) -> None:
        environment = {
            **os.environ, "PREFECT_API_URL": "http://127.0.0.1:1/api", "PREFECT_HOME": tempfile.gettempdir()
        }  # fmt: skip
        done = subprocess.run(
            [sys.executable, "-m", "flows.serve"],
            cwd=PROJECT_ROOT,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 2
        assert "prefect server start" in done.stderr.splitlines()[-1]
        assert callable(serve)

    def test_runs_by_name_and_leaves_schedules_on(self, land: Path, prefect_environment: dict[str, str]) -> None:
        environment = {**os.environ, **prefect_environment, "COLUMNS": "200"}
        serving = subprocess.Popen(
            [sys.executable, "-m", "flows.serve"],
            cwd=PROJECT_ROOT,
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            wait_for(lambda: len(ask("POST", "/deployments/filter", {})) == len(declared()))
            done = subprocess.run(
                [PREFECT, "deployment", "run", "compaction/hourly", "--watch"],
                env=environment,
                capture_output=True,
                text=True,
                check=False,
            )
            assert "Completed" in done.stdout, done.stdout + done.stderr
            # An event starts what is declared for it.
            start, end = NOW - timedelta(hours=12), NOW - timedelta(hours=4)
            wait_for(lambda: len(ask("POST", "/automations/filter", {})) == 2)
            assert parity(start=start, end=end, mode="complete", online=False)["rows"]["explained"] > 0
            name = f"heal {start:%Y-%m-%d %H:%M} to {end:%Y-%m-%d %H:%M}"
            wait_for(lambda: states(name) == ["COMPLETED"], 120)
        finally:
            serving.send_signal(signal.SIGTERM)
            serving.wait(60)
        assert parity(start=start, end=end, mode="complete", online=False)["rows"]["explained"] == 0
        assert states(name) == ["COMPLETED"], "once"
        schedules = [one for deployment in ask("POST", "/deployments/filter", {}) for one in deployment["schedules"]]
        assert len(schedules) == sum(len(one.get("schedules", [])) for one in declared())
        assert all(one["active"] for one in schedules)
        assert land.exists()


@needs_chromium
def test_a_person_sees_deployments_runs_and_artifacts(land: Path, prefect_environment: dict[str, str]) -> None:
    for one in declared():
        served(one).apply()
    compaction()
    assert land.exists()
    flows = {"name": {"any_": ["compaction"]}}
    run = ask("POST", "/flow_runs/filter", {"sort": "START_TIME_DESC", "flows": flows})[0]
    url = prefect_environment["PREFECT_API_URL"].removesuffix("/api")
    pages = {
        "/deployments": "daily-complete",
        f"/runs/flow-run/{run['id']}": run["name"],
        "/artifacts/key/compaction": "Files by table",
    }
    for page, text in pages.items():
        wait_for(partial(shows, url + page, text))


def shows(url: str, text: str) -> bool:
    """Whether a page has a text in a browser."""
    return text in look(url).dom


def states(name: str) -> list[str]:
    """The states of the flow runs of a name."""
    runs = ask("POST", "/flow_runs/filter", {"flow_runs": {"name": {"any_": [name]}}})
    return [run["state_type"] for run in runs]
