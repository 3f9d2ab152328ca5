"""An archive as the stream would have left it, written straight from `benchmarks.clicks`: no Kafka, no engine."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl
from confluent_kafka import murmur2

from feast_repo.clickstream import clickstream
from feast_repo.features import user_click_features as view
from feast_repo.stores.offline.tables import event_columns, events_folder, progress_folder
from feast_repo.stores.progress import Progress, ProgressRecord
from stream.log_table import LogTable

if TYPE_CHECKING:
    from pathlib import Path

    from benchmarks.clicks import Clicks

TOPIC, PARTITIONS = "clickstream", 12


def write_archive(clicks: Clicks, root: Path) -> None:
    """Write `events/` (a file a day for every 200,000 records, partition by partition) and `progress/`."""
    table = LogTable(events_folder(root, clickstream), event_columns(view.source))
    partition_of: dict[str, int] = {}
    offsets, latest = dict.fromkeys(range(PARTITIONS), 0), dict[int, int]()
    for records in clicks.records():
        for user in set(records["user_id"].to_list()) - partition_of.keys():
            partition_of[user] = murmur2(user.encode(), PARTITIONS)
        placed = records.rename({"arrival_ms": "kafka_timestamp"}).with_columns(
            pl.col("user_id").replace_strict(partition_of, return_dtype=pl.Int32).alias("partition")
        )
        for (number,), part in placed.partition_by("partition", as_dict=True, maintain_order=True).items():
            partition = int(str(number))
            reached = pl.max_horizontal(pl.col("event_timestamp").cum_max(), pl.lit(latest.get(partition), pl.Int64))
            before = latest.get(partition)
            rows = part.with_columns(
                (pl.int_range(pl.len(), dtype=pl.Int64) + offsets[partition]).alias("offset"),
                pl.lit(value=False).alias("create_time"),
                (reached.shift(1, fill_value=pl.lit(before, pl.Int64)) - view.lateness_ms).alias("watermark"),
            )
            table.append(partition, rows)
            offsets[partition] += len(rows)
            latest[partition] = max(part["event_timestamp"].to_list() + ([] if before is None else [before]))
        table.flush()
    record = ProgressRecord(progress_folder(root, clickstream))
    for partition, event_ms in latest.items():
        watermark = event_ms - view.lateness_ms
        record.save(Progress(TOPIC, partition, offsets[partition], watermark))
