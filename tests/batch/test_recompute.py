"""Batch equals the stream, bit for bit: any log, both engines."""

from __future__ import annotations

import tempfile
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl
from hypothesis import HealthCheck, given, settings, strategies as st
from polars.testing import assert_frame_equal

from batch.recompute.archive import LATE, Scope, reach_of
from batch.recompute.polars_engine import PolarsEngine
from batch.recompute.recomputation import Recomputation, recompute
from feast_repo.clickstream import clickstream
from feast_repo.declare.rows import SERVED
from feast_repo.declare.stored import offline_columns
from feast_repo.features import user_click_features
from feast_repo.stores.offline.tables import events_folder, progress_folder
from feast_repo.stores.progress import ProgressRecord
from tests.batch.archives import clicks, stream
from tests.declared import on_stream
from tests.stream.reference import ReferenceWindows
from tests.stream.test_windows_properties import logs, views

if TYPE_CHECKING:
    from batch.recompute.archive import Engine, Mode
    from feast_repo.declare.views import WindowedView
    from tests.stream.reference import Record

EXAMPLES = {"polars": 40, "spark": 6}
"""Few with Spark, which takes seconds for each."""
MOST_ROWS = {"polars": 10, "spark": 1_000}
"""Few, so that there are several chunks; with Spark one test of several is enough."""


def engine_of(name: str, root: Path, view: WindowedView) -> Engine:
    if name == "polars":
        return PolarsEngine(events_folder(root, view.source))
    from batch.recompute.spark_engine import SparkEngine  # noqa: PLC0415  (an extra)

    return SparkEngine(events_folder(root, view.source).as_uri(), "local[2]")


def recomputed(
    name: str, root: Path, view: WindowedView, first: int | None = None, last: int | None = None
) -> Recomputation:
    reach = reach_of(view, ProgressRecord(progress_folder(root, view.source)).load())
    return recompute(engine_of(name, root, view), Scope(view, reach, first, last))


def rows_of(recomputation: Recomputation, mode: Mode = "as-seen", most_rows: int = 10) -> pl.DataFrame:
    view = recomputation.scope.view
    columns = {"partition": pl.Int32(), **offline_columns(view), LATE: pl.Boolean()}
    del columns["writer"], columns[SERVED]
    chunks = recomputation.timeline.chunks(recomputation.scope, most_rows)
    parts = [recomputation.rows(chunk, mode).select(columns.keys()) for chunk in chunks]
    return pl.concat([pl.DataFrame(schema=columns), *parts]).sort("partition", "event_timestamp", *view.join_keys)


@st.composite
def cases(draw: st.DrawFn) -> tuple[WindowedView, dict[int, list[Record]], int]:
    """Make a view, logs of two partitions, and how many records of one are beyond the progress record."""
    view = draw(views())
    return view, {0: draw(logs(view)), 3: draw(logs(view))}, draw(st.integers(0, 3))


def test_any_log_equals_the_stream(engine_name: str) -> None:
    @settings(max_examples=EXAMPLES[engine_name], deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(cases())
    def check(case: tuple[WindowedView, dict[int, list[Record]], int]) -> None:
        view, partitions, unread = case
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder)
            streamed = stream(root, view, partitions, unread={0: min(unread, len(partitions[0]))})
            recomputation = recomputed(engine_name, root, view)
            assert recomputation.timeline.mismatched == 0, recomputation.timeline.mismatches
            rows = rows_of(recomputation, most_rows=MOST_ROWS[engine_name])
            assert not rows[LATE].any()
            assert_frame_equal(rows.select(streamed.columns), streamed, check_exact=True)

    check()


def test_complete_equals_a_stream_that_waits_for_all(engine_name: str) -> None:
    @settings(max_examples=EXAMPLES[engine_name], deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(st.data())
    def check(data: st.DataObject) -> None:
        view = data.draw(views())
        log = data.draw(logs(view))
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder)
            as_seen = stream(root, view, {0: log})
            rows = rows_of(recomputed(engine_name, root, view), "complete", MOST_ROWS[engine_name])
            last = reach_of(view, ProgressRecord(progress_folder(root, view.source)).load())["last"].to_list()
        patient = ReferenceWindows(on_stream(view, allowed_lateness=timedelta(days=100_000)))
        for record in log:
            patient.add(record)
        closed = patient._close(last[0] * view.slide_ms, 0) if last else []  # noqa: SLF001
        (key,), times = view.join_keys, pl.col("event_timestamp").dt.epoch("ms")
        found = {row[:2]: row[2:] for row in rows.select(key, times, *view.features).iter_rows()}
        assert found == {row[:2]: row[3:] for window in closed for row in window.rows}
        # What differs from what the stream saw is marked as late, and nothing that is on time differs.
        on_time = rows.filter(~pl.col(LATE)).select(as_seen.columns)
        assert on_time.join(as_seen, on=as_seen.columns, nulls_equal=True, how="anti").is_empty()

    check()


def test_a_range_equals_the_same_windows_of_all(engine_name: str, tmp_path: Path) -> None:
    """Three days, so that files lie before the range, in it and after it."""
    view = user_click_features
    stream(tmp_path, view, clicks(hours=60, events=3_000, partitions=3))
    whole = rows_of(recomputed(engine_name, tmp_path, view), most_rows=900)
    first = round(whole["event_timestamp"].min().timestamp() * 1000) // view.slide_ms  # type: ignore[union-attr]
    for start, end in ((first + 6 * 24, first + 6 * 30), (first + 6 * 47 + 1, None)):
        recomputation = recomputed(engine_name, tmp_path, view, start, end)
        assert recomputation.timeline.mismatched == 0, recomputation.timeline.mismatches
        index = pl.col("event_timestamp").dt.epoch("ms") // view.slide_ms
        expected = whole.filter(index >= start, pl.lit(value=True) if end is None else index <= end)
        assert len(expected) > 100
        assert_frame_equal(rows_of(recomputation, most_rows=400), expected, check_exact=True)


def test_kafka_times_may_go_back_over_days(engine_name: str, tmp_path: Path) -> None:
    """Producers with wrong clocks set them, so a record may lie on a later day than those after it."""
    view = user_click_features
    logs = clicks(hours=40, events=1_500, partitions=2)
    for log in logs.values():
        for record in log[::7]:
            record["kafka_timestamp"] += 30 * 3_600_000
        for record in log[::14]:  # such a time counts as a day ahead of the events at most
            record["create_time"] = True
        log[len(log) // 2] |= {"kafka_timestamp": 16_725_225_600_000, "create_time": True}
    streamed = stream(tmp_path, view, logs)
    recomputation = recomputed(engine_name, tmp_path, view)
    assert recomputation.timeline.mismatched == 0, recomputation.timeline.mismatches
    rows = rows_of(recomputation, most_rows=MOST_ROWS[engine_name] * 100)
    assert_frame_equal(rows.select(streamed.columns), streamed, check_exact=True)


def test_a_record_that_is_gone_shows_in_the_watermark(engine_name: str, tmp_path: Path) -> None:
    view = user_click_features
    stream(tmp_path, view, clicks(hours=3, events=500, partitions=1))
    (file,) = events_folder(tmp_path, clickstream).glob("*/*.parquet")
    events = pl.read_parquet(file)
    newest = events.filter(pl.col("event_timestamp") == pl.col("event_timestamp").cum_max())["offset"][100]
    events.filter(pl.col("offset") != newest).write_parquet(file)
    timeline = recomputed(engine_name, tmp_path, view).timeline
    assert timeline.mismatched == 1
    assert timeline.mismatches["offset"].to_list() == [newest + 1]
