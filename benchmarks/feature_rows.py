"""Rows of `user_click_features` without a stream: for what is measured behind it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from feast_repo.declare.values import POLARS_TYPES
from feast_repo.features import user_click_features as view
from feast_repo.stores.offline.tables import from_milliseconds

if TYPE_CHECKING:
    from numpy.typing import NDArray

MEANS = {"click_count": 4, "view_count": 12, "cart_count": 3, "purchase_count": 1}
PRICES = (100, 50_000)


def user_names(numbers: NDArray[np.int64]) -> pl.Series:
    """`user_000123` and so on."""
    return "user_" + pl.Series("user_id", numbers).cast(pl.String).str.zfill(6)


def click_rows(users: NDArray[np.int64], ends_ms: NDArray[np.int64], seed: int) -> pl.DataFrame:
    """A row for each pair of user number and window end, as the stream pushes it; `created_timestamp` 2 min later."""
    chance = np.random.default_rng(seed)
    counts = {name: chance.poisson(mean, len(users)) for name, mean in MEANS.items()}
    states = pl.DataFrame(
        {"user_id": user_names(users), "end_ms": ends_ms, "created_ms": ends_ms + view.lateness_ms}
    ).with_columns(
        pl.Series("revenue_cents", counts["purchase_count"] * chance.integers(*PRICES, len(users))),
        *(pl.Series(name, count) for name, count in counts.items()),
    )
    return view.finished(states).select(
        "user_id",
        from_milliseconds("end_ms").alias("event_timestamp"),
        from_milliseconds("created_ms").alias("created_timestamp"),
        *(pl.col(name).cast(POLARS_TYPES[value_type]) for name, value_type in view.value_types.items()),
    )
