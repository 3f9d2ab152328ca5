"""Features for rows of one's own: one row out for each row in, and nothing of it is changed."""

from __future__ import annotations

import json
import random
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batch.training.training_set import main as training_set
from feast_repo.clickstream import clickstream
from feast_repo.declare.rows import EVENT_TIME
from feast_repo.features import purchase_prediction, user_click_features as view, user_profile_features as profiles
from feast_repo.settings import StreamSettings
from feast_repo.stores.offline.tables import events_folder
from sandbox.checks import rows_of
from simulation.profiles import make_profiles, publish_profiles
from tests.batch.archives import NOW_MS, clicks, store as store_rows, stream
from tests.batch.other_repo import paid, write_repo
from tests.commands import main_of
from tests.declared import card_features, shop_of_card_features, shop_windows
from tests.feast_repo.conftest import opened, store  # noqa: F401  (fixtures)
from tests.stream.reference import ReferenceWindows

if TYPE_CHECKING:
    from collections.abc import Mapping

HOURS, PARTITIONS, USERS = 5, 3, 40
MS, HOUR = 1_000_000, 3_600_000_000_000
"""In nanoseconds."""
START = NOW_MS * MS - HOURS * HOUR
PROFILED = START - 30 * 24 * HOUR
PROFILES = {row["user_id"]: row for row in make_profiles(USERS, 1).to_dicts()}
FEATURES = {**view.defaults, **profiles.defaults}
FIRST, LAST = datetime(1, 1, 2, tzinfo=UTC), datetime(9999, 12, 30, tzinfo=UTC)
ZONES = {"Z": 0, "+00:00": 0, "+05:30": 330, "-0800": -480, "+01": 60, "": 0}


@pytest.fixture
def root(store: object) -> Path:  # noqa: F811
    """The data folder of a stream that has run, with profiles from long before."""
    del store
    folder = StreamSettings().data_root
    publish_profiles(make_profiles(USERS, 1), at(PROFILED), folder)
    stream(folder, view, clicks(hours=HOURS, events=2_500, partitions=PARTITIONS, users=USERS))
    return folder


@pytest.fixture
def cards(tmp_path: Path, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The data folder of another catalog, whose services have entities of several keys."""
    monkeypatch.setenv("FEATURE_REPO", str(write_repo(tmp_path / "repo")))
    monkeypatch.setenv("REDIS_URL", redis_url)
    folder = StreamSettings().data_root
    stream(folder, card_features, paid(), beside=[shop_of_card_features])
    return folder


def at(nanoseconds: int) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=nanoseconds // 1000)


def iso(nanoseconds: int, zone: str = "Z") -> str:
    local = nanoseconds + ZONES[zone] * 60_000_000_000
    return f"{at(local):%Y-%m-%dT%H:%M:%S}.{local % 1_000_000_000:09d}{zone}"


def built(capsys: pytest.CaptureFixture[str], path: Path, *arguments: str) -> tuple[pa.Table, dict[str, Any]]:
    capsys.readouterr()
    assert training_set(["--json", "--pairs", str(path), *arguments]) == 0
    summary = json.loads(capsys.readouterr().out)
    with pq.ParquetFile(summary["file"]) as file:
        return file.read(), summary


def refused(capsys: pytest.CaptureFixture[str], path: Path, *arguments: str) -> str:
    capsys.readouterr()
    with pytest.raises(SystemExit) as stopped:
        training_set(["--pairs", str(path), *arguments])
    assert stopped.value.code == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1, said
    return said


def of_the_archive(root: Path) -> dict[str, list[tuple[int, int, dict[str, Any]]]]:
    """By user the rows of the view: window end and creation in ns, values; from the archived events in plain Python."""
    events = rows_of(events_folder(root, clickstream)).with_columns(
        pl.col(EVENT_TIME, "kafka_timestamp").dt.epoch("ms")
    )
    stored: dict[str, list[tuple[int, int, dict[str, Any]]]] = {}
    for partition in sorted(set(events["partition"])):
        windows = ReferenceWindows(view)
        for record in events.filter(partition=partition).sort("offset").iter_rows(named=True):
            for window in windows.add(record)[2]:
                for user, end_ms, created_ms, *values in window.rows:
                    row = end_ms * MS, created_ms * MS, dict(zip(view.features, values, strict=True))
                    stored.setdefault(user, []).append(row)
    return stored


def answer(
    rows: Mapping[str, list[tuple[int, int, dict[str, Any]]]], user: str | None, time: int | None, *, as_known: bool
) -> dict[str, Any]:
    if user is None or time is None:
        return FEATURES
    fits = [row for row in rows.get(user, []) if row[0] <= time and (row[1] <= time or not as_known)]
    newest = max(fits, default=None, key=lambda row: row[0])
    found = view.defaults if newest is None or time - newest[0] > ttl_of(view) else newest[2]
    given = PROFILES.get(user, {}) if PROFILED <= time <= PROFILED + ttl_of(profiles) else {}
    kept = {name: value for name, value in given.items() if name in profiles.features and value is not None}
    return {**FEATURES, **found, **kept}


def ttl_of(declared: Any) -> int:
    return int(declared.ttl / timedelta(microseconds=1)) * 1000


@pytest.mark.parametrize("mode", ["--as-created", "--healed", None])
def test_each_row_of_a_csv_has_what_the_archived_events_make(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], mode: str | None
) -> None:
    rows, chance = of_the_archive(root), random.Random(1)
    users = [*rows, "nobody"]
    asked: list[tuple[str | None, int | None]] = [
        (chance.choice(users), START + chance.randrange(-2 * HOUR, 32 * HOUR)) for _ in range(500)
    ]
    for user in list(rows)[:10]:
        for end, created, _ in (rows[user][0], rows[user][-1]):
            edges = [end, created, end + ttl_of(view), PROFILED, PROFILED + ttl_of(profiles)]
            asked += [(user, edge + by) for edge in edges for by in (-1, 0, 1)]
    asked += [(None, START + 3 * HOUR), (users[0], None), (None, None), asked[0], asked[0]]
    chance.shuffle(asked)
    path = tmp_path / "mine.csv"
    written = [iso(time, chance.choice(list(ZONES))) if time is not None else "" for _, time in asked]
    lines = [
        f"{number},{user or ''},{time},x" for number, ((user, _), time) in enumerate(zip(asked, written, strict=True))
    ]
    path.write_text("\n".join(["number,user_id,event_timestamp,note", *lines]))
    got, summary = built(capsys, path, *([mode] if mode else []))
    assert got.column_names == ["number", "user_id", EVENT_TIME, "note", *FEATURES]
    assert got["number"].to_pylist() == list(range(len(asked)))
    assert got["user_id"].to_pylist() == [user for user, _ in asked]
    assert got[EVENT_TIME].type == pa.timestamp("ns", "UTC")
    assert got[EVENT_TIME].cast(pa.int64()).to_pylist() == [time for _, time in asked]
    expected = [answer(rows, user, time, as_known=mode != "--healed") for user, time in asked]
    assert got.select(list(FEATURES)).to_pylist() == expected
    assert sum(one["view_count"] > 0 for one in expected) > 100
    assert summary["rows"] == len(asked)
    assert "purchased" not in summary


def table_of_all_types(users: list[str | None], times: list[int | None], dtype: pa.DataType) -> pa.Table:
    divisor = {"ms": MS, "us": 1000, "ns": 1}[dtype.unit]
    count = len(users)
    columns: dict[str, Any] = {
        "b": pa.array([None if n % 3 else bytes([n % 256]) for n in range(count)]),
        "user_id": pa.array(users).dictionary_encode(),
        "nested": pa.array([{"a": [n, None]} if n % 2 else None for n in range(count)]),
        EVENT_TIME: pa.array([None if time is None else time // divisor for time in times], pa.int64()).cast(dtype),
        "elsewhere": pa.array([n * 10**9 + 1 for n in range(count)], pa.timestamp("ns", "America/New_York")),
        "f16": pa.array([np.float16(n) for n in range(count)]),
        "d256": pa.array(list(range(count))).cast(pa.decimal256(60, 2)),
        "nothing": pa.nulls(count),
        "a b.c": pa.array([float("nan")] * count),
    }
    return pa.table(columns).replace_schema_metadata({"mine": "kept"})


@pytest.mark.parametrize("unit", ["ms", "us", "ns"])
@pytest.mark.parametrize("zone", [None, "UTC", "+05:30", "Asia/Kolkata"])
def test_a_parquet_file_keeps_its_columns(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], unit: str, zone: str | None
) -> None:
    rows, chance = of_the_archive(root), random.Random(2)
    step = {"ms": MS, "us": 1000, "ns": 1}[unit]
    users: list[str | None] = [chance.choice([*rows, None]) for _ in range(100)] * 2
    times: list[int | None] = [START + chance.randrange(0, 12 * HOUR) // step * step for _ in range(99)]
    times = [*times, None] * 2
    if unit != "ns":
        times[:2] = [round(end.timestamp()) * 1000 * MS for end in (FIRST, LAST)]
    table, path = table_of_all_types(users, times, pa.timestamp(unit, zone)), tmp_path / "mine.parquet"
    pq.write_table(table, path, row_group_size=7)
    got, _ = built(capsys, path, "--as-created", "--to", str(tmp_path / "out.parquet"))
    stored = pq.read_table(path)
    assert got.schema.field(EVENT_TIME).type == pa.timestamp(unit, zone)
    assert got.select(table.column_names).schema.equals(stored.schema)
    assert got.schema.metadata[b"mine"] == b"kept"
    for name in table.column_names:
        kept, given = (one[name].combine_chunks().to_pylist() for one in (got, stored))
        assert repr(kept) == repr(given)
    expected = [answer(rows, user, time, as_known=True) for user, time in zip(users, times, strict=True)]
    assert got.select(list(FEATURES)).to_pylist() == expected


def test_seconds_and_integers_of_any_width_are_taken(
    cards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stored = rows_of(cards / "features" / "shop_of_card_features").filter(pl.col("pair_count") > 0)
    row = stored.sort("pair_count", "shop").row(-1, named=True)
    second = int(row["created_timestamp"].timestamp()) + 1
    for dtype in (pa.int8(), pa.uint64(), pa.int64()):
        table = pa.table(
            {
                "shop": pa.array(
                    [row["shop"], None, row["shop"]], dtype.value_type if dtype == "dictionary" else None
                ).cast(dtype),
                "card_id": pa.array([row["card_id"], row["card_id"], None], pa.large_string()),
                EVENT_TIME: pa.array([second] * 3, pa.timestamp("s")),
            }
        )
        pq.write_table(table, tmp_path / "mine.parquet")
        got, summary = built(capsys, tmp_path / "mine.parquet", "--service", "fraud", "--as-created")
        assert got["pair_cents"].to_pylist() == [row["pair_cents"], 0, 0]
        counts = got["card_count"].to_pylist()
        assert counts[0] == counts[1] > counts[2] == 0  # a null only concerns the views with this key
        assert summary["without"] == {"card_features": 1, "shop_of_card_features": 2, "shop_features": 3}


def test_a_null_beside_great_integers_rounds_none(
    cards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shops, end = [2**53, 2**53 + 1, 2**63 - 1], at(START)
    rows = pl.DataFrame({"shop": shops, "shop_count": [1, 2, 3]})
    rows = rows.with_columns(pl.lit(end).alias(EVENT_TIME), pl.lit(end).alias("created_timestamp"))
    store_rows(cards, shop_windows, rows, "stream", 0, START // MS)
    asked = pa.array([2**53 + 1, None, 2**63 - 1, 2**53, -(2**53)])
    pq.write_table(pa.table({"shop": asked, EVENT_TIME: [end] * 5}), tmp_path / "mine.parquet")
    got, _ = built(capsys, tmp_path / "mine.parquet", "--service", "shops")
    assert got["shop_count"].to_pylist() == [2, 0, 3, 1, 0]


def test_a_service_without_a_label(cards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    del cards
    path = tmp_path / "mine.csv"
    path.write_text("large,shop,event_timestamp\ntrue,3,2026-01-05T09:00:00Z\n,,\n")
    got, summary = built(capsys, path, "--service", "shops")
    features = {"shop_count": 0, "country": "??", "chargebacks": None}
    assert got.to_pylist()[1] == {"large": None, "shop": None, EVENT_TIME: None, **features}
    assert "large" not in summary


def test_a_csv_loses_nothing(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    del root
    columns = {
        "user_id": ["007", "", '"a,\nb"'],
        EVENT_TIME: ["2026-01-05 09:00:00+0100", "2026-01-05t08:00:00.500001z", "2026-01-05T08:00:00"],
        "zip": ["01234", "99999", ""],
        "count": ["-3", "0", str(2**63 - 1)],
        "beyond": ["1", "2", str(2**63)],
        "price": ["1.10", "5", "1e3"],
        "share": ["0.1", "0.30000000000000004", "NaN"],
        "exact": ["0.1", "0.3000000000000000444", "1"],
        "yes": ["true", "False", ""],
        "words": ["", '""', "x"],
        "none": ["", "", ""],
    }
    lines = [",".join(columns), *(",".join(row) for row in zip(*columns.values(), strict=True))]
    path = tmp_path / "mine.csv"
    path.write_bytes(b"\xef\xbb\xbf" + "\r\n".join(lines).encode())
    got, _ = built(capsys, path)
    rows = pl.DataFrame(got)
    eight = datetime(2026, 1, 5, 8, tzinfo=UTC)
    assert rows[EVENT_TIME].to_list() == [eight, eight + timedelta(microseconds=500_001), eight]
    assert rows.schema[EVENT_TIME] == pl.Datetime("us", "UTC")
    assert rows["user_id"].to_list() == ["007", None, "a,\nb"]
    assert rows["zip"].to_list() == ["01234", "99999", None]
    assert rows["count"].to_list() == [-3, 0, 2**63 - 1]
    assert rows["beyond"].to_list() == ["1", "2", str(2**63)]
    assert rows["price"].to_list() == [1.1, 5.0, 1000.0]
    assert str(rows["share"].to_list()) == "[0.1, 0.30000000000000004, nan]"
    assert rows["exact"].to_list() == columns["exact"]
    assert rows["yes"].to_list() == [True, False, None]
    assert rows["words"].to_list() == [None, "", "x"]
    assert rows["none"].to_list() == [None] * 3


TIME = "2026-01-05T09:00:00Z"
BAD_CSV = {
    f"user_id,time\na,{TIME}\n": f"lacks the column '{EVENT_TIME}'",
    f"user_id;event_timestamp\na;{TIME}\n": "the file has 'user_id;event_timestamp'",
    "": "has no rows",
    "user_id,event_timestamp\n": "has no rows",
    f"user_id,event_timestamp,age\na,{TIME},3\n": "the column 'age' has the name of a feature of service",
    f"user_id,event_timestamp,x,x\na,{TIME},3,3\n": "the column 'x' is there 2 times",
    f"user_id,event_timestamp\na,{TIME}\nb,yesterday\n": "row 2, column 'event_timestamp': 'yesterday' is no",
    "user_id,event_timestamp\na,1767600000000\n": "row 1",
    "user_id,event_timestamp\na,2026-02-30T00:00:00Z\n": "row 1",
    "user_id,event_timestamp\na,2026-01-05\n": "write it like 2026-03-01T12:00:00Z",
    "user_id,event_timestamp\na,2026-01-05T09:00:00.0000000001Z\n": "row 1",
    f"user_id,event_timestamp\na,{TIME[:-1]}.000000001Z\nb,1500-01-01T00:00:00Z\n": "row 2",
    f"user_id,event_timestamp\na,{TIME}\nb\n": "Row #3: Expected 2 columns, got 1",
}


@pytest.mark.parametrize(("text", "says"), BAD_CSV.items())
def test_a_bad_csv_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, says: str) -> None:
    path = tmp_path / "mine.csv"
    path.write_text(text)
    said = refused(capsys, path)
    assert said.startswith(f"batch.training_set: {path}")
    assert says in said
    assert not (StreamSettings().data_root / "training").exists()


def test_a_key_that_is_no_integer_is_named(cards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    del cards
    path = tmp_path / "mine.csv"
    for wrong in ("x", "3.0", "007", str(2**63)):
        path.write_text(f"shop,event_timestamp\n3,{TIME}\n{wrong},{TIME}\n")
        said = refused(capsys, path, "--service", "shops")
        assert f"{path}: row 2, column 'shop': '{wrong}' is not an integer of 64 bits" in said
    path = tmp_path / "mine.parquet"
    times = pa.array([0], pa.timestamp("us"))
    pq.write_table(pa.table({"shop": [3.0], EVENT_TIME: times}), path)
    assert "the column 'shop' is double, but this join key is Int64" in refused(capsys, path, "--service", "shops")


def test_a_bad_parquet_file_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, times = tmp_path / "mine.parquet", pa.array([0, 1], pa.timestamp("us"))
    beyond = pa.array([0, 2**62], pa.timestamp("us", "UTC"))
    bad = {
        "the column 'user_id' is int64, but this join key is String": {"user_id": [1, 2], EVENT_TIME: times},
        "the column 'event_timestamp' is string: write it as a timestamp": {"user_id": ["a"], EVENT_TIME: [TIME]},
        "row 2, column 'event_timestamp': the time is not within": {"user_id": ["a", "b"], EVENT_TIME: beyond},
        "the column 'country' has the name of a feature": {"user_id": ["a", "b"], EVENT_TIME: times, "country": [1, 2]},
        "has no rows": {"user_id": pa.array([], pa.string()), EVENT_TIME: times[:0]},
    }
    for says, columns in bad.items():
        pq.write_table(pa.table(columns), path)
        said = refused(capsys, path)
        assert str(path) in said
        assert says in said
    twice = pa.table([pa.array(["a"]), times[:1], pa.array([1]), pa.array([2])], ["user_id", EVENT_TIME, "x", "x"])
    pq.write_table(twice, path)
    assert "the column 'x' is there 2 times" in refused(capsys, path)
    pq.write_table(pa.table({"user_id": ["a", "b"], EVENT_TIME: times, "x": ["word"] * 2}), path)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    assert f"{path} can't be read" in refused(capsys, path)
    other = path.with_suffix(".txt")
    other.write_bytes(content)
    assert f"{other} is neither .csv nor .parquet" in refused(capsys, other)


def test_what_does_not_go_together(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "mine.csv"
    path.write_text(f"user_id,event_timestamp\na,{TIME}\n")
    for option in ("--start", "--end"):
        assert "--start and --end choose archived events" in refused(capsys, path, option, "2026-01-01")
    mine = tmp_path / "mine.parquet"
    pl.read_csv(path).with_columns(pl.col(EVENT_TIME).str.to_datetime(time_zone="UTC")).write_parquet(mine)
    assert "would be replaced by the training set" in refused(capsys, mine, "--to", str(mine))


def test_a_label_of_ones_own_trains_a_model(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows, chance = of_the_archive(root), random.Random(3)
    label = purchase_prediction.label
    assert label is not None
    path, count = tmp_path / "mine.parquet", 2_000
    users = [chance.choice(list(rows)) for _ in range(count)]
    times = [START + chance.randrange(HOURS * HOUR) for _ in range(count)]
    bought = [
        answer(rows, user, time, as_known=True)["view_count"] > chance.randrange(12)
        for user, time in zip(users, times, strict=True)
    ]
    zoned = pa.array(times, pa.timestamp("ns", "Asia/Kolkata"))
    pq.write_table(pa.table({label.name: bought, "user_id": users, EVENT_TIME: zoned, "extra": users}), path)
    got, summary = built(capsys, path, "--as-created")
    assert got.column_names[:4] == [label.name, "user_id", EVENT_TIME, "extra"]
    assert summary[label.name] == sum(bought)
    main_of("serving.train")(["--training-set", summary["file"], "--force", "--json"])
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert told["promoted"]
    rows_seen = json.loads((Path(told["model"]) / "model.json").read_text())
    assert 0.5 * count < rows_seen["training_rows"] + rows_seen["holdout_rows"] <= count
    without = pl.DataFrame(got).with_columns(
        pl.when(pl.col("extra") != users[0]).then(pl.col(label.name)).alias(label.name)
    )
    without.write_parquet(path)
    with pytest.raises(SystemExit, match="2"):
        main_of("serving.train")(["--training-set", str(path)])
    assert f"rows have no {label.name}: leave them out" in capsys.readouterr().err
