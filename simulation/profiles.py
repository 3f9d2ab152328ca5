"""User profiles: who the shoppers are.

    python -m batch.profiles --users 10000 --seed 7

Writes `DATA_ROOT/profiles/profiles.csv` for people and the rows of a batch view for the offline store. The
same seed gives the same bytes, and a second run for the same profile time replaces the first.
"""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
from rich.table import Table

from batch.quality.publication import BatchTable
from feast_repo.commands import Command, as_it_is, instant, integer
from feast_repo.errors import FeatureStoreError, RefusedError
from feast_repo.profiles import COUNTRIES, TIERS
from feast_repo.settings import StoreSettings

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

DEFAULT_USERS = 10_000
DEFAULT_SEED = 7
MOST_USERS = 10_000_000
MOST_SEED = 2**63 - 1

TAIL = {"free": 1.3, "basic": 1.0, "premium": 0.7}
"""Pareto exponent of activity by tier: the smaller it is, the more users are very active."""
LEAST_ACTIVITY = 0.01

# The frequency of ages among online shoppers, interpolated linearly between these knots.
AGE_KNOTS = (18, 24, 30, 40, 50, 60, 70, 80, 90)
AGE_WEIGHTS = (0.55, 0.95, 1.0, 0.85, 0.7, 0.5, 0.25, 0.08, 0.01)


NEW_COUNTRY, OLDER_BY = "MX", 9
DRIFTS = ("none", "older", "new-country", "no-premium")
"""Changes of the population: a shifted mean, a new category (a tenth of the users), a vanished category."""


def make_profiles(users: int, seed: int, drift: str = "none") -> pl.DataFrame:
    """One row per user: `user_id, age, country, subscription_tier, activity_weight` (in (0, 1], heavy-tailed).

    A pure function of its arguments; `drift` is one of DRIFTS. Each user takes one draw per column, so the first users
    of a larger population are the same people as in a smaller one. Time and memory are linear in `users`.
    """
    age_draw, country_draw, tier_draw, activity_draw = (
        np.random.default_rng([seed, column]).random(users) for column in range(4)
    )
    ages = np.arange(AGE_KNOTS[0], AGE_KNOTS[-1] + 1)
    tiers = _choose(tier_draw, list(TIERS.values()))
    # The inverse distribution function of a Pareto law bounded to [LEAST_ACTIVITY, 1].
    tail = np.array(list(TAIL.values()))[tiers]
    activity = LEAST_ACTIVITY * (1 - activity_draw * (1 - LEAST_ACTIVITY**tail)) ** (-1 / tail)
    profiles = pl.DataFrame(
        {
            "user_id": user_ids(users),
            "age": ages[_choose(age_draw, np.interp(ages, AGE_KNOTS, AGE_WEIGHTS))],
            "country": pl.Series(list(COUNTRIES)).gather(_choose(country_draw, list(COUNTRIES.values()))),
            "subscription_tier": pl.Series(list(TIERS)).gather(tiers),
            "activity_weight": np.clip(activity, LEAST_ACTIVITY, 1.0).round(6),
        }
    )
    if drift == "older":
        return profiles.with_columns((pl.col("age") + OLDER_BY).clip(upper_bound=AGE_KNOTS[-1]))
    if drift == "new-country":
        moved = pl.int_range(pl.len()) % 10 == 0
        return profiles.with_columns(country=pl.when(moved).then(pl.lit(NEW_COUNTRY)).otherwise("country"))
    if drift == "no-premium":
        return profiles.with_columns(pl.col("subscription_tier").replace("premium", "basic"))
    return profiles


def user_ids(users: int) -> pl.Series:
    """`user_000001` and so on, in ascending order."""
    return pl.select("user_" + pl.int_range(1, users + 1).cast(pl.String).str.zfill(6)).to_series()


class OtherColumnsError(RefusedError):
    """A batch view is not about such profiles; the message names its columns."""


def publish_profiles(profiles: pl.DataFrame, time: datetime, data_root: Path, view: str | None = None) -> list[Path]:
    """Publish profiles as rows of a batch view of the catalog; see `BatchTable.publish`.

    Raises:
        ChoiceError: there is no such view, or several and no name.
        OtherColumnsError: the view has other columns.
        OSError: the data folder is not writable.
    """
    catalog = StoreSettings().catalog
    declared = catalog.batch_view(view)
    if (columns := [*declared.join_keys, *declared.features]) != profiles.columns:
        message = (
            f"batch view {declared.name!r} has the columns {columns}, and the profiles that are generated here "
            f"{profiles.columns}: publish a table of your own with `python -m batch.quality gate --input FILE`"
        )
        raise OtherColumnsError(message)
    return BatchTable(data_root, catalog, declared).publish(profiles, time)


def _choose(draws: np.ndarray, weights: Sequence[float] | np.ndarray) -> np.ndarray:
    """Map uniform draws to indices with frequencies by weight."""
    cumulative = np.cumsum(weights)
    return np.minimum(np.searchsorted(cumulative / cumulative[-1], draws, side="right"), len(cumulative) - 1)


def _summary(profiles: pl.DataFrame) -> Table:
    """A summary of the profiles by tier."""
    table = Table(title=f"{len(profiles):,} profiles")
    for column in ("tier", "users", "share", "mean age", "mean activity", "share of activity"):
        table.add_column(column, justify="left" if column == "tier" else "right")
    total = profiles["activity_weight"].sum()
    by_tier = profiles.group_by("subscription_tier").agg(
        pl.len(), pl.col("age").mean(), mean=pl.col("activity_weight").mean(), activity=pl.col("activity_weight").sum()
    )
    for tier, users, age, mean, activity in by_tier.sort("len", descending=True).iter_rows():
        share = f"{users / len(profiles):.1%}"
        table.add_row(tier, f"{users:,}", share, f"{age:.1f}", f"{mean:.3f}", f"{activity / total:.1%}")
    return table


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    command = Command(
        "python -m batch.profiles", "Generate weighted user profiles: a CSV, and rows of the offline store."
    )
    command.add_argument(
        "--users", type=integer(1, MOST_USERS), default=DEFAULT_USERS, help="number of users (%(default)s)"
    )
    command.add_argument("--seed", type=integer(0, MOST_SEED), default=DEFAULT_SEED, help="same seed, same profiles")
    command.add_argument("--time", type=instant, help="when they become valid, ISO 8601 UTC (default: today, 00:00)")
    command.add_argument("--drift", choices=DRIFTS, default=DRIFTS[0], help="change of the population (%(default)s)")
    command.add_choice("view", "the only batch view")
    command.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    options = command.parse_args(arguments)
    settings = command.settings(StoreSettings)
    now = datetime.now(UTC)
    time = options.time or now.replace(hour=0, minute=0, second=0, microsecond=0)
    if time > now:
        command.error(f"--time {time.isoformat()} is in the future; name a time up to now")

    profiles = make_profiles(options.users, options.seed, options.drift)
    try:
        files = publish_profiles(profiles, time, settings.data_root, options.view)
    except FeatureStoreError as error:
        command.fail(error)
    except OSError as error:
        command.error(f"can't write below DATA_ROOT: {error}; make it writable, or name another folder")
    if options.json:
        report = {
            "users": len(profiles),
            "seed": options.seed,
            "time": time.isoformat(),
            "files": list(map(str, files)),
        }
        sys.stdout.write(json.dumps(report) + "\n")
    else:
        as_it_is().print(_summary(profiles))
        for file in files:
            sys.stdout.write(f"{file}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
