"""Each flow against real stores and a real Prefect server, also when things go wrong."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest
from prefect import flow

from batch.training.labels import label_of
from batch.training.training_set import main as training_set
from feast_repo.features import (
    purchase_prediction,
    user_click_features as clicks,
    user_profile_features as profiles_view,
)
from feast_repo.settings import PROJECT_ROOT
from feast_repo.stores.offline.tables import features_folder
from flows import commands
from flows.backfill import backfill
from flows.commands import CommandError
from flows.compaction import compaction
from flows.deployments import declared, flow_of, served
from flows.drift import drift
from flows.freshness import freshness
from flows.materialize import materialize
from flows.parity import parity
from flows.profiles import profiles
from flows.ranges import by_day, last_closed_hours
from flows.serve import main as serve
from flows.telling import CheckFailedError, emit
from flows.training import training
from serving.model import ModelFolder
from serving.training import Split, split_by_time, train
from simulation.profiles import make_profiles, publish_profiles
from tests.batch.archives import NOW_MS
from tests.browser import look, needs_chromium
from tests.flows.conftest import PREFECT, USERS, artifact, ask, events, wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from redis import Redis

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

    def test_times_are_in_utc_also_those_without_an_offset(self) -> None:
        given = {"start": "2026-01-01", "end": "2026-01-02T01:00:00+01:00"}
        found = backfill.validate_parameters(given)
        assert [found[name].isoformat() for name in given] == ["2026-01-01T00:00:00+00:00", "2026-01-02T00:00:00+00:00"]

    def test_names_are_unique_and_every_flow_is_there(self) -> None:
        names = [(flow_of(one).name, one["name"]) for one in declared()]
        assert len(set(names)) == len(names)
        assert {name for name, _ in names} == {
            "profiles", "materialize", "backfill", "parity", "freshness", "compaction", "drift", "training"
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
            (drift, {"hours": 10**9}),
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


def test_a_view_that_is_older_than_its_objective_is_told(land: Path) -> None:
    assert land.exists()  # its clicks are of long ago
    with pytest.raises(CheckFailedError, match=f"older than their objectives allow: {clicks.name}"):
        freshness()
    told = {row["view"]: row for row in json.loads(artifact("freshness")["data"])}
    assert {name: row["stale"] for name, row in told.items()} == {clicks.name: True, profiles_view.name: False}
    (event,) = wait_for(lambda: events("freshness.failed", told[clicks.name]["newest"]))
    assert (event["view"], event["limit_seconds"]) == (clicks.name, 780)
    assert freshness(view=profiles_view.name)["holds"]


class TestProfiles:
    def test_good_ones_are_published_and_served(self, land: Path) -> None:
        report = profiles(users=300, seed=5)
        assert (report["good"], report["quarantined"]) == (300, 0)
        assert "300 rows are published" in artifact("profiles")["data"]
        assert all(rule["held"] for rule in json.loads(artifact("profiles-rules")["data"]))
        (row,) = json.loads(artifact("materialize")["data"])
        assert (row["entities"], row["equal"], row["missing"]) == (300, 300, 0)
        assert land.exists()

    def test_a_broken_table_changes_nothing_and_is_told(self, land: Path, tmp_path: Path) -> None:
        file = tmp_path / "broken.csv"
        make_profiles(250, 5).with_columns(age=pl.lit(7)).write_csv(file)
        before = contents(land, profiles_view.name)
        with pytest.raises(CheckFailedError, match="Nothing is published"):
            profiles(source=file)
        assert contents(land, profiles_view.name) == before
        (payload,) = wait_for(lambda: events("quality.failed", str(file)))
        failed = {rule["rule"] for rule in json.loads(artifact("profiles-rules")["data"]) if not rule["held"]}
        assert failed == set(payload["rules"]) != set()


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

    def test_users_who_are_not_served_what_is_stored_fail_the_run(self, land: Path, redis: Redis) -> None:
        del land
        redis.flushall()
        with pytest.raises(CheckFailedError, match="250 entities are not served"):
            materialize()  # the look-back does not reach their rows
        (row,) = json.loads(artifact("materialize")["data"])
        assert (row["equal"], row["missing"], row["missing share"]) == (0, 250, 1)

    def test_output_that_is_no_report_is_told(self, prefect_environment: dict[str, str]) -> None:
        del prefect_environment

        @flow
        def talkative() -> None:
            commands.run_command("this")

        with pytest.raises(CommandError, match="this failed with exit code 0"):
            talkative()

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
        with pytest.raises(CheckFailedError, match="as before, and their heal was asked for"):
            parity(**span, mode="complete", online=False)

        healed = backfill(start=payload["start"], end=payload["end"], heal=True)
        assert [one["day"] for one in healed] == [f"{first:%Y-%m-%d}" for first, _ in by_day(start, end)]
        assert sum(one["healed"] for one in healed) == late
        before = contents(land, clicks.name)
        assert [one["healed"] for one in backfill(start=start, end=end, heal=True)] == [0] * len(healed)
        assert contents(land, clicks.name) == before
        report = parity(**span, mode="complete")
        assert report["rows"]["equal"] == report["rows"]["recomputed"]

    def test_what_is_lacking_is_added_once(self, land: Path) -> None:
        start, end = NOW - timedelta(hours=4), NOW - timedelta(hours=2)
        lost = 0
        for file in features_folder(land, clicks.name).glob("dt=*/*.parquet"):
            rows = pl.read_parquet(file, hive_partitioning=False)
            if start <= rows["event_timestamp"][0] < end:
                lost += len(rows)
                file.unlink()
        assert sum(one["added"] for one in backfill(start=start, end=end)) == lost > 0
        before = contents(land, clicks.name)
        assert sum(one["added"] for one in backfill(start=start, end=end)) == 0
        assert contents(land, clicks.name) == before

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
        with pytest.raises(ValueError, match="both start and end"):
            parity(start=NOW)


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
    end = last_closed_hours(1)[1]
    calm = drift(hours=12, end=end)
    # Of 250 users fewer than 200 buy: what they pay can't be told to be as before.
    assert (calm["status"], calm["severity"]) == (0, "insufficient data")
    assert "Nothing has drifted, as far as there is enough data." in artifact("drift")["data"]
    publish_profiles(make_profiles(USERS, 1, "older"), end - timedelta(hours=1), land)
    found = drift(hours=12, end=end)
    assert (found["status"], found["severity"]) == (1, "major")
    (payload,) = wait_for(lambda: events("drift.detected", "age"))
    assert payload["severity"] == "major"
    assert payload["verdict"] in artifact("drift")["data"]


def test_training_serves_a_model_and_tells(busy_land: Path) -> None:
    report = training(as_created=True)
    assert report["promoted"]
    current = json.loads((busy_land / "models" / "purchase_prediction" / "current.json").read_text())
    assert current["version"] == report["version"]
    assert report["version"] in artifact("training")["data"]


def test_a_training_whose_model_is_not_served_fails(land: Path, tmp_path: Path) -> None:
    assert training_set(["--to", str(tmp_path / "rows.parquet")]) == 0
    label, _ = label_of(purchase_prediction)
    holdout = split_by_time(pl.read_parquet(tmp_path / "rows.parquet"), label).holdout
    clairvoyant = train(purchase_prediction, Split(holdout, holdout), "", 1, "1")
    models = ModelFolder(land, purchase_prediction.name)
    models.save(clairvoyant.card, clairvoyant.onnx)
    models.promote("1")
    with pytest.raises(CheckFailedError, match="worse than the model served before"):
        training()
    assert models.current == "1"
    told = artifact("training")["data"]
    assert "| served | no |" in told
    assert "It is stored and not served" in told


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

    @pytest.mark.timeout(600)
    def test_runs_by_name_by_event_and_on_schedule(self, land: Path, prefect_environment: dict[str, str]) -> None:
        environment = {**os.environ, **prefect_environment, "COLUMNS": "200"}
        with serving(environment) as server:
            assert "Completed" in run_by_name("compaction/hourly", environment)
            start, end = NOW - timedelta(hours=12), NOW - timedelta(hours=4)
            wait_for(lambda: len(ask("POST", "/automations/filter", {})) == 2)
            assert parity(start=start, end=end, mode="complete", online=False)["rows"]["explained"] > 0
            name = f"heal {start:%Y-%m-%d %H:%M} to {end:%Y-%m-%d %H:%M}"
            heals = wait_for(lambda: runs(name=name, state=FINAL), 240)
            server.kill()
        # A second one takes over from one that was killed.
        with serving(environment):
            assert parity(start=start, end=end, mode="complete", online=False)["rows"]["explained"] == 0
            due = {one["name"] for one in declared() if one.get("schedules")}
            wait_for(lambda: {one["name"] for one in scheduled()} == due)
        schedules = [one for deployment in ask("POST", "/deployments/filter", {}) for one in deployment["schedules"]]
        assert len(schedules) == sum(len(one.get("schedules", [])) for one in declared())
        assert all(one["active"] for one in schedules)
        assert [run["state_type"] for run in heals] == ["COMPLETED"], heals
        assert len(runs(name=name)) == 1, "once"
        assert land.exists()

        emit("drift.detected", {"severity": "major", "features": ["view_count"], "verdict": "Drifted."})
        wait_for(
            lambda: [one for one in runs(flow="training") if (one["created_by"] or {}).get("type") == "AUTOMATION"]
        )


@pytest.mark.timeout(600)
def test_a_work_pool_runs_what_is_deployed(land: Path, prefect_environment: dict[str, str]) -> None:
    environment = {**os.environ, **prefect_environment, "COLUMNS": "200"}

    def prefect(*words: str) -> None:
        done = subprocess.run(
            [PREFECT, *words], cwd=PROJECT_ROOT, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr

    prefect("--no-prompt", "work-pool", "create", "features", "--type", "process", "--overwrite")
    prefect("--no-prompt", "deploy", "--all")
    found = ask("POST", "/deployments/filter", {})
    assert {one["work_pool_name"] for one in found} == {"features"}
    assert sorted(one["name"] for one in found) == sorted(one["name"] for one in declared())
    triggers = {one["name"]: one for entry in declared() for one in entry.get("triggers", [])}
    automations = ask("POST", "/automations/filter", {})
    assert {one["name"]: one["actions"][0]["parameters"] for one in automations} == {
        name: one.get("parameters") for name, one in triggers.items()
    }
    before = len(runs(flow="compaction", state=FINAL))
    prefect("deployment", "run", "compaction/hourly")
    prefect("worker", "start", "--pool", "features", "--run-once")
    done = runs(flow="compaction", state=FINAL)
    assert [run["state_type"] for run in done[before:]] == ["COMPLETED"], done[before:]
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


FINAL = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")


def runs(*, name: str | None = None, flow: str | None = None, state: Sequence[str] = ()) -> list[dict[str, Any]]:
    """Flow runs, oldest first."""
    chosen: dict[str, Any] = {"name": {"any_": [name]} if name else None}
    chosen["state"] = {"type": {"any_": list(state)}} if state else None
    found: list[dict[str, Any]] = ask(
        "POST",
        "/flow_runs/filter",
        {"flow_runs": chosen, "flows": {"name": {"any_": [flow]}} if flow else None, "sort": "START_TIME_ASC"},
    )
    return found


def scheduled() -> list[dict[str, Any]]:
    """The deployments that have a run which a schedule has made."""
    made = {run["deployment_id"] for run in runs(state=["SCHEDULED"]) if run["auto_scheduled"]}
    return [one for one in ask("POST", "/deployments/filter", {}) if one["id"] in made]


@contextmanager
def serving(environment: Mapping[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """`python -m flows.serve`, when it is ready."""
    with tempfile.NamedTemporaryFile() as log:
        command = [sys.executable, "-m", "flows.serve"]
        process = subprocess.Popen(command, cwd=PROJECT_ROOT, env=environment, stdout=log, stderr=log)
        try:
            wait_for(lambda: "being served" in Path(log.name).read_text(encoding="utf-8"))
            yield process
        finally:
            process.terminate()
            process.wait(60)


def run_by_name(name: str, environment: Mapping[str, str]) -> str:
    """Run a deployment to its end, from the command line; returns what that prints."""
    done = subprocess.run(
        [PREFECT, "deployment", "run", name, "--watch"], env=environment, capture_output=True, text=True, check=False
    )
    return done.stdout + done.stderr
