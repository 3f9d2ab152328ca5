"""Which files a day of a table has, while a compaction puts one in the place of many."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def data_files(folder: Path) -> list[Path]:
    """A day's files in order of their names, so that no row is lacking; none if the folder isn't there.

    A listing takes several system calls. A merged file that appears after the call that would have named it, and
    originals that go before theirs, would all be missing, and nothing would tell. The next listing has the merged file,
    so two that are equal are whole.
    """
    files: list[Path] | None = None
    while (again := sorted(folder.glob("*.parquet"))) != files:
        files = again
    return again
