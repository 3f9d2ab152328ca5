"""The one way a Parquet file comes to be: whole, durable, and only then visible.

Guarantee: a reader that lists `*.parquet` sees the old file or the new one, never a part of it, and a file that
was seen survives a crash of the machine. An object store can join here, since nothing else writes data files.
"""

from __future__ import annotations

import io
import os
import uuid
from typing import TYPE_CHECKING, TypeVar

import polars as pl

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

Result = TypeVar("Result")

READ_TRIES = 10
"""A compaction removes the files of a day at once, so this allows for a read over many days."""


def publish(path: Path, table: pl.DataFrame | pl.LazyFrame, *, level: int | None = None) -> None:
    """Write a table to `path` atomically, replacing what is there. Safe to call from several threads at once.

    A lazy table goes to the disk in parts, so it may be larger than memory. `level`: of zstd; None is its default.

    Raises:
        OSError: the disk is full or not writable; no temporary file stays behind.
    """
    _make_folder(path.parent)
    temporary = path.parent / f".{path.stem}.{uuid.uuid4().hex}.tmp"
    try:
        with temporary.open("wb") as file:
            if isinstance(table, pl.LazyFrame):
                table.sink_parquet(file, compression="zstd", compression_level=level)
            else:
                # Through memory, since Polars tells a full disk in words of its own, and callers need the operating
                # system's error.
                buffer = io.BytesIO()
                table.write_parquet(buffer, compression="zstd", compression_level=level)
                file.write(buffer.getbuffer())
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(path.parent)


def _make_folder(folder: Path) -> None:
    """Create a folder and what is missing above it, each durable in its parent."""
    if folder.is_dir():
        return
    _make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    sync_folder(folder.parent)


def sync_folder(folder: Path) -> None:
    """Make a rename in the folder survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def despite_compaction(read: Callable[[], Result], gone: type[Exception] = FileNotFoundError) -> Result:
    """List and read files again if a listed one has just been merged into another, which `gone` tells.

    Raises:
        OSError: files keep vanishing, or can't be read.
    """
    for _ in range(READ_TRIES - 1):
        try:
            return read()
        except gone:
            continue
    return read()


def day_folder(root: Path, day: str) -> Path:
    """The hive folder of one UTC day, `YYYY-MM-DD`."""
    return root / f"dt={day}"
