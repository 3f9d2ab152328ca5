"""What `deduplicate` costs the window engine: events/s, state in memory, snapshot size and time.

    python -m benchmarks.deduplicate

One partition, 2 million events of 100,000 users over 65 minutes, in batches of 10,000. Rounds alternate.

What bounds it: an id is hashed, and then searched for and merged O(log n) times.
"""

from __future__ import annotations

import sys
import time
from dataclasses import asdict, replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from benchmarks.options import options
from benchmarks.results import keep
from benchmarks.rounds import Spread, in_turn, ratio
from feast_repo.features import user_click_features
from stream.windows import WindowEngine

if TYPE_CHECKING:
    from collections.abc import Sequence

EVENTS = {"quick": 200_000, "usual": 2_000_000, "full": 2_000_000}
USERS, BATCH, MINUTES = 100_000, 10_000, 65
START_MS = 1_772_366_400_000


def records(events: int) -> pl.DataFrame:
    """So many events, in order of time with 5 s of disorder; ids are those of UUIDs in length."""
    chance = np.random.default_rng(1)
    number = np.arange(events)
    times = START_MS + number * (MINUTES * 60_000) // events - chance.integers(0, 5_000, events)
    kinds = np.array(["view", "click", "add_to_cart", "purchase"])
    return pl.DataFrame(
        {
            "kafka_timestamp": times,
            "event_id": pl.Series(number).cast(pl.String).str.zfill(36),
            "user_id": "user_" + pl.Series(chance.integers(0, USERS, events)).cast(pl.String).str.zfill(6),
            "event_type": kinds[chance.integers(0, 4, events)],
            "event_timestamp": times,
            "product_id": pl.Series([None] * events, dtype=pl.String),
            "session_id": pl.Series([None] * events, dtype=pl.String),
            "price_cents": chance.integers(0, 10_000, events),
        }
    )


def measure(log: pl.DataFrame, *, deduplicate: bool) -> dict[str, float]:
    """One run of the engine over the log."""
    view = user_click_features
    source = view.source if deduplicate else replace(view.source, event_id=None)
    engine = WindowEngine(source, [replace(view, source=source)])
    start = time.perf_counter()
    for batch in log.iter_slices(BATCH):
        engine.process(batch)
    processed = time.perf_counter()
    size = len(engine.snapshot())
    return {
        "events_per_second": len(log) / (processed - start),
        "snapshot_bytes": float(size),
        "snapshot_seconds": time.perf_counter() - processed,
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; returns the exit code."""
    chosen = options("benchmarks.deduplicate", "The window engine with and without deduplication.", arguments)
    log = records(EVENTS[chosen.size])
    ways = {name: partial(measure, log, deduplicate=name == "with") for name in ("without", "with")}
    runs = in_turn(ways, chosen.rounds, "deduplicate")
    spreads = {name: {what: Spread.of(run[what] for run in found) for what in found[0]} for name, found in runs.items()}
    over = ratio(*([run["events_per_second"] for run in runs[name]] for name in ("with", "without")))
    live = len(log) * 60 // MINUTES
    grows = (spreads["with"]["snapshot_bytes"].median - spreads["without"]["snapshot_bytes"].median) / live
    rows = "\n".join(
        f"| {name} | {found['events_per_second'].text()} | {found['snapshot_bytes'].median / 1e6:,.1f} | "
        f"{found['snapshot_seconds'].median * 1000:,.0f} |"
        for name, found in spreads.items()
    )
    text = (
        f"The engine with `deduplicate` has {over.text('.2f')} times the speed without it, and its snapshot grows by "
        f"{grows:.1f} bytes for each of about {live:,} live events.\n\n"
        f"| deduplicate | events/s | snapshot, MB | snapshot, ms |\n|---|---|---|---|\n{rows}\n"
    )
    result = {"with_over_without": asdict(over), "bytes_per_event_in_snapshot": round(grows, 1), "runs": runs}
    keep("deduplicate", chosen, "What deduplication costs", result, text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
