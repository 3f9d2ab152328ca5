"""Training rows without a stream, for demonstrations of models alone."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl

from feast_repo.declare.events import UTC_MICROSECONDS
from feast_repo.declare.rows import EVENT_TIME

UNTOLD_BELOW = 25
"""The age of users with an unknown age."""


def training_rows(rows: int = 4_000, seed: int = 1) -> pl.DataFrame:
    """Rows in which users who view more buy more."""
    chance = np.random.default_rng(seed)
    start = datetime(2026, 1, 1, tzinfo=UTC)
    [start + timedelta(seconds=10 * number) for number in range(rows)]
    views = chance.integers(0, 30, rows)
    return pl.DataFrame(
        {
            "user_id": [f"user_{number:06d}" for number in chance.integers(1, 500, rows)],
            EVENT_TIME: pl.Series(
                [start + timedelta(seconds=10 * number) for number in range(rows)], dtype=UTC_MICROSECONDS
            ),
            "purchased": chance.random(rows) < (views + 2) / 40,
            "click_count": chance.integers(0, 30, rows),
            "view_count": views,
            "cart_count": chance.integers(0, 4, rows),
            "purchase_count": chance.integers(0, 2, rows),
            "revenue_cents": chance.integers(0, 1 << 26, rows),
            "cart_rate": chance.random(rows),
            "conversion_rate": chance.random(rows) / 3,
            "age": [None if number < UNTOLD_BELOW else number for number in chance.integers(18, 90, rows).tolist()],
            "country": [name or None for name in chance.choice(["DE", "US", "BR", ""], rows, p=[0.5, 0.2, 0.2, 0.1])],
            "subscription_tier": chance.choice(["free", "basic"], rows).tolist(),
            "activity_weight": chance.random(rows),
        }
    )
