"""The run's Prometheus metrics, served on 127.0.0.1 at `STREAM_METRICS_PORT` plus the process number if it is set."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import Counter, Gauge, start_http_server

if TYPE_CHECKING:
    from collections.abc import Iterable

    from feast_repo.declare.catalog import Catalog
    from feast_repo.declare.views import WindowedView
    from feast_repo.settings import StreamSettings
    from feast_repo.stores.progress import Progress
    from stream.epoch import Epoch

away = Gauge("stream_away", "1 while Redis, the disk or Kafka is away and the run waits for it", ["part"])
emptied = Gauge("stream_redis_emptied", "1 while Redis lacks stored rows and is refilled from Parquet")
losses = Counter("stream_redis_losses", "Times that Redis was found to have lost acknowledged rows")
messages = Counter("stream_messages", "Messages with a durable outcome", ["stream"])
late = Counter("stream_late_records", "Durable records that missed windows of a view", ["stream"])
dead_letters = Counter("stream_dead_letters", "Durable dead letters: messages that were not accepted", ["stream"])
ignored = Counter("stream_ignored_messages", "Messages that the declaration ignores", ["stream"])
feature_rows = Counter("stream_feature_rows", "Durable feature rows", ["stream"])
watermark = Gauge(
    "stream_watermark_seconds", "Watermark of the durable data, seconds since 1970", ["stream", "partition"]
)
closed_end = Gauge(
    "stream_closed_window_seconds", "End of the last window that is durable, seconds since 1970", ["view", "partition"]
)
freshness = Gauge("stream_freshness_seconds", "Age of the last closed window from which on values are stale", ["view"])
lag = Gauge("stream_lag_messages", "Messages of the log that are not yet read", ["stream", "partition"])


def lag_in_all(stream: str) -> float:
    """The total consumer lag of this process's partitions of a stream."""
    samples = [sample for metric in lag.collect() for sample in metric.samples]
    return sum(sample.value for sample in samples if sample.labels["stream"] == stream)


def count(stream: str, views: Iterable[WindowedView], epoch: Epoch, advanced: Iterable[Progress]) -> None:
    """Add a durable epoch's counts, and set watermarks and last windows of the partitions that advanced."""
    messages.labels(stream).inc(epoch.messages)
    late.labels(stream).inc(epoch.late)
    dead_letters.labels(stream).inc(epoch.refused.total())
    ignored.labels(stream).inc(epoch.ignored)
    feature_rows.labels(stream).inc(epoch.feature_rows)
    for progress in advanced:
        if progress.watermark_ms is not None:
            watermark.labels(stream, progress.partition).set(progress.watermark_ms / 1000)
        for view in views:
            if (end_ms := view.closed_end_ms(progress.watermark_ms)) is not None:
                closed_end.labels(view.name, progress.partition).set(end_ms / 1000)


def serve_freshness(catalog: Catalog) -> None:
    """Set the age from which on the values of each windowed view are stale."""
    for view in catalog.windowed:
        if (limit_ms := catalog.stale_after_ms(view)) is not None:
            freshness.labels(view.name).set(limit_ms / 1000)


def serve(settings: StreamSettings, process: int) -> None:
    """Serve Prometheus from a thread if a port is set.

    Raises:
        OSError: the port is taken.
    """
    if settings.stream_metrics_port is not None:
        start_http_server(settings.stream_metrics_port + process, addr="127.0.0.1")
