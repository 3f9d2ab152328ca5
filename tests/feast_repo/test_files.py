"""Neither a listing nor a read lacks a row while files are merged."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl
import pytest

from batch.maintenance.compaction import LOG_ORDER, finish, merge
from feast_repo.stores.offline.files import data_files, day_folders
from feast_repo.stores.offline.parquet import despite_compaction, publish

if TYPE_CHECKING:
    from collections.abc import Iterator

NAMES = [f"p00000-{offset:020d}.parquet" for offset in range(10)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for offset, name in enumerate(NAMES):
        publish(tmp_path / name, pl.DataFrame({"partition": [0], "offset": [offset]}))
    return tmp_path


def test_files_in_order_of_their_names(folder: Path) -> None:
    (folder / ".compacted-1.tmp").touch()
    (folder / ".compacted-1.json").touch()
    assert data_files(folder) == [folder / name for name in NAMES]
    assert data_files(folder / "none") == []


def test_a_merge_in_the_middle_of_a_listing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def glob(_: Path, pattern: str) -> Iterator[Path]:
        """What a directory that is read in two calls gives: the merged file's name would have been in the first."""
        monkeypatch.undo()
        merge(folder, [folder / name for name in NAMES], LOG_ORDER)
        finish(folder)
        return (file for file in folder.glob(pattern) if file.name in NAMES)

    monkeypatch.setattr(Path, "glob", glob)
    (merged,) = data_files(folder)
    assert pl.read_parquet(merged)["offset"].to_list() == list(range(10))


def test_a_listing_ends_while_files_are_added(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A writer that adds a file during every listing, for as long as somebody lists."""
    listing = Path.glob
    added: list[Path] = []

    def glob(path: Path, pattern: str) -> list[Path]:
        assert len(added) < 100, "no end"
        found = list(listing(path, pattern))
        added.append(path / f"p00001-{len(added):020d}.parquet")
        added[-1].touch()
        return found

    monkeypatch.setattr(Path, "glob", glob)
    assert data_files(folder)[: len(NAMES)] == [folder / name for name in NAMES]
    assert len(added) == 2


def test_days_in_order(tmp_path: Path) -> None:
    days = [tmp_path / f"dt=2026-01-0{number}" for number in (3, 1, 2)]
    for day in days:
        day.mkdir()
    (tmp_path / ".history-1").mkdir()
    assert day_folders(tmp_path) == sorted(days)
    assert day_folders(tmp_path / "none") == []


@pytest.mark.parametrize("count", [1, 2_000])
def test_a_read_outlasts_the_removal_of_the_originals(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    publish(tmp_path / "compacted.parquet", pl.DataFrame({"offset": range(count)}))
    originals = [tmp_path / f"p00000-{offset:020d}.parquet" for offset in range(count)]
    for original in originals:
        original.touch()
    remaining = iter(originals)

    def sleep(seconds: float) -> None:
        """A slow disk, which takes 5 ms a file."""
        for original in islice(remaining, round(seconds / 0.005)):
            original.unlink()

    def read() -> list[int]:
        files = data_files(tmp_path)
        for original in islice(remaining, 1):
            original.unlink()
        assert len([file.stat() for file in files]) == 1, "all or nothing"
        offsets: list[int] = pl.read_parquet(files)["offset"].to_list()
        return offsets

    monkeypatch.setattr("feast_repo.stores.offline.parquet.time.sleep", sleep)
    assert despite_compaction(read) == list(range(count))


def test_a_file_that_is_gone_for_good_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paused: list[float] = []
    monkeypatch.setattr("feast_repo.stores.offline.parquet.time.sleep", paused.append)
    with pytest.raises(FileNotFoundError, match=r"gone\.parquet"):
        despite_compaction((tmp_path / "gone.parquet").read_bytes)
    assert 10 < sum(paused) < 60
