"""Backfill adds what is lacking and nothing else; healing corrects what late events change."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest
from confluent_kafka import murmur2
from polars.testing import assert_frame_equal

from batch.parity.__main__ import main as parity
from batch.recompute.backfill import main as backfill
from batch.recompute.stored import effective, stored_rows
from feast_repo.clickstream import clickstream
from feast_repo.declare.stored import offline_columns
from feast_repo.features import user_click_features as view
from feast_repo.settings import StreamSettings
from feast_repo.stores.offline.tables import event_columns, events_folder, features_folder, progress_folder
from feast_repo.stores.progress import ProgressRecord
from stream.log_table import LogTable
from tests.batch.archives import clicks, stream
from tests.stream.reference import records_frame

if TYPE_CHECKING:
    from pathlib import Path

    from tests.stream.reference import Record

PARTITIONS = 2
FEATURES = ["user_id", "event_timestamp", *view.features]


@pytest.fixture
def root() -> Path:
    """The data folder of a stream that has run over some clicks, late ones among them."""
    folder = StreamSettings().data_root
    stream(folder, view, clicks(hours=4, events=1_500, partitions=PARTITIONS))
    return folder


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    assert backfill(["--json", *arguments]) == 0
    report: dict[str, Any] = json.loads(capsys.readouterr().out)
    return report


def rows(root: Path) -> pl.DataFrame:
    return stored_rows(root, view, 0, 2**22).sort("user_id", "event_timestamp", "created_timestamp")


def held(root: Path) -> pl.DataFrame:
    return effective(view, rows(root)).sort("user_id", "event_timestamp")


def digest(root: Path) -> dict[str, tuple[int, int]]:
    """Each feature file's inode and time: a rewritten file has another one."""
    files = features_folder(root, view.name).glob("*/*.parquet")
    return {file.name: (file.stat().st_ino, file.stat().st_mtime_ns) for file in files}


def test_a_full_store_is_left_alone(root: Path, engine_name: str, capsys: pytest.CaptureFixture[str]) -> None:
    before = digest(root)
    assert run(capsys, "--engine", engine_name)["added"] == 0
    assert digest(root) == before


def test_an_empty_store_is_filled_with_the_streams_rows(
    root: Path, engine_name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    streamed = rows(root)
    for file in features_folder(root, view.name).glob("*/*.parquet"):
        file.unlink()
    assert run(capsys, "--engine", engine_name)["added"] == len(streamed)
    filled = rows(root)
    assert set(filled["writer"]) == {"backfill"}
    assert_frame_equal(filled.drop("writer"), streamed.drop("writer"), check_exact=True)
    assert parity(["--json"]) == 0
    assert json.loads(capsys.readouterr().out)["rows"]["backfilled"] == len(streamed)


def test_an_interrupted_backfill_goes_on(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    streamed = rows(root)
    for file in features_folder(root, view.name).glob("*/*.parquet"):
        file.unlink()
    middle = streamed["event_timestamp"].sort()[len(streamed) // 2]
    first = run(capsys, "--end", middle.isoformat())["added"]
    before = digest(root)
    assert run(capsys)["added"] == len(streamed) - first
    assert {name: digest(root)[name] for name in before} == before
    assert run(capsys)["added"] == 0
    assert_frame_equal(rows(root).drop("writer"), streamed.drop("writer"), check_exact=True)


def test_nothing_is_computed_beyond_the_progress_record(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record = ProgressRecord(progress_folder(root, clickstream))
    progress = record.load()
    end = (view.closed_end_ms(progress[0].watermark_ms) or 0) - 12 * view.slide_ms
    events = pl.read_parquet(events_folder(root, clickstream) / "*" / "*.parquet", hive_partitioning=False)
    closing = events.filter(
        pl.col("partition") == 0, pl.col("event_timestamp").dt.epoch("ms") >= end + view.lateness_ms
    )["offset"].min()
    assert isinstance(closing, int)
    for file in features_folder(root, view.name).glob("*/*.parquet"):
        file.unlink()
    record.save(replace(progress[0], next_offset=closing + 1, watermark_ms=end))
    run(capsys)
    of_first = events.filter(pl.col("partition") == 0)["user_id"].drop_nulls().unique()
    last = rows(root).filter(pl.col("user_id").is_in(of_first.implode()))["event_timestamp"].max()
    assert last == pl.select(pl.from_epoch(pl.lit(end), "ms").dt.replace_time_zone("UTC")).item()


def test_rows_from_before_a_feature_are_completed(
    root: Path, engine_name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = held(root)
    for file in features_folder(root, view.name).glob("*/*.parquet"):
        pl.read_parquet(file, hive_partitioning=False).drop("revenue_cents", "cart_rate").write_parquet(file)
    assert run(capsys, "--engine", engine_name)["added"] == len(whole)
    assert_frame_equal(held(root).select(FEATURES), whole.select(FEATURES), check_exact=True)
    later = held(root)["created_timestamp"] - whole["created_timestamp"]
    assert set(later.dt.total_microseconds()) == {1}
    assert run(capsys, "--engine", engine_name)["added"] == 0


def test_a_broken_archive_is_refused(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = next(iter(events_folder(root, clickstream).glob("*/*.parquet")))
    events = pl.read_parquet(file, hive_partitioning=False)
    of_first = pl.col("partition") == 0
    newest = events.filter(of_first, pl.col("event_timestamp") == pl.col("event_timestamp").cum_max().over("partition"))
    events.filter(~(of_first & (pl.col("offset") == newest["offset"][50]))).write_parquet(file)
    assert backfill([]) == 1
    assert f"partition 0, offset {newest['offset'][50] + 1}" in capsys.readouterr().err


# --- Healing


@pytest.fixture
def served(root: Path, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same with Redis, filled from the stored rows."""
    from batch.maintenance.restore_online import main as restore  # noqa: PLC0415  (imports Feast)

    monkeypatch.setenv("REDIS_URL", redis_url)
    assert restore(["--json"]) == 0
    return root


def check(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, dict[str, Any]]:
    capsys.readouterr()
    status = parity(["--json", *arguments])
    return status, json.loads(capsys.readouterr().out)


def test_healing_makes_the_truth_hold_and_keeps_the_streams_rows(
    served: Path, engine_name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    own = rows(served).filter(pl.col("writer") == "stream")
    before = check(capsys, "--mode", "complete")[1]["rows"]
    assert before["explained"] > 10
    report = run(capsys, "--mode", "complete", "--heal", "--engine", engine_name)
    assert report["healed"] == before["explained"]
    status, after = check(capsys, "--mode", "complete", "--online", "--engine", engine_name)
    assert status == 0
    assert after["rows"]["equal"] == after["rows"]["recomputed"]
    assert after["online"]["equal"] == after["online"]["users"] > 0
    assert check(capsys)[0] == 0
    assert_frame_equal(rows(served).filter(pl.col("writer") == "stream"), own, check_exact=True)

    files = digest(served)
    again = run(capsys, "--mode", "complete", "--heal", "--engine", engine_name)
    assert (again["healed"], again["healed_online"]) == (0, 0)
    assert digest(served) == files

    healed = [file for file in features_folder(served, view.name).glob("*/*.parquet") if file.name.startswith("heal-")]
    assert len(healed) == len(set(rows(served)["event_timestamp"].dt.date())) < before["explained"]
    corrected = pl.read_parquet(healed[0], hive_partitioning=False)
    at = corrected["view_count"].arg_max()
    wrong = pl.when(pl.int_range(pl.len()) == at).then(pl.col("view_count") + 100).otherwise("view_count")
    corrected.with_columns(wrong.alias("view_count")).write_parquet(healed[0])
    status, found = check(capsys, "--mode", "complete", "--engine", engine_name)
    assert (status, found["rows"]["unexplained"]) == (1, 1)
    true = corrected.row(at or 0, named=True)
    assert found["examples"][0] == {
        "entity": true["user_id"],
        "window_end": true["event_timestamp"].isoformat(),
        "writer": "heal",
        "explained": False,
        "feature": "view_count",
        "stream": true["view_count"] + 100,
        "batch": true["view_count"],
    }


def test_a_healed_row_that_is_the_newest_is_served(served: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """More late data for a newest window, twice: each time Redis follows, though the window stays the same."""
    run(capsys, "--mode", "complete", "--heal")
    user = min(set(rows(served)["user_id"]))
    partition = partition_of(served, user)
    progress = ProgressRecord(progress_folder(served, clickstream)).load()[partition]
    end_ms = view.closed_end_ms(progress.watermark_ms) or 0
    for number in (1, 2):
        late: Record = {
            **dict.fromkeys(view.source.schema),
            "event_id": f"late-{number}",
            "user_id": user,
            "event_type": "view",
            "event_timestamp": end_ms - 1_000,
        }
        append(served, partition, late)
        status, report = check(capsys, "--mode", "complete", "--examples", "1000")
        assert status == 0
        assert user in {example["entity"] for example in report["examples"]}
        healed = run(capsys, "--mode", "complete", "--heal")
        assert healed["healed"] >= 1
        assert healed["healed_online"] == 1
        status, report = check(capsys, "--mode", "complete", "--online")
        assert status == 0
        assert report["rows"]["equal"] == report["rows"]["recomputed"]
        assert report["online"]["equal"] == report["online"]["users"]
    corrections = rows(served).filter(
        pl.col("user_id") == user, pl.col("event_timestamp").dt.epoch("ms") == end_ms, pl.col("writer") == "heal"
    )
    assert corrections["view_count"].to_list() == [1, 2]
    assert check(capsys)[0] == 0


def partition_of(root: Path, user: str) -> int:
    events = pl.read_parquet(events_folder(root, clickstream) / "*" / "*.parquet", hive_partitioning=False)
    return int(events.filter(pl.col("user_id") == user)["partition"][0])


def append(root: Path, partition: int, late: Record) -> None:
    """Archive one more record, as the stream would: after all others of its partition, and on record."""
    record = ProgressRecord(progress_folder(root, clickstream))
    progress = record.load()[partition]
    arrived = (progress.watermark_ms or 0) + 3_600_000
    frame = records_frame(view.source, [{**late, "kafka_timestamp": arrived}]).with_columns(
        pl.lit(progress.next_offset, pl.Int64).alias("offset"),
        pl.lit(progress.watermark_ms, pl.Int64).alias("watermark"),
    )
    events = LogTable(events_folder(root, clickstream), event_columns(view.source))
    events.append(partition, frame)
    events.flush()
    record.save(replace(progress, next_offset=progress.next_offset + 1))


def test_parity_online_names_what_is_not_served(served: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from redis import Redis  # noqa: PLC0415

    status, report = check(capsys, "--online", "--sample", "7")
    assert status == 0
    assert report["online"]["users"] == report["online"]["equal"] == 7
    assert set(report["online"]["age_seconds"]) == {"median", "p95", "oldest"}
    with Redis.from_url(StreamSettings().redis_url) as redis:
        key = next(key for key in redis.scan_iter(_type="hash") if b"user_000003" in key)
        redis.delete(key)
    status, report = check(capsys, "--online")
    assert status == 1
    assert report["online"]["missing"] == 1
    assert report["online"]["examples"][0]["entity"] == "user_000003"
    assert len(held(served)) > 0


# --- Events that never went through the stream


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_hand_over_from_history_to_stream(
    kind: str, engine_name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """History up to a cut, the stream from there on: together they hold what one stream over all would hold."""
    logs = clicks(hours=6, events=2_000, partitions=1, late=0.0)[0]
    by_partition: dict[int, list[Record]] = {partition: [] for partition in range(PARTITIONS)}
    for record in logs:
        targets = range(PARTITIONS) if record["user_id"] is None else [murmur2(record["user_id"].encode(), PARTITIONS)]
        for partition in targets:
            by_partition[partition].append(record)
    expected = tmp_path / "whole"
    stream(expected, view, by_partition)

    times = [record["event_timestamp"] for record in logs]
    cut = (min(times) + 3 * 3_600_000) // view.slide_ms * view.slide_ms + 123_456
    old = [record for record in logs if record["event_timestamp"] < cut]
    source = tmp_path / f"history.{kind}"
    frame = records_frame(view.source, old).drop("offset", "kafka_timestamp")
    if kind == "jsonl":
        source.write_text(frame.write_ndjson() + '{"event_id": "without all the rest"}\n')
    else:
        frame.write_parquet(source)

    root = StreamSettings().data_root
    # Before the stream: only windows that history has whole.
    report = run(capsys, "--from", str(source), "--partitions", str(PARTITIONS), "--engine", engine_name)
    assert report["history_events"] == len(old)
    assert report["history_refused"] == (kind == "jsonl")
    assert held(root)["event_timestamp"].dt.epoch("ms").max() == cut // view.slide_ms * view.slide_ms
    # The stream, and then once more for the windows that lie across the cut.
    stream(
        root,
        view,
        {
            partition: [record for record in log if record["event_timestamp"] >= cut]
            for partition, log in by_partition.items()
        },
    )
    across = run(capsys, "--from", str(source), "--engine", engine_name)
    assert across["added"] > 0
    assert_frame_equal(held(root).select(FEATURES), held(expected).select(FEATURES), check_exact=True)
    assert run(capsys, "--from", str(source), "--engine", engine_name)["added"] == 0
    assert set(rows(root).filter(pl.col("writer") == "backfill").columns) == set(offline_columns(view))
    assert check(capsys)[0] == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--heal"], "use --mode complete"),
        (["--from", "x.jsonl", "--mode", "as-seen"], "--from brings events that no stream has seen"),
        (["--from", "nowhere.jsonl", "--partitions", "2"], "is no JSON lines or Parquet file"),
        (["--from", "x.jsonl"], "--partitions"),
        ([], "no progress record"),
        (["--start", "yesterday"], "no ISO 8601 time"),
    ],
)
def test_bad_input_is_told_in_one_line(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        backfill(arguments)
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
