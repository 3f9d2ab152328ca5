"""Messages that were not accepted: look at them, take them out to be mended, send them again.

    python -m stream.dead_letters list --reason type:price_cents
    python -m stream.dead_letters export letters.jsonl
    python -m stream.dead_letters replay letters.jsonl       # after the values in it were mended

A replay goes through the topic, like any event, with a header that says where the message came from. It sends nothing
unless all of the file would be accepted. Sent twice, an event counts once as long as its windows are open
(`deduplicate`); what comes too late for its windows is in the archive, and a backfill counts it.
"""

from __future__ import annotations

import base64
import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl
from confluent_kafka import KafkaError, KafkaException, Message, Producer
from rich.console import Console
from rich.progress import Progress as ProgressBar
from rich.table import Table

from feast_repo.commands import Command, instant
from feast_repo.files import data_files
from feast_repo.tables import DEAD_LETTER_COLUMNS, dead_letters_folder
from stream.decoding import Decoder, RawBatch
from stream.producing import producer_config
from stream.settings import StreamSettings

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Sequence

CAME_FROM = "replayed-from"
"""Header of a replayed message: `topic[partition]@offset` of the one that was not accepted."""

SHOWN_BYTES = 60
SHOWN_PROBLEMS = 5
FLUSH_TIMEOUT_S = 30.0
FAILED = 1


class LetterError(ValueError):
    """A file of letters can't be sent; the message names the lines and what is wrong."""


@dataclass(frozen=True)
class Letter:
    """A mended message: what goes to the topic, and where it came from."""

    key: bytes | None
    value: bytes
    came_from: str


def letters(settings: StreamSettings, options: Namespace) -> pl.LazyFrame:
    """The dead letters that the options select, in the columns of the table."""
    folders = sorted(dead_letters_folder(settings.data_root).glob("dt=*"))
    files = [file for folder in folders for file in data_files(folder)]
    rows = pl.scan_parquet(files, hive_partitioning=False) if files else pl.LazyFrame(schema=DEAD_LETTER_COLUMNS)
    rows = rows.unique(["partition", "offset"], maintain_order=True)  # a compaction ended half-way leaves copies
    if options.reason is not None:
        rows = rows.filter(reason=options.reason)
    if options.start is not None:
        rows = rows.filter(pl.col("kafka_timestamp") >= options.start)
    if options.end is not None:
        rows = rows.filter(pl.col("kafka_timestamp") < options.end)
    return rows


def by_reason(rows: pl.LazyFrame) -> pl.DataFrame:
    """One row a reason, the most frequent first: count, partitions, first and last Kafka time, an example value."""
    return (
        rows.group_by("reason")
        .agg(
            pl.len().alias("count"),
            pl.col("partition").n_unique().alias("partitions"),
            pl.col("kafka_timestamp").min().alias("first"),
            pl.col("kafka_timestamp").max().alias("last"),
            pl.col("value").sort_by("kafka_timestamp").last().alias("example"),
        )
        .sort("count", "reason", descending=[True, False])
        .collect()
    )


def as_line(topic: str, row: dict[str, Any]) -> str:
    """A letter as one line of JSON; bytes that are no UTF-8 are in base64, under names that say so."""
    line = {
        "came_from": f"{topic}[{row['partition']}]@{row['offset']}",
        "kafka_timestamp": row["kafka_timestamp"].isoformat(),
        "reason": row["reason"],
    }
    for name in ("key", "value"):
        data = row[name]
        try:
            line[name] = None if data is None else data.decode()
        except UnicodeDecodeError:
            line[f"{name}_base64"] = base64.b64encode(data).decode()
    return json.dumps(line, ensure_ascii=False)


def from_line(text: str) -> Letter:
    """A mended line as a message; its key follows from the mended value.

    Raises:
        LetterError: the line has no value or doesn't say where it came from.
    """
    try:
        line = json.loads(text)
        value = base64.b64decode(line["value_base64"]) if "value_base64" in line else line["value"].encode()
        came_from = line["came_from"]
        document = json.loads(value)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        message = f"no exported letter with a JSON value ({type(error).__name__}: {error})"
        raise LetterError(message) from error
    user = document.get("user_id") if isinstance(document, dict) else None
    return Letter(user.encode() if isinstance(user, str) else None, value, str(came_from))


def read(path: Path, settings: StreamSettings) -> list[Letter]:
    """The letters of a file, each of which would be accepted now.

    Raises:
        LetterError: some would not be.
        OSError: the file can't be read.
    """
    found, problems, numbers = [], [], []
    for number, text in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if not text.strip():
            continue
        try:
            found.append(from_line(text))
            numbers.append(number)
        except LetterError as error:
            problems.append((number, str(error)))
    now_ms = time.time_ns() // 1_000_000
    batch = RawBatch(
        partition=0,
        values=[letter.value for letter in found],
        keys=[letter.key for letter in found],
        kafka_timestamps=[now_ms] * len(found),
        offsets=numbers,
    )
    problems += Decoder(settings.view.events).decode(batch).dead_letters.select("offset", "reason").rows()
    if problems:
        first = "; ".join(f"line {number}: {reason}" for number, reason in sorted(problems)[:SHOWN_PROBLEMS])
        message = f"{path}: {len(problems)} of {len(found)} letters would not be accepted, so none is sent ({first})"
        raise LetterError(message)
    return found


def send(settings: StreamSettings, mended: list[Letter], console: Console) -> int:
    """Send the letters through the topic; returns how many were not delivered."""
    delivered = 0

    def report(error: KafkaError | None, _message: Message) -> None:
        nonlocal delivered
        delivered += error is None

    producer = Producer({**producer_config(settings), "log_level": 0})
    with ProgressBar(console=console, transient=True) as bar:
        task = bar.add_task("replaying", total=len(mended))
        for letter in mended:
            headers = [(CAME_FROM, letter.came_from)]
            while True:
                try:
                    producer.produce(
                        settings.kafka_topic, letter.value, letter.key, headers=headers, on_delivery=report
                    )
                    break
                except BufferError:
                    producer.poll(1)
            producer.poll(0)
            bar.update(task, completed=delivered)
        producer.flush(FLUSH_TIMEOUT_S)
    return len(mended) - delivered


def shown(data: bytes) -> str:
    """The beginning of a value, safe to print."""
    text = data[:SHOWN_BYTES].decode(errors="backslashreplace")
    printable = "".join(one if one.isprintable() else f"\\x{ord(one):02x}" for one in text)
    return printable + ("..." if len(data) > SHOWN_BYTES else "")


def list_letters(settings: StreamSettings, options: Namespace) -> int:
    """Print how many there are, by reason."""
    found = by_reason(letters(settings, options))
    if options.json:
        times = pl.col("first", "last").dt.to_string("iso:strict")
        rows = found.with_columns(times, example=pl.Series(map(shown, found["example"]), dtype=pl.String)).to_dicts()
        sys.stdout.write(json.dumps(rows) + "\n")
        return 0
    table = Table("reason", "count", "partitions", "first (Kafka time)", "last", "example")
    for row in found.iter_rows(named=True):
        first, last = (f"{row[name]:%Y-%m-%d %H:%M:%S}" for name in ("first", "last"))
        table.add_row(row["reason"], f"{row['count']:,}", str(row["partitions"]), first, last, shown(row["example"]))
    console = Console()
    console.print(table if len(found) else "no dead letters", markup=False)
    return 0


def export(settings: StreamSettings, options: Namespace) -> int:
    """Write them as lines of JSON."""
    count = 0
    with options.file.open("x", encoding="utf-8") as file:
        for row in letters(settings, options).sort("partition", "offset").collect().iter_rows(named=True):
            file.write(as_line(settings.kafka_topic, row) + "\n")
            count += 1
    sys.stdout.write(f"{count:,} letters in {options.file}; mend their values, then replay the file\n")
    return 0


def replay(settings: StreamSettings, options: Namespace) -> int:
    """Send mended letters."""
    mended = read(options.file, settings)
    if failed := send(settings, mended, Console(stderr=True)):
        sys.stdout.write(f"{failed:,} of {len(mended):,} letters were not delivered: replay the file again\n")
        return FAILED
    sys.stdout.write(f"{len(mended):,} letters replayed to {settings.kafka_topic}\n")
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    command = Command("python -m stream.dead_letters", "Look at dead letters, export them, send mended ones again.")
    add = command.add_argument
    add("action", choices=["list", "export", "replay"], help="replay sends FILE, whose values were mended")
    add("file", nargs="?", type=Path, metavar="FILE", help="lines of JSON: what export writes and replay reads")
    add("--reason", help="list or export those with this reason only, such as type:price_cents")
    add("--start", type=instant, help="... from this Kafka time on (ISO 8601, UTC)")
    add("--end", type=instant, help="... before this Kafka time")
    add("--json", action="store_true", help="list: print a JSON array")
    options = command.parse_args(arguments)
    if (options.action == "list") is (options.file is not None):
        command.error(f"{options.action} takes {'no' if options.action == 'list' else 'a'} FILE")
    settings = command.settings(StreamSettings)
    action = {"list": list_letters, "export": export, "replay": replay}[options.action]
    try:
        return action(settings, options)
    except FileExistsError:
        command.error(f"{options.file} exists already: name another file")
    except (LetterError, OSError, KafkaException, ValueError) as error:
        command.error(str(error))


if __name__ == "__main__":
    sys.exit(main())
