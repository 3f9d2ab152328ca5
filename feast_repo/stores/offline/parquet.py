"""The only way data files are written: complete and durable before they are visible.

Guarantee: a reader that lists `*.parquet` sees the old file or the new one, never a partial one, and a file that was
seen survives a machine crash. Nothing else writes data files, so an object store could be added here.
"""

from __future__ import annotations

import io
import time
import uuid
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import polars as pl

from feast_repo.stores.offline import disk

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from typing import BinaryIO

Result = TypeVar("Result")

PAUSES_S = tuple(0.005 * 2**number for number in range(12))
"""Between retries of a read. A compaction removes thousands of a day's files one by one, perhaps on a busy disk, and
reads that listed them fail meanwhile: 20 s in total is far more than it takes."""


def publish(path: Path, table: pl.DataFrame | pl.LazyFrame, *, level: int | None = None) -> None:
    """Write a table to `path` atomically, replacing an existing file. Thread-safe.

    A lazy table is streamed to disk, so it may exceed memory. `level` is the zstd level; None is the default.

    Raises:
        OSError: the disk is full or not writable; no temporary file stays behind.
    """
    with whole_file(path) as file:
        if isinstance(table, pl.LazyFrame):
            table.sink_parquet(file, compression="zstd", compression_level=level)
        else:
            # Through memory: Polars reports a full disk in its own words, and callers need the operating system's
            # error.
            buffer = io.BytesIO()
            table.write_parquet(buffer, compression="zstd", compression_level=level)
            file.write(buffer.getbuffer())


@contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """A file to write to that replaces `path` when the block ends. After an error nothing has changed.

    Raises:
        OSError: the disk is full or not writable; no temporary file stays behind.
    """
    disk.make_folder(path.parent)
    temporary = path.parent / f".{path.stem}.{uuid.uuid4().hex}.tmp"
    try:
        with disk.create(temporary) as file:
            yield file
            disk.sync(file)
        disk.rename(temporary, path)
    except BaseException:
        disk.remove(temporary)
        raise
    disk.sync_folder(path.parent)


def scan(files: Path | Sequence[Path], columns: Mapping[str, pl.DataType] | None = None) -> pl.LazyFrame:
    """The rows of files. Paths are literal: no character is a pattern, and no folder adds a column.

    With `columns`, exactly those, null if a file lacks one; without files, an empty table with them.
    """
    files = [files] if isinstance(files, Path) else list(files)
    if columns is None:
        return pl.scan_parquet(files, hive_partitioning=False, glob=False)
    if not files:
        return pl.LazyFrame(schema=columns)
    return pl.scan_parquet(
        files,
        schema=columns,
        missing_columns="insert",
        extra_columns="ignore",
        hive_partitioning=False,
        glob=False,
    )


def despite_compaction(read: Callable[[], Result], signs: Sequence[str] = ()) -> Result:
    """Retry listing and reading files, after a pause, while a listed file has just been merged away.

    `signs`: texts that identify this error if the reading library has no error type for it.

    Raises:
        FileNotFoundError: a file is gone for good.
        OSError: files can't be read.
    """
    for pause_s in PAUSES_S:
        try:
            return _read(read, signs)
        except FileNotFoundError:
            time.sleep(pause_s)
    return _read(read, signs)


def _read(read: Callable[[], Result], signs: Sequence[str]) -> Result:
    try:
        return read()
    except Exception as error:
        if any(sign in str(error) for sign in signs):
            raise FileNotFoundError(str(error)) from error
        raise


def day_folder(root: Path, day: str) -> Path:
    """The hive folder of one UTC day, `YYYY-MM-DD`."""
    return root / f"dt={day}"
