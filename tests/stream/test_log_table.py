from __future__ import annotations

import random
from typing import TYPE_CHECKING

import polars as pl
import pytest

from feast_repo.stores.offline import parquet
from feast_repo.stores.offline.tables import DEAD_LETTER_COLUMNS, day
from stream import log_table
from stream.log_table import DAY_MS, LogTable

if TYPE_CHECKING:
    from pathlib import Path

MIDNIGHT = 20_454 * DAY_MS


def letters(offsets: range, kafka_timestamp: int | list[int] = MIDNIGHT) -> pl.DataFrame:
    times = [kafka_timestamp] * len(offsets) if isinstance(kafka_timestamp, int) else kafka_timestamp
    return pl.DataFrame(
        {
            "offset": list(offsets),
            "kafka_timestamp": times,
            "key": [None] * len(offsets),
            "value": [b"%d" % offset for offset in offsets],
            "reason": ["not_json"] * len(offsets),
        },
        schema_overrides={"key": pl.Binary},
    )


def stored(folder: Path) -> pl.DataFrame:
    return pl.read_parquet(folder / "dt=*/*.parquet", hive_partitioning=False).sort("partition", "offset")


def test_rows_appear_only_with_a_flush_and_with_the_declared_columns(tmp_path: Path) -> None:
    table = LogTable(tmp_path, DEAD_LETTER_COLUMNS)
    table.append(3, letters(range(5)))
    assert not list(tmp_path.rglob("*.parquet"))
    table.flush()
    assert stored(tmp_path).schema == pl.Schema(DEAD_LETTER_COLUMNS)
    assert [path.name for path in tmp_path.rglob("*.parquet")] == ["p00003-00000000000000000000.parquet"]
    assert not list(tmp_path.rglob(".*"))


def test_a_replay_with_other_batch_sizes_adds_nothing(tmp_path: Path) -> None:
    first = LogTable(tmp_path, DEAD_LETTER_COLUMNS)
    first.append(0, letters(range(10)))
    first.append(1, letters(range(3)))
    first.flush()
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.parquet")}

    again = LogTable(tmp_path, DEAD_LETTER_COLUMNS)
    for start in range(0, 10, 4):
        again.append(0, letters(range(start, min(start + 4, 10))))
    again.append(1, letters(range(3)))
    again.flush()
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.parquet")} == before

    again.append(0, letters(range(8, 12)))
    again.flush()
    assert stored(tmp_path).filter(partition=0)["offset"].to_list() == list(range(12))


def test_an_older_version_has_left_files_with_other_columns(tmp_path: Path) -> None:
    older = {name: dtype for name, dtype in DEAD_LETTER_COLUMNS.items() if name != "reason"}
    for columns, upto in ((older, 2), (DEAD_LETTER_COLUMNS, 4), (DEAD_LETTER_COLUMNS, 6)):
        table = LogTable(tmp_path, columns)
        table.append(0, letters(range(upto)).select(name for name in columns if name != "partition"))
        table.flush()
    files = sorted(tmp_path.rglob("*.parquet"))
    assert [pl.read_parquet(file)["offset"].to_list() for file in files] == [[0, 1], [2, 3], [4, 5]]


def test_a_crash_between_the_files_of_two_days_loses_and_doubles_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Producers' clocks make the days alternate:  offset 0 1 2 3 4 5
    #                                             day    a b a b a b
    times = [MIDNIGHT - 1 if offset % 2 == 0 else MIDNIGHT for offset in range(6)]
    published: list[Path] = []
    real = parquet.publish

    def crash_on_the_second(path: Path, table: pl.DataFrame, *, level: int) -> None:
        if published:
            message = "power cut"
            raise OSError(message)
        published.append(path)
        real(path, table, level=level)

    table = LogTable(tmp_path, DEAD_LETTER_COLUMNS)
    table.append(0, letters(range(6), times))
    monkeypatch.setattr(log_table, "publish", crash_on_the_second)
    with pytest.raises(OSError, match="power cut"):
        table.flush()
    assert stored(tmp_path)["offset"].to_list() == [0, 2, 4]

    monkeypatch.setattr(log_table, "publish", real)
    after_restart = LogTable(tmp_path, DEAD_LETTER_COLUMNS)
    after_restart.append(0, letters(range(6), times))
    after_restart.flush()
    assert stored(tmp_path)["offset"].to_list() == list(range(6))


def test_a_failed_write_can_be_repeated(tmp_path: Path) -> None:
    table = LogTable(tmp_path / "file", DEAD_LETTER_COLUMNS)
    table.append(0, letters(range(3)))
    (tmp_path / "file").write_text("in the way")
    (file,) = table.take_files()
    with pytest.raises(OSError, match="file"):
        file.write()
    (tmp_path / "file").unlink()
    file.write()
    assert stored(tmp_path / "file")["offset"].to_list() == [0, 1, 2]


def test_what_was_taken_for_writing_is_known_to_come(tmp_path: Path) -> None:
    table = LogTable(tmp_path, DEAD_LETTER_COLUMNS)
    table.append(0, letters(range(3)))
    (first,) = table.take_files()
    table.append(0, letters(range(5)))  # while the first file is still under way
    (second,) = table.take_files()
    first.write()
    second.write()
    assert stored(tmp_path)["offset"].to_list() == list(range(5))
    assert table.take_files() == []


def test_a_file_is_in_order_of_partition_and_offset(tmp_path: Path) -> None:
    table = LogTable(tmp_path, DEAD_LETTER_COLUMNS)
    for partition, offsets in [(2, range(3)), (0, range(7, 9)), (2, range(3, 4)), (1, range(1)), (0, range(9, 10))]:
        table.append(partition, letters(offsets))
    table.flush()
    (path,) = tmp_path.rglob("*.parquet")
    assert path.name == "p00000-00000000000000000007.parquet"
    rows = pl.read_parquet(path).select("partition", "offset").rows()
    assert rows == [(0, 7), (0, 8), (0, 9), (1, 0), (2, 0), (2, 1), (2, 2), (2, 3)]


def test_rows_that_are_taken_are_not_taken_again(tmp_path: Path) -> None:
    table = LogTable(tmp_path, DEAD_LETTER_COLUMNS)
    table.append(0, letters(range(3)))
    table.append(0, letters(range(5)))  # as after a disk that was away for a moment
    assert table.waiting_rows == 5
    table.flush()
    assert table.waiting_rows == 0
    assert stored(tmp_path)["offset"].to_list() == list(range(5))


@pytest.mark.parametrize("seed", range(10))
def test_any_crash_point_any_batches_any_days(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    times = [MIDNIGHT + chance.randrange(-2 * DAY_MS, 2 * DAY_MS) for _ in range(60)]
    for _ in range(4):  # each run starts at the beginning, flushes at random and dies with rows waiting
        table = LogTable(tmp_path, DEAD_LETTER_COLUMNS)
        offset, end = 0, chance.randrange(1, 60)
        while offset < end:
            size = chance.randrange(1, 9)
            upto = min(offset + size, end)
            table.append(5, letters(range(offset, upto), times[offset:upto]))
            offset = upto
            if chance.random() < 0.4:
                table.flush()
    last = LogTable(tmp_path, DEAD_LETTER_COLUMNS)
    last.append(5, letters(range(60), times))
    last.flush()
    assert stored(tmp_path)["offset"].to_list() == list(range(60))
    days = {path.parent.name for path in tmp_path.rglob("*.parquet")}
    assert days == {f"dt={day(time)}" for time in times}
