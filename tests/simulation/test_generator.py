from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest
from confluent_kafka import Consumer, Message, TopicPartition

from feast_repo.clickstream import clickstream
from feast_repo.features import user_click_features
from feast_repo.settings import PROJECT_ROOT, StreamSettings
from sandbox.broker import Broker
from simulation.clicks import MALFORMED_KINDS, RECORD
from simulation.clock import Traffic, historical, live
from simulation.events import simulate
from simulation.generator import due_s, generate, main
from simulation.records import EVENT, HEARTBEAT, heartbeats
from stream.producing import FileSink, TopicSink

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PARTITIONS = 8
VIEWS = [user_click_features]
START = ["--start", "2026-01-05T00:00:00Z", "--hours", "2"]
NOW = 1_790_000_000_000
WAIT_S = 60.0


@pytest.fixture(scope="module")
def broker() -> Iterator[Broker]:
    broker = Broker()
    yield broker
    broker.close()


@pytest.fixture
def settings(broker: Broker, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> StreamSettings:
    """A topic of the test's own, also in the environment of commands."""
    topic = re.sub("[^A-Za-z0-9._-]", "-", request.node.name)[:80]
    broker.create_topic(topic, PARTITIONS)
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", broker.bootstrap)
    monkeypatch.setenv("KAFKA_TOPIC", topic)
    return StreamSettings()


def properties(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, **values: object) -> StreamSettings:
    file = tmp_path / "client.properties"
    file.write_text("".join(f"{name.replace('_', '.')}={value}\n" for name, value in values.items()))
    monkeypatch.setenv("KAFKA_PROPERTIES_FILE", str(file))
    return StreamSettings()


def consume(settings: StreamSettings, number: int, stream: str | None = None) -> list[Message]:
    """The first messages of the topic, in offset order within each partition."""
    consumer = Consumer({"bootstrap.servers": settings.kafka_bootstrap_servers, "group.id": "test", "log_level": 0})
    topic = settings.catalog.stream(stream).topic
    consumer.assign([TopicPartition(topic, partition, 0) for partition in range(PARTITIONS)])
    messages: list[Message] = []
    deadline = time.monotonic() + WAIT_S
    while len(messages) < number and time.monotonic() < deadline:
        messages += [message for message in consumer.consume(10_000, timeout=0.2) if message.error() is None]
    consumer.close()
    return messages


def history(events: int, **traffic: Any) -> pl.DataFrame:
    people = Traffic(users=200, late_share=0.05, malformed_share=0.05, **traffic)
    partitions = tuple(range(PARTITIONS))
    return pl.concat(
        simulate(historical(clickstream, VIEWS, people, events=events, hours=2, now_ms=NOW, partitions=partitions))
    )


def murmur2(data: bytes) -> int:
    """Kafka's hash of a key, as its Java client defines it."""
    mix, mask = 0x5BD1E995, 0xFFFFFFFF
    length = len(data)
    code = (0x9747B28C ^ length) & mask
    for at in range(0, length - length % 4, 4):
        word = int.from_bytes(data[at : at + 4], "little") * mix & mask
        code = (code * mix & mask) ^ ((word ^ word >> 24) * mix & mask)
    rest = data[length - length % 4 :]
    if rest:
        code = (code ^ int.from_bytes(rest, "little")) * mix & mask
    code = (code ^ code >> 13) * mix & mask
    return code ^ code >> 15


def test_records_reach_the_topic_as_simulated(settings: StreamSettings) -> None:
    records = history(3_000)
    sink = TopicSink(settings, settings.catalog.stream().topic, threading.Event())
    for part in records.iter_slices(700):
        sink.send(part)
    sink.close()
    assert sink.failed == 0
    messages = consume(settings, records.height)
    expected = records.with_columns(
        pl.col("key")
        .map_elements(lambda key: (murmur2(key.encode()) & 0x7FFFFFFF) % PARTITIONS, return_dtype=pl.Int32)
        .fill_null(pl.col("partition"))
        .alias("partition")
    ).sort("partition", maintain_order=True)
    got = sorted(messages, key=lambda message: (message.partition(), message.offset()))
    assert [(m.partition(), m.timestamp()[1], m.value() or b"") for m in got] == list(
        expected.select("partition", "arrival_ms", "value").iter_rows()
    )
    assert [m.key() for m in got] == expected["key"].cast(pl.Binary).to_list()


def test_the_command_fills_every_partition_up_to_its_heartbeat(
    settings: StreamSettings, capsys: pytest.CaptureFixture[str]
) -> None:
    before_ms = time.time_ns() // 1_000_000
    arguments = ["--events", "2000", "--users", "100", "--late-share", "0.02", "--malformed-share", "0.05", "--json"]
    assert main(arguments) == 0
    after_ms = time.time_ns() // 1_000_000
    report = json.loads(capsys.readouterr().out)
    assert (report["events"], report["heartbeats"], report["failed"]) == (2_000, PARTITIONS, 0)
    assert set(report["malformed"]) == set(MALFORMED_KINDS)
    messages = consume(settings, 2_000 + PARTITIONS)
    assert len(messages) == 2_000 + PARTITIONS
    view = settings.catalog.view()
    for partition in range(PARTITIONS):
        last = max((m for m in messages if m.partition() == partition), key=Message.offset)
        value = json.loads(last.value())
        assert (value["event_type"], value["event_timestamp"]) == (HEARTBEAT, report["heartbeat_ms"])
        assert last.timestamp()[1] == report["heartbeat_ms"]
    assert (report["heartbeat_ms"] - view.lateness_ms) % view.slide_ms == 0
    assert before_ms - view.slide_ms < report["heartbeat_ms"] <= after_ms


CARDS = """
from tests.declared import card_features, payments
from tests.simulation.test_declared import meters
from feast_repo.declare.catalog import Catalog
catalog = Catalog(views=(card_features,), streams=(meters,))
"""


@pytest.fixture
def cards(settings: StreamSettings, broker: Broker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StreamSettings:
    """Two streams without the shop's: payments by card, whose heartbeats have a header, and meters."""
    (tmp_path / "features.py").write_text(CARDS)
    topic = f"meters-{settings.kafka_topic}"
    broker.create_topic(topic, PARTITIONS)
    monkeypatch.setenv("KAFKA_TOPIC", f"payments={settings.kafka_topic},meters={topic}")
    monkeypatch.setenv("FEATURE_REPO", str(tmp_path))
    return StreamSettings()


def test_any_stream_is_generated_and_ends_with_heartbeats_in_headers(
    cards: StreamSettings, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--stream", "payments", "--events", "500", "--users", "30", "--malformed-share", "0.1", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["events"], report["heartbeats"], report["failed"]) == (500, PARTITIONS, 0)
    assert {"empty", "negative:amount_cents", "key_mismatch"} <= report["malformed"].keys()
    messages = consume(cards, 500 + PARTITIONS, "payments")
    for partition in range(PARTITIONS):
        *events, last = sorted((m for m in messages if m.partition() == partition), key=Message.offset)
        assert (last.headers(), last.key(), last.value() or b"") == (
            [("heartbeat", str(report["heartbeat_ms"]).encode())],
            None,
            b"",
        )
        assert not [message for message in events if message.headers()]
    view = cards.catalog.view()
    assert (report["heartbeat_ms"] - view.lateness_ms) % view.slide_ms == 0


def test_a_full_queue_keeps_headers_with_their_records(
    cards: StreamSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    properties(tmp_path, monkeypatch, queue_buffering_max_messages=10)
    beats = heartbeats(cards.catalog.stream("payments"), "run", NOW, tuple(range(PARTITIONS)))
    many = pl.concat([beats.with_columns(partition=pl.lit(0, pl.Int32))] * 20).with_row_index("at")
    at = pl.col("at").cast(pl.String).cast(pl.Binary)
    told = pl.concat_list(pl.struct(pl.lit("heartbeat").alias("name"), at.alias("value")))
    sink = TopicSink(StreamSettings(), cards.catalog.stream("payments").topic, threading.Event())
    sink.send(many.with_columns(value=at, headers=told))
    sink.close()
    messages = consume(cards, len(many), "payments")
    assert [message.headers() for message in messages] == [[("heartbeat", message.value())] for message in messages]
    assert len(messages) == len(many)


@pytest.mark.usefixtures("cards")
@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--events", "5"], "which event stream? name it with --stream; declared: payments, meters"),
        (["--events", "5", "--stream", "clicks"], "no event stream is named 'clicks'"),
        (["--events", "5", "--stream", "meters", "--drift", "visits"], "'meters' knows no drift; leave it out"),
        (["--events", "5", "--stream", "meters", "--start", "1990-01-01"], "timestamp_range"),
    ],
)
def test_what_a_stream_can_not_have_is_told_in_one_line(
    arguments: list[str], named: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "out.jsonl"
    with pytest.raises(SystemExit) as end:
        main([*arguments, "--to", str(file)])
    shown = capsys.readouterr()
    assert end.value.code == 2
    assert named in shown.err
    assert shown.err.count("\n") == 1
    assert not file.exists()


@pytest.mark.usefixtures("cards")
def test_a_file_of_any_stream_holds_its_events_only(tmp_path: Path) -> None:
    file = tmp_path / "out.jsonl"
    assert main(["--events", "50", "--stream", "payments", "--to", str(file)]) == 0
    assert all("card_id" in json.loads(line) for line in file.read_text().splitlines())
    assert len(file.read_text().splitlines()) == 50


def test_a_user_lives_in_one_partition(settings: StreamSettings) -> None:
    assert main(["--events", "1500", "--users", "40", "--late-share", "0.1"]) == 0
    places = {(m.key(), m.partition()) for m in consume(settings, 1_500 + PARTITIONS) if m.key()}
    assert len(places) == len({key for key, _ in places}) > 30


def test_a_full_queue_neither_loses_nor_reorders(
    settings: StreamSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = properties(tmp_path, monkeypatch, queue_buffering_max_messages=50)
    records = history(2_000).with_columns(partition=pl.lit(0, pl.Int32))
    sink = TopicSink(settings, settings.catalog.stream().topic, threading.Event())
    sink.send(records)
    sink.close()
    assert sink.failed == 0
    assert [m.value() or b"" for m in consume(settings, records.height)] == records["value"].to_list()


@pytest.mark.usefixtures("settings")
def test_what_is_not_delivered_is_counted_and_reported(
    broker: Broker,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    properties(tmp_path, monkeypatch, message_timeout_ms=300, linger_ms=0)
    monkeypatch.setattr("simulation.generator.topic_partitions", lambda *_: [0])  # asked before the broker goes away
    broker.set_down()
    try:
        assert main(["--events", "40", "--users", "5", "--json"]) == 1
    finally:
        broker.set_up()
    shown = capsys.readouterr()
    assert json.loads(shown.out)["failed"] == 41
    assert shown.err.startswith("stream.generator: 41 records were not delivered: ")
    assert shown.err.count("\n") == 1


def test_a_stop_ends_history_early_with_an_error(settings: StreamSettings) -> None:
    stop = threading.Event()
    stop.set()
    plan = historical(clickstream, VIEWS, Traffic(users=5), events=1_000, hours=1, now_ms=NOW, partitions=(0,))
    report = generate(plan, TopicSink(settings, settings.catalog.stream().topic, stop), rate=None, stop=stop)
    assert report.stopped
    assert report.events == 0


def test_a_live_stream_ends_cleanly_on_sigterm(settings: StreamSettings) -> None:
    command = [sys.executable, "-m", "stream.generator", "--rate", "100", "--users", "20", "--json"]
    before_ms = time.time_ns() // 1_000_000
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=PROJECT_ROOT, env=os.environ) as process:
        try:
            assert len(consume(settings, 30)) >= 30
            process.send_signal(signal.SIGTERM)
            out, _ = process.communicate(timeout=WAIT_S)
        finally:
            process.kill()
    after_ms = time.time_ns() // 1_000_000
    report = json.loads(out)
    assert process.returncode == 0
    assert report["stopped"]
    assert report["failed"] == report["heartbeats"] == 0
    messages = consume(settings, report["events"])
    assert len(messages) == report["events"]
    for message in messages:
        assert before_ms <= json.loads(message.value())["event_timestamp"] <= message.timestamp()[1] <= after_ms


def test_a_live_stream_is_due_when_it_arrives() -> None:
    stream = live(clickstream, Traffic(), rate=10.0, events=None, now_ms=NOW)
    assert due_s(stream, 10.0, sent=0, arrival_ms=NOW + 1500, begun_s=NOW / 1000) == NOW / 1000 + 1.5


def test_history_is_due_at_the_given_rate_or_at_once() -> None:
    plan = historical(clickstream, VIEWS, Traffic(), events=10, hours=1, now_ms=NOW, partitions=(0,))
    assert due_s(plan, 20.0, sent=0, arrival_ms=NOW, begun_s=7.0) == 7.0
    assert due_s(plan, 20.0, sent=50, arrival_ms=NOW, begun_s=7.0) == 9.5
    assert due_s(plan, None, sent=50, arrival_ms=NOW, begun_s=7.0) == 7.0


def test_the_rate_changes_no_byte(tmp_path: Path) -> None:
    plan = historical(clickstream, VIEWS, Traffic(users=9), events=30, hours=1, now_ms=NOW, partitions=(0,))
    files = [tmp_path / "fast", tmp_path / "slow"]
    for file, rate in zip(files, [None, 1e6], strict=True):
        generate(plan, FileSink(file), rate=rate, stop=threading.Event())
    assert files[0].read_bytes() == files[1].read_bytes()


def test_a_file_holds_one_value_a_line_and_the_same_ones_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [tmp_path / "first.jsonl", tmp_path / "second.jsonl"]
    arguments = ["--events", "800", "--users", "30", "--malformed-share", "0.2", *START]
    for file in files:
        assert main([*arguments, "--to", str(file), "--json"]) == 0
    assert files[0].read_bytes() == files[1].read_bytes()
    report = json.loads(capsys.readouterr().out.splitlines()[0])
    lines = files[0].read_bytes().split(b"\n")
    assert lines.pop() == b""
    assert b"" not in lines
    assert len(lines) == 800 - report["malformed"]["empty"] + report["heartbeats"]
    assert json.loads(lines[-1])["event_type"] == HEARTBEAT


def test_values_with_line_breaks_are_left_out(tmp_path: Path) -> None:
    values = [b"{}", b"", b"{\n}", b"\r", b"x"]
    records = pl.DataFrame({**dict.fromkeys(RECORD), "value": values, "kind": EVENT}, schema=RECORD)
    sink = FileSink(tmp_path / "out.jsonl")
    sink.send(records)
    sink.close()
    assert (tmp_path / "out.jsonl").read_bytes() == b"{}\nx\n"


def test_the_result_is_one_line_for_people(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = str(tmp_path / "out")
    assert main(["--events", "300", "--users", "30", "--malformed-share", "0.5", *START, "--to", file]) == 0
    shown = capsys.readouterr()
    assert shown.out.startswith("300 events in ")
    assert "not_json" in shown.out
    assert shown.out.endswith("and 1 heartbeats\n")
    assert shown.out.count("\n") == 1
    assert shown.err == ""


@pytest.mark.usefixtures("settings")  # a broker is there, so it is not what is wrong
@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ([], "--events N"),
        (["--hours", "2", "--rate", "5"], "--events N"),
        (["--rate", "0"], "--rate: '0'"),
        (["--rate", "nan"], "--rate: 'nan'"),
        (["--rate", "5", "--drain"], "--drain"),
        (["--events", "0"], "--events: '0'"),
        (["--events", "1.5"], "--events: '1.5'"),
        (["--events", "5", "--start", "noon"], "--start: 'noon'"),
        (["--events", "5", "--start", "2999-01-01"], "start at 2"),
        (["--events", "5", "--late-share", "1.1"], "--late-share: '1.1'"),
        (["--events", "5", "--late-share", "0.6", "--malformed-share", "0.6"], "--late-share and --malformed-share"),
        (["--events", "5", "--to", "/nowhere/at/all.jsonl"], "/nowhere/at/all.jsonl"),
        (["--events", "5", "--disorder-seconds", "-1"], "--disorder-seconds: '-1'"),
    ],
)
def test_bad_input_is_told_in_one_line(arguments: list[str], named: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(arguments)
    shown = capsys.readouterr()
    assert end.value.code == 2
    assert named in shown.err
    assert shown.err.count("\n") == 1
    assert shown.out == ""


@pytest.mark.usefixtures("settings")
@pytest.mark.parametrize("line", ["no equals sign", "no.such.property=1"])
def test_a_bad_properties_file_is_told_in_one_line(
    line: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = tmp_path / "client.properties"
    file.write_text(f"{line}\n")
    monkeypatch.setenv("KAFKA_PROPERTIES_FILE", str(file))
    with pytest.raises(SystemExit) as end:
        main(["--rate", "5"])
    assert end.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1
