"""The one way a file of data comes to be: whole, durable, and only then visible.

Guarantee: a reader that lists `*.parquet` sees the old file or the new one, never a part of it, and a file that
was seen survives a crash of the machine. An object store can join here, since nothing else writes data files.
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
"""Between tries of a read. A compaction removes a day's files one after another, thousands of them, on a disk that may
be busy, and fails whoever lists them meanwhile: 20 s in all is far more than it takes."""


def publish(path: Path, table: pl.DataFrame | pl.LazyFrame, *, level: int | None = None) -> None:
    """Write a table to `path` atomically, replacing what is there. Safe to call from several threads at once.

    A lazy table goes to the disk in parts, so it may be larger than memory. `level`: of zstd; None is its default.

    Raises:
        OSError: the disk is full or not writable; no temporary file stays behind.
    """
    with whole_file(path) as file:
        if isinstance(table, pl.LazyFrame):
            table.sink_parquet(file, compression="zstd", compression_level=level)
        else:
            # Through memory, since Polars tells a full disk in words of its own, and callers need the operating
            # system's error.
            buffer = io.BytesIO()
            table.write_parquet(buffer, compression="zstd", compression_level=level)
            file.write(buffer.getbuffer())


@contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """A file to write to, which takes its place at `path` when the block ends. After an error nothing has changed.

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
    """The rows of files, whose paths are taken as they are: no character is a pattern, and no folder adds a column.

    With `columns`, exactly those, null where a file lacks one; without files, no rows of them.
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
    """List and read files again, after a pause, while a listed one is gone since it was just merged into another.

    `signs`: what the text of an error has in it if the library that reads has no type of error for that.

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
