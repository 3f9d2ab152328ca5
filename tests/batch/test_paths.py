"""Any path is a path: no command takes a character of one for a pattern, an option, an escape or markup."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl
import pytest

from feast_repo.clickstream import clickstream
from feast_repo.features import user_click_features as view
from feast_repo.settings import StreamSettings
from feast_repo.stores.offline.parquet import publish, scan
from feast_repo.stores.offline.tables import (
    DEAD_LETTER_COLUMNS,
    dead_letters_folder,
    event_columns,
    events_folder,
    progress_folder,
)
from feast_repo.stores.progress import ProgressRecord
from sandbox.oracle import compare
from simulation.profiles import make_profiles, publish_profiles
from stream.archive_tail import ArchiveTail
from stream.log_table import LogTable
from stream.recovery_store import RecoveryStore
from tests.batch.archives import NOW_MS, clicks, stream
from tests.commands import main_of

if TYPE_CHECKING:
    from collections.abc import Callable

STRANGE = "d [a]#b?c%20'q\" ü*{x}  [red]$HOME:cat:~\\n"
USERS = 40
BEFORE = datetime.fromtimestamp(NOW_MS / 1000, tz=UTC) - timedelta(days=30)


@pytest.fixture
def name() -> str:
    """Of the folders."""
    return STRANGE


@pytest.fixture
def root(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A DATA_ROOT of that name, in which a stream has run and profiles are published."""
    folder = tmp_path / name
    monkeypatch.setenv("DATA_ROOT", str(folder))
    assert StreamSettings().data_root == folder
    stream(folder, view, clicks(hours=5, events=2_500, partitions=2, users=USERS))
    publish_profiles(make_profiles(USERS, 1), BEFORE, folder)
    return folder


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Runs a command in this process; what it printed."""

    def command(module: str, *arguments: str | Path, status: int = 0) -> str:
        capsys.readouterr()
        try:
            found: object = main_of(module)([str(argument) for argument in arguments])
        except SystemExit as stopped:
            found = stopped.code
        told = capsys.readouterr()
        assert found == status, told.err
        return told.out + told.err

    return command


def printed_files(said: str) -> list[Path]:
    """The lines that are paths of files."""
    return [Path(line) for line in said.splitlines() if line.startswith("/") and Path(line).is_file()]


def history(folder: Path, name: str) -> list[Path]:
    """Events from before the stream, as lines and as Parquet, one broken in each."""
    folder.mkdir()
    events = [
        {
            "event_id": f"h{number}",
            "user_id": f"user_{number:06d}",
            "event_type": "view",
            "event_timestamp": NOW_MS - 30 * 86_400_000 + number,
            "price_cents": number - 1,
        }
        for number in range(5)
    ]
    lines, rows = folder / f"{name}.jsonl", folder / f"{name}.parquet"
    lines.write_text("".join(json.dumps(event) + "\n" for event in events))
    publish(rows, pl.DataFrame(events))
    return [lines, rows]


def profiles_in(folder: Path, name: str) -> list[Path]:
    """Candidates of the quality gate."""
    rows = make_profiles(USERS, 2)
    csv, parquet = folder / f"{name}.csv", folder / f"profiles {name}.parquet"
    csv.write_text(rows.write_csv())
    publish(parquet, rows)
    return [csv, parquet]


def test_every_command(
    root: Path, tmp_path: Path, redis_url: str, monkeypatch: pytest.MonkeyPatch, run: Callable[..., str]
) -> None:
    monkeypatch.setenv("REDIS_URL", redis_url)
    run("batch.restore_online")
    assert len(printed_files(run("batch.parity", "--online"))) == 2
    sources = history(tmp_path / f"in {STRANGE}", STRANGE)
    for source in sources:
        said = run("batch.backfill", "--from", source, "--partitions", "2").splitlines()
        (rejects,) = (Path(line.partition(": ")[2]) for line in said if " rejected " in line)
        assert rejects.parent == root / "rejects"
        assert json.loads(rejects.read_text())["file"] == str(source)
    run("batch.backfill", "--mode", "complete", "--heal")
    run("batch.compaction")
    run("batch.parity")

    for source in profiles_in(sources[0].parent, STRANGE):
        assert printed_files(run("batch.quality", "profiles", "--input", source))
    assert printed_files(run("batch.quality", "clicks"))
    assert len(printed_files(run("batch.profiles", "--users", str(USERS)))) == 2
    run("batch.materialize")
    training_set = sources[0].with_name(f"training {STRANGE}.parquet")
    assert printed_files(run("batch.training_set", "--to", training_set)) == [training_set]
    # Too few rows for a model that is good enough, so exit code 1; it is served all the same.
    assert len(printed_files(run("serving.train", "--training-set", training_set, "--force", status=1))) == 1
    run("serving.predict", "--users", "user_000001")
    run("batch.drift", "--fail-on", "never")

    others = [path for path in tmp_path.iterdir() if path not in {root, sources[0].parent}]
    assert others == [], "nothing was written to a part of the path"
    assert (root / "registry.db").is_file()


def test_dead_letters(root: Path, tmp_path: Path, run: Callable[..., str]) -> None:
    table = pl.DataFrame([(0, 5, BEFORE, b"u", b"x", "not_json")], schema=DEAD_LETTER_COLUMNS, orient="row")
    publish(dead_letters_folder(root, clickstream) / "dt=2026-01-01" / "p0.parquet", table)
    assert "not_json" in run("stream.dead_letters", "list")
    letters = tmp_path / f"{STRANGE}.jsonl"
    assert str(letters) in run("stream.dead_letters", "export", letters)
    assert str(letters) in run("stream.dead_letters", "export", letters, status=2)
    assert str(letters) in run("stream.dead_letters", "replay", letters, status=2)


def test_recovery_state(root: Path, tmp_path: Path) -> None:
    folder = tmp_path / f"recovery {STRANGE}"
    folder.mkdir()
    new = RecoveryStore(folder).new()
    assert new.check() is False
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([folder.name, root.name])


def test_the_streams_own_reading(root: Path) -> None:
    progress = ProgressRecord(progress_folder(root, clickstream)).load()
    assert {ArchiveTail(root, view.source, [view], one).engine().watermark_ms for one in progress.values()} == {
        one.watermark_ms for one in progress.values()
    }
    files = sorted(events_folder(root, clickstream).glob("*/*.parquet"))
    again = scan(files).filter(partition=0).sort("offset").collect()
    events = LogTable(events_folder(root, clickstream), event_columns(view.source))
    events.append(0, again.with_columns(pl.col("kafka_timestamp").dt.epoch("ms")))
    assert events.waiting_rows == 0, "what is durable is not taken twice"
    assert compare(root, view).equal > 0


@pytest.mark.usefixtures("spark_session")
@pytest.mark.parametrize("name", [STRANGE.replace(":", "")])
def test_spark(root: Path, name: str, tmp_path: Path, run: Callable[..., str]) -> None:
    spark = ("--engine", "spark")
    (root / "a:b.parquet").touch()
    assert "use --engine polars" in run("batch.quality", "profiles", *spark, "--input", root / "a:b.parquet", status=2)
    assert len(printed_files(run("batch.parity", *spark))) == 2
    sources = history(tmp_path / f"in {name}", name)
    report = json.loads(run("batch.backfill", *spark, "--json", "--from", sources[0], "--partitions", "2"))
    assert report["added"] > 0
    for source in profiles_in(sources[0].parent, name):
        assert printed_files(run("batch.quality", "profiles", *spark, "--input", source))
    assert printed_files(run("batch.quality", "clicks", *spark))
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([root.name, sources[0].parent.name])
