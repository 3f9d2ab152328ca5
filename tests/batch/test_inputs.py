"""A file that a command is given and can't read is one line with its name, whatever is in it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from feast_repo.declare.rows import EVENT_TIME
from simulation.profiles import make_profiles
from simulation.training_rows import training_rows
from tests.commands import main_of

if TYPE_CHECKING:
    from pathlib import Path

COMMANDS = {
    "history": ("batch.backfill", "--partitions", "2", "--from"),
    "profiles": ("batch.quality", "profiles", "--input"),
    "mended": ("batch.quality", "replay"),
    "pairs": ("batch.training_set", "--pairs"),
    "training": ("serving.train", "--training-set"),
    "letters": ("stream.dead_letters", "replay"),
}
GARBAGE = {
    "none.parquet": None,
    "none.csv": None,
    "none.jsonl": None,
    "empty.parquet": b"",
    "empty.csv": b"",
    "text.parquet": b"a,b\n1,2\n",
    "magic.parquet": b"PAR1" + bytes(range(256)) + b"\xff\x00\x00\x00PAR1",
    "huge.parquet": b"PAR1" + b"\x15\x00" * 50 + b"\xff\xff\xff\x7fPAR1",
    "binary.csv": b"\xff\xfe\x00\x01" * 50,
    "ragged.csv": b'a,b\n1,2,3\n"x\n',
    "binary.jsonl": b"\xff\xfe\x00\x01\n" * 50,
}


def refused(capsys: pytest.CaptureFixture[str], module: str, *arguments: str) -> str:
    capsys.readouterr()
    with pytest.raises(SystemExit) as stopped:
        main_of(module)(arguments)
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1, error
    return error


@pytest.mark.parametrize("name", GARBAGE)
@pytest.mark.parametrize("command", COMMANDS)
def test_garbage(command: str, name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / name
    if (content := GARBAGE[name]) is not None:
        path.write_bytes(content)
    if command == "letters" and not content and content is not None:
        pytest.skip("a file without lines has no letters")
    assert str(path) in refused(capsys, *COMMANDS[command], str(path))


@pytest.mark.parametrize("command", COMMANDS)
def test_a_folder(command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "folder.parquet"
    path.mkdir()
    assert str(path) in refused(capsys, *COMMANDS[command], str(path))


def with_time(rows: pl.DataFrame, time: pa.Array, path: Path) -> Path:
    """A Parquet file as another library writes it."""
    others = rows.drop(EVENT_TIME, strict=False).to_arrow(compat_level=pl.CompatLevel.oldest())
    pq.write_table(others.append_column(EVENT_TIME, time), path)
    return path


def test_profiles_with_a_fixed_offset(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows, now = make_profiles(40, 2), datetime.now(UTC).replace(microsecond=0)
    times = pa.array([now] * len(rows), pa.timestamp("us", "+05:30"))
    path = with_time(rows, times, tmp_path / "profiles.parquet")
    assert main_of("batch.quality")(["profiles", "--input", str(path)]) == 0
    beyond = pa.array([2**62] * len(rows), pa.timestamp("us", "+05:30"))
    said = refused(capsys, *COMMANDS["profiles"], str(with_time(rows, beyond, path)))
    assert "'event_timestamp' has a time that is not within the years 1 to 9999" in said


def test_training_set_of_another_maker(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = training_rows(300)
    path = tmp_path / "training.parquet"
    of_offset = rows[EVENT_TIME].to_arrow().cast(pa.timestamp("us", "+05:30"))
    said = refused(capsys, *COMMANDS["training"], str(with_time(rows.drop("age"), of_offset, path)))
    assert "lacks age" in said
    said = refused(
        capsys, *COMMANDS["training"], str(with_time(rows, rows[EVENT_TIME].cast(pl.String).to_arrow(), path))
    )
    assert "event_timestamp is String, not Datetime" in said
    odd = rows.with_columns(pl.col("purchased").cast(pl.Int64), pl.col("age").cast(pl.Float64))
    said = refused(capsys, *COMMANDS["training"], str(with_time(odd, of_offset, path)))
    assert "purchased is Int64, not Boolean" in said
    assert "age is Float64, not Int64" in said
