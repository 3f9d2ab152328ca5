"""Profiles from Parquet into an empty Redis: `batch.materialize` beside Feast's own materialization.

    python -m benchmarks.materialize

One row of `user_profile_features` (two strings, an integer, a double) for each user, in one Parquet file, as the
profile job leaves it. Ours compares and sets each row in one step of the server, since other writers may be at work.
Feast's is `FeatureStore.materialize` of stock Feast with its own DuckDB and Redis stores, and `online_write_batch_size`
and `pull_latest_features` as in our feature_store.yaml; it reads the stored times, then writes.

What bounds ours: making the bytes in Python, and the server, which runs a script for each row. What bounds Feast's: an
object for each value. Rounds are few, since Feast's take long. After each run Redis must hold the same keys and bytes.
"""

from __future__ import annotations

import contextlib
import gc
import io
import sys
import time
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING

from rich.console import Console

from batch.maintenance.materialize import materialize
from benchmarks.feast_stores import own_stores
from benchmarks.options import options as read_options
from benchmarks.plots import bars
from benchmarks.redis_content import digest
from benchmarks.results import keep
from benchmarks.rounds import Spread, in_turn, ratio
from benchmarks.watch import ContestantError
from feast_repo.features import user_profile_features as view
from simulation.profiles import make_profiles, publish_profiles

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from benchmarks.feast_stores import Stores

USERS = {"quick": 20_000, "usual": 300_000, "full": 1_000_000}
OURS, FEAST = "batch.materialize", "FeatureStore.materialize"


def measure(stores: Stores, users: int, rounds: int) -> dict[str, list[float]]:
    """Seconds of each way in each round.

    Raises:
        ContestantError: they have left different contents in Redis.
    """
    from feast_repo.stores.online.view import OnlineView  # noqa: PLC0415  (Feast takes seconds to import)

    since = datetime.now(UTC) - timedelta(days=1)
    publish_profiles(make_profiles(users, seed=1), since.replace(microsecond=0) + timedelta(hours=1), stores.root)
    ours, stock = stores.ours(), stores.stock("duckdb")
    online = OnlineView(ours, ours.get_feature_view(view.name))
    quiet = Console(file=io.StringIO())
    contents = set()

    def timed(run: Callable[[], object]) -> float:
        stores.redis.flushall()
        gc.collect()
        start = time.perf_counter()
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            run()
        seconds = time.perf_counter() - start
        contents.add(digest(stores.redis))
        return seconds

    ways: dict[str, Callable[[], float]] = {
        OURS: partial(timed, lambda: materialize(online, stores.root, view, since, quiet)),
        FEAST: partial(timed, lambda: stock.materialize(since, datetime.now(UTC), [view.name])),
    }
    found = in_turn(ways, rounds, "materialize")
    if [one.hashes for one in contents] != [users]:
        message = f"the two have left different contents in Redis: {contents}"
        raise ContestantError(message)
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; returns the exit code."""
    options = read_options("benchmarks.materialize", "Profiles into Redis: batch.materialize, Feast's own.", arguments)
    users, rounds = USERS[options.size], options.rounds
    with own_stores() as stores:
        found = measure(stores, users, rounds)
    quicker = ratio(found[FEAST], found[OURS])
    rows = "\n".join(
        f"| {name} | {Spread.of(seconds).text('.2f')} | {users / Spread.of(seconds).median:,.0f} |"
        for name, seconds in found.items()
    )
    text = (
        f"{users:,} profiles into an empty Redis, median of {rounds} rounds (least to most). Both leave "
        "the same keys and bytes.\n\n"
        f"| ratio | | budget |\n|---|---|---|\n| {OURS} is so many times as fast | {quicker.text('.1f')} | |\n\n"
        f"| | seconds | rows/s |\n|---|---|---|\n{rows}\n"
    )
    result = {"users": users, "rounds": rounds, "times_as_fast": vars(quicker), "seconds": found}
    plots = {f"Seconds for {users:,} profiles": bars(found, f"seconds for {users:,} profiles", ours=(OURS,))}
    keep("materialize", options, "Materialization", result, text, plots=plots)
    return 0


if __name__ == "__main__":
    sys.exit(main())
