"""Reads a Feast source as an Arrow table, limited to columns and a time range: the single entry for all sources.

A source in day folders (see `source_columns.py`) is read from the days of the range. Any other Parquet source (a file,
a folder or a pattern) is read unchanged, so types and nanoseconds survive. Other formats and services are left to
Feast's reader.
"""

from __future__ import annotations

import glob
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
from feast.data_format import ParquetFormat
from feast.infra.offline_stores.duckdb import _read_data_source
from feast.infra.offline_stores.file_source import FileSource
from pyarrow import fs

from feast_repo.declare.fields import INT64_MAX
from feast_repo.stores.offline.files import data_files, day_folders
from feast_repo.stores.offline.parquet import despite_compaction, scan
from feast_repo.stores.offline.source_columns import arrow_schema, is_ours, stored_columns
from feast_repo.stores.offline.ticks import to_ticks

if TYPE_CHECKING:
    from collections.abc import Sequence

    from feast.data_source import DataSource


def read_rows(
    source: DataSource,
    repo_path: Path | str | None,
    columns: Sequence[str],
    time: str,
    first: datetime | None = None,
    last: datetime | None = None,
) -> pa.Table:
    """The source's rows with these columns; rows whose `time` is outside `first` to `last` (aware) may be left out.

    Raises:
        FileNotFoundError: the file doesn't exist; an empty table of ours is no error.
        ValueError: the source has no such column.
    """
    columns = list(dict.fromkeys(columns))
    if is_ours(source):
        return despite_compaction(lambda: _read_days(source, repo_path, columns, first, last))
    if is_parquet(source):
        return _read_files(source, repo_path, columns, time, first, last)
    return _read_data_source(source, str(repo_path)).select(*columns).to_pyarrow()


def source_folder(source: DataSource, repo_path: Path | str | None) -> Path:
    """The folder with a source's days; a relative path is resolved against the folder of feature_store.yaml."""
    return Path(FileSource.get_uri_for_file_path(repo_path, source.file_options.uri))


def is_parquet(source: DataSource) -> bool:
    """Whether a source is one or several Parquet files."""
    return isinstance(source, FileSource) and isinstance(source.file_format or ParquetFormat(), ParquetFormat)


def _read_days(
    source: DataSource,
    repo_path: Path | str | None,
    columns: list[str],
    first: datetime | None,
    last: datetime | None,
) -> pa.Table:
    schema = stored_columns(source)
    _refuse_unknown(source, columns, schema.names())
    schema = pl.Schema({name: schema[name] for name in columns})
    files = [
        file
        for folder in day_folders(source_folder(source, repo_path))
        if _within(folder, first, last)
        for file in data_files(folder)
    ]
    # Days from before a column was declared lack it: it is null in their rows.
    rows = scan(files, schema).collect()
    return rows.to_arrow(compat_level=pl.CompatLevel.oldest()).cast(arrow_schema(schema))


def _within(folder: Path, first: datetime | None, last: datetime | None) -> bool:
    day = date.fromisoformat(folder.name.removeprefix("dt="))
    return (first is None or day >= first.astimezone(UTC).date()) and (
        last is None or day <= last.astimezone(UTC).date()
    )


def _read_files(
    source: FileSource,
    repo_path: Path | str | None,
    columns: list[str],
    time: str,
    first: datetime | None,
    last: datetime | None,
) -> pa.Table:
    files = _dataset(source, repo_path)
    _refuse_unknown(source, columns, files.schema.names)
    return files.to_table(columns=columns, filter=_range(files.schema.field(time), first, last))


def _dataset(source: FileSource, repo_path: Path | str | None) -> ds.Dataset:
    options = source.file_options
    path = FileSource.get_uri_for_file_path(repo_path, options.uri)
    filesystem, path = FileSource.create_filesystem_and_path(
        path, options.s3_endpoint_override, resolved_credentials=source.resolve_credentials()
    )
    if filesystem is None and "://" in path:
        filesystem, path = fs.FileSystem.from_uri(path)
    files: str | list[str] = path
    if filesystem is None:
        filesystem = fs.LocalFileSystem()
        if not Path(path).exists():
            files = sorted(glob.glob(path, recursive=True))  # noqa: PTH207  (a pattern may be absolute)
        if not files:
            message = f"source {source.name!r}: no file {path}"
            raise FileNotFoundError(message)
    return ds.dataset(files, format="parquet", filesystem=filesystem, partitioning="hive")


def _range(field: pa.Field, first: datetime | None, last: datetime | None) -> pc.Expression | None:
    """A filter that lets whole row groups be skipped; a time that the column can't hold is no bound."""
    within: pc.Expression | None = None
    if not pa.types.is_timestamp(field.type):
        return within
    for time, compare in ((first, pc.Expression.__ge__), (last, pc.Expression.__le__)):
        if time is None or abs(ticks := to_ticks(time, field.type.unit)) > INT64_MAX:
            continue
        bound = compare(pc.field(field.name), pa.scalar(ticks, pa.int64()).cast(field.type))
        within = bound if within is None else within & bound
    return within


def _refuse_unknown(source: DataSource, columns: Sequence[str], known: Sequence[str]) -> None:
    if unknown := [name for name in columns if name not in known]:
        message = f"source {source.name!r} has no column {', '.join(unknown)}; it has {', '.join(known)}"
        raise ValueError(message)
