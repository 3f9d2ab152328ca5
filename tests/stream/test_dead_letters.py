"""Dead letters: listed, exported, mended, replayed through a real topic."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest
from confluent_kafka import Consumer, TopicPartition

from feast_repo.clickstream import clickstream
from feast_repo.settings import StreamSettings
from feast_repo.stores.offline.parquet import publish
from feast_repo.stores.offline.tables import DEAD_LETTER_COLUMNS, FORGOTTEN, dead_letters_folder, replays_folder
from stream import dead_letters
from stream.replays import record

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

AT = datetime(2026, 3, 1, 12, tzinfo=UTC)
NOW_MS = 1_772_366_400_000
MISTYPED = b'{"event_id": "1", "user_id": "u1", "event_type": "veiw", "event_timestamp": 1772366400000}'
NO_TIME = b'{"event_id": "2", "user_id": "u2", "event_type": "view", "event_timestamp": "x"}'
LETTERS: list[tuple[int, int, bytes | None, bytes, str]] = [
    (0, 5, b"u1", MISTYPED, "unknown_event_type"),
    (1, 7, b"u2", NO_TIME, "type:event_timestamp"),
    (1, 8, None, b"\xff\x1b[31m", "not_json"),
]


@pytest.fixture
def stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DATA_ROOT", str(tmp_path / "data"))
    monkeypatch.setenv("KAFKA_TOPIC", "clicks")
    rows = [(partition, offset, AT, key, value, reason) for partition, offset, key, value, reason in LETTERS]
    table = pl.DataFrame(rows, schema=DEAD_LETTER_COLUMNS, orient="row")
    publish(dead_letters_folder(tmp_path / "data", clickstream) / "dt=2026-03-01" / "p0.parquet", table)
    return tmp_path


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit) as stopped:
        dead_letters.main(arguments)
    assert stopped.value.code == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    return said


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.usefixtures("stored")
def test_list_counts_by_reason(capsys: pytest.CaptureFixture[str]) -> None:
    assert dead_letters.main(["list", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert {row["reason"]: row["count"] for row in rows} == {reason: 1 for *_, reason in LETTERS}
    assert dead_letters.main(["list"]) == 0
    assert "\x1b[31m" not in capsys.readouterr().out, "a letter must not speak to the terminal"
    assert dead_letters.main(["list", "--reason", "empty"]) == 0
    assert "no dead letters" in capsys.readouterr().out
    assert dead_letters.main(["list", "--end", "2026-03-01T12:00:00"]) == 0
    assert "no dead letters" in capsys.readouterr().out


def test_export_keeps_every_byte(stored: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = stored / "letters.jsonl"
    assert dead_letters.main(["export", str(path)]) == 0
    found = lines_of(path)
    assert [line["came_from"] for line in found] == ["clicks[0]@5", "clicks[1]@7", "clicks[1]@8"]
    assert found[0]["value"].encode() == LETTERS[0][3]
    assert found[2]["value_base64"] == "/xtbMzFt"
    assert found[2]["key"] is None
    capsys.readouterr()
    assert "exists already" in refused(capsys, "export", str(path))
    assert lines_of(path) == found


def test_letters_of_a_forgotten_entity_are_counted_and_not_exported(
    stored: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = pl.DataFrame([(0, 6, AT, None, b"", FORGOTTEN)], schema=DEAD_LETTER_COLUMNS, orient="row")
    publish(dead_letters_folder(stored / "data", clickstream) / "dt=2026-03-01" / "p1.parquet", rows)
    assert dead_letters.main(["export", str(stored / "letters.jsonl")]) == 0
    assert len(lines_of(stored / "letters.jsonl")) == len(LETTERS)
    capsys.readouterr()
    assert dead_letters.main(["list", "--json"]) == 0
    assert {row["reason"]: row["count"] for row in json.loads(capsys.readouterr().out)}[FORGOTTEN] == 1


def test_replay_sends_nothing_unless_all_is_mended(stored: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = stored / "letters.jsonl"
    dead_letters.main(["export", str(path)])
    capsys.readouterr()
    said = refused(capsys, "replay", str(path))
    assert "line 1: unknown_event_type" in said
    assert "line 2: type:event_timestamp" in said
    assert "line 3" in said


@pytest.mark.parametrize(
    "line", ["{}", "[]", "7", '{"value": 5, "came_from": "a"}', '{"value_base64": "!", "came_from": 1}']
)
def test_a_line_that_is_no_letter_is_named(line: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "letters.jsonl"
    path.write_text(f"\n{line}\n")
    assert "line 2" in refused(capsys, "replay", str(path))


def test_files_are_asked_for(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert "export takes a FILE" in refused(capsys, "export")
    assert "list takes no FILE" in refused(capsys, "list", "x")
    assert "No such file" in refused(capsys, "replay", str(tmp_path / "none"))


@pytest.mark.parametrize("sign", ["\u0085", "\u2028", "\u2029", "\r", "\x0b", "\x1c"])
def test_a_text_with_a_line_separator_survives(sign: str, stored: Path) -> None:
    """JSON allows these within a text; only a line feed ends a line of the file."""
    event = {**json.loads(MISTYPED), "event_type": "view", "product_id": f"Tea{sign}pot"}
    row = {"partition": 0, "offset": 5, "kafka_timestamp": AT, "reason": "", "key": b"u1"}
    path = stored / "letters.jsonl"
    line = dead_letters.as_line("clicks", {**row, "value": json.dumps(event, ensure_ascii=False).encode()})
    path.write_bytes(line.encode() + b"\n" + line.encode() + b"\r\n")
    assert [json.loads(letter.value) for letter in dead_letters.read(path, clickstream)] == [event, event]


def test_the_key_is_the_declared_field(stored: Path) -> None:
    fields = tuple(replace(field, name="visitor") if field.name == "user_id" else field for field in clickstream.fields)
    visits = replace(clickstream, name="visits", fields=fields, key="visitor")
    path = stored / "letters.jsonl"
    event = {"event_id": "1", "visitor": "v1", "event_type": "view", "event_timestamp": NOW_MS}
    heartbeat = {"event_id": "2", "event_type": "heartbeat", "event_timestamp": NOW_MS}
    lines = [{"value": json.dumps(value), "came_from": "visits[0]@5"} for value in (event, heartbeat)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert [letter.key for letter in dead_letters.read(path, visits)] == [b"v1", None]


def test_letters_of_another_stream_are_refused(stored: Path) -> None:
    """Even where the other stream would accept them."""
    others = [replace(clickstream, name="visits", topic="visits")]
    path = stored / "letters.jsonl"
    event = {**json.loads(MISTYPED), "event_type": "view"}
    lines = [{"value": json.dumps(event), "came_from": f"{topic}[1]@5"} for topic in ("clicks", "visits")]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert len(dead_letters.read(path, clickstream)) == 2
    with pytest.raises(
        dead_letters.LetterError, match=r"line 2: it came from event stream 'visits': .*--stream visits"
    ):
        dead_letters.read(path, clickstream, others)


def test_a_reason_is_never_cut(stored: Path, capsys: pytest.CaptureFixture[str]) -> None:
    reason = "type:" + "a_field_with_a_very_long_name_" * 3
    rows = [(2, 1, AT, b"u1", b"x" * 80, reason)]
    table = pl.DataFrame(rows, schema=DEAD_LETTER_COLUMNS, orient="row")
    publish(dead_letters_folder(stored / "data", clickstream) / "dt=2026-03-01" / "p2.parquet", table)
    assert dead_letters.main(["list"]) == 0
    assert reason in capsys.readouterr().out


def test_mended_letters_come_through_the_topic_with_their_origin(
    stored: Path,
    kafka_broker: str,
    fresh_topic: Callable[[int], str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = stored / "letters.jsonl"
    dead_letters.main(["export", str(path), "--reason", "unknown_event_type"])
    path.write_text(path.read_text().replace("veiw", "view"))
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", kafka_broker)
    monkeypatch.setenv("KAFKA_TOPIC", fresh_topic(1))
    capsys.readouterr()
    assert dead_letters.main(["replay", str(path)]) == 0
    assert "1 letters replayed" in capsys.readouterr().out

    consumer = Consumer({"bootstrap.servers": kafka_broker, "group.id": "test"})
    consumer.assign([TopicPartition(StreamSettings().catalog.stream().topic, 0, 0)])
    message = consumer.poll(30)
    assert message is not None
    assert message.error() is None
    assert message.headers() == [("replayed-from", b"clicks[0]@5")]
    assert message.key() == b"u1"
    assert json.loads(message.value() or b"")["event_type"] == "view"
    consumer.close()

    assert replayed(capsys) == {"unknown_event_type": 1, "type:event_timestamp": 0, "not_json": 0}
    assert dead_letters.main(["replay", str(path)]) == 0
    assert replayed(capsys) == {"unknown_event_type": 1, "type:event_timestamp": 0, "not_json": 0}
    assert len(list(replays_folder(stored / "data", clickstream).glob("*/*"))) == 1, "a second replay adds no file"
    assert dead_letters.main(["list"]) == 0
    assert "replayed" in capsys.readouterr().out


def replayed(capsys: pytest.CaptureFixture[str]) -> dict[str, int]:
    capsys.readouterr()
    assert dead_letters.main(["list", "--json"]) == 0
    return {row["reason"]: row["replayed"] for row in json.loads(capsys.readouterr().out)}


def test_a_replay_marks_its_own_letters_only(stored: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Letters of another topic may have the same place."""
    record(stored / "data", clickstream, [(0, 5, AT + timedelta(seconds=1)), (1, 7, None)])
    assert replayed(capsys) == {"unknown_event_type": 0, "type:event_timestamp": 1, "not_json": 0}
    record(stored / "data", clickstream, [(0, 5, AT)])
    assert replayed(capsys) == {"unknown_event_type": 1, "type:event_timestamp": 1, "not_json": 0}


def test_a_wrong_properties_file_is_refused(
    stored: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    properties, letters = stored / "kafka.properties", stored / "letters.jsonl"
    properties.write_text("nonsense\n")
    monkeypatch.setenv("KAFKA_PROPERTIES_FILE", str(properties))
    event = {**json.loads(MISTYPED), "event_type": "view"}
    letters.write_text(json.dumps({"value": json.dumps(event), "came_from": "clicks[0]@5"}) + "\n")
    assert "line 1: expected key=value" in refused(capsys, "replay", str(letters))
