"""When a record arrived, as `created_timestamp` counts it.

The broker's time (LogAppendTime) is trusted. A producer's (CreateTime) may be anything, and the running maximum would
keep one from the year 2500 for all later rows: it counts as at most a day after the greatest event time so far.
"""

from __future__ import annotations

import polars as pl

MOST_AHEAD_MS = 86_400_000


def archived_arrival_ms(time: str, lateness_ms: int) -> pl.Expr:
    """Each archived record's arrival, ms UTC, from columns as they are stored; `time` names the event time.

    Records that an older version archived don't say whose time theirs is: it is trusted, as it was then.
    """
    kafka_ms, event_ms = (pl.col(name).dt.epoch("ms") for name in ("kafka_timestamp", time))
    reached_ms = pl.max_horizontal(event_ms, pl.col("watermark").dt.epoch("ms") + lateness_ms)
    bounded_ms = pl.min_horizontal(kafka_ms, reached_ms + MOST_AHEAD_MS)
    return pl.when(pl.col("create_time")).then(bounded_ms).otherwise(kafka_ms)
