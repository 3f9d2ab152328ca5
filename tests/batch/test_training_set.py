"""Training sees what serving saw: labels from the hour after, features from before, nothing from the future."""

from __future__ import annotations

import io
import json
import shutil
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest
from polars.testing import assert_frame_equal
from rich.console import Console

from batch.recompute.backfill import main as backfill
from batch.training.labels import label_of, labelled_pairs
from batch.training.training_set import main as training_set
from feast_repo.clickstream import clickstream
from feast_repo.declare.events import UTC_MICROSECONDS
from feast_repo.declare.rows import EVENT_TIME
from feast_repo.features import purchase_prediction, user_click_features as view, user_profile_features as profiles
from feast_repo.settings import StreamSettings
from feast_repo.stores.offline.tables import from_milliseconds, progress_folder
from feast_repo.stores.progress import ProgressRecord
from simulation.profiles import make_profiles, publish_profiles
from stream.windows import WindowEngine
from tests.batch.archives import NOW_MS, clicks, stream
from tests.feast_repo.conftest import opened, store  # noqa: F401  (fixtures)
from tests.stream.reference import records_frame

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from tests.stream.reference import Record

LABEL = label_of(purchase_prediction)[0].name
HORIZON, SPACING = label_of(purchase_prediction)[0].within, label_of(purchase_prediction)[0].spacing
HOURS, PARTITIONS, USERS = 5, 3, 40
LONG_BEFORE = datetime.fromtimestamp(NOW_MS / 1000, tz=UTC) - timedelta(days=30)


@pytest.fixture
def root(store: object) -> Path:  # noqa: F811
    """The data folder of Feast's store, with profiles."""
    del store
    folder = StreamSettings().data_root
    publish_profiles(make_profiles(USERS, 1), LONG_BEFORE, folder)
    return folder


def logs(**arguments: Any) -> dict[int, list[Record]]:
    return clicks(hours=HOURS, events=2_500, partitions=PARTITIONS, users=USERS, **arguments)


def built(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[pl.DataFrame, dict[str, Any]]:
    capsys.readouterr()
    assert training_set(["--json", *arguments]) == 0
    summary = json.loads(capsys.readouterr().out)
    return pl.read_parquet(summary["file"]), summary


def replayed(log: Sequence[Record]) -> dict[str, list[tuple[int, dict[str, Any]]]]:
    """What Redis holds for each user after each record, as a stream that stores rows at once would leave it."""
    engine, latest = WindowEngine(view.source, [view]), 0
    online: dict[str, list[tuple[int, dict[str, Any]]]] = {}
    for record in log:
        latest = max(latest, record["kafka_timestamp"])
        for window in engine.process(records_frame(view.source, [record])).windows:
            for row in window.rows.iter_rows(named=True):
                online.setdefault(row["user_id"], []).append((latest, row))
    return online


def served(online: Mapping[str, list[tuple[int, dict[str, Any]]]], user: str, at: datetime) -> dict[str, Any]:
    """The features that a read gives at a time."""
    at_ms = round(at.timestamp() * 1000)
    rows = [row for time_ms, row in online.get(user, []) if time_ms <= at_ms]
    if not rows or at - rows[-1][EVENT_TIME] > view.ttl:
        return view.defaults
    return {name: rows[-1][name] for name in view.features}


@pytest.mark.parametrize("delay_minutes", [0, 25, 26 * 60])
def test_a_pair_has_what_a_read_at_its_time_gave(
    root: Path, capsys: pytest.CaptureFixture[str], delay_minutes: int
) -> None:
    delayed = {
        partition: [{**record, "kafka_timestamp": record["kafka_timestamp"] + delay_minutes * 60_000} for record in log]
        for partition, log in logs().items()
    }
    stream(root, view, delayed)
    rows, summary = built(capsys)
    online = {user: rows for log in delayed.values() for user, rows in replayed(log).items()}
    expected = [served(online, user, time) for user, time in rows.select("user_id", EVENT_TIME).iter_rows()]
    assert rows.select(view.features.keys()).to_dicts() == expected
    with_row = sum(one != view.defaults for one in expected)
    assert with_row > 300 if delay_minutes < 60 else with_row == 0
    assert summary["without"][profiles.name] == 0
    if delay_minutes > 60:
        assert summary["arrived_later"][view.name] > 300
    ages = make_profiles(USERS, 1).select("user_id", *profiles.features)
    assert_frame_equal(
        rows.select("user_id", *profiles.features),
        rows.select("user_id").join(ages, on="user_id", how="left", maintain_order="left"),
    )


def test_labels_are_of_the_hour_after(root: Path) -> None:
    log = logs()
    stream(root, view, log)
    progress = ProgressRecord(progress_folder(root, clickstream)).load()
    pairs = labelled_pairs(root, purchase_prediction, progress)
    events: dict[str, list[tuple[int, bool]]] = {}
    last: dict[str, int] = {}
    reach = 0
    for partition, records in log.items():
        for record in records:
            if record["event_type"] != "heartbeat":
                reach = max(reach, record["event_timestamp"])
                bought = record["event_type"] == "purchase"
                events.setdefault(record["user_id"], []).append((record["event_timestamp"], bought))
                last[record["user_id"]] = progress[partition].watermark_ms or 0
    spacing, horizon = SPACING // timedelta(milliseconds=1), HORIZON // timedelta(milliseconds=1)
    expected = []
    for user, seen in events.items():
        times = sorted({time for time, _ in seen})
        firsts = times[:1] + [time for before, time in pairwise(times) if before // spacing != time // spacing]
        expected += [
            (time, user, any(bought and time < other <= time + horizon for other, bought in seen))
            for time in firsts
            if time + horizon <= min(last[user], reach)
        ]
    frame = pl.DataFrame(sorted(expected), schema=["ms", "user_id", LABEL], orient="row")
    assert_frame_equal(pairs, frame.select("user_id", from_milliseconds("ms").alias(EVENT_TIME), LABEL))
    assert 0.05 < frame[LABEL].mean() < 0.95  # type: ignore[operator]


def clicked(user: str, minute: float, event_type: str = "view") -> Record:
    """An event of a user, or a heartbeat, that reaches the log at its own time; minutes after NOW_MS."""
    time_ms = NOW_MS + round(minute * 60_000)
    record: Record = {"kafka_timestamp": time_ms, "event_timestamp": time_ms, "event_type": event_type}
    record |= {"event_id": f"{user}-{time_ms}", "user_id": None if event_type == "heartbeat" else user}
    return record | {"product_id": None, "session_id": None, "price_cents": None}


def labels_of(root: Path, log: Mapping[int, Sequence[Record]], **span: datetime) -> list[tuple[str, float, bool]]:
    for name in ("events", "late", "features", "progress"):
        shutil.rmtree(root / name, ignore_errors=True)
    stream(root, view, log)
    pairs = labelled_pairs(root, purchase_prediction, ProgressRecord(progress_folder(root, clickstream)).load(), **span)
    minute = (pl.col(EVENT_TIME).dt.epoch("ms") - NOW_MS) / 60_000
    return pairs.select("user_id", minute, LABEL).rows()


def test_an_hour_beyond_the_data_gives_no_label(root: Path) -> None:
    # partition 0   a views at 0, buys at 30;                b views at 50    a heartbeat at 300 closes all windows
    # partition 1                               c views at 40                 a heartbeat at 300
    # The data end at 50: not even the hour after 0 has been seen to its end.
    closing = [clicked("", 300, "heartbeat")]
    first = [clicked("a", 0), clicked("a", 30, "purchase"), clicked("b", 50)]
    assert labels_of(root, {0: [*first, *closing], 1: [clicked("c", 40), *closing]}) == []
    # Somebody else clicks at 100, in the other partition: the stream was recording until then, so a quiet partition's
    # heartbeats tell that nobody bought.
    second = [clicked("c", 40), clicked("d", 100), *closing]
    known = [("a", 0.0, True), ("a", 30.0, False), ("c", 40.0, False)]
    assert labels_of(root, {0: [*first, *closing], 1: second}) == known
    # The very end of the hour is enough, and a moment before is not.
    last_known = [("b", 50.0, False)]
    for minute, more in ((110.0, last_known), (109.999, [])):
        logs = {0: [*first, *closing], 1: [clicked("c", 40), clicked("d", minute), *closing]}
        assert labels_of(root, logs) == known + more
    # Without the heartbeats, the event in partition 1 says nothing of partition 0.
    assert labels_of(root, {0: first, 1: second}) == known[2:]
    # A range sees the events after it, too: whether a label is known does not depend on it.
    logs = {0: [*first, *closing], 1: [clicked("c", 40), clicked("d", 290), *closing]}
    start, end = (datetime.fromtimestamp(NOW_MS / 1000 + 60 * minute, tz=UTC) for minute in (20, 60))
    assert labels_of(root, logs, start=start, end=end) == known[1:] + last_known


def test_people_see_what_takes_so_long(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stream(root, view, logs())
    screen = io.StringIO()
    monkeypatch.setattr(
        "batch.training.training_set.Console", lambda **_: Console(file=screen, force_terminal=True, width=200)
    )
    assert training_set(["--json"]) == 0
    seen = screen.getvalue()
    pairs = labelled_pairs(root, purchase_prediction, ProgressRecord(progress_folder(root, clickstream)).load())
    assert "reading events, labelling pairs" in seen
    assert "opening the feature store" in seen
    for (day,), part in pairs.group_by(pl.col(EVENT_TIME).dt.strftime("%Y-%m-%d")):
        assert f"joining {len(part):,} pairs of {day}" in seen


def test_a_range_is_a_part_of_the_whole(root: Path) -> None:
    stream(root, view, logs())
    progress = ProgressRecord(progress_folder(root, clickstream)).load()
    pairs = labelled_pairs(root, purchase_prediction, progress)
    start, end = pairs[EVENT_TIME][0] + timedelta(minutes=63, seconds=30), pairs[EVENT_TIME][-1] - timedelta(minutes=25)
    assert_frame_equal(
        labelled_pairs(root, purchase_prediction, progress, start, end),
        pairs.filter(pl.col(EVENT_TIME) >= start, pl.col(EVENT_TIME) < end),
    )


def test_no_feature_looks_into_the_future(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = logs()
    stream(root, view, log)
    now_ms = max(record["kafka_timestamp"] for records in log.values() for record in records)
    cut_ms = now_ms - 3 * 3_600_000
    before, _ = built(capsys)

    def other(record: Record) -> Record:
        if record["kafka_timestamp"] <= cut_ms or record["event_type"] == "heartbeat":
            return record
        return {**record, "event_type": "purchase", "price_cents": 77}

    for name in ("events", "late", "features", "progress"):
        (root / name).rename(tmp_path / name)
    stream(root, view, {partition: [other(record) for record in records] for partition, records in log.items()})
    publish_profiles(make_profiles(USERS, 1), LONG_BEFORE, root)
    after, _ = built(capsys)
    cut = pl.lit(cut_ms * 1000).cast(UTC_MICROSECONDS)
    assert_frame_equal(
        before.filter(pl.col(EVENT_TIME) <= cut).drop(LABEL), after.filter(pl.col(EVENT_TIME) <= cut).drop(LABEL)
    )
    assert before.filter(pl.col(EVENT_TIME) <= cut).height > 100
    later = [frame.filter(pl.col(EVENT_TIME) > cut)["revenue_cents"].to_list() for frame in (before, after)]
    assert later[0] != later[1]


def test_healed_takes_the_corrections(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stream(root, view, logs(late=0.2))
    as_served, _ = built(capsys)
    assert backfill(["--json", "--mode", "complete", "--heal"]) == 0
    again, _ = built(capsys)
    assert_frame_equal(as_served, again)
    healed, summary = built(capsys, "--healed", "--to", str(root / "healed.parquet"))
    assert_frame_equal(healed.select(as_served.columns[:3]), as_served.select(as_served.columns[:3]))
    assert healed["view_count"].sum() > as_served["view_count"].sum()
    assert summary["healed"]


def test_an_hour_that_is_not_over_gives_no_label(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert_says(capsys, "has no event in this range")
    stream(root, view, {0: logs()[0][:10]})
    assert_says(capsys, "has no event in this range")


def assert_says(capsys: pytest.CaptureFixture[str], text: str) -> None:
    with pytest.raises(SystemExit) as stopped:
        training_set([])
    assert stopped.value.code == 2
    said = capsys.readouterr().err
    assert text in said
    assert said.count("\n") == 1
