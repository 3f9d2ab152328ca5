"""When a record arrived, as used for `created_timestamp`.

The broker's time (LogAppendTime) is trusted. A producer's time (CreateTime) may be anything, and the running maximum
would keep one from the year 2500 for all later rows. So it is capped at one day after the greatest event time so far.
"""

from __future__ import annotations

import polars as pl

MOST_AHEAD_MS = 86_400_000


def archived_arrival_ms(time: str, lateness_ms: int) -> pl.Expr:
    """Each archived record's arrival, ms UTC, from stored columns; `time` names the event time.

    Records archived by older versions don't say whose time it is; it is trusted, as those versions did.
    """
    kafka_ms, event_ms = (pl.col(name).dt.epoch("ms") for name in ("kafka_timestamp", time))
    reached_ms = pl.max_horizontal(event_ms, pl.col("watermark").dt.epoch("ms") + lateness_ms)
    bounded_ms = pl.min_horizontal(kafka_ms, reached_ms + MOST_AHEAD_MS)
    return pl.when(pl.col("create_time")).then(bounded_ms).otherwise(kafka_ms)
