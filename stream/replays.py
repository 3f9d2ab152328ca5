"""Which dead letters were replayed, recorded beside their table because a log is only appended to."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import polars as pl

from feast_repo.declare.events import UTC_MICROSECONDS
from feast_repo.stores.offline.files import data_files, day_folders
from feast_repo.stores.offline.parquet import day_folder, publish, scan
from feast_repo.stores.offline.tables import LOG_KEY, replays_folder

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from feast_repo.declare.events import EventStream

PLACE = ["partition", "offset"]
COLUMNS = {**LOG_KEY, "replayed_at": UTC_MICROSECONDS}


def record(data_root: Path, stream: EventStream, delivered: Iterable[tuple[int, int, datetime | None]]) -> None:
    """Record which letters went back to the topic, by partition, offset and Kafka time (None: any time).

    Durable when it returns. The file is named after its letters, so recording the same ones again adds nothing.

    Raises:
        OSError: the disk is full or not writable.
    """
    now = datetime.now(UTC)
    rows = pl.DataFrame(sorted({(*letter, now) for letter in delivered}, key=str), schema=COLUMNS, orient="row")
    if rows.is_empty():
        return
    digest = hashlib.sha256(rows.select(LOG_KEY.keys()).write_csv().encode()).hexdigest()[:16]
    publish(day_folder(replays_folder(data_root, stream), f"{now:%Y-%m-%d}") / f"replay-{digest}.parquet", rows)


def marked(letters: pl.LazyFrame, data_root: Path, stream: EventStream) -> pl.LazyFrame:
    """Dead letters with `replayed_at`: the time of the last replay, or null."""
    files = [file for folder in day_folders(replays_folder(data_root, stream)) for file in data_files(folder)]
    sent = scan(files, COLUMNS)
    same = pl.col("sent_timestamp").is_null() | (pl.col("sent_timestamp") == pl.col("kafka_timestamp"))
    found = letters.select(LOG_KEY.keys()).join(sent.rename({"kafka_timestamp": "sent_timestamp"}), on=PLACE)
    last = found.filter(same).group_by(PLACE).agg(pl.col("replayed_at").max())
    return letters.join(last, on=PLACE, how="left")
