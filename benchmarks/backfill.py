"""Features from the archive: `batch.backfill` with Polars and with Spark, beside one query of DuckDB.

    python -m benchmarks.backfill

Clicks as in `benchmarks.clicks`, 200,000 an hour by 10,000 users over 12 partitions, written to `events/` as the stream
archives them; nothing is stored in `features/`. More events are more hours. All run on all cores, Spark as `local[*]`
with the 2 GB of memory that the command gives it. Timed is the job: imports and the start of Spark's session (told
beside) are over. Memory is that of all processes together, pages of mapped files included. With `--size full`, Spark is
left out of the largest size.

What bounds it: `contestants/backfill_by_hand.py` computes the same rows with less care, in up to 8 GB. A backfill also
reads the log once more in order, to recheck the watermarks and to know when each window closed, and compares with what
is stored.

After each run the rows must be the same, to the bit; `created_timestamp` is that of ours.
"""

from __future__ import annotations

import os
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import duckdb
from rich.progress import track

from benchmarks.archive import write_archive
from benchmarks.clicks import Clicks
from benchmarks.options import options as read_options
from benchmarks.plots import growth
from benchmarks.results import keep
from benchmarks.rounds import Spread, in_turn, ratio
from benchmarks.watch import ContestantError, Watched, watch
from feast_repo.features import user_click_features as view
from feast_repo.stores.offline.tables import features_folder

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

USERS, AN_HOUR = 10_000, 200_000
SIZES = {"quick": (400_000,), "usual": (500_000, 2_000_000), "full": (2_000_000, 10_000_000, 50_000_000)}
SPARK_UP_TO = 10_000_000
"""Events; with more, it would take longer than all the others together."""
POLARS, SPARK, BY_HAND = "polars", "spark", "DuckDB by hand"
COMMANDS = {
    POLARS: ["-m", "benchmarks.contestants.backfill", "polars"],
    SPARK: ["-m", "benchmarks.contestants.backfill", "spark"],
    BY_HAND: ["-m", "benchmarks.contestants.backfill_by_hand"],
}
DIGEST = (
    "select count(*), sum(hash(user_id, epoch_us(event_timestamp), {features})::hugeint) "
    "from read_parquet('{files}', hive_partitioning = false)"
)


def run(archive: Path, command: Sequence[str], contents: set[tuple[int, int]]) -> Watched:
    """One contestant on the archive, with an empty store; what it stored is added to `contents`."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for name in ("events", "progress"):
            (root / name).symlink_to(archive / name)
        environment = {"DATA_ROOT": str(root)}
        watched = watch([sys.executable, *command], environment, root / "log", on=os.sched_getaffinity(0))
        files = features_folder(root, view.name) / "*" / "*.parquet"
        with duckdb.connect() as database:
            query = DIGEST.format(features=", ".join(view.features), files=files)
            contents.add(database.execute(query).fetchone())
        return watched


def measure(events: int, rounds: int) -> dict[str, list[Watched]]:
    """All contestants in turn on so many events.

    Raises:
        ContestantError: they have stored different rows.
    """
    contents: set[tuple[int, int]] = set()
    with tempfile.TemporaryDirectory() as folder:
        write_archive(Clicks(events, USERS, 60 * events / AN_HOUR), Path(folder))
        ways: dict[str, Callable[[], Watched]] = {
            name: partial(run, Path(folder), command, contents)
            for name, command in COMMANDS.items()
            if name != SPARK or events <= SPARK_UP_TO
        }
        found = in_turn(ways, rounds, f"backfill of {events:,} events")
    if len(contents) != 1:
        message = f"the contestants stored different rows of {events:,} events: {contents}"
        raise ContestantError(message)
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; returns the exit code."""
    about = "Backfill with Polars and with Spark, beside DuckDB by hand."
    options = read_options("benchmarks.backfill", about, arguments)
    found = {
        events: measure(events, options.rounds)
        for events in track(SIZES[options.size], description="archives", transient=True)
    }
    seconds = {
        name: {events: [one.seconds for one in ways[name]] for events, ways in found.items() if name in ways}
        for name in COMMANDS
    }
    ratios = {
        f"polars is so many times as fast as {other}, {events:,} events": ratio(
            seconds[other][events], seconds[POLARS][events]
        )
        for other in (SPARK, BY_HAND)
        for events in seconds[other]
    }
    text = _text(ratios, found, seconds, options.rounds)
    result = {
        "ratios": {name: vars(spread) for name, spread in ratios.items()},
        "runs": {
            events: {name: [vars(one) for one in runs] for name, runs in ways.items()} for events, ways in found.items()
        },
    }
    millions = {
        name: {events / 1e6: taken for events, taken in by_events.items()} for name, by_events in seconds.items()
    }
    plots = {"Seconds over events": growth(millions, "million events", "seconds", ours=(POLARS,))}
    keep("backfill", options, "Backfill", result, text, plots=plots)
    return 0


def _text(
    ratios: dict[str, Spread],
    found: dict[int, dict[str, list[Watched]]],
    seconds: dict[str, dict[int, list[float]]],
    rounds: int,
) -> str:
    lines = ["| ratio | | budget |", "|---|---|---|"]
    lines += [
        f"| {name} | {spread.text('.2f')} | {'>= 5' if SPARK in name else ''} |" for name, spread in ratios.items()
    ]
    for name, by_events in seconds.items() if len(found) > 1 else ():
        smallest, largest = min(by_events), max(by_events)
        grown = Spread.of(by_events[largest]).median / Spread.of(by_events[smallest]).median
        budget = "" if name == BY_HAND else f"linear: {largest / smallest:g}"
        lines.append(f"| {name}: seconds for {largest:,} / seconds for {smallest:,} events | {grown:.2f} | {budget} |")
    lines += ["", "| events | | seconds | events/s | CPU seconds | peak memory, MB | rows |", "|---" * 7 + "|"]
    for events, ways in found.items():
        for name, runs in ways.items():
            taken = Spread.of(one.seconds for one in runs)
            cpu = Spread.of(one.cpu_seconds for one in runs)
            peak = Spread.of(one.peak_bytes / 1e6 for one in runs)
            lines.append(
                f"| {events:,} | {name} | {taken.text('.2f')} | {events / taken.median:,.0f} | {cpu.median:.1f} "
                f"| {peak.median:,.0f} | {runs[0].told['rows']:,} |"
            )
    started = Spread.of(one.told["start_seconds"] for ways in found.values() for one in ways.get(SPARK, ()))
    return (
        f"Median (least to most) of {rounds} rounds. All stored the same rows. Spark's session took "
        f"{started.text('.1f')} s to start, which is not counted.\n\n" + "\n".join(lines) + "\n"
    )


if __name__ == "__main__":
    sys.exit(main())
