"""Late events excuse what they make and nothing else: any stored value that is altered is found."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import cache
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest
from hypothesis import given, settings, strategies as st

from batch.parity.comparison import ParityComparison
from batch.parity.explanation import Truth
from batch.recompute.backfill import main as backfill
from batch.recompute.polars_engine import PolarsEngine
from batch.recompute.reaches import COLUMNS, Reaches
from batch.recompute.recomputation import recompute, scope_of
from batch.recompute.stored import effective, stored_rows
from feast_repo.clickstream import clickstream
from feast_repo.features import user_click_features as view
from feast_repo.stores.offline.tables import event_columns, events_folder, features_folder, progress_folder
from feast_repo.stores.progress import ProgressRecord
from stream.log_table import LogTable
from tests.batch.archives import clicks, stream
from tests.stream.reference import records_frame

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path

    from batch.recompute.archive import Chunk, Mode
    from batch.recompute.recomputation import Recomputation
    from tests.stream.reference import Record

FEATURES = list(view.features)
LATE_TWICE = ("user_000003", "user_000004")


@dataclass(frozen=True, eq=False)
class Land:
    """A data folder's rows and what they are compared with, each computed once."""

    recomputation: Recomputation
    chunk: Chunk
    truth: Truth
    stored: pl.DataFrame

    def judge(self, mode: Mode, stored: pl.DataFrame) -> ParityComparison:
        comparison = ParityComparison(view, mode)
        comparison.add(self.truth, stored)
        return comparison

    @cache  # noqa: B019  (there is one)
    def compared(self, mode: Mode) -> list[dict[str, Any]]:
        """The stored rows that a mode holds to something, those of batch in front."""
        rows = effective(view, self.stored)
        if mode == "as-seen":  # of what a complete backfill has, those who had events in time
            seen = self.truth.rows(mode).select("user_id", "event_timestamp")
            backfilled = self.stored.filter(pl.col("writer") == "backfill").join(seen, on=seen.columns, how="semi")
            rows = pl.concat([self.stored.filter(pl.col("writer") == "stream"), backfilled])
        return rows.sort("writer", "event_timestamp", "user_id").to_dicts()


def late_events(root: Path, user: str, number: int) -> None:
    """More events of a user that come after all their windows, archived and on record as the stream would."""
    record = ProgressRecord(progress_folder(root, clickstream))
    events = pl.read_parquet(events_folder(root, clickstream) / "*" / "*.parquet", hive_partitioning=False)
    of_user = events.filter(pl.col("user_id") == user).sort("event_timestamp")
    progress = record.load()[of_user["partition"][0]]
    late: list[Record] = [
        {
            **dict.fromkeys(view.source.schema),
            "event_id": f"{user}-{number}-{index}",
            "user_id": user,
            "event_type": "view",
            "event_timestamp": round(time.timestamp() * 1000),
            "kafka_timestamp": (progress.watermark_ms or 0) + 3_600_000,
        }
        for index, time in enumerate(of_user["event_timestamp"].gather_every(7))
    ]
    frame = records_frame(view.source, late).with_columns(
        pl.int_range(progress.next_offset, progress.next_offset + pl.len(), dtype=pl.Int64).alias("offset"),
        pl.lit(progress.watermark_ms, pl.Int64).alias("watermark"),
    )
    table = LogTable(events_folder(root, clickstream), event_columns(view.source))
    table.append(progress.partition, frame)
    table.flush()
    record.save(replace(progress, next_offset=progress.next_offset + len(late)))


@pytest.fixture(scope="module")
def land(tmp_path_factory: pytest.TempPathFactory) -> Land:
    """Rows of all writers: streamed, backfilled in both modes, healed; and late events before, between and after."""
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("DATA_ROOT", str(root := tmp_path_factory.mktemp("land")))
        ends = stream(root, view, clicks(hours=5, events=1_500, partitions=2, late=0.1))["event_timestamp"]
        first: datetime = min(ends.to_list())
        cuts = [(first + timedelta(minutes=minutes)).isoformat() for minutes in (60, 120, 240)]
        for file in features_folder(root, view.name).glob("*/*.parquet"):
            rows = pl.read_parquet(file, hive_partitioning=False)
            if rows["event_timestamp"][0] < first + timedelta(minutes=120):
                file.unlink()
        assert backfill(["--json", "--end", cuts[0]]) == 0
        assert backfill(["--json", "--mode", "complete", "--start", cuts[0], "--end", cuts[1]]) == 0
        late_events(root, LATE_TWICE[0], 1)
        environment.setattr("batch.recompute.backfill._open_online", lambda *_: None)  # no Redis here
        assert backfill(["--json", "--mode", "complete", "--heal", "--start", cuts[1], "--end", cuts[2]]) == 0
        for user in LATE_TWICE:
            late_events(root, user, 2)
        recomputation = recompute(PolarsEngine(events_folder(root, clickstream)), scope_of(root, view, None, None))
        (chunk,) = recomputation.chunks()
        truth = Truth(recomputation, chunk, Reaches(root, view).load())
        return Land(recomputation, chunk, truth, stored_rows(root, view, chunk.first, chunk.last))


@pytest.mark.parametrize("mode", ["as-seen", "complete"])
def test_late_events_explain_what_they_made(land: Land, mode: Mode) -> None:
    found = land.judge(mode, land.stored)
    assert found.unexplained == 0, found.examples
    assert set(land.stored["writer"]) == {"stream", "backfill", "heal"}
    if mode == "complete":
        held = effective(view, land.stored)
        differing = held.join(land.truth.rows("complete"), on=["user_id", "event_timestamp", *FEATURES], how="anti")
        assert set(differing["writer"]) == {"stream", "backfill", "heal"}
        assert found.explained == len(differing) + found.only_in_batch > 30


@settings(max_examples=100)
@given(st.data())
@pytest.mark.parametrize("mode", ["as-seen", "complete"])
def test_any_altered_value_is_found_and_named(land: Land, mode: Mode, data: st.DataObject) -> None:
    rows = land.compared(mode)
    writer = data.draw(st.sampled_from(sorted({row["writer"] for row in rows})))
    row = data.draw(st.sampled_from([row for row in rows if row["writer"] == writer]))
    columns = [*FEATURES, *(["created_timestamp"] if writer == "stream" else [])]
    name = data.draw(st.sampled_from(columns))
    value = data.draw(altered(row[name]).filter(lambda value: value != row[name]))
    if writer == "backfill" and is_another_truth(land, {**row, name: value}):
        return  # as seen or complete: nobody knows in which mode a backfill ran
    is_hit = pl.all_horizontal(pl.col(key) == row[key] for key in ("user_id", "event_timestamp", "created_timestamp"))
    changed = pl.when(is_hit).then(pl.lit(value, land.stored.schema[name])).otherwise(name)
    found = land.judge(mode, land.stored.with_columns(changed.alias(name)))
    assert found.unexplained == 1
    example = found.examples[0]
    assert (example["entity"], example["window_end"]) == (row["user_id"], row["event_timestamp"].isoformat())
    assert (example["writer"], example["explained"]) == (writer, False)
    # A row that late events changed differs from today's truth in more, and the altered value may happen to be today's.
    today = land.truth.rows(mode).filter(user_id=row["user_id"], event_timestamp=row["event_timestamp"])
    named = {one["feature"] for one in found.examples if not one["explained"]}
    assert named
    may_differ = writer != "stream" or mode == "complete"
    assert name in named or (may_differ and value == today[name].item())


def altered(value: Any) -> st.SearchStrategy[Any]:
    """Values near and far."""
    if isinstance(value, int):
        return st.integers(-3, 3).map(lambda step: value + step) | st.integers(-(2**63), 2**63 - 1)
    if isinstance(value, float):
        return st.sampled_from([math.nextafter(value, 2.0), 1 - value, 0.5]) | st.floats(allow_nan=False)
    return st.integers(-3, 3).map(lambda step: value + timedelta(microseconds=step))


def is_another_truth(land: Land, row: dict[str, Any]) -> bool:
    candidates = [*map(land.truth.rows, ("as-seen", "complete")), *land.truth.as_of("backfill")]
    keys = {name: row[name] for name in ("user_id", "event_timestamp", *FEATURES)}
    return any(not rows.filter(**keys).is_empty() for rows in candidates)


def test_a_row_of_the_stream_that_is_missing_is_not_excused_by_a_late_event(land: Land) -> None:
    late = land.truth.rows("complete").filter("#late").join(
        land.truth.rows("as-seen"), on=["user_id", "event_timestamp"], how="semi"
    )  # fmt: skip
    row = land.stored.filter(pl.col("writer") == "stream").join(late, on=["user_id", "event_timestamp"], how="semi")
    gone = row.head(1).select("user_id", "event_timestamp")
    found = land.judge("complete", land.stored.join(gone, on=gone.columns, how="anti"))
    assert (found.unexplained, found.examples[0]["feature"]) == (1, "only in batch")


def test_a_healed_row_of_which_no_reach_is_on_record_must_be_the_truth(land: Land) -> None:
    comparison = ParityComparison(view, "complete", most_examples=1_000)
    comparison.add(Truth(land.recomputation, land.chunk, pl.DataFrame(schema=COLUMNS)), land.stored)
    wrong = {(one["entity"], one["writer"]) for one in comparison.examples if not one["explained"]}
    assert wrong >= {(user, "heal") for user in LATE_TWICE}
    healed = effective(view, land.stored).filter(pl.col("writer") == "heal")
    assert {user for user, writer in wrong if writer == "heal"} < set(healed["user_id"])
