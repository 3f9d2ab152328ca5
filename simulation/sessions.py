"""How shoppers browse: an endless sequence of steps without clock times.

A session belongs to one user, chosen by `activity_weight`. It visits products. A visit is a view that may lead to a
click, then to a cart and then to a purchase, each step less likely than the last. The probabilities depend on the user,
the subscription tier and the session's mood, so past behaviour predicts the next purchase to some extent.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from simulation.clock import USUAL

if TYPE_CHECKING:
    from collections.abc import Iterator

STEP_TYPES = ("view", "click", "add_to_cart", "purchase")
ADVANCE = (0.45, 0.35, 0.45)
"""How often an average user in an average mood clicks a view, puts a click into the cart, and buys a cart."""
MOST_LIKELY = 0.95
TIER_FACTORS = {"free": 0.85, "basic": 1.0, "premium": 1.4}

MEAN_VISITS = 3.0
MOST_VISITS = 40
STEPS_PER_SESSION = 5.4
"""The approximate number of steps per session."""
MEDIAN_GAP_S, GAP_SPREAD, LEAST_GAP_S, MOST_GAP_S = 15.0, 1.0, 1.0, 600.0

PRODUCTS = 5_000
ZIPF_EXPONENT = 1.05
MEDIAN_PRICE_CENTS, PRICE_SPREAD, LEAST_PRICE_CENTS = 2_500, 0.9, 99

MOST_STEPS_PER_SECOND = 5_000.0
"""Faster traffic is this traffic sped up, so the concurrent sessions fit into memory."""
WARM_UP_S = 180.0
"""Skipped at the beginning, when all sessions are new and nobody buys yet."""
LEAST_SESSIONS = 2_000
"""Sessions per vectorised call, which costs the same for one as for many."""


@dataclass(frozen=True)
class Habits:
    """How shoppers differ from usual: factors for visits per session, purchases per cart, and prices."""

    visits: float = 1.0
    buying: float = 1.0
    prices: float = 1.0


DRIFTS = {USUAL: Habits(), "visits": Habits(visits=2.5), "buying": Habits(buying=0.3), "prices": Habits(prices=1.8)}
"""Changes of habit by name, which a drift report has to find."""


@dataclass(frozen=True)
class Catalogue:
    """The shop's products: `popularity` is cumulative and ends at 1, `prices` are in cents; index = product number."""

    popularity: np.ndarray
    prices: np.ndarray


def make_catalogue(price_factor: float = 1.0) -> Catalogue:
    """Products with Zipf popularity and log-normal prices: the same shop for every seed.

    A few products make most of the revenue, so with different prices two seeds would be two shops, and a drift report
    would rightly say so.
    """
    popularity = np.cumsum(np.arange(1, PRODUCTS + 1) ** -ZIPF_EXPONENT)
    prices = MEDIAN_PRICE_CENTS * np.exp(PRICE_SPREAD * np.random.default_rng(20).standard_normal(PRODUCTS))
    prices = np.maximum(prices * price_factor, LEAST_PRICE_CENTS)
    return Catalogue(popularity / popularity[-1], prices.astype(np.int64))


def browse(profiles: pl.DataFrame, *, steps_per_second: float, seed: int, drift: str = USUAL) -> Iterator[pl.DataFrame]:
    """Endless steps in chronological order, as frames of varying length.

    Columns: `user` and `product` (numbers from 0, the user's is the row in `profiles`), `step` (index into
    STEP_TYPES), `session` (number from 0) and `price_cents`. `steps_per_second` sets the number of concurrent sessions,
    and with it how their steps interleave. `drift` is one of DRIFTS. Memory is bounded: some 100 MB at the fastest.
    """
    habits = DRIFTS[drift]
    rng = np.random.default_rng([seed, 10])
    catalogue = make_catalogue(habits.prices)
    activity = np.cumsum(profiles["activity_weight"].to_numpy())
    eagerness = _eagerness(profiles, seed)
    sessions_per_second = min(steps_per_second, MOST_STEPS_PER_SECOND) / STEPS_PER_SESSION
    begun, now_s = 0, 0.0
    ahead = pl.DataFrame()
    while True:
        # In proportion to the steps held back, so that each step is held back a bounded number of times.
        number = max(LEAST_SESSIONS, ahead.height // 8)
        starts = now_s + np.cumsum(rng.exponential(1 / sessions_per_second, number))
        now_s = float(starts[-1])
        users = np.searchsorted(activity, rng.random(number) * activity[-1], side="right").clip(max=len(activity) - 1)
        steps = _steps(rng, starts, users, eagerness[users], catalogue, habits)
        ahead = pl.concat([ahead, steps.with_columns(pl.col("session") + begun)], how="vertical")
        begun += number
        happened = ahead["at_s"] <= now_s  # no later session can start before this
        yield ahead.filter(happened & (ahead["at_s"] >= WARM_UP_S)).sort("at_s", maintain_order=True).drop("at_s")
        ahead = ahead.filter(~happened)


def _eagerness(profiles: pl.DataFrame, seed: int) -> np.ndarray:
    """How much more than average a user tends to take the next step, by tier and person."""
    tier = profiles["subscription_tier"].replace_strict(TIER_FACTORS, return_dtype=pl.Float64).to_numpy()
    person = np.exp(0.4 * np.random.default_rng([seed, 21]).standard_normal(profiles.height))
    factors: np.ndarray = tier * person
    return factors


def _steps(
    rng: np.random.Generator,
    starts: np.ndarray,
    users: np.ndarray,
    eagerness: np.ndarray,
    catalogue: Catalogue,
    habits: Habits,
) -> pl.DataFrame:
    """All steps of new sessions, session by session, with `at_s`: seconds on the same scale as `starts`."""
    visits = np.minimum(rng.geometric(1 / (MEAN_VISITS * habits.visits), len(starts)), MOST_VISITS)
    mood = eagerness * rng.uniform(0.5, 1.5, len(starts))
    session_of_visit = np.repeat(np.arange(len(starts)), visits)
    reached = np.ones(len(session_of_visit), dtype=bool)
    steps = np.ones(len(session_of_visit), dtype=np.int64)
    for probability in (*ADVANCE[:-1], ADVANCE[-1] * habits.buying):
        chance = np.minimum(probability * mood[session_of_visit], MOST_LIKELY)
        reached &= rng.random(len(reached)) < chance
        steps += reached
    products = np.searchsorted(catalogue.popularity, rng.random(len(steps)), side="right").clip(max=PRODUCTS - 1)

    visit_of_step = np.repeat(np.arange(len(steps)), steps)
    session = session_of_visit[visit_of_step]
    product = products[visit_of_step]
    gaps = MEDIAN_GAP_S * np.exp(GAP_SPREAD * rng.standard_normal(len(session)))
    elapsed = np.cumsum(np.clip(gaps, LEAST_GAP_S, MOST_GAP_S))
    first = np.flatnonzero(np.diff(session, prepend=-1))
    return pl.DataFrame(
        {
            "at_s": starts[session] + elapsed - elapsed[first][session],
            "user": users[session].astype(np.int32),
            "product": product.astype(np.int32),
            # A visit's steps follow STEP_TYPES from its beginning.
            "step": (np.arange(len(session)) - (np.cumsum(steps) - steps)[visit_of_step]).astype(np.int32),
            "session": session,
            "price_cents": catalogue.prices[product],
        }
    )
