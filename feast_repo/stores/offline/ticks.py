"""Times as integers of one unit since 1970 UTC, to compare nanoseconds and distant years exactly."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import polars as pl
import pyarrow as pa

from feast_repo.declare.fields import INT64_MAX

if TYPE_CHECKING:
    from collections.abc import Iterable

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
NANOSECONDS = {"s": 1_000_000_000, "ms": 1_000_000, "us": 1_000, "ns": 1}


def to_ticks(time: datetime | timedelta, unit: str) -> int:
    """An aware time or a duration in whole units; the result may exceed 64 bits."""
    duration = time - EPOCH if isinstance(time, datetime) else time
    return duration // timedelta(microseconds=1) * 1_000 // NANOSECONDS[unit]


def common_unit(types: Iterable[pa.DataType]) -> str:
    """Nanoseconds if one of the columns has them, else microseconds."""
    return "ns" if any(pa.types.is_timestamp(dtype) and dtype.unit == "ns" for dtype in types) else "us"


def ticks(column: pa.ChunkedArray, unit: str, name: str) -> pl.Series:
    """A column of times or dates in a unit (`us`, `ns`) that is at least as fine; without a zone they are UTC.

    A time that overflows 64 bits in this unit is clamped, which keeps the order.

    Raises:
        ValueError: the column doesn't hold times.
    """
    dtype = column.type
    if pa.types.is_date(dtype):
        column, dtype = column.cast(pa.timestamp("ms")), pa.timestamp("ms")
    if not pa.types.is_timestamp(dtype):
        message = f"column {name!r} is of type {dtype}, not a time"
        raise ValueError(message)
    numbers = pl.Series(name, pl.from_arrow(column.cast(pa.int64())))
    factor = NANOSECONDS[dtype.unit] // NANOSECONDS[unit]
    if factor == 1:
        return numbers
    most = INT64_MAX // factor
    return numbers.clip(-most, most) * factor
