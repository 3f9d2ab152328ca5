"""State that is rebuilt from the archive goes on as the lost one would have."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl
import pytest
from hypothesis import given, settings, strategies as st

from feast_repo.clickstream import clickstream
from feast_repo.features import user_click_features
from feast_repo.stores.offline.tables import event_columns, events_folder
from feast_repo.stores.progress import Progress
from stream.archive_tail import ArchiveTail
from stream.log_table import LogTable
from stream.windows import SnapshotError, WindowEngine
from tests.stream.reference import records_frame
from tests.stream.test_windows_properties import logs, plain, views

if TYPE_CHECKING:
    from pathlib import Path

    from feast_repo.declare.views import WindowedView
    from tests.stream.reference import Record

PARTITION = 3


def archive(folder: Path, view: WindowedView, log: list[Record], upto: int) -> tuple[WindowEngine, Progress]:
    """Process and archive a log, and give the engine and the progress as of the record before `upto`."""
    engine = WindowEngine(view.source, [view])
    frame = records_frame(view.source, log)
    table = LogTable(events_folder(folder, clickstream), event_columns(view.source))
    table.append(PARTITION, engine.process(frame[:upto]).records)
    progress = Progress("t", PARTITION, upto, engine.watermark_ms)
    # What an uncommitted epoch left behind is beyond the record, and another partition is another log.
    table.append(PARTITION, WindowEngine.restore(view.source, [view], engine.snapshot()).process(frame[upto:]).records)
    table.append(PARTITION + 1, WindowEngine(view.source, [view]).process(frame).records)
    table.flush()
    return engine, progress


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_rebuilt_state_goes_on_as_the_lost_one(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    view = data.draw(st.just(user_click_features) | views(user_click_features.source))
    time = view.source.time
    # No accepted event is far ahead of its Kafka time.
    log = [
        {**record, "kafka_timestamp": max(record[time], record["kafka_timestamp"])}
        if record.get("create_time")
        else {**record, "kafka_timestamp": max(0, record[time] + record["kafka_timestamp"] - 1_000_000)}
        for record in data.draw(logs(view))
    ]
    upto = data.draw(st.integers(0, len(log)))
    folder = tmp_path_factory.mktemp("data")
    lost, progress = archive(folder, view, log, upto)
    rebuilt = ArchiveTail(folder, view.source, [view], progress).engine()
    assert rebuilt.watermark_ms == lost.watermark_ms
    rest = records_frame(view.source, log)[upto:]
    ours, theirs = rebuilt.process(rest), lost.process(rest)
    assert ours.records.equals(theirs.records)
    assert list(map(plain, ours.windows)) == list(map(plain, theirs.windows))


def record(minute: int) -> Record:
    at = 1_772_366_400_000 + minute * 60_000
    return {
        **dict.fromkeys(user_click_features.source.schema),
        "event_id": str(minute),
        "user_id": "a",
        "event_type": "click",
        "event_timestamp": at,
        "kafka_timestamp": at,
    }


def test_archive_of_another_lateness_is_refused(tmp_path: Path) -> None:
    _, progress = archive(tmp_path, user_click_features, [record(0), record(5)], 2)
    assert progress.watermark_ms is not None
    other = Progress("t", PARTITION, 2, progress.watermark_ms + 60_000)
    with pytest.raises(SnapshotError, match="lateness"):
        ArchiveTail(tmp_path, user_click_features.source, [user_click_features], other).engine()


def test_archive_without_the_records_is_refused(tmp_path: Path) -> None:
    _, progress = archive(tmp_path, user_click_features, [record(0)], 1)
    for file in events_folder(tmp_path, clickstream).glob("dt=*/*.parquet"):
        file.unlink()
    with pytest.raises(SnapshotError, match="no records of partition 3"):
        ArchiveTail(tmp_path, user_click_features.source, [user_click_features], progress).engine()


def test_partition_of_dead_letters_only_has_fresh_state(tmp_path: Path) -> None:
    engine = ArchiveTail(
        tmp_path, user_click_features.source, [user_click_features], Progress("t", 0, 7, None)
    ).engine()
    assert engine.watermark_ms is None


def test_archive_of_an_older_version_says_nothing_of_whose_times_they_are(tmp_path: Path) -> None:
    log = [record(minute) for minute in (0, 5, 12, 13)]
    log[1]["kafka_timestamp"] += 30 * 3_600_000  # was trusted
    lost, progress = archive(tmp_path, user_click_features, log, len(log))
    for file in events_folder(tmp_path, clickstream).glob("dt=*/*.parquet"):
        older = pl.read_parquet(file, hive_partitioning=False).drop("create_time")
        older.write_parquet(file)
    rebuilt = ArchiveTail(tmp_path, user_click_features.source, [user_click_features], progress).engine()
    rest = records_frame(user_click_features.source, [record(100)])
    assert list(map(plain, rebuilt.process(rest).windows)) == list(map(plain, lost.process(rest).windows)) != []


def test_what_is_needed_of_a_log_begins_with_the_first_record_that_still_counts(tmp_path: Path) -> None:
    # last closed: 70, so open windows need 10 and later; 12x's window |20 has closed, and |80 is open with it
    log = [record(minute) for minute in (0, 5, 12, 30, 75)]
    _, progress = archive(tmp_path, user_click_features, log, len(log))
    assert ArchiveTail(tmp_path, user_click_features.source, [user_click_features], progress).first_needed() == 2
    late = log[0] | {"kafka_timestamp": log[-1]["kafka_timestamp"] + 60_000}
    _, progress = archive(tmp_path / "late", user_click_features, [late, *log], len(log) + 1)
    assert (
        ArchiveTail(tmp_path / "late", user_click_features.source, [user_click_features], progress).first_needed() == 0
    ), "it decides created times"


def test_only_the_end_of_a_long_archive_is_read(tmp_path: Path) -> None:
    log = [record(minute) for minute in (*range(0, 5 * 24 * 60, 30), 5 * 24 * 60)]
    lost, progress = archive(tmp_path, user_click_features, log, len(log))
    first = min(events_folder(tmp_path, clickstream).glob("dt=*"))
    for file in first.glob("*.parquet"):
        pl.DataFrame(schema=event_columns(user_click_features.source)).write_parquet(file)
    rebuilt = ArchiveTail(tmp_path, user_click_features.source, [user_click_features], progress).engine()
    rest = records_frame(user_click_features.source, [record(6 * 24 * 60)])
    assert list(map(plain, rebuilt.process(rest).windows)) == list(map(plain, lost.process(rest).windows)) != []
