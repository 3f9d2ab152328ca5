"""Whatever a Parquet file of another maker holds, it becomes rows or one line."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from feast_repo.stores.offline.foreign import ForeignFileError, read_foreign

if TYPE_CHECKING:
    from pathlib import Path

    import polars as pl

AT = datetime(2026, 1, 1, 12, tzinfo=UTC)


def read(folder: Path, column: pa.Array) -> pl.Series:
    pq.write_table(pa.table({"a": column, "unread": pa.nulls(len(column), pa.decimal256(50, 2))}), folder / "a.parquet")
    return read_foreign(folder / "a.parquet", ("a", "b"))["a"]


@pytest.mark.parametrize("zone", ["UTC", "+05:30", "-03:00", "Asia/Kolkata", "Nowhere/City"])
@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_times_of_any_zone_are_instants(unit: str, zone: str, tmp_path: Path) -> None:
    column = pa.array([AT, None], pa.timestamp(unit, "UTC")).cast(pa.timestamp(unit, zone))
    assert read(tmp_path, column).to_list() == [AT, None]


def test_times_without_a_zone_stay_so(tmp_path: Path) -> None:
    assert read(tmp_path, pa.array([AT.replace(tzinfo=None)])).to_list() == [AT.replace(tzinfo=None)]


@pytest.mark.parametrize(
    "column",
    [
        pa.array([1, None], pa.int8()),
        pa.array([2**64 - 1], pa.uint64()),
        pa.array([1.5, None], pa.float32()),
        pa.array([True, None]),
        pa.array(["ü", None]),
        pa.array(["ü", None], pa.large_string()),
        pa.array(["ü", None]).dictionary_encode(),
        pa.array([None, None], pa.null()),
        pa.array([], pa.string()),
    ],
    ids=lambda column: str(column.type),
)
def test_values_are_as_they_are(column: pa.Array, tmp_path: Path) -> None:
    assert read(tmp_path, column).to_list() == column.to_pylist()


@pytest.mark.parametrize(
    "column",
    [
        pa.array([1], pa.decimal256(50, 0)),
        pa.array([1], pa.duration("us")),
        pa.array([[1]]),
        pa.array([{"x": 1}]),
        pa.array([b"x"]),
        pa.array([1], pa.date32()),
        pa.array([1], pa.time64("us")),
    ],
    ids=lambda column: str(column.type),
)
def test_a_type_that_is_no_plain_value_is_named(column: pa.Array, tmp_path: Path) -> None:
    with pytest.raises(ForeignFileError, match="the column 'a' is ") as refused:
        read(tmp_path, column)
    assert str(column.type).split("<")[0] in str(refused.value)
    assert str(tmp_path / "a.parquet") in str(refused.value)


@pytest.mark.parametrize("stored", [2**62, -(2**62)])
@pytest.mark.parametrize("unit", ["ms", "us"])
def test_times_beyond_the_calendar_are_refused(unit: str, stored: int, tmp_path: Path) -> None:
    with pytest.raises(ForeignFileError, match="not within the years 1 to 9999"):
        read(tmp_path, pa.array([stored, None], pa.timestamp(unit, "+05:30")))


def test_damage_is_one_line(tmp_path: Path) -> None:
    raw = pa.Array.from_buffers(pa.string(), 1, pa.array([b"\xff"]).buffers())
    with pytest.raises(ForeignFileError, match=r"'a' is damaged: .*Invalid UTF8"):
        read(tmp_path, raw)
    read(tmp_path, pa.array(["x"] * 100))
    path = tmp_path / "a.parquet"
    whole = path.read_bytes()
    for content in (b"", b"a,b\n1,2\n", whole[:-9], whole[:4] + b"\0" * 40 + whole[44:], whole[:-60] + whole[-20:]):
        path.write_bytes(content)
        with pytest.raises(ForeignFileError) as refused:
            read_foreign(path, ("a",))
        assert "\n" not in str(refused.value)
        assert str(path) in str(refused.value)
    pq.write_table(pa.table([pa.array([1]), pa.array([2])], names=["a", "a"]), path)
    with pytest.raises(ForeignFileError, match="'a' is there 2 times"):
        read_foreign(path, ("a",))
    with pytest.raises(IsADirectoryError):
        read_foreign(tmp_path, ("a",))
