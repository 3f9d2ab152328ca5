"""What a run tells Prometheus, on 127.0.0.1 at `STREAM_METRICS_PORT` plus the process number, if that is set."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import Counter, Gauge, start_http_server

if TYPE_CHECKING:
    from collections.abc import Iterable

    from feast_repo.settings import StreamSettings
    from feast_repo.stores.progress import Progress
    from stream.epoch import Epoch

away = Gauge("stream_away", "1 while Redis, the disk or Kafka is away and the run waits for it", ["part"])
emptied = Gauge("stream_redis_emptied", "1 while Redis lacks what was stored, and is refilled from Parquet")
losses = Counter("stream_redis_losses", "Times that Redis was found to have lost what it had acknowledged")
messages = Counter("stream_messages", "Messages whose outcome is durable")
late = Counter("stream_late_records", "Records that missed windows, durable")
dead_letters = Counter("stream_dead_letters", "Messages that were not accepted, durable")
feature_rows = Counter("stream_feature_rows", "Feature rows that are durable")
watermark = Gauge("stream_watermark_seconds", "Watermark of the durable data, seconds since 1970", ["partition"])

lag = Gauge("stream_lag_messages", "Messages of the log that were not read yet", ["partition"])


def lag_in_all() -> float:
    """The lag of all partitions of this process."""
    return sum(sample.value for metric in lag.collect() for sample in metric.samples)


def count(epoch: Epoch, advanced: Iterable[Progress]) -> None:
    """Add what an epoch has made durable, and how far each partition has come."""
    messages.inc(epoch.messages)
    late.inc(epoch.late)
    dead_letters.inc(epoch.refused.total())
    feature_rows.inc(epoch.feature_rows)
    for progress in advanced:
        if progress.watermark_ms is not None:
            watermark.labels(progress.partition).set(progress.watermark_ms / 1000)


def serve(settings: StreamSettings, process: int) -> None:
    """Answer Prometheus from a thread, if a port is set.

    Raises:
        OSError: the port is taken.
    """
    if settings.stream_metrics_port is not None:
        start_http_server(settings.stream_metrics_port + process, addr="127.0.0.1")
