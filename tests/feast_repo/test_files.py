"""A listing lacks no row while files are merged."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl
import pytest

from batch.compaction import LOG_ORDER, finish, merge
from feast_repo.files import data_files
from feast_repo.parquet import publish

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
