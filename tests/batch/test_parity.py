"""Parity finds what is wrong, and only that: every check here is seen to fail."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest

from batch.parity.__main__ import main as parity
from batch.recompute.backfill import main as backfill
from feast_repo.clickstream import clickstream
from feast_repo.features import user_click_features as view
from feast_repo.settings import StreamSettings
from feast_repo.stores.offline.tables import events_folder, features_folder, progress_folder
from feast_repo.stores.progress import ProgressRecord
from tests.batch.archives import clicks, store, stream

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture
def root() -> Path:
    """The data folder of a stream that has run over some clicks, late ones among them."""
    folder = StreamSettings().data_root
    stream(folder, view, clicks(hours=4, events=1_500, partitions=2))
    return folder


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, dict[str, Any]]:
    status = parity(["--json", *arguments])
    return status, json.loads(capsys.readouterr().out)


def features(root: Path) -> pl.DataFrame:
    rows = [
        pl.read_parquet(file, hive_partitioning=False).with_columns(file=pl.lit(str(file)))
        for file in sorted(features_folder(root, view.name).glob("*/*.parquet"))
    ]
    return pl.concat(rows)


def change(root: Path, is_changed: pl.Expr, to: Callable[[pl.DataFrame], pl.DataFrame]) -> dict[str, Any]:
    """Rewrite the file of the first row that fulfils a condition; returns the row as it was."""
    row = features(root).filter(is_changed).row(0, named=True)
    rows = pl.read_parquet(row["file"], hive_partitioning=False)
    to(rows.with_columns(hit=pl.col("user_id") == row["user_id"])).drop("hit").write_parquet(row["file"])
    return row


def test_an_unharmed_store_is_exact(root: Path, engine_name: str, capsys: pytest.CaptureFixture[str]) -> None:
    status, report = run(capsys, "--engine", engine_name)
    assert status == 0
    rows = report["rows"]
    assert rows["recomputed"] == rows["equal"] == len(features(root)) > 500
    assert rows["unexplained"] == rows["different"] == rows["only_in_stream"] == rows["only_in_batch"] == 0
    assert set(report["features"]) == {*view.features, "created_timestamp"}
    assert all(count["compared"] == count["equal"] == rows["equal"] for count in report["features"].values())


def test_one_altered_value_is_named(root: Path, engine_name: str, capsys: pytest.CaptureFixture[str]) -> None:
    def add_one(rows: pl.DataFrame) -> pl.DataFrame:
        return rows.with_columns(revenue_cents=pl.col("revenue_cents") + pl.when("hit").then(1).otherwise(0))

    row = change(root, pl.col("revenue_cents") > 0, add_one)
    status, report = run(capsys, "--engine", engine_name)
    assert status == 1
    assert report["rows"]["different"] == report["rows"]["unexplained"] == 1
    (example,) = report["examples"]
    assert (example["entity"], example["window_end"]) == (row["user_id"], row["event_timestamp"].isoformat())
    assert example["feature"] == "revenue_cents"
    assert example["stream"] == example["batch"] + 1 == row["revenue_cents"] + 1
    assert report["features"]["revenue_cents"]["largest_difference"] == 1
    assert report["features"]["view_count"]["different"] == 0


def test_the_last_bit_of_a_ratio_counts(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    nudge = pl.col("cart_rate") + pl.when("hit").then(pl.col("cart_rate") * 2.0**-52).otherwise(0.0)
    row = change(root, pl.col("cart_rate") == 1 / 3, lambda rows: rows.with_columns(cart_rate=nudge))
    status, report = run(capsys)
    assert status == 1
    assert [example["entity"] for example in report["examples"]] == [row["user_id"]]


def test_a_missing_expiry_row_is_named(root: Path, engine_name: str, capsys: pytest.CaptureFixture[str]) -> None:
    counts = ["click_count", "view_count", "cart_count", "purchase_count"]
    row = change(root, pl.sum_horizontal(counts) == 0, lambda rows: rows.filter(~pl.col("hit")))
    status, report = run(capsys, "--engine", engine_name)
    assert status == 1
    assert report["rows"]["only_in_batch"] == report["rows"]["unexplained"] == 1
    (example,) = report["examples"]
    assert (example["entity"], example["feature"]) == (row["user_id"], "only in batch")
    assert example["window_end"] == row["event_timestamp"].isoformat()


def test_an_event_that_the_archive_lost_is_pointed_at(
    root: Path, engine_name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file = next(iter(events_folder(root, clickstream).glob("*/*.parquet")))
    events = pl.read_parquet(file, hive_partitioning=False)
    # Not the newest of its time, so that no watermark tells.
    older = pl.col("event_timestamp") < pl.col("event_timestamp").cum_max().over("partition", order_by="offset")
    lost = events.filter(older & (pl.col("event_type") == "view")).row(5, named=True)
    of_lost = (pl.col("partition") == lost["partition"]) & (pl.col("offset") == lost["offset"])
    events.filter(~of_lost).write_parquet(file)
    status, report = run(capsys, "--engine", engine_name)
    assert status == 1
    assert {example["entity"] for example in report["examples"]} == {lost["user_id"]}
    assert report["features"]["view_count"]["different"] + report["rows"]["only_in_stream"] >= 5


def test_a_row_too_many_is_found(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    row = change(
        root,
        pl.col("view_count") > 0,
        lambda rows: pl.concat([rows, rows.filter("hit").with_columns(user_id=pl.lit("nobody"))]),
    )
    status, report = run(capsys)
    assert status == 1
    assert report["rows"]["only_in_stream"] == 1
    assert report["examples"][0]["entity"] == "nobody"
    assert report["examples"][0]["window_end"] == row["event_timestamp"].isoformat()


def test_a_copy_that_compaction_shows_for_a_moment_is_no_row(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = Path(features(root)["file"][0])
    pl.read_parquet(file, hive_partitioning=False).write_parquet(file.with_name("day.parquet"))
    assert run(capsys)[0] == 0


def test_a_row_where_the_archive_has_nothing_is_found(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    last = max(
        view.closed_end_ms(one.watermark_ms) or 0
        for one in ProgressRecord(progress_folder(root, clickstream)).load().values()
    )
    for far in (last - 365 * 86_400_000, last):
        row = (
            features(root)
            .head(1)
            .drop("file", "writer")
            .with_columns(event_timestamp=pl.lit(far * 1000).cast(pl.Datetime("us", "UTC")), user_id=pl.lit("nobody"))
        )
        store(root, view, row, "stream", 77, far)
    status, report = run(capsys)
    # Partition 77 is not on record, so its files are the stream's business; once compacted, nobody can tell.
    assert (status, report["rows"]["only_in_stream"]) == (0, 0)
    for file in features_folder(root, view.name).glob("*/stream-p00077-*.parquet"):
        file.rename(file.with_name(f"compacted-{file.name}"))
    status, report = run(capsys)
    assert (status, report["rows"]["only_in_stream"]) == (1, 2)


def test_complete_differs_only_where_events_were_late(
    root: Path, engine_name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    status, report = run(capsys, "--engine", engine_name, "--mode", "complete")
    assert status == 0
    assert report["rows"]["explained"] > 10
    assert report["rows"]["unexplained"] == 0
    assert all(example["explained"] for example in report["examples"])

    late = {example["entity"] for example in report["examples"]}
    change(root, (pl.col("view_count") > 0) & ~pl.col("user_id").is_in(late), lambda rows: rows.filter(~pl.col("hit")))
    status, report = run(capsys, "--engine", engine_name, "--mode", "complete", "--examples", "1000")
    assert status == 1
    assert report["rows"]["unexplained"] >= 1
    assert not report["examples"][0]["explained"]


@pytest.mark.usefixtures("root", "spark_session")
def test_both_engines_find_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    reports = [run(capsys, "--mode", "complete", "--engine", engine)[1] for engine in ("polars", "spark")]
    for report in reports:
        for name in ("engine", "made_at", "files"):
            del report[name]
    assert reports[0] == reports[1]


def test_a_range_bounds_what_is_compared(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ends = sorted(set(features(root)["event_timestamp"].to_list()))
    start, end = ends[5], ends[12]
    _, report = run(capsys, "--start", start.isoformat(), "--end", end.isoformat())
    inside = features(root).filter((pl.col("event_timestamp") >= start) & (pl.col("event_timestamp") < end))
    assert report["rows"]["recomputed"] == report["rows"]["equal"] == len(inside) > 0
    change(root, pl.col("event_timestamp") == end, lambda rows: rows.filter(~pl.col("hit")))
    assert run(capsys, "--start", start.isoformat(), "--end", end.isoformat())[0] == 0
    assert run(capsys, "--start", end.isoformat())[0] == 1


def test_windows_beyond_the_progress_record_are_left_alone(capsys: pytest.CaptureFixture[str]) -> None:
    """A running stream has written feature files, and a record further, that it has not put on record yet."""
    folder = StreamSettings().data_root
    logs = clicks(hours=3, events=900, partitions=1)
    whole = stream(folder, view, logs)
    record = ProgressRecord(progress_folder(folder, clickstream))
    progress = record.load()[0]
    before = sorted(set(whole["event_timestamp"].dt.epoch("ms").to_list()))[-4]
    events = pl.read_parquet(events_folder(folder, clickstream) / "*" / "*.parquet", hive_partitioning=False)
    reached = events.filter(pl.col("event_timestamp").dt.epoch("ms") >= before + view.lateness_ms)["offset"].min()
    assert isinstance(reached, int)
    record.save(replace(progress, next_offset=reached + 1, watermark_ms=before))
    status, report = run(capsys)
    assert status == 0
    assert 0 < report["rows"]["recomputed"] < len(whole)


def test_users_in_two_partitions_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    folder = StreamSettings().data_root
    logs = clicks(hours=2, events=400, partitions=1)
    stream(folder, view, {0: logs[0], 1: logs[0]})
    status, report = run(capsys)
    assert status == 0
    assert report["in_two_partitions"] == sorted(set(features(folder)["user_id"]))
    assert report["rows"]["equal"] == len(features(folder))


def test_a_feature_that_was_declared_later_is_no_difference(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for file in features_folder(root, view.name).glob("*/*.parquet"):
        pl.read_parquet(file, hive_partitioning=False).drop("cart_count").write_parquet(file)
    status, report = run(capsys)
    assert status == 0
    assert report["features"]["cart_count"]["undeclared"] == report["rows"]["recomputed"]
    assert report["features"]["cart_count"]["compared"] == 0
    assert backfill(["--json"]) == 0
    assert json.loads(capsys.readouterr().out)["added"] == report["rows"]["recomputed"]
    status, report = run(capsys, "--mode", "complete")
    assert status == 0
    assert report["features"]["cart_count"]["undeclared"] == 0


def test_reports_are_written(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    change(root, pl.col("view_count") > 0, lambda rows: rows.filter(~pl.col("hit")))
    status, report = run(capsys)
    assert status == 1
    as_json, as_html = (Path(file) for file in report["files"])
    assert as_json.parent == as_html.parent == root / "reports"
    assert json.loads(as_json.read_text())["rows"] == report["rows"]
    page = as_html.read_text()
    assert page.count("<svg") == 1 + len(view.features)
    assert "They differ." in page
    assert report["examples"][0]["entity"] in page
    assert "http" not in page
    assert not list((root / "reports").glob(".*"))


def test_people_read_a_table(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    row = change(root, pl.col("view_count") > 0, lambda rows: rows.filter(~pl.col("hit")))
    assert parity([]) == 1
    output = capsys.readouterr().out
    assert "conversion_rate" in output
    assert f"{row['user_id']} {row['event_timestamp'].isoformat()} only in batch" in output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--sample", "5"], "add --online"),
        (["--start", "2026-01-02", "--end", "2026-01-01"], "--start must be before --end"),
        (["--archive", "s3a://events"], "needs --engine spark"),
        (["--mode", "seen"], "invalid choice"),
        ([], "no progress record"),
    ],
)
def test_bad_input_is_told_in_one_line(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        parity(arguments)
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_an_archive_that_ends_early_is_told(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for file in events_folder(root, clickstream).glob("*/*.parquet"):
        pl.read_parquet(file, hive_partitioning=False).filter(pl.col("partition") != 1).write_parquet(file)
    with pytest.raises(SystemExit) as stopped:
        parity([])
    assert stopped.value.code == 2
    assert "the archive of partition 1 ends before" in capsys.readouterr().err


@pytest.mark.usefixtures("root")
def test_spark_that_is_not_installed_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delitem(sys.modules, "batch.recompute.spark_engine", raising=False)
    monkeypatch.setitem(sys.modules, "pyspark.sql", None)
    with pytest.raises(SystemExit) as stopped:
        parity(["--engine", "spark"])
    assert stopped.value.code == 2
    assert "pip install '.[spark]'" in capsys.readouterr().err


@pytest.mark.usefixtures("root", "spark_session")
def test_java_that_is_not_there_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    with pytest.raises(SystemExit) as stopped:
        parity(["--engine", "spark"])
    assert stopped.value.code == 2
    assert "Spark needs Java 17" in capsys.readouterr().err
