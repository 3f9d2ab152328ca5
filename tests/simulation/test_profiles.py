from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import polars as pl
import pytest
from hypothesis import given, strategies as st

from feast_repo.declare.stored import offline_columns
from feast_repo.features import user_profile_features
from feast_repo.profiles import COUNTRIES, TIERS
from simulation.profiles import DEFAULT_SEED, main, make_profiles, publish_profiles

if TYPE_CHECKING:
    from pathlib import Path

TIME = datetime(2026, 3, 1, 6, tzinfo=UTC)


@pytest.fixture(scope="module")
def profiles() -> pl.DataFrame:
    return make_profiles(50_000, 3)


@pytest.fixture
def data_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DATA_ROOT", str(tmp_path))
    return tmp_path


def test_every_user_is_there_once_and_complete(profiles: pl.DataFrame) -> None:
    assert profiles["user_id"].to_list() == [f"user_{number:06d}" for number in range(1, 50_001)]
    assert profiles.columns[1:] == list(user_profile_features.features)
    assert profiles.null_count().sum_horizontal().item() == 0


@pytest.mark.parametrize(("column", "weights"), [("country", COUNTRIES), ("subscription_tier", TIERS)])
def test_values_are_as_frequent_as_their_weights(
    profiles: pl.DataFrame, column: str, weights: dict[str, float]
) -> None:
    shares = dict(profiles[column].value_counts(normalize=True).iter_rows())
    assert shares == pytest.approx(weights, abs=0.01)


def test_ages_cover_the_adults_with_most_of_them_young(profiles: pl.DataFrame) -> None:
    ages = profiles["age"]
    assert (ages.min(), ages.max()) == (18, 90)
    assert 38 < profiles["age"].median() < 45  # type: ignore[operator]  # not empty
    by_age = dict(ages.value_counts().iter_rows())
    assert by_age[30] > by_age[50] > by_age[70] > by_age[90]


def test_activity_has_a_heavy_tail(profiles: pl.DataFrame) -> None:
    activity = sorted(profiles["activity_weight"].to_list(), reverse=True)
    assert activity[-1] > 0
    assert 0.8 < activity[0] <= 1
    assert sum(activity[:5_000]) > 0.4 * sum(activity)


def test_who_pays_is_more_active(profiles: pl.DataFrame) -> None:
    means = dict(profiles.group_by("subscription_tier").agg(pl.col("activity_weight").mean()).iter_rows())
    assert means["free"] < means["basic"] < means["premium"]


def test_age_country_and_tier_have_nothing_to_do_with_each_other(profiles: pl.DataFrame) -> None:
    by_country = profiles.group_by("country").agg(
        pl.col("age").mean(), free=(pl.col("subscription_tier") == "free").mean()
    )
    assert by_country["age"].to_list() == pytest.approx([42.1] * len(COUNTRIES), abs=1.5)
    assert by_country["free"].to_list() == pytest.approx([TIERS["free"]] * len(COUNTRIES), abs=0.05)
    by_tier = profiles.group_by("subscription_tier").agg(pl.col("age").mean())
    assert by_tier["age"].to_list() == pytest.approx([42.1] * len(TIERS), abs=1.0)


@given(users=st.integers(1, 50), more=st.integers(0, 50), seed=st.integers(0, 2**63 - 1))
def test_the_first_users_are_the_same_in_any_population(users: int, more: int, seed: int) -> None:
    assert make_profiles(users + more, seed).head(users).equals(make_profiles(users, seed))


def test_another_seed_gives_other_people() -> None:
    assert not make_profiles(100, 1).equals(make_profiles(100, 2))


def test_offline_rows_have_the_declared_columns(tmp_path: Path) -> None:
    profiles = make_profiles(20, 1)
    csv, parquet = publish_profiles(profiles, TIME, tmp_path)
    assert parquet.parent == tmp_path / "features" / "user_profile_features" / "dt=2026-03-01"
    rows = pl.read_parquet(parquet, hive_partitioning=False)
    assert dict(rows.schema) == offline_columns(user_profile_features)
    assert rows.select(profiles.columns).equals(profiles)
    assert rows.select("event_timestamp", "created_timestamp", "writer").unique().rows() == [(TIME, TIME, "backfill")]
    assert pl.read_csv(csv).equals(profiles)


def test_a_second_run_overwrites_the_first_with_the_same_bytes(tmp_path: Path) -> None:
    files = publish_profiles(make_profiles(50, 1), TIME, tmp_path)
    first = [file.read_bytes() for file in files]
    publish_profiles(make_profiles(30, 2), TIME, tmp_path)
    assert [file.read_bytes() for file in files] != first
    publish_profiles(make_profiles(50, 1), TIME, tmp_path)
    assert [file.read_bytes() for file in files] == first
    assert sorted(path for path in tmp_path.rglob("*") if path.is_file()) == sorted(files)


def test_the_command_writes_profiles_of_today(data_root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = datetime.now(UTC).date()
    assert main(["--users", "12", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    after = datetime.now(UTC).date()
    time = datetime.fromisoformat(report["time"])
    assert before <= time.date() <= after
    assert time == datetime(time.year, time.month, time.day, tzinfo=UTC)
    assert (report["users"], report["seed"]) == (12, DEFAULT_SEED)
    assert pl.read_csv(data_root / "profiles" / "profiles.csv").equals(make_profiles(12, DEFAULT_SEED))


def test_the_command_tells_people_what_it_made(data_root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--users", "2000", "--time", "2026-03-01T07:00:00+01:00"]) == 0
    shown = capsys.readouterr().out
    assert "2,000 profiles" in shown
    assert all(tier in shown for tier in TIERS)
    assert (data_root / "features" / "user_profile_features" / "dt=2026-03-01").is_dir()


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--users", "0"], "--users: '0'"),
        (["--users", "many"], "--users: 'many'"),
        (["--seed", "-1"], "--seed"),
        (["--time", "yesterday"], "--time: 'yesterday'"),
        (["--time", "2999-01-01"], "--time 2999-01-01"),
        (["--user", "5"], "--user 5"),
    ],
)
def test_bad_input_is_told_in_one_line(
    arguments: list[str], named: str, data_root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        main(arguments)
    shown = capsys.readouterr()
    assert end.value.code == 2
    assert shown.out == ""
    assert named in shown.err
    assert shown.err.count("\n") == 1
    assert list(data_root.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    monkeypatch.setenv("DATA_ROOT", str(blocked))
    with pytest.raises(SystemExit) as end:
        main(["--users", "5"])
    assert end.value.code == 2
    assert str(blocked) in capsys.readouterr().err
