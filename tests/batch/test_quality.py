"""The gate lets good rows through, keeps broken ones apart by the rule they break, and stops a table it can't trust."""

from __future__ import annotations

import json
import socket
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from batch.quality.__main__ import main as quality
from batch.quality.candidate import MemoryCandidate
from batch.quality.publication import BatchTable
from batch.quality.rules import LEAST_ROWS_TO_COMPARE, OFF_GRID, RATIO
from batch.quality.validation import QualityError
from batch.quality.windowed import hours_of, row_frame, volume_frame
from feast_repo.clickstream import clickstream
from feast_repo.features import catalog, user_click_features as view, user_profile_features as profiles
from feast_repo.settings import StreamSettings
from feast_repo.stores.offline.tables import features_folder, progress_folder
from feast_repo.stores.progress import Progress, ProgressRecord
from sandbox.checks import rows_of
from simulation.profiles import make_profiles, publish_profiles
from tests.batch.archives import clicks, store, stream
from tests.batch.conftest import WITH_SPARK
from tests.browser import look_at_file, needs_chromium
from tests.feast_repo.rows import clicks as click_rows

if WITH_SPARK:
    from batch.quality.spark import SparkCandidate

TODAY = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
USERS, SEED = 400, 7
BROKEN: dict[str, dict[str, str | None]] = {
    "user_id_present": {"user_id": None},
    "user_id_well_formed": {"user_id": "User 17"},
    "user_id_length,user_id_well_formed": {"user_id": "x" * 65},
    "age_present": {"age": None},
    "age_readable": {"age": "forty"},
    "age_range": {"age": "17"},
    "country_known": {"country": "XX"},
    "country_present": {"country": None},
    "subscription_tier_known": {"subscription_tier": "Gold"},
    "activity_weight_range": {"activity_weight": "0"},
    "activity_weight_readable": {"activity_weight": "1,5"},
}


@pytest.fixture
def root() -> Path:
    return StreamSettings().data_root


def as_text(users: int = USERS) -> pl.DataFrame:
    return make_profiles(users, 3).select(pl.all().cast(pl.String))


def with_broken(rows: pl.DataFrame) -> pl.DataFrame:
    """A row for each of BROKEN, in the middle of good ones."""
    good = rows.to_dicts()
    bad = [{**good[number], **change} for number, change in enumerate(BROKEN.values())]
    return pl.DataFrame([*good[len(bad) : 100], *bad, *good[100:]], schema=rows.schema)


def run(capsys: pytest.CaptureFixture[str], *arguments: str, status: int = 0) -> dict[str, Any]:
    capsys.readouterr()
    found = quality([*arguments, "--json"])
    report: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert found == status, report
    return report


def failed(report: dict[str, Any]) -> dict[str, int]:
    return {one["rule"]: one["broken"] for one in report["findings"] if not one["holds"]}


def held(root: Path) -> pl.DataFrame:
    table = BatchTable(root, catalog, profiles)
    return table.published(table.newest_time()).select("user_id", *profiles.features).sort("user_id")


def refuse_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    real = socket.socket.connect

    def connect(self: socket.socket, address: Any) -> None:
        assert self.family == socket.AF_UNIX or str(address[0]).startswith("127."), f"connects to {address}"
        real(self, address)

    monkeypatch.setattr(socket.socket, "connect", connect)


def test_each_broken_row_is_kept_apart_with_its_rule(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse_the_network(monkeypatch)
    file = tmp_path / "new.csv"
    rows = with_broken(as_text())
    rows.write_csv(file)
    report = run(capsys, "profiles", "--input", str(file))
    assert (report["good"], report["quarantined"]) == (USERS - len(BROKEN), len(BROKEN))
    quarantined = rows_of(root / "quarantine" / profiles.name)
    assert sorted(quarantined["rules"].to_list()) == sorted(BROKEN)
    for row in quarantined.iter_rows(named=True):
        assert BROKEN[row["rules"]].items() <= row.items()
    assert set(failed(report)) == {name for rules in BROKEN for name in rules.split(",")}
    good = make_profiles(USERS, 3)
    bad = rows.head(0).vstack(good.head(len(BROKEN)).select(pl.all().cast(pl.String)))["user_id"]
    assert_frame_equal(held(root), good.filter(~pl.col("user_id").is_in(bad.implode())).sort("user_id"))
    page = next(name for name in report["files"] if name.endswith("Z.html"))
    text = Path(page).read_text()
    assert "age_range" in text
    assert "http" not in text


@needs_chromium
def test_a_person_sees_the_page(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "new.csv"
    with_broken(as_text()).write_csv(file)
    report = run(capsys, "profiles", "--input", str(file))
    seen = look_at_file(next(Path(name) for name in report["files"] if name.endswith("Z.html")))
    assert seen.console == []
    assert f"{USERS - len(BROKEN)} rows are published, {len(BROKEN)} are in quarantine." in seen.dom
    assert str(next((root / "quarantine").rglob("*.parquet"))) in seen.dom
    assert seen.dom.index("age_range") < seen.dom.index("user_id_unique")  # what does not hold comes first


def test_one_broken_row_in_a_hundred_is_split_off_exactly(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    print(f"seed {SEED}")  # noqa: T201  (a failure shows it)
    rows = as_text(20_000)
    chosen = np.random.default_rng(SEED).choice(len(rows), len(rows) // 100, replace=False)
    at = pl.int_range(pl.len())
    young, abroad = at.is_in(chosen[:120].tolist()), at.is_in(chosen[80:].tolist())  # some are both
    file = tmp_path / "new.csv"
    broken = rows.with_columns(
        age=pl.when(young).then(pl.lit("7")).otherwise("age"),
        country=pl.when(abroad).then(pl.lit("XX")).otherwise("country"),
    )
    broken.write_csv(file)
    report = run(capsys, "profiles", "--input", str(file))
    assert (report["good"], report["quarantined"]) == (19_800, 200)
    assert failed(report) == {"age_range": 120, "country_known": 120}
    assert_frame_equal(held(root), make_profiles(20_000, 3).filter(~(young | abroad)))
    kept = rows_of(root / "quarantine" / profiles.name).sort("user_id")
    assert_frame_equal(kept.select(rows.columns), broken.filter(young | abroad))
    assert kept["rules"].value_counts().sort("rules").rows() == [
        ("age_range", 80), ("age_range,country_known", 40), ("country_known", 80),
    ]  # fmt: skip


def test_copies_of_a_user_are_all_kept_apart(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "new.parquet"
    rows = make_profiles(USERS, 3)
    pl.concat([rows, rows.head(3).with_columns(age=pl.lit(50, pl.Int64).cast(rows.schema["age"]))]).write_parquet(file)
    report = run(capsys, "profiles", "--input", str(file))
    assert failed(report) == {"user_id_unique": 6}
    assert len(held(root)) == USERS - 3


@pytest.mark.parametrize("why", ["row_count", "broken_share", "publication_age"])
def test_a_table_that_can_not_be_trusted_changes_nothing(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], why: str
) -> None:
    publish_profiles(make_profiles(USERS, 1), TODAY, root)
    before = {file: file.read_bytes() for file in root.rglob("*") if file.is_file()}
    file = tmp_path / "new.csv"
    rows = as_text(USERS if why != "row_count" else USERS // 2 - 1)
    if why == "broken_share":
        rows = rows.with_columns(age=pl.when(pl.int_range(pl.len()) % 10 < 6).then(pl.lit("7")).otherwise("age"))
    rows.write_csv(file)
    time = TODAY - timedelta(days=9 if why == "publication_age" else 0)
    extra = ["--least-rows", "1"] if why == "broken_share" else []
    report = run(capsys, "profiles", "--input", str(file), "--time", time.isoformat(), *extra, status=1)
    assert why in failed(report)
    assert {file: file.read_bytes() for file in before} == before
    assert not (root / "quarantine").exists()


def test_mended_rows_are_published_once(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "new.csv"
    good = as_text()
    broken = good.with_columns(age=pl.when(pl.int_range(pl.len()) % 100 == 7).then(pl.lit("7")).otherwise("age"))
    broken.write_csv(file)
    run(capsys, "profiles", "--input", str(file), "--time", TODAY.isoformat())
    (kept,) = (root / "quarantine" / profiles.name).glob("dt=*/*.parquet")
    report = run(capsys, "replay", str(kept), status=1)
    assert report["quarantined"] == 4
    assert len(held(root)) == USERS - 4
    mended = tmp_path / "mended.parquet"
    rows = pl.read_parquet(kept, hive_partitioning=False)
    rows.drop("age").join(good.select("user_id", "age"), on="user_id").write_parquet(mended)
    run(capsys, "replay", str(mended))
    assert_frame_equal(held(root), make_profiles(USERS, 3))
    stored = {file: file.read_bytes() for file in features_folder(root, profiles.name).rglob("*.parquet")}
    run(capsys, "replay", str(mended))
    assert {file: file.read_bytes() for file in features_folder(root, profiles.name).rglob("*.parquet")} == stored


@pytest.mark.usefixtures("spark_session")
def test_spark_finds_the_same(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "new.csv"
    with_broken(as_text()).write_csv(file)
    by_pandas = run(capsys, "profiles", "--input", str(file))
    first = held(root)
    by_spark = run(capsys, "profiles", "--input", str(file), "--engine", "spark")
    assert failed(by_spark) == failed(by_pandas)
    assert_frame_equal(held(root), first)


ODD_CSV = (
    "age,user_id,country,subscription_tier,activity_weight,event_timestamp\n"
    '35.0,user_000001,"U""S",free,1e-2,2026-01-01T00:00:00Z\n'
    '"",user_000002,"D\nE",,.5,2026-01-01T00:00:00Z\n'
    "+7,user_000003, FR,basic,nan,2026-01-01T00:00:00Z\n"
)


@pytest.mark.usefixtures("spark_session")
class TestBothEngines:
    """Spark reads files by itself, so they must mean the same to it."""

    @pytest.mark.parametrize("kind", ["odd.csv", "odd.parquet", "whole [1].parquet", "dt=2026-01-01.parquet"])
    def test_read_the_same(self, tmp_path: Path, kind: str) -> None:
        file = tmp_path / "dt=2026-01-01" / kind
        file.parent.mkdir()
        if kind == "odd.csv":
            file.write_text(ODD_CSV)
        else:
            time = pl.lit(datetime(2026, 1, 1, tzinfo=UTC)).alias("event_timestamp")
            rows = make_profiles(20, 1).with_columns(time)
            if kind == "odd.parquet":
                rows = rows.with_columns(
                    age=pl.when(pl.int_range(pl.len()) == 3).then(float("nan")).otherwise("age"),
                    activity_weight=pl.when(pl.int_range(pl.len()) == 4).then(None).otherwise("activity_weight"),
                )
            rows.write_parquet(file)
        memory, spark = MemoryCandidate(file, profiles), SparkCandidate(file, profiles, tmp_path)
        assert memory.time == spark.time == datetime(2026, 1, 1, tzinfo=UTC)
        seen, by_spark = pl.from_pandas(memory.frame()), pl.DataFrame(spark.frame().orderBy("row").toArrow())
        # Where a value is missing, pandas has floats for integers.
        assert_frame_equal(seen, by_spark.select(seen.columns), check_dtypes=False)
        broken = pl.DataFrame({"row": [1, 2], "rules": ["a,b", "c"]}, schema_overrides={"row": pl.Int64})
        assert_frame_equal(memory.only(broken), spark.only(broken))
        assert_frame_equal(memory.without(broken).collect(), spark.without(broken).collect())

    @pytest.mark.parametrize(
        ("content", "said"),
        [
            (ODD_CSV + "30,user_000004,US,free,1,5,2026-01-01T00:00:00Z\n", "can't be read"),  # a comma too many
            (ODD_CSV + "30,user_000004,US,free,1,2026-01-02\n", "must be the same"),
            ("user_id,age\nuser_000001,30\n", "lacks the columns country"),
        ],
    )
    def test_refuse_the_same(self, tmp_path: Path, content: str, said: str) -> None:
        file = tmp_path / "new.csv"
        file.write_text(content)
        with pytest.raises(QualityError, match=said):
            MemoryCandidate(file, profiles)
        with pytest.raises(QualityError, match=said):
            SparkCandidate(file, profiles, tmp_path)


@pytest.mark.parametrize(
    ("content", "said"),
    [(None, "No such file"), ("user_id,age\nuser_000001,30\n", "lacks the columns country"), ("\x00\x01", "")],
)
def test_a_file_that_is_none_is_told_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str | None, said: str
) -> None:
    file = tmp_path / "new.csv"
    if content is not None:
        file.write_text(content)
    with pytest.raises(SystemExit) as stopped:
        quality(["profiles", "--input", str(file)])
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


class TestClicks:
    def test_what_the_stream_stored_is_sound(self, root: Path, capsys: pytest.CaptureFixture[str]) -> None:
        stream(root, view, clicks(hours=3, events=800, partitions=2))
        report = run(capsys, "clicks")
        assert report["rows"] == len(rows_of(features_folder(root, view.name)))

    @pytest.mark.parametrize(
        ("column", "value", "rule"),
        [
            ("click_count", -1, "click_count_range"),
            ("view_count", None, "view_count_present"),
            ("cart_rate", float("inf"), "cart_rate_range"),
            ("event_timestamp", None, "window_end_on_grid"),
            ("user_id", None, "row_unique"),
        ],
    )
    def test_a_broken_row_is_named(
        self, root: Path, capsys: pytest.CaptureFixture[str], column: str, value: Any, rule: str
    ) -> None:
        rows = stream(root, view, clicks(hours=3, events=800, partitions=2))
        end = rows["event_timestamp"][len(rows) // 2]
        window = rows.filter(event_timestamp=end, partition=rows["partition"][len(rows) // 2]).drop("partition")
        at = pl.int_range(pl.len()) == 1
        if column == "event_timestamp":
            change = pl.col(column) + pl.when(at).then(pl.duration(seconds=1)).otherwise(pl.duration())
        elif column == "user_id":
            change = pl.when(at).then(pl.col(column).first()).otherwise(column)
        else:
            change = pl.when(at).then(pl.lit(value, window.schema[column])).otherwise(column)
        end_ms = round(end.timestamp() * 1000)
        store(
            root, view, window.with_columns(change.alias(column)), "stream", rows["partition"][len(rows) // 2], end_ms
        )
        assert rule in failed(run(capsys, "clicks", status=1))

    @pytest.mark.usefixtures("spark_session")
    def test_spark_sees_the_same(self, root: Path, capsys: pytest.CaptureFixture[str]) -> None:
        rows = stream(root, view, clicks(hours=30, events=60_000, users=400, partitions=2))
        ends = rows["event_timestamp"].unique().sort()
        undeclared, doubled, odd = ((end, round(end.timestamp() * 1000)) for end in ends[-3:])
        for partition in range(2):
            held = rows.filter(event_timestamp=undeclared[0], partition=partition).drop("partition")
            store(root, view, held.with_columns(view_count=None), "stream", partition, undeclared[1])
        store(root, view, rows.filter(event_timestamp=doubled[0]).drop("partition"), "stream", 0, doubled[1])
        healed = rows.filter(event_timestamp=odd[0]).drop("partition").head(3)
        for number, value in enumerate((float("nan"), float("inf"), -1.0)):
            row = healed[number : number + 1].with_columns(cart_rate=pl.lit(value))
            store(root, view, row, "heal", number, odd[1])
        by_pandas, by_spark = (run(capsys, "clicks", "--engine", one, status=1) for one in ("pandas", "spark"))
        twice = len(rows.filter(event_timestamp=doubled[0], partition=1))
        assert failed(by_pandas) == {"row_unique": 2 * twice, "cart_rate_present": 1, "cart_rate_range": 2}
        same = ("rows", "verdict", "start", "end", "hours_compared")
        assert [by_spark[name] for name in same] == [by_pandas[name] for name in same]
        assert failed(by_spark) == failed(by_pandas)

    def test_a_feature_is_empty_before_it_was_declared(self) -> None:
        stored = pl.concat(
            [click_rows(["a", "b"], TODAY, view_count=None), click_rows(["a", "b"], TODAY + view.slide)]
        ).with_columns(writer=pl.lit("stream"))
        rows = row_frame(view, stored)
        assert rows["view_count"].to_list() == [0, 0, 0, 0]
        assert rows[OFF_GRID].to_list() == [0] * 4

    def test_hours_are_compared_with_the_day_before(self) -> None:
        many = [f"user_{number:06d}" for number in range(LEAST_ROWS_TO_COMPARE)]
        before = [TODAY - timedelta(days=1) + number * view.slide for number in range(24)]
        ends = [TODAY + number * view.slide for number in range(12)]
        parts = [click_rows(many, end) for end in before]
        parts += [
            click_rows(many[: len(many) // (1 if number < 6 else 4)], end) for number, end in enumerate(ends[:-1])
        ]
        # the day before   00:00 01:00 02:00 03:00     many rows in each window
        # now              00:00 as many; 01:00 a quarter, in 5 of 6 windows; 02:00 none; 03:00 some, or no rows yet
        until = TODAY + timedelta(hours=4)
        begun = volume_frame(view, hours_of(view, pl.concat(parts)), TODAY, until)
        assert begun.select("hour", RATIO).rows() == [(TODAY, 1.0)]
        hours = hours_of(view, pl.concat([*parts, click_rows(many, TODAY + timedelta(hours=3))]))
        low = round(0.25 * 5 / 6, 3)
        assert volume_frame(view, hours, TODAY, until)[RATIO].round(3).to_list() == [1.0, low, 0.0]
        assert volume_frame(view, hours, TODAY, TODAY + timedelta(minutes=179))[RATIO].round(3).to_list() == [1.0, low]
        assert volume_frame(view, hours, TODAY + timedelta(hours=2), until)[RATIO].to_list() == [0.0]
        assert volume_frame(view, hours.clear(), TODAY, until).is_empty()

    @pytest.mark.parametrize("hours", [2, 24])
    def test_windows_further_apart_than_an_hour_are_compared_too(self, hours: int) -> None:
        slow = replace(view, window=timedelta(hours=2 * hours), slide=timedelta(hours=hours))
        many = [f"user_{number:06d}" for number in range(LEAST_ROWS_TO_COMPARE)]
        yesterday, now = click_rows(many, TODAY - timedelta(days=1)), click_rows(many[: len(many) // 2], TODAY)
        counted = hours_of(slow, pl.concat([yesterday, now]))
        assert counted.sort("hour").rows() == [(TODAY - timedelta(days=1), len(many), 1), (TODAY, len(many) // 2, 1)]
        volume = volume_frame(slow, counted, TODAY, TODAY + timedelta(hours=24))
        assert volume.select("hour", RATIO).rows() == [(TODAY, 0.5)]

    def test_an_hour_without_rows_is_no_volume(self, root: Path, capsys: pytest.CaptureFixture[str]) -> None:
        many = [f"user_{number:06d}" for number in range(LEAST_ROWS_TO_COMPARE)]
        ends = [TODAY - timedelta(days=1) + number * view.slide for number in range(18)]
        for end in [*ends, *(end + timedelta(days=1) for end in [*ends[:6], *ends[12:]])]:
            store(root, view, click_rows(many, end), "stream", 0, round(end.timestamp() * 1000))
        last_ms = round((TODAY + timedelta(hours=3)).timestamp() * 1000) - view.slide_ms
        ProgressRecord(progress_folder(root, clickstream)).save(Progress("topic", 0, 1, last_ms))
        assert failed(run(capsys, "clicks", status=1)) == {"volume": 1}
        report = run(capsys, "clicks", "--end", (TODAY + timedelta(hours=1)).isoformat())
        assert report["verdict"] == "All rules hold."

    def test_a_volume_that_was_not_compared_is_told(self, root: Path, capsys: pytest.CaptureFixture[str]) -> None:
        stream(root, view, clicks(hours=3, events=800, partitions=2))
        report = run(capsys, "clicks")
        assert report["hours_compared"] == 0
        assert report["verdict"].startswith("All rules hold. The volume was not compared: ")


ODD_TEXTS: dict[str, dict[str, str]] = {
    "user_id_well_formed": {"user_id": "user_000001\n"},
    "age_readable": {"age": "35\n"},
    "activity_weight_readable": {"activity_weight": "0.5\n"},
    "country_known": {"country": "US\n"},
}
"""A line break at the end, as a quoted cell of CSV may have it."""


def with_line_breaks(file: Path) -> pl.DataFrame:
    """Write good rows, and after them broken ones with each kind of line break; returns the broken ones."""
    rows = as_text().to_dicts()
    breaks = ("\n", "\r\n", "\r", "\n\n", "\u0085", "\u2028", "\u2029", " ")
    odd = [
        {**rows[number], **{name: text.removesuffix("\n") + ending for name, text in change.items()}}
        for number, (change, ending) in enumerate((one, ending) for one in ODD_TEXTS.values() for ending in breaks)
    ]
    odd.append({**rows[len(odd)], "activity_weight": "1e999", "age": "-0.0\n"})
    broken = pl.DataFrame(odd, schema=as_text().schema)
    pl.concat([as_text()[len(odd) :], broken]).write_csv(file)
    return broken


@pytest.mark.parametrize("engine", ["pandas", "spark"])
def test_a_line_break_at_the_end_is_no_part_of_a_value(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], request: pytest.FixtureRequest, engine: str
) -> None:
    if engine == "spark":
        request.getfixturevalue("spark_session")
    file = tmp_path / "new.csv"
    broken = with_line_breaks(file)
    report = run(capsys, "profiles", "--input", str(file), "--engine", engine)
    assert report["quarantined"] == len(broken)
    assert failed(report) == dict.fromkeys(ODD_TEXTS, 8) | {"age_readable": 9, "activity_weight_readable": 9}
    quarantined = rows_of(root / "quarantine" / profiles.name)
    assert_frame_equal(quarantined.select(broken.columns), broken, check_row_order=False)
    assert held(root).null_count().sum_horizontal().item() == 0
    assert held(root)["age"].min() >= 18  # type: ignore[operator]


def test_a_refused_file_of_another_shop_is_told_what_to_edit(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "new.csv"
    as_text().with_columns(
        pl.format("cust-{}", pl.int_range(pl.len())).alias("user_id"), pl.lit("PL").alias("country")
    ).write_csv(file)
    report = run(capsys, "profiles", "--input", str(file), status=1)
    assert report["verdict"].startswith("Nothing is published")
    assert "user_id_well_formed (user_id matches user_[0-9]{6,}) in 400, such as cust-0" in report["verdict"]
    assert "country_known (country is one of US, DE, " in report["verdict"]
    where = "user_id of user_profile_features and country of user_profile_features in features.py"
    assert report["verdict"].endswith(f"If the data are right, change {where}.")
    assert not (root / "quarantine").exists()


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_quarantined_rows_are_exported_mended_and_replayed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    good = as_text()
    broken = with_broken(good)
    broken.write_csv(tmp_path / "new.csv")
    for _ in range(2):  # kept twice, exported once
        run(capsys, "profiles", "--input", str(tmp_path / "new.csv"), "--time", TODAY.isoformat())
    young = good.head(30).with_columns(age=pl.when(pl.int_range(pl.len()) == 0).then(pl.lit("7")).otherwise("age"))
    young.write_csv(tmp_path / "of_yesterday.csv")
    before = TODAY - timedelta(days=1)
    run(
        capsys,
        "profiles",
        "--input",
        str(tmp_path / "of_yesterday.csv"),
        "--time",
        before.isoformat(),
        "--least-rows",
        "1",
    )

    out = tmp_path / f"broken.{kind}"
    told = run(capsys, "export", str(out))
    assert (told["rows"], told["time"], told["other_times"]) == (
        len(BROKEN), TODAY.isoformat(), [before.isoformat()]
    )  # fmt: skip
    rows = pl.read_csv(out, infer_schema=False) if kind == "csv" else pl.read_parquet(out)
    assert sorted(rows["rules"]) == sorted(BROKEN)
    some = tmp_path / f"some.{kind}"
    assert run(capsys, "export", str(some), "--rule", "user_id_well_formed")["rows"] == 2
    assert run(capsys, "export", str(tmp_path / f"older.{kind}"), "--time", before.isoformat())["rows"] == 1

    ages = rows.filter(pl.col("rules").str.contains("age"))
    mended = ages.drop("age").join(good.select("user_id", "age"), on="user_id")
    mended.write_csv(out) if kind == "csv" else mended.write_parquet(out)
    assert run(capsys, "replay", str(out))["good"] == len(ages) == 3
    again = run(capsys, "export", str(tmp_path / f"again.{kind}"))
    assert (again["rows"], again["published_since"]) == (len(BROKEN) - 3, 3)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["new.csv"], "holds no rows"),
        (["new.csv", "--time", "2026-01-01"], "has no rows of 2026-01-01T00:00:00+00:00"),
    ],
)
def test_an_export_of_nothing_is_told_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    with pytest.raises(SystemExit) as stopped:
        quality(["export", str(tmp_path / arguments[0]), *arguments[1:]])
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


def test_an_export_replaces_no_file(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with_broken(as_text()).write_csv(tmp_path / "new.csv")
    run(capsys, "profiles", "--input", str(tmp_path / "new.csv"))
    for name, said in (("new.csv", "new.csv exists already"), ("new.xlsx", "is neither .csv nor .parquet")):
        with pytest.raises(SystemExit) as stopped:
            quality(["export", str(tmp_path / name)])
        assert stopped.value.code == 2
        assert said in capsys.readouterr().err
    assert root.exists()


def test_what_looks_like_markup_is_printed_as_it_is(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = as_text().with_columns(
        country=pl.when(pl.int_range(pl.len()) == 0).then(pl.lit("[/x]")).otherwise("country")
    )
    rows.write_csv(tmp_path / "new.csv")
    assert quality(["profiles", "--input", str(tmp_path / "new.csv")]) == 0
    assert "[/x]" in capsys.readouterr().out
    assert len(held(root)) == USERS - 1
