"""History comes in by the stream's rules: what the stream refuses is rejected with its place, and nothing is cast."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given, strategies as st

from batch.history import lines as history_lines
from batch.history.importing import History, bring_in
from batch.recompute.archive import ArchiveError
from batch.recompute.backfill import main as backfill
from feast_repo.clickstream import clickstream
from feast_repo.codec.decoding import Decoder, RawBatch
from feast_repo.features import user_click_features as view
from feast_repo.settings import StreamSettings
from feast_repo.stores.offline.foreign import ForeignFileError
from feast_repo.stores.offline.parquet import publish
from simulation.malformed import flaws

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

T = 1_767_225_600_000
BASE = {"event_id": "e", "user_id": "u1", "event_type": "purchase", "event_timestamp": T, "price_cents": 1999}
FIELDS = list(clickstream.schema)
Row = dict[str, Any]


def rows_of(history: History) -> list[Row]:
    files = sorted(history.folder.rglob("*.parquet"))
    rows = pl.concat([pl.read_parquet(file, hive_partitioning=False) for file in files]).sort("offset")
    return rows.with_columns(pl.col("event_timestamp").dt.epoch("ms")).select(FIELDS).to_dicts()


def brought(source: Path) -> tuple[list[Row], list[tuple[int, str]]]:
    """What history accepts of a file, and what it rejects: line or row, and reason."""
    rejects = source.with_suffix(".rejects")
    try:
        rows = rows_of(bring_in(view, source, 4, source.with_suffix(".out"), rejects))
    except ArchiveError:
        rows = []
    if not rejects.exists():
        return rows, []
    lines = [json.loads(line) for line in rejects.read_text().split("\n")[:-1]]
    assert {line["file"] for line in lines} == {str(source)}
    return rows, [(line.get("line") or line["row"], line["reason"]) for line in lines]


def by_stream(values: Sequence[bytes]) -> tuple[list[Row], list[tuple[int, str]]]:
    """What the stream makes of the same documents, each with the message key that its own field gives."""
    now_ms, count = time.time_ns() // 1_000_000, len(values)
    batch = RawBatch(0, list(values), [_key(value) for value in values], [now_ms] * count, list(range(1, count + 1)))
    decoded = Decoder(clickstream).decode(batch)
    records = decoded.records.filter(pl.col("event_type") != "heartbeat").select(FIELDS)
    return records.to_dicts(), decoded.dead_letters.select("offset", "reason").rows()


def _key(value: bytes) -> bytes | None:
    try:
        user = json.loads(value)["user_id"]
        return user.encode() if isinstance(user, str) else None
    except (ValueError, TypeError, KeyError):
        return None


# --- JSON lines


def malformed() -> Iterator[bytes]:
    """Every way in which a message can be broken, but for what a line can't hold, and what only a key can tell."""
    for flaw in flaws(clickstream):
        yield flaw.apply(dict(BASE), T)
    for change in (1999.0, 2**70, True, [1999], "1999", 19.99):
        yield json.dumps({**BASE, "price_cents": change}).encode()
    yield json.dumps(BASE).encode().replace(b'"price_cents": 1999', b'"price_cents": 5, "price_cents": 7')
    yield json.dumps({**BASE, "product_id": "Tea\u2028pot\u0085"}, ensure_ascii=False).encode()


def test_lines_are_judged_as_messages_are(tmp_path: Path) -> None:
    values = [value for value in malformed() if b"\n" not in value]
    source = tmp_path / "history.jsonl"
    source.write_bytes(b"\n".join(values) + b"\n")
    # A flaw that is only one beside another message key is none in a file: there the field is the key.
    accepted, rejected = brought(source)
    assert (accepted, rejected) == by_stream(values)
    assert len(rejected) > 30
    assert accepted


def test_every_bad_line_is_kept_with_its_number_and_reason(tmp_path: Path) -> None:
    good = json.dumps(BASE).encode()
    lines = [b"\xef\xbb\xbf" + good, good + b"\r", b"", b"\r", b" ", b"\xff" + good, b"[]", b"\x85", good, good[:-9]]
    source = tmp_path / "a.jsonl"
    source.write_bytes(b"\n".join(lines))
    history = bring_in(view, source, 4, tmp_path / "out", tmp_path / "rejects")
    assert (history.events, history.refused) == (2, 8)
    kept = [json.loads(line) for line in (tmp_path / "rejects").read_text().splitlines()]
    assert [(line["line"], line["reason"]) for line in kept] == [
        (1, "not_json"),
        (3, "empty"),
        (4, "empty"),
        (5, "not_json"),
        (6, "not_json"),
        (7, "not_an_object"),
        (8, "not_json"),
        (10, "not_json"),
    ]
    assert kept[0]["value"].encode() == lines[0]
    assert kept[4]["value_base64"]
    assert history.reasons == {"not_json": 5, "empty": 2, "not_an_object": 1}


@pytest.mark.parametrize("block", [1, 7, 200])
def test_blocks_end_anywhere(block: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    events = [{**BASE, "event_id": f"ä{number}"} for number in range(5)]
    source = tmp_path / "a.jsonl"
    source.write_bytes(b"".join(json.dumps(event, ensure_ascii=False).encode() + b"\r\n" for event in events) + b"x")
    whole = brought(source)
    monkeypatch.setattr(history_lines, "BLOCK_BYTES", block)
    assert brought(source) == whole
    assert whole[1] == [(6, "not_json")]


def test_a_file_that_is_one_endless_line_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history_lines, "BLOCK_BYTES", 100)
    monkeypatch.setattr(history_lines, "LONGEST_LINE", 1_000)
    source = tmp_path / "a.jsonl"
    source.write_bytes(json.dumps(BASE).encode() + b"\n" + b" " * 2_000)
    with pytest.raises(ArchiveError, match=r"line 2: longer than 1,000 bytes"):
        bring_in(view, source, 4, tmp_path / "out")


def test_the_future_is_refused_as_in_the_stream(tmp_path: Path) -> None:
    now_ms = time.time_ns() // 1_000_000
    times = [now_ms + 3_600_000, 253_402_300_799_000, T * 1_000, 2**63 - 1, now_ms - 1_000]
    source = tmp_path / "a.jsonl"
    source.write_text("".join(json.dumps({**BASE, "event_timestamp": time}) + "\n" for time in times))
    accepted, rejected = brought(source)
    assert [row["event_timestamp"] for row in accepted] == times[4:]
    assert rejected == [(line, "future_timestamp") for line in (1, 2, 3, 4)]


def test_heartbeats_are_no_events_and_no_rejects(tmp_path: Path) -> None:
    heartbeat = {"event_id": "h", "event_type": "heartbeat", "event_timestamp": T}
    source = tmp_path / "a.jsonl"
    lines = [heartbeat, BASE, {**heartbeat, "user_id": "u1"}]
    source.write_text("".join(json.dumps(line) + "\n" for line in lines))
    history = bring_in(view, source, 4, tmp_path / "out", tmp_path / "rejects")
    assert (history.events, history.heartbeats, history.reasons) == (1, 1, {"key_mismatch": 1})


# --- Parquet


def table(path: Path, **columns: pa.Array) -> Path:
    """Two purchases, with some columns changed."""
    whole = {
        "event_id": pa.array(["a", "b"]),
        "user_id": pa.array(["u1", "u2"]),
        "event_type": pa.array(["purchase"] * 2),
        "event_timestamp": pa.array([T, T + 1]),
        "price_cents": pa.array([1999, None], pa.int64()),
    }
    pq.write_table(pa.table({**whole, **columns}), path)
    return path


texts = st.none() | st.text(st.characters(codec="utf-8"), max_size=3) | st.sampled_from(["view", "heartbeat", "x" * 65])
integers = st.none() | st.integers(-(2**63), 2**63 - 1) | st.sampled_from([T, 0, -1, 946_684_800_000, 4 * T])
events_of_any_value = st.fixed_dictionaries(
    {name: integers if dtype == pl.Int64 else texts for name, dtype in clickstream.schema.items()}
)


@given(st.lists(events_of_any_value, min_size=1, max_size=8))
@example([BASE | {"product_id": None, "session_id": ""}])
def test_rows_are_judged_as_messages_are(tmp_path_factory: pytest.TempPathFactory, events: list[Row]) -> None:
    source = tmp_path_factory.mktemp("property") / "history.parquet"
    pl.DataFrame(events, schema=clickstream.schema, strict=True).write_parquet(source)
    assert brought(source) == by_stream([json.dumps(event).encode() for event in events])


@pytest.mark.parametrize(
    ("column", "values", "said"),
    [
        ("price_cents", pa.array([19.99, None]), r"'price_cents' is double.*an integer.*Int64"),
        ("price_cents", pa.array([True, False]), "'price_cents' is bool"),
        ("price_cents", pa.array(["1999", "5"]), "'price_cents' is string"),
        ("price_cents", pa.array([1, 2], pa.decimal128(9, 2)), r"'price_cents' is decimal128\(9, 2\)"),
        ("price_cents", pa.array([[1], [2]]), "'price_cents' is list"),
        ("price_cents", pa.array([1, 2], pa.timestamp("ms")), r"'price_cents' is timestamp\[ms\]"),
        ("user_id", pa.array([42.0, 43.0]), r"'user_id' is double.*a string"),
        ("user_id", pa.array([42, 43]), "'user_id' is int64"),
        ("user_id", pa.array([b"u1", b"u2"]), "'user_id' is binary"),
        ("user_id", pa.array([42, 43]).dictionary_encode(), "'user_id' is int64"),
        ("event_type", pa.array([True, True]), "'event_type' is bool"),
        ("event_timestamp", pa.array([T / 1, T / 1]), r"'event_timestamp' is double.*timestamp"),
        ("event_timestamp", pa.array(["2026-01-01T00:00:00Z"] * 2), "'event_timestamp' is string"),
        ("event_timestamp", pa.array([1, 2], pa.date32()), "'event_timestamp' is date32"),
    ],
)
def test_a_column_of_another_type_is_refused(column: str, values: pa.Array, said: str, tmp_path: Path) -> None:
    source = table(tmp_path / "history.parquet", **{column: values})
    with pytest.raises(ArchiveError, match=said) as refused:
        bring_in(view, source, 4, tmp_path / "out")
    assert str(source) in str(refused.value)


def at(unit: str, zone: str | None = None) -> pa.Array:
    whole = [datetime.fromtimestamp(T / 1000, tz=UTC), datetime.fromtimestamp((T + 1_000) / 1000, tz=UTC)]
    if zone is None:
        whole = [one.replace(tzinfo=None) for one in whole]
    return pa.array(whole, pa.timestamp(unit, zone))


@pytest.mark.parametrize(
    "times",
    [at(unit, zone) for unit in ("s", "ms", "us", "ns") for zone in (None, "UTC", "+05:30", "-03:00", "Asia/Kolkata")],
    ids=lambda column: str(column.type),
)
def test_a_timestamp_of_any_unit_and_zone_is_its_instant(times: pa.Array, tmp_path: Path) -> None:
    accepted, rejected = brought(table(tmp_path / "history.parquet", event_timestamp=times))
    assert [row["event_timestamp"] for row in accepted] == [T, T + 1_000]
    assert rejected == []


@pytest.mark.parametrize("unit", ["us", "ns"])
def test_a_time_between_two_milliseconds_is_rejected(unit: str, tmp_path: Path) -> None:
    each = {"us": 1_000, "ns": 1_000_000}[unit]
    times = pa.array([T * each + 1, T * each], pa.timestamp(unit, "UTC"))
    accepted, rejected = brought(table(tmp_path / "history.parquet", event_timestamp=times))
    assert [row["event_timestamp"] for row in accepted] == [T]
    assert rejected == [(1, "type:event_timestamp")]


def test_values_beyond_64_bits_are_rejected(tmp_path: Path) -> None:
    prices = pa.array([2**64 - 1, 5], pa.uint64())
    assert brought(table(tmp_path / "a.parquet", price_cents=prices))[1] == [(1, "type:price_cents")]
    whatever_is_missing_comes_first = table(
        tmp_path / "b.parquet", price_cents=prices, event_id=pa.array([None, None], pa.string())
    )
    assert brought(whatever_is_missing_comes_first)[1] == [(1, "missing:event_id"), (2, "missing:event_id")]


@pytest.mark.parametrize(
    ("column", "values"),
    [
        ("price_cents", pa.array([1999, None], pa.int16())),
        ("price_cents", pa.array([1999, None], pa.uint64())),
        ("user_id", pa.array(["u1", "u2"]).dictionary_encode()),
        ("user_id", pa.array(["u1", "u2"], pa.large_string())),
        ("product_id", pa.array([None, None], pa.null())),
        ("unknown", pa.array([{"a": 1}, None])),
    ],
)
def test_the_same_values_otherwise_encoded(column: str, values: pa.Array, tmp_path: Path) -> None:
    plain = brought(table(tmp_path / "plain.parquet"))
    assert brought(table(tmp_path / "history.parquet", **{column: values})) == plain
    assert plain[1] == []


def test_columns_that_lack_or_are_double(tmp_path: Path) -> None:
    whole = pq.read_table(table(tmp_path / "history.parquet"))
    for changed, said in (
        (whole.drop(["event_id"]), "lacks the column 'event_id'"),
        (whole.append_column("user_id", pa.array([1, 2])), "the column 'user_id' is there 2 times"),
    ):
        pq.write_table(changed, tmp_path / "history.parquet")
        with pytest.raises(ArchiveError, match=said):
            bring_in(view, tmp_path / "history.parquet", 4, tmp_path / "out")


def test_text_that_is_no_utf_8_is_refused(tmp_path: Path) -> None:
    raw = pa.Array.from_buffers(pa.string(), 2, pa.array([b"\xff1", b"u2"]).buffers())
    with pytest.raises(ForeignFileError, match="'user_id' is damaged: Invalid UTF8"):
        bring_in(view, table(tmp_path / "history.parquet", user_id=raw), 4, tmp_path / "out")


def test_parts_of_a_file_have_running_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    events = [{**BASE, "event_id": f"e{number}", "price_cents": number % 3 - 1} for number in range(10)]
    source = tmp_path / "history.parquet"
    pl.DataFrame(events).write_parquet(source)
    whole = brought(source)
    monkeypatch.setattr("batch.history.parquet.ROWS_AT_ONCE", 3)
    monkeypatch.setattr("batch.history.importing.ROWS_A_PART", 2)
    assert brought(source) == whole
    assert whole[1] == [(row, "negative:price_cents") for row in (1, 4, 7, 10)]


# --- The command


def run(capsys: pytest.CaptureFixture[str], source: Path, *arguments: str) -> tuple[int, str, str]:
    try:
        status = backfill(["--from", str(source), "--partitions", "2", *arguments])
    except SystemExit as stopped:
        status = int(str(stopped.code))
    told = capsys.readouterr()
    return status, told.out, told.err


def test_the_command_tells_where_rejects_are(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "a.jsonl"
    events = [{**BASE, "event_id": f"e{hour}", "event_timestamp": T + hour * 3_600_000} for hour in range(4)]
    lines = [json.dumps(event) for event in events]
    source.write_text("\n".join(['{"event_id": 7}', *lines, "", lines[0][:-2]]))
    rejects = StreamSettings().data_root / "rejects"

    status, out, _ = run(capsys, source)
    assert status == 0
    (kept,) = rejects.iterdir()
    assert out.splitlines()[-1] == f"3 rejected (1 missing:user_id, 1 empty, 1 not_json): {kept}"
    assert [json.loads(line)["line"] for line in kept.read_text().splitlines()] == [1, 6, 7]

    before = kept.read_bytes()
    status, out, _ = run(capsys, source, "--json")
    report = json.loads(out)
    assert (status, report["history_events"], report["history_refused"]) == (0, 4, 3)
    assert report["history_reasons"] == {"missing:user_id": 1, "empty": 1, "not_json": 1}
    assert report["rejects_file"] == str(kept)
    assert (list(rejects.iterdir()), kept.read_bytes()) == ([kept], before), "the same file, however often it is run"

    source.write_text("\n".join(lines))
    assert json.loads(run(capsys, source, "--json")[1])["rejects_file"] is None
    assert list(rejects.iterdir()) == []


def test_nothing_accepted_is_refused_and_says_why(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "a.jsonl"
    source.write_text('[\n{"event_id": 7}\n]\n')
    status, _, error = run(capsys, source)
    (kept,) = (StreamSettings().data_root / "rejects").iterdir()
    assert status == 2
    assert error == (
        f"batch.backfill: {source} has no event of 'clickstream': 2 not_json, 1 missing:user_id; they are in {kept}\n"
    )


def damaged(path: Path) -> None:
    publish(path, pl.DataFrame(BASE))
    path.write_bytes(path.read_bytes()[:-30] + b"PAR1")


@pytest.mark.parametrize(
    "name", ["none.jsonl", "none.parquet", "cut.parquet", "empty.parquet", "text.parquet", "empty"]
)
def test_what_can_not_be_read_is_one_line(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / name
    if name.startswith("cut"):
        damaged(source)
    elif name.startswith("text"):
        source.write_text("event_id,user_id\n")
    elif name == "empty":
        source.mkdir()
    elif name.startswith("empty"):
        source.touch()
    status, _, error = run(capsys, source)
    assert (status, error.count("\n")) == (2, 1)
    assert str(source) in error
    assert not (StreamSettings().data_root / "rejects").exists()


def test_a_folder_is_read_without_what_is_hidden(tmp_path: Path) -> None:
    folder = tmp_path / "events.parquet"  # as Spark names a folder
    (folder / "dt=2026-01-01").mkdir(parents=True)
    table(folder / "dt=2026-01-01" / "part-0.parquet")
    (folder / "b.jsonl").write_text(json.dumps({**BASE, "event_id": "c"}) + "\n")
    for hidden in ("_delta_log/0.json", ".checkpoint/1.json", ".part-1.parquet", "_SUCCESS"):
        (folder / hidden).parent.mkdir(exist_ok=True)
        (folder / hidden).write_text("{}\n")
    history = bring_in(view, folder, 4, tmp_path / "out")
    assert (history.events, history.refused) == (3, 0)
