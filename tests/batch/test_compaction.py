"""Few files instead of many: the same rows for every reader, at every moment, whatever ends the compaction."""

from __future__ import annotations

import json
import threading
import uuid
from collections import Counter
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from polars.testing import assert_frame_equal
from rich.console import Console

from batch.lock import only_batch_writer
from batch.maintenance import compaction
from batch.maintenance.compaction import main as compact
from batch.maintenance.restore_online import newest_by_day
from batch.parity.__main__ import main as parity
from batch.recompute import archive
from batch.recompute.backfill import main as backfill
from batch.recompute.stored import effective, stored_rows
from batch.training.training_set import main as training_set
from feast_repo.clickstream import clickstream
from feast_repo.errors import ExitCode
from feast_repo.features import user_click_features as view
from feast_repo.settings import StreamSettings
from feast_repo.stores.offline.files import data_files
from feast_repo.stores.offline.tables import (
    DEAD_LETTER_COLUMNS,
    dead_letters_folder,
    event_columns,
    events_folder,
    progress_folder,
)
from feast_repo.stores.progress import Progress, ProgressRecord
from sandbox.checks import rows_of
from sandbox.oracle import compare
from simulation.profiles import make_profiles, publish_profiles
from stream.log_table import LogTable
from tests.batch.archives import NOW_MS, clicks, stream
from tests.batch.test_training_set import LONG_BEFORE
from tests.feast_repo.conftest import opened, store  # noqa: F401  (fixtures)

PARTITIONS, USERS, APPENDED = 3, 40, 100
EVENTS, LETTERS = f"events/{view.source.name}", f"dead_letters/{view.source.name}"
TABLES = (EVENTS, f"late/{view.name}", f"features/{view.name}")


class Ended(BaseException):
    """What SIGKILL is to a process, as far as files are concerned."""


def records(partition: int, first: int, count: int) -> pl.DataFrame:
    """Archived records as the stream's engine gives them."""
    schema = event_columns(view.source)
    times = [NOW_MS + number for number in range(first, first + count)]
    return pl.DataFrame(
        {"partition": [partition] * count, "offset": list(range(first, first + count)), "kafka_timestamp": times},
    ).with_columns(
        pl.lit(None).cast(dtype).alias(name)
        for name, dtype in schema.items()
        if name not in {"partition", "offset", "kafka_timestamp"}
    )


@pytest.fixture
def root() -> Path:
    """The data folder of a stream, with an archive in many files."""
    folder = StreamSettings().data_root
    stream(folder, view, clicks(hours=5, events=2_500, partitions=PARTITIONS, users=USERS))
    for day in events_folder(folder, clickstream).glob("dt=*"):
        for file in list(day.glob("*.parquet")):
            rows = pl.read_parquet(file, hive_partitioning=False).sort("partition", "offset")
            file.unlink()
            for part in rows.iter_slices(200):
                first = part.row(0, named=True)
                part.write_parquet(day / f"p{first['partition']:05d}-{first['offset']:020d}.parquet")
    return folder


def contents(root: Path) -> dict[str, pl.DataFrame]:
    found = {name: rows_of(root / name) for name in TABLES}
    return {name: rows.select(sorted(rows.columns)).sort(pl.all()) for name, rows in found.items()}


def assert_same(found: dict[str, pl.DataFrame], expected: dict[str, pl.DataFrame]) -> None:
    for name, rows in expected.items():
        assert_frame_equal(found[name], rows)


def files(root: Path) -> dict[str, tuple[int, int]]:
    """Every file with its inode and time."""
    found = (file for name in TABLES for file in (root / name).glob("dt=*/*"))
    return {f"{file.parent.name}/{file.name}": (file.stat().st_ino, file.stat().st_mtime_ns) for file in found}


def report(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    capsys.readouterr()
    assert compact(["--json", *arguments]) == 0
    result: dict[str, Any] = json.loads(capsys.readouterr().out)["tables"]
    return result


def test_few_files_with_the_same_rows(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = contents(root)
    days = {name: len(list((root / name).glob("dt=*"))) for name in TABLES}
    done = report(capsys)
    assert {name: done[name]["after"] for name in TABLES} == days
    assert done[EVENTS]["before"] > 10
    assert done[f"features/{view.name}"]["before"] > 60
    assert_same(contents(root), before)
    for file in (root / f"features/{view.name}").glob("dt=*/*.parquet"):
        rows = pl.read_parquet(file, hive_partitioning=False)
        assert_frame_equal(rows, rows.sort("event_timestamp", "user_id"))
    now = files(root)
    report(capsys)
    assert files(root) == now
    assert parity([]) == 0
    assert compare(root, view).none


def test_a_merged_file_has_a_bounded_size(
    root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compaction, "TARGET_ROWS", 900)
    before = contents(root)
    done = report(capsys)
    assert 1 < done[EVENTS]["after"] < done[EVENTS]["before"]
    assert_same(contents(root), before)
    assert max(len(pl.read_parquet(file)) for file in (root / EVENTS).glob("dt=*/*.parquet")) <= 900
    now = files(root)
    report(capsys)
    assert files(root) == now


def test_large_rows_make_smaller_files(
    root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compaction, "TARGET_BYTES", 40_000)
    table = LogTable(dead_letters_folder(root, clickstream), DEAD_LETTER_COLUMNS)
    for offset in range(20):
        letter = {"value": bytes([offset]) * 10_000, "key": None, "reason": "not_json"}
        table.append(0, pl.DataFrame([{"offset": offset, "kafka_timestamp": NOW_MS, **letter}]))
        table.flush()
    before = rows_of(dead_letters_folder(root, clickstream))
    assert report(capsys)[LETTERS] == {"before": 20, "after": 10}
    assert_frame_equal(rows_of(dead_letters_folder(root, clickstream)).sort("offset"), before)
    assert report(capsys)[LETTERS] == {"before": 10, "after": 10}


def test_what_the_stream_may_write_again_keeps_its_name(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for folder in root.iterdir():
        if folder.name != "profiles" and folder.is_dir():
            for file in sorted(folder.rglob("*.parquet")):
                file.unlink()
    log = clicks(hours=5, events=2_500, partitions=PARTITIONS, users=USERS)
    stream(root, view, log, unread={0: len(log[0]) // 2})
    for partition in range(PARTITIONS):
        table = LogTable(events_folder(root, clickstream), event_columns(view.source))
        table.append(partition, records(partition, 1_000_000, 5))
        table.flush()
    open_files = [name for name in files(root) if "0001000000" in name]
    assert len(open_files) == PARTITIONS
    before = contents(root)
    report(capsys)
    assert_same(contents(root), before)
    assert set(open_files) <= files(root).keys()


def test_the_stream_goes_on_where_it_was(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report(capsys)
    archived = rows_of(events_folder(root, clickstream)).filter(partition=0)
    last = archived["offset"].max()
    assert isinstance(last, int)
    again = archived.sort("offset").tail(50).with_columns(pl.col("kafka_timestamp").dt.epoch("ms"))
    table = LogTable(events_folder(root, clickstream), event_columns(view.source))
    table.append(0, again)
    assert table.waiting_rows == 0
    table.append(0, again.tail(1).with_columns(offset=pl.lit(last + 1, pl.Int64)))
    table.flush()
    assert len(rows_of(events_folder(root, clickstream)).filter(partition=0)) == len(archived) + 1


@pytest.mark.usefixtures("store")
def test_whatever_step_it_ends_at(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    publish_profiles(make_profiles(USERS, 1), LONG_BEFORE, root)
    monkeypatch.setattr(compaction, "TARGET_ROWS", 1_500)
    before, held, newest, pairs = contents(root), effective_rows(root), newest_rows(root), trained(root)
    taken = limit = 0

    def counted(real: Any) -> Any:
        def step(*arguments: Any, **named: Any) -> Any:
            nonlocal taken
            if taken >= limit:
                raise Ended
            taken += 1
            return real(*arguments, **named)

        return step

    doubled = 0
    while True:
        with monkeypatch.context() as killing:
            steps = (
                (compaction, "_write_journal"),
                (compaction, "publish"),
                (Path, "replace"),
                (Path, "unlink"),
            )
            for owner, name in steps:
                killing.setattr(owner, name, counted(getattr(owner, name)))
            try:
                compaction.compact(root, StreamSettings().catalog, Console(quiet=True))
            except Ended:
                pass
            else:
                break
        found = contents(root)
        assert_same({name: rows.unique().sort(pl.all()) for name, rows in found.items()}, before)
        assert_frame_equal(effective_rows(root), held)
        assert_frame_equal(newest_rows(root), newest)
        if len(found[f"features/{view.name}"]) > len(held):
            doubled += 1
            if doubled == 2:
                assert_frame_equal(trained(root), pairs)
                assert parity([]) == 0
        taken, limit = 0, limit + 1
    print(f"ended {limit} times, {doubled} times with copies of feature rows")  # noqa: T201  (a failure shows it)
    assert doubled > 2
    assert_same(contents(root), before)
    assert not list(root.rglob(".compacted-*"))


def effective_rows(root: Path) -> pl.DataFrame:
    return effective(view, stored_rows(root, view, 0, 2**22)).sort("user_id", "event_timestamp")


def newest_rows(root: Path) -> pl.DataFrame:
    return pl.concat([rows for _, _, rows in newest_by_day(root, view)]).sort("user_id")


def trained(root: Path) -> pl.DataFrame:
    path = root / "pairs.parquet"
    assert training_set(["--to", str(path)]) == 0
    return pl.read_parquet(path)


def test_readers_notice_nothing(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compaction, "TARGET_ROWS", 400)
    held, newest = effective_rows(root), newest_rows(root)
    before = rows_of(events_folder(root, clickstream))
    archived = before.with_columns(pl.col("kafka_timestamp").dt.epoch("ms")).sort("offset")
    over, started = threading.Event(), threading.Event()
    problems: list[BaseException] = []

    def read() -> None:
        try:
            while not over.is_set():
                assert_frame_equal(effective_rows(root), held)
                assert_frame_equal(newest_rows(root), newest)
                table = LogTable(events_folder(root, clickstream), event_columns(view.source))
                for (partition,), rows in archived.partition_by("partition", as_dict=True).items():
                    table.append(partition, rows)
                assert table.waiting_rows == 0, "the archive is all there"
                started.set()
        except BaseException as problem:  # noqa: BLE001  (told below)
            problems.append(problem)
        finally:
            started.set()

    def write() -> None:
        table = LogTable(events_folder(root, clickstream), event_columns(view.source))
        for epoch in range(APPENDED):
            table.append(PARTITIONS, records(PARTITIONS, epoch, 1))
            table.flush()
            ProgressRecord(progress_folder(root, clickstream)).save(Progress("topic", PARTITIONS, epoch + 1, None))

    reader, writer = threading.Thread(target=read), threading.Thread(target=write)
    reader.start()
    assert started.wait(60)
    writer.start()
    for target in (400, 1_000, 100_000):
        monkeypatch.setattr(compaction, "TARGET_ROWS", target)
        compaction.compact(root, StreamSettings().catalog, Console(quiet=True))
    while writer.is_alive():
        compaction.compact(root, StreamSettings().catalog, Console(quiet=True))
    over.set()
    reader.join()
    assert not problems, problems
    found = rows_of(events_folder(root, clickstream)).sort("partition", "offset")
    assert_frame_equal(found.filter(pl.col("partition") < PARTITIONS), before.sort("partition", "offset"))
    assert found.filter(partition=PARTITIONS)["offset"].to_list() == list(range(APPENDED))


@pytest.mark.usefixtures("store", "root")
def test_a_listing_may_be_out_of_date_when_it_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    listings: Counter[Path] = Counter()

    def outdated(folder: Path) -> list[Path]:
        """Each second listing of a day is right."""
        files = data_files(folder)
        listings[folder] += 1
        if listings[folder] % 2:
            for file in files:
                file.rename(folder / f"compacted-{uuid.uuid4().hex}.parquet")
        return files

    monkeypatch.setattr(archive, "data_files", outdated)
    assert parity([]) == 0
    assert parity(["--mode", "complete"]) == 0
    assert {folder.parent.name for folder in listings} >= {view.source.name, view.name}
    assert min(listings.values()) > 1


@pytest.mark.usefixtures("store", "root")
def test_heal_and_backfill_go_on_with_merged_files(capsys: pytest.CaptureFixture[str]) -> None:
    heal = ["--json", "--mode", "complete", "--heal"]
    assert run_heal(heal, capsys) > 10
    report(capsys)
    assert run_heal(heal, capsys) == 0
    assert parity([]) == 0
    assert parity(["--mode", "complete"]) == 0
    report(capsys)
    capsys.readouterr()
    assert backfill(["--json"]) == 0
    assert json.loads(capsys.readouterr().out)["added"] == 0


def run_heal(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> int:
    capsys.readouterr()
    assert backfill(arguments) == 0
    healed: int = json.loads(capsys.readouterr().out)["healed"]
    return healed


@pytest.mark.parametrize("command", [compact, backfill])
def test_one_batch_writer_at_a_time(root: Path, capsys: pytest.CaptureFixture[str], command: Any) -> None:
    with only_batch_writer(root), pytest.raises(SystemExit) as stopped:
        command([])
    assert stopped.value.code == ExitCode.TRY_AGAIN
    said = capsys.readouterr().err
    assert "run this again when it is done" in said
    assert said.count("\n") == 1
    assert command([]) == 0
