"""Dead letters: list them, export them for repair, replay them.

    python -m stream.dead_letters list --reason type:price_cents
    python -m stream.dead_letters export letters.jsonl
    python -m stream.dead_letters replay letters.jsonl       # after repairing the values in it

A replay goes through the topic like any event, with a header that names the original message. It sends nothing unless
every letter in the file would be accepted. An event that is sent twice counts once as long as its windows are open
(if the stream has event ids); one that is too late for its windows is archived, and a backfill counts it.
"""

from __future__ import annotations

import json
import re
import sys
import time
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl
from confluent_kafka import KafkaError, KafkaException, Message, Producer
from rich.console import Console
from rich.progress import Progress as ProgressBar
from rich.table import Column, Table

from feast_repo.codec import strict_json
from feast_repo.codec.decoding import Decoder, RawBatch
from feast_repo.codec.forms import IGNORED
from feast_repo.codec.raw_bytes import as_member, from_member
from feast_repo.commands import Command, as_it_is, instant
from feast_repo.errors import ExitCode, RefusedError
from feast_repo.settings import StreamSettings
from feast_repo.stores.offline.files import data_files, day_folders
from feast_repo.stores.offline.parquet import scan
from feast_repo.stores.offline.tables import DEAD_LETTER_COLUMNS, FORGOTTEN, dead_letters_folder
from stream.producing import producer_config
from stream.replays import marked, record

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Collection, Sequence

    from feast_repo.declare.events import EventStream

CAME_FROM = "replayed-from"
"""Header of a replayed message: `topic[partition]@offset` of the original dead letter."""

SHOWN_BYTES = 60
SHOWN_PROBLEMS = 5
REASON_WIDTH = 28
"""Of the column on a terminal: fits the longest reason of most declarations; longer ones wrap."""
ORIGIN = re.compile(r".*\[(?P<partition>\d{1,9})\]@(?P<offset>\d{1,18})", re.DOTALL)
FLUSH_TIMEOUT_S = 30.0


class LetterError(RefusedError, ValueError):
    """A file of letters can't be sent; the message names the lines and what is wrong."""


@dataclass(frozen=True)
class Letter:
    """A repaired message for the topic, and the original that it replaces.

    `key` is the declared key field of the repaired value, and None before it is known.
    """

    key: bytes | None
    value: bytes
    came_from: str
    partition: int
    offset: int
    kafka_timestamp: datetime | None


def letters(data_root: Path, stream: EventStream, options: Namespace) -> pl.LazyFrame:
    """The dead letters that the options select: the table's columns, and `replayed_at` (null: not yet)."""
    files = [file for folder in day_folders(dead_letters_folder(data_root, stream)) for file in data_files(folder)]
    rows = scan(files, DEAD_LETTER_COLUMNS)
    rows = rows.unique(["partition", "offset"], maintain_order=True)  # an interrupted compaction leaves copies
    rows = marked(rows, data_root, stream)
    if options.reason is not None:
        rows = rows.filter(reason=options.reason)
    if options.start is not None:
        rows = rows.filter(pl.col("kafka_timestamp") >= options.start)
    if options.end is not None:
        rows = rows.filter(pl.col("kafka_timestamp") < options.end)
    return rows


def by_reason(rows: pl.LazyFrame) -> pl.DataFrame:
    """One row per reason, most frequent first: count, how many were replayed, partitions, times, an example."""
    return (
        rows.group_by("reason")
        .agg(
            pl.len().alias("count"),
            pl.col("replayed_at").count().alias("replayed"),
            pl.col("partition").n_unique().alias("partitions"),
            pl.col("kafka_timestamp").min().alias("first"),
            pl.col("kafka_timestamp").max().alias("last"),
            pl.col("value").sort_by("kafka_timestamp").last().alias("example"),
        )
        .sort("count", "reason", descending=[True, False])
        .collect()
    )


def as_line(topic: str, row: dict[str, Any]) -> str:
    """A letter as one line of JSON; bytes that are not UTF-8 are base64 under `..._base64` names."""
    line = {
        "came_from": f"{topic}[{row['partition']}]@{row['offset']}",
        "kafka_timestamp": row["kafka_timestamp"].isoformat(),
        "reason": row["reason"],
    }
    line |= as_member("key", row["key"]) | as_member("value", row["value"])
    return json.dumps(line, ensure_ascii=False)


def from_line(text: bytes) -> Letter:
    """A repaired line as a message without its key, which is derived from the value later.

    Raises:
        LetterError: the line has no value or doesn't name the original message.
    """
    try:
        line = strict_json.parse(text)
        value = from_member("value", line)
        origin = ORIGIN.fullmatch(line["came_from"])
        arrived = line.get("kafka_timestamp")
        kafka_timestamp = None if arrived is None else datetime.fromisoformat(arrived).astimezone(UTC)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        message = f"no exported letter ({type(error).__name__}: {error})"
        raise LetterError(message) from error
    if origin is None:
        message = f"came_from is {line['came_from']!r}, not like topic[partition]@offset"
        raise LetterError(message)
    return Letter(None, value, origin[0], int(origin["partition"]), int(origin["offset"]), kafka_timestamp)


def read(path: Path, stream: EventStream, others: Collection[EventStream] = ()) -> list[Letter]:
    """The letters of a file, all of which would be accepted now, with their keys. Lines end with a line feed.

    `others`: the streams that they must not come from.

    Raises:
        LetterError: some letters would not be accepted.
        OSError: the file can't be read.
    """
    found, problems, numbers = [], [], []
    # Not `splitlines`, which also splits at characters that JSON allows within a string.
    for number, text in enumerate(path.read_bytes().split(b"\n"), start=1):
        if not text.strip():
            continue
        try:
            letter = from_line(text)
            _refuse_other(letter, others)
            found.append(letter)
            numbers.append(number)
        except LetterError as error:
            problems.append((number, str(error)))
    now_ms = time.time_ns() // 1_000_000
    batch = RawBatch(
        partition=0,
        values=[letter.value for letter in found],
        keys=[None] * len(found),
        kafka_timestamps=[now_ms] * len(found),
        offsets=numbers,
    )
    decoded = Decoder(stream, keyed=False).decode(batch)
    problems += decoded.dead_letters.select("offset", "reason").rows()
    told = {*decoded.records["offset"], *decoded.dead_letters["offset"]}
    problems += [(number, IGNORED) for number in numbers if number not in told]
    if problems:
        first = "; ".join(f"line {number}: {reason}" for number, reason in sorted(problems)[:SHOWN_PROBLEMS])
        lines = len({*numbers, *(number for number, _ in problems)})
        message = f"{path}: {len(problems)} of {lines} letters would not be accepted, so none is sent ({first})"
        raise LetterError(message)
    keys = decoded.records[stream.key].cast(pl.String).cast(pl.Binary)
    return [replace(letter, key=key) for letter, key in zip(found, keys, strict=True)]


def _refuse_other(letter: Letter, others: Collection[EventStream]) -> None:
    topic = letter.came_from.rpartition("[")[0]
    if (other := next((one for one in others if one.topic == topic), None)) is not None:
        message = f"it came from event stream {other.name!r}: replay it with --stream {other.name}"
        raise LetterError(message)


def send(settings: StreamSettings, topic: str, mended: list[Letter], console: Console) -> list[Letter]:
    """Send the letters through a topic; returns those that were delivered."""
    delivered: list[Letter] = []

    def report(letter: Letter, error: KafkaError | None, _message: Message) -> None:
        if error is None:
            delivered.append(letter)

    producer = Producer({**producer_config(settings), "log_level": 0})
    with ProgressBar(console=console, transient=True) as bar:
        task = bar.add_task("replaying", total=len(mended))
        for letter in mended:
            headers = [(CAME_FROM, letter.came_from)]
            while True:
                try:
                    producer.produce(
                        topic,
                        letter.value,
                        letter.key,
                        headers=headers,
                        on_delivery=partial(report, letter),
                    )
                    break
                except BufferError:
                    producer.poll(1)
            producer.poll(0)
            bar.update(task, completed=len(delivered))
        producer.flush(FLUSH_TIMEOUT_S)
    return delivered


def shown(data: bytes) -> str:
    """The beginning of a value, safe to print."""
    text = data[:SHOWN_BYTES].decode(errors="backslashreplace")
    printable = "".join(one if one.isprintable() else f"\\x{ord(one):02x}" for one in text)
    return printable + ("..." if len(data) > SHOWN_BYTES else "")


def list_letters(settings: StreamSettings, stream: EventStream, options: Namespace) -> int:
    """Print how many dead letters there are, by reason."""
    found = by_reason(letters(settings.data_root, stream, options))
    if options.json:
        times = pl.col("first", "last").dt.to_string("iso:strict")
        rows = found.with_columns(times, example=pl.Series(map(shown, found["example"]), dtype=pl.String)).to_dicts()
        sys.stdout.write(json.dumps(rows) + "\n")
        return 0
    table = Table(Column("reason", overflow="fold", min_width=REASON_WIDTH), "count", "replayed", "partitions")
    for header in ("first (Kafka time)", "last", "example"):
        table.add_column(header, overflow="fold")
    for row in found.iter_rows(named=True):
        first, last = (f"{row[name]:%Y-%m-%d %H:%M:%S}" for name in ("first", "last"))
        counts = (f"{row[name]:,}" for name in ("count", "replayed", "partitions"))
        table.add_row(row["reason"], *counts, first, last, shown(row["example"]))
    as_it_is().print(table if len(found) else "no dead letters")
    return 0


def export(settings: StreamSettings, stream: EventStream, options: Namespace) -> int:
    """Write the selected dead letters as lines of JSON."""
    count = 0
    mendable = letters(settings.data_root, stream, options).filter(pl.col("reason") != FORGOTTEN)
    rows = mendable.sort("partition", "offset").collect()
    with options.file.open("x", encoding="utf-8") as file:
        for row in rows.iter_rows(named=True):
            file.write(as_line(stream.topic, row) + "\n")
            count += 1
    sys.stdout.write(f"{count:,} letters in {options.file}; mend their values, then replay the file\n")
    return 0


def replay(settings: StreamSettings, stream: EventStream, options: Namespace) -> int:
    """Send repaired letters."""
    mended = read(options.file, stream, [one for one in settings.catalog.streams if one.name != stream.name])
    delivered = send(settings, stream.topic, mended, Console(stderr=True))
    sent = [(letter.partition, letter.offset, letter.kafka_timestamp) for letter in delivered]
    record(settings.data_root, stream, sent)
    if failed := len(mended) - len(delivered):
        sys.stdout.write(f"{failed:,} of {len(mended):,} letters were not delivered: replay the file again\n")
        return ExitCode.FAILED
    sys.stdout.write(f"{len(mended):,} letters replayed to {stream.topic}\n")
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    command = Command("python -m stream.dead_letters", "List dead letters, export them, and replay repaired ones.")
    add = command.add_argument
    add("action", choices=["list", "export", "replay"], help="replay sends FILE after its values were repaired")
    add("file", nargs="?", type=Path, metavar="FILE", help="lines of JSON: what export writes and replay reads")
    add("--reason", help="list or export only letters with this reason, such as type:price_cents")
    add("--start", type=instant, help="list or export only letters from this Kafka time (ISO 8601, UTC) on")
    add("--end", type=instant, help="list or export only letters before this Kafka time")
    command.add_choice("stream")
    add("--json", action="store_true", help="list: print a JSON array")
    options = command.parse_args(arguments)
    if (options.action == "list") is (options.file is not None):
        command.error(f"{options.action} takes {'no' if options.action == 'list' else 'a'} FILE")
    settings = command.settings(StreamSettings)
    action = {"list": list_letters, "export": export, "replay": replay}[options.action]
    with command.telling(settings.data_root):
        try:
            return action(settings, settings.catalog.stream(options.stream), options)
        except FileExistsError:
            command.error(f"{options.file} exists already: name another file")
        except (KafkaException, ValueError) as error:
            command.error(str(error))


if __name__ == "__main__":
    sys.exit(main())
