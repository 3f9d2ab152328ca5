"""The events of the stream benchmarks, and the windows that they must lead to.

Clean JSON of about 200 bytes a message; users by Zipf's law; 5 % of the events come up to 60 s of event time behind the
others, which the allowed lateness covers. The same parameters give the same bytes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import duckdb
import numpy as np
import polars as pl

from feast_repo.clickstream import clickstream
from feast_repo.declare.events import UTC_MICROSECONDS
from feast_repo.declare.values import POLARS_TYPES
from feast_repo.features import user_click_features as view
from simulation.clicks import RECORD

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

START_MS = 1_772_366_400_000
"""2026-03-01 12:00 UTC, the end of a window."""

CHUNK = 200_000
DISORDERLY, DISORDER_MS = 0.05, 60_000
STEPS = (("view", 0.6), ("click", 0.2), ("add_to_cart", 0.15), ("purchase", 0.05))
EVENT_COLUMNS = ("user_id", "event_type", "event_timestamp", "price_cents")


@dataclass(frozen=True)
class Clicks:
    """So many events of so many users over so many minutes of event time.

    With a skew of 1 users click by Zipf's law, with 0 all of them alike.
    """

    events: int
    users: int = 100_000
    minutes: float = 65.0
    seed: int = 1
    skew: float = 1.0

    def records(self) -> Iterator[pl.DataFrame]:
        """Frames of `simulation.clicks.RECORD`, in the order in which they are produced."""
        for clicks in self.clicks():
            yield clicks.select(
                "arrival_ms",
                pl.lit(None, pl.Int32).alias("partition"),
                pl.col("user_id").alias("key"),
                pl.struct(*clickstream.schema).struct.json_encode().cast(pl.Binary).alias("value"),
                pl.lit("event").alias("kind"),
                *clickstream.schema,
            ).select(RECORD.keys())

    def clicks(self) -> Iterator[pl.DataFrame]:
        """The same without the messages, in half the time: `arrival_ms` and the event's fields."""
        chance = np.random.default_rng(self.seed)
        weights = np.cumsum(1.0 / np.arange(1, self.users + 1) ** self.skew)
        # Neighbours in rank are neighbours nowhere else.
        names = pl.Series([f"user_{number:06d}" for number in chance.permutation(self.users)])
        kinds = pl.Series([name for name, _ in STEPS])
        shares = [share for _, share in STEPS]
        for first in range(0, self.events, CHUNK):
            count = min(CHUNK, self.events - first)
            number = np.arange(first, first + count)
            arrival = START_MS + (number * (self.minutes * 60_000 / self.events)).astype(np.int64)
            delay = np.where(chance.random(count) < DISORDERLY, chance.integers(0, DISORDER_MS, count), 0)
            kind = chance.choice(len(STEPS), count, p=shares)
            user = np.searchsorted(weights, chance.random(count) * weights[-1])
            priced = kind == len(STEPS) - 1
            digits = chance.bytes(16 * count).hex()
            fields = pl.DataFrame(
                {
                    "event_id": [digits[at : at + 32] for at in range(0, len(digits), 32)],
                    "user_id": names.gather(user),
                    "event_type": kinds.gather(kind),
                    "event_timestamp": np.maximum(arrival - delay, START_MS),
                    "product_id": "p_" + pl.Series(chance.integers(0, 50_000, count)).cast(pl.String).str.zfill(5),
                    "session_id": "s_" + pl.Series(user // 3).cast(pl.String).str.zfill(8),
                    "price_cents": pl.Series(chance.integers(100, 50_000, count)).set(pl.Series(~priced), None),
                },
                schema=clickstream.schema,
            )
            yield fields.select(pl.Series("arrival_ms", arrival), pl.all())

    @property
    def ends(self) -> tuple[int, ...]:
        """The window ends (ms) that every partition's watermark passes: those of the time that is covered whole."""
        covered = START_MS + round(self.minutes * 60_000) - view.lateness_ms - DISORDER_MS
        return tuple(range(START_MS + view.slide_ms, covered + 1, view.slide_ms))


def expected_rows(events: pl.DataFrame, ends: tuple[int, ...]) -> pl.DataFrame:
    """The rows of the closed windows, recomputed in SQL from the columns of `EVENT_COLUMNS`; sorted by user and end."""
    with duckdb.connect() as database:
        database.register("events", events.to_arrow())
        database.register("window_ends", pl.DataFrame({"closed": ends}, schema={"closed": pl.Int64}).to_arrow())
        found = database.sql(
            f"""
            with counted as (
              select user_id, closed,
                count(*) filter (event_type = 'click') as click_count,
                count(*) filter (event_type = 'view') as view_count,
                count(*) filter (event_type = 'add_to_cart') as cart_count,
                count(*) filter (event_type = 'purchase') as purchase_count,
                coalesce(sum(price_cents) filter (event_type = 'purchase'), 0)::bigint as revenue_cents
              from events join window_ends
                on event_timestamp < closed and event_timestamp >= closed - {view.window_ms}
              group by all)
            select user_id, make_timestamptz(closed * 1000) as event_timestamp, * exclude (user_id, closed),
              case when view_count = 0 then 0.0 else cart_count / view_count end as cart_rate,
              case when view_count = 0 then 0.0 else purchase_count / view_count end as conversion_rate
            from counted order by user_id, closed
            """  # noqa: S608  (a number of the declaration)
        ).to_arrow_table()
    return pl.DataFrame(found)


def differences(expected: pl.DataFrame, data_root: Path) -> int:
    """How many of the expected rows are not below `data_root/features` just so, plus how many are there beyond them.

    Rows of other window ends, and those in which nothing is counted (expiry rows), are not looked at.
    """
    types = {name: POLARS_TYPES[value_type] for name, value_type in view.value_types.items()}
    row = [
        pl.col("user_id").cast(pl.String),
        pl.col("event_timestamp").cast(UTC_MICROSECONDS),
        *(pl.col(name).cast(dtype) for name, dtype in types.items()),
    ]
    expected = expected.select(row)
    stored = (
        pl.scan_parquet(data_root / "features" / "**" / "*.parquet", hive_partitioning=False)
        .select(row)
        .filter(pl.any_horizontal(pl.col(name) > 0 for name, dtype in types.items() if dtype == pl.Int64))
        .filter(pl.col("event_timestamp").is_in(expected["event_timestamp"].unique().implode()))
        .collect()
    )
    equal = len(expected.join(stored, on=expected.columns, how="semi"))
    return len(expected) - equal + len(stored) - equal
