"""What `deduplicate` costs the window engine: events/s, state in memory, snapshot size and time.

    python -m benchmarks.deduplicate

One partition, 2 million events of 100,000 users over 65 minutes, in batches of 10,000. Rounds alternate.
"""

from __future__ import annotations

import statistics
import sys
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
from rich.progress import track

from benchmarks.results import keep
from feast_repo.commands import Command, integer
from feast_repo.features import user_click_features
from stream.windows import WindowEngine

if TYPE_CHECKING:
    from collections.abc import Sequence

EVENTS, USERS, BATCH, MINUTES = 2_000_000, 100_000, 10_000, 65
START_MS = 1_772_366_400_000


def records() -> pl.DataFrame:
    """The events, in order of time with 5 s of disorder; ids are those of UUIDs in length."""
    chance = np.random.default_rng(1)
    number = np.arange(EVENTS)
    times = START_MS + number * (MINUTES * 60_000) // EVENTS - chance.integers(0, 5_000, EVENTS)
    kinds = np.array(["view", "click", "add_to_cart", "purchase"])
    return pl.DataFrame(
        {
            "kafka_timestamp": times,
            "event_id": pl.Series(number).cast(pl.String).str.zfill(36),
            "user_id": "user_" + pl.Series(chance.integers(0, USERS, EVENTS)).cast(pl.String).str.zfill(6),
            "event_type": kinds[chance.integers(0, 4, EVENTS)],
            "event_timestamp": times,
            "product_id": pl.Series([None] * EVENTS, dtype=pl.String),
            "session_id": pl.Series([None] * EVENTS, dtype=pl.String),
            "price_cents": chance.integers(0, 10_000, EVENTS),
        }
    )


def measure(log: pl.DataFrame, *, deduplicate: bool) -> dict[str, float]:
    """One run of the engine over the log."""
    engine = WindowEngine(replace(user_click_features, deduplicate=deduplicate))
    start = time.perf_counter()
    for at in range(0, EVENTS, BATCH):
        engine.process(log[at : at + BATCH])
    processed = time.perf_counter()
    size = len(engine.snapshot())
    return {
        "events_per_second": EVENTS / (processed - start),
        "snapshot_bytes": float(size),
        "snapshot_seconds": time.perf_counter() - processed,
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; returns the exit code."""
    command = Command("python -m benchmarks.deduplicate", "The window engine with and without deduplication.")
    command.add_argument("--rounds", type=integer(1, 100), default=5, help="runs of each (%(default)s)")
    options = command.parse_args(arguments)
    log = records()
    runs: dict[str, list[dict[str, float]]] = {"without": [], "with": []}
    for _ in track(range(options.rounds), description="rounds"):
        for name, found in runs.items():
            found.append(measure(log, deduplicate=name == "with"))
    median = {
        name: {what: statistics.median(run[what] for run in found) for what in found[0]} for name, found in runs.items()
    }
    rates = {name: [run["events_per_second"] for run in found] for name, found in runs.items()}
    live = EVENTS * 60 // MINUTES
    result = {
        "with_over_without": round(median["with"]["events_per_second"] / median["without"]["events_per_second"], 2),
        "bytes_per_event_in_snapshot": round(
            (median["with"]["snapshot_bytes"] - median["without"]["snapshot_bytes"]) / live, 1
        ),
        "runs": runs,
    }
    rows = "\n".join(
        f"| {name} | {found['events_per_second']:,.0f} | {min(rates[name]):,.0f} to {max(rates[name]):,.0f} | "
        f"{found['snapshot_bytes'] / 1e6:,.1f} | {found['snapshot_seconds'] * 1000:,.0f} |"
        for name, found in median.items()
    )
    text = (
        f"The engine with `deduplicate` has {result['with_over_without']} times the speed without it, and its snapshot "
        f"grows by {result['bytes_per_event_in_snapshot']} bytes for each of about {live:,} live events.\n\n"
        "| deduplicate | events/s | from ... to | snapshot, MB | snapshot, ms |\n|---|---|---|---|---|\n"
        f"{rows}\n"
    )
    command_line = f"python -m benchmarks.deduplicate --rounds {options.rounds}"
    keep("deduplicate", command_line, "What deduplication costs", result, text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
