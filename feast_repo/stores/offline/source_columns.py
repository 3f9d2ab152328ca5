"""The columns of a source stored in day folders, as declared in its tag.

    FileSource(path=..., timestamp_field=..., tags={COLUMNS_TAG: json.dumps({"user_id": "String", "age": "Int64"})})

The tag makes a source ours: an empty folder has a schema, rows are added as files, and a column that is declared later
is null in older rows. Types have their Polars or Feast names. A source without the tag is an ordinary file.
"""

from __future__ import annotations

import json
import re
from functools import cache
from typing import TYPE_CHECKING, Any

import polars as pl
import pyarrow as pa

from feast_repo.declare.events import UTC_MICROSECONDS
from feast_repo.declare.rows import SERVED

if TYPE_CHECKING:
    from feast.data_source import DataSource

COLUMNS_TAG = "ml_feature_store.columns"
FORMER_TAG = "columns"
"""The tag's name up to version 0.1. Anyone may use it, so it counts only if its value parses as ours."""

_NAMED: dict[str, Any] = {
    **{
        str(dtype): dtype
        for dtype in (
            *(pl.Int8, pl.Int16, pl.Int32, pl.Int64, pl.UInt8, pl.UInt16, pl.UInt32, pl.UInt64),
            *(pl.Float32, pl.Float64, pl.Boolean, pl.String, pl.Binary, pl.Date),
        )
    },
    # Feast's type names, with the types of their values in a file.
    "Bool": pl.Boolean,
    **dict.fromkeys(("Bytes", "PdfBytes", "ImageBytes"), pl.Binary),
    **dict.fromkeys(("Json", "Uuid", "TimeUuid", "Decimal"), pl.String),
    "UnixTimestamp": UTC_MICROSECONDS,
}
_LIST = re.compile(r"(?:List|Array|Set)\((.*)\)")
_TIME = re.compile(r"Datetime\(time_unit='(ms|us|ns)', time_zone=(None|'[^']+')\)")


def is_ours(source: DataSource) -> bool:
    """Whether the source's rows are in day folders with declared columns.

    Raises:
        ValueError: its tag can't be read.
    """
    return _schema(source) is not None


def pushed_columns(source: DataSource) -> pl.Schema:
    """The columns that a push to a source brings, with their Polars types.

    Raises:
        ValueError: the source has no such tag, or it can't be read.
    """
    schema = _schema(source)
    if schema is None:
        message = f"source {source.name!r} has no tag {COLUMNS_TAG!r}"
        raise ValueError(message)
    return pl.Schema(schema)


def stored_columns(source: DataSource) -> pl.Schema:
    """Columns of a source's files in stored order: those of a push and, if rows have a creation time, `SERVED`.

    Raises:
        ValueError: as `pushed_columns`.
    """
    pushed = list(pushed_columns(source).items())
    names = [name for name, _ in pushed]
    if source.created_timestamp_column not in names or SERVED in names:
        return pl.Schema(pushed)
    place = 1 + names.index(source.created_timestamp_column)
    return pl.Schema([*pushed[:place], (SERVED, UTC_MICROSECONDS), *pushed[place:]])


def arrow_schema(columns: pl.Schema) -> pa.Schema:
    """The same columns as an Arrow schema; Feast infers its types from the Arrow type names."""
    table = pl.DataFrame(schema=columns).to_arrow(compat_level=pl.CompatLevel.oldest())
    return pa.schema([(field.name, _small(field.type)) for field in table.schema])


def _schema(source: DataSource) -> dict[str, Any] | None:
    if (tag := source.tags.get(COLUMNS_TAG)) is not None:
        try:
            return _parsed(tag)
        except ValueError as error:
            message = f"source {source.name!r}: tag {COLUMNS_TAG!r}: {error}"
            raise ValueError(message) from error
    try:
        return _parsed(source.tags[FORMER_TAG])
    except (KeyError, ValueError):
        return None


@cache
def _parsed(tag: str) -> dict[str, Any]:
    columns = json.loads(tag)
    if not isinstance(columns, dict) or not columns:
        message = "must be a JSON object of columns and their types"
        raise ValueError(message)
    return {name: _type(str(dtype), name) for name, dtype in columns.items()}


def _type(text: str, column: str) -> Any:
    if text in _NAMED:
        return _NAMED[text]
    if of := _LIST.fullmatch(text):
        return pl.List(_type(of[1], column))
    if time := _TIME.fullmatch(text):
        return pl.Datetime(time[1], None if time[2] == "None" else time[2].strip("'"))  # type: ignore[arg-type]
    message = (
        f"column {column!r} has type {text!r}, which is not kept in day folders: {', '.join(_NAMED)}, Datetime, and "
        "List of these are"
    )
    raise ValueError(message)


def _small(dtype: pa.DataType) -> pa.DataType:
    """The type with 32-bit offsets, as everything but Polars writes it."""
    if pa.types.is_large_list(dtype):
        return pa.list_(_small(dtype.value_type))
    if pa.types.is_large_string(dtype):
        return pa.string()
    return pa.binary() if pa.types.is_large_binary(dtype) else dtype
