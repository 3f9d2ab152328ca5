"""Lists a table's files while a compaction merges some and writers add others."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection

HIDDEN = (".", "_")


def day_folders(table: Path) -> list[Path]:
    """The folders `dt=YYYY-MM-DD` of a table in order; none if the table doesn't exist."""
    return sorted(table.glob("dt=*"))


def data_files(folder: Path) -> list[Path]:
    """A day's files ordered by name, with no row missing; none if the folder doesn't exist.

    A listing takes several system calls. It can miss a merged file that appears behind its position, and then also the
    originals, which are removed ahead of it. A merged file exists before its originals are removed, so the next listing
    has it. Hence a listing is complete if it still has every file of the previous one. Added files alone never cause
    another listing.
    """
    earlier: set[Path] = set(folder.glob("*.parquet"))
    while not earlier <= (files := set(folder.glob("*.parquet"))):
        earlier = files
    return sorted(files)


def files_under(source: Path, suffixes: Collection[str]) -> list[Path]:
    """The file itself, or the files below a folder in order, with one of the suffixes; may be empty.

    Names below the folder that begin with a dot or an underscore are not data, as in Hadoop.

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
