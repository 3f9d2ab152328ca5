"""Thousands of seeded histories of crashes on all cores.

    python -m tests.crash --seeds 10000 --to benchmarks/results     # new seeds, as `make test-full` does
    python -m tests.crash --first 4711 --seeds 1                    # one of them again

Exits with 1 if a history went wrong; the seeds of those that did are told, and repeat it.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import secrets
import sys
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress

from sandbox.machine import as_markdown, facts
from tests.crash.worker import run

CHUNK = 50
NEWEST = 2**31


def main() -> int:
    """Run the command; returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.crash", description="Go through histories of crashes.")
    parser.add_argument("--seeds", type=int, default=10_000, help="how many histories (%(default)s)")
    parser.add_argument("--first", type=int, help="the first seed; a random one unless told")
    parser.add_argument("--processes", type=int, default=os.cpu_count(), help="how many at a time (%(default)s)")
    parser.add_argument(
        "--to", type=Path, help="folder of simulation.md and simulation.json, where the histories are added"
    )
    options = parser.parse_args()
    first = secrets.randbelow(NEWEST) if options.first is None else options.first
    start, failed = time.monotonic(), {}
    chunks = [
        (begin, min(CHUNK, first + options.seeds - begin)) for begin in range(first, first + options.seeds, CHUNK)
    ]
    with (
        Progress(console=Console(stderr=True), transient=True) as bar,
        ProcessPoolExecutor(options.processes, multiprocessing.get_context("spawn")) as pool,
    ):
        task = bar.add_task(f"seeds from {first}", total=options.seeds)
        for done in as_completed([pool.submit(run, *chunk) for chunk in chunks]):
            failed.update(done.result())
            bar.advance(task, CHUNK)
    seconds = time.monotonic() - start
    for seed, reason in sorted(failed.items()):
        sys.stdout.write(f"seed {seed}: {reason}\n")
    told = (
        f"{options.seeds:,} histories from seed {first} on: {len(failed)} went wrong, "
        f"{seconds:.0f} s, {options.seeds / seconds:.1f} a second\n"
    )
    sys.stdout.write(told)
    if options.to is not None:
        _keep(options.to, first, options.seeds, failed, seconds)
    return int(bool(failed))


def _keep(folder: Path, first: int, seeds: int, failed: dict[int, str], seconds: float) -> None:
    """Add the histories to those of earlier runs; the same first seed replaces its run."""
    file = folder / "simulation.json"
    runs = json.loads(file.read_text())["runs"] if file.exists() else []
    machine = facts(f"python -m tests.crash --first {first} --seeds {seeds}")
    run = {"first": first, "seeds": seeds, "seconds": round(seconds), "failed": failed, "machine": machine}
    runs = [*(one for one in runs if one["first"] != first), run]
    file.write_text(json.dumps({"runs": runs}, indent=1) + "\n")
    total, wrong = sum(one["seeds"] for one in runs), sum(len(one["failed"]) for one in runs)
    lines = [
        f"# Simulated crashes\n\n{total:,} histories, {wrong} went wrong. The last run:\n",
        f"{as_markdown(machine)}\n",
        "| date | first seed | histories | went wrong | seconds |\n|---|---|---|---|---|",
        *map(_row, runs),
        *(f"\nSeed {seed}: {reason}" for one in runs for seed, reason in sorted(one["failed"].items())),
    ]
    (folder / "simulation.md").write_text("\n".join(lines) + "\n")


def _row(run: dict[str, Any]) -> str:
    date = run["machine"]["date"]
    return f"| {date} | {run['first']} | {run['seeds']:,} | {len(run['failed'])} | {run['seconds']:,} |"


if __name__ == "__main__":
    sys.exit(main())
