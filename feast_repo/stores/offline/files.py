"""Which files a table has, while a compaction puts one in the place of many and writers add others."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection

HIDDEN = (".", "_")


def day_folders(table: Path) -> list[Path]:
    """The folders `dt=YYYY-MM-DD` of a table in order; none if it isn't there."""
    return sorted(table.glob("dt=*"))


def data_files(folder: Path) -> list[Path]:
    """A day's files in order of their names, so that no row is missing; none if the folder isn't there.

    A listing takes several system calls. It can miss a merged file that appears behind it and then also the originals,
    which are removed ahead of it. A merged file is there before its originals go, so the next listing has it. Hence a
    listing is whole if it still has every file of the one before. Files that are only added never cause another one.
    """
    earlier: set[Path] = set(folder.glob("*.parquet"))
    while not earlier <= (files := set(folder.glob("*.parquet"))):
        earlier = files
    return sorted(files)


def files_under(source: Path, suffixes: Collection[str]) -> list[Path]:
    """A file, or the files below a folder in order, that end like that; none where there are none.

    Names below the folder that begin with a dot or an underscore are not data, as Hadoop has it.

    Raises:
        OSError: a folder can't be read.
    """
    if not source.is_dir():
        return [source] if source.suffix in suffixes and source.exists() else []
    files = []
    for folder, folders, names in os.walk(source, onerror=_refuse):
        folders[:] = [name for name in folders if not name.startswith(HIDDEN)]
        files += [Path(folder, name) for name in names if not name.startswith(HIDDEN)]
    return sorted(file for file in files if file.suffix in suffixes)


def _refuse(error: OSError) -> None:
    raise error
