"""What the stream's state takes: memory for each active user, snapshots, and the time of a restart.

    python -m benchmarks.state

Memory and snapshots are those of one engine (`benchmarks/held.py`), the restart is that of the whole dataflow on a real
Kafka with 12 partitions (`benchmarks/restart.py`). A user is active who has a row in the last window that closed.

What bounds them: a user takes a row in each pane in which they clicked, of 16 bytes for the id (and its text if that is
longer than 12) and the smallest integer that holds each aggregate; an event takes 16 bytes while its pane lives. A
snapshot writes all of it, in each epoch. A restart is mostly the imports, of which Feast's take the longest, and the
state is read one partition after the other.
"""

from __future__ import annotations

import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.clicks import Clicks
from benchmarks.held import Held, Holding, hold
from benchmarks.options import options
from benchmarks.restart import MINUTES, Restart, Restarts
from benchmarks.results import keep
from benchmarks.rounds import Spread, in_turn
from sandbox.stack import Sandbox

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.figure import Figure

USERS = {"quick": 50_000, "usual": 1_000_000, "full": 1_000_000}
DRAWN, EVENTS = 2, 8
"""For each active user, so many users among whom clicks are drawn by Zipf's law, and so many clicks of them."""

CLICKS_AN_HOUR = 4
BYTES_A_USER, BYTES_AN_ID, RESTART_S = 400, 24, 15
KINDS = ("columns", "process", "restored process")
AS_THEY_COME, WITH_IDS = "clicks as they come", "the same, with deduplication"
EVERYWHERE, LONG_IDS = "every user in every pane", "the same, ids of 36 characters"


def holdings(users: int) -> dict[str, Holding]:
    """What is held in memory."""
    return {
        AS_THEY_COME: Holding(DRAWN * users, EVENTS * users),
        WITH_IDS: Holding(DRAWN * users, EVENTS * users, deduplicate=True),
        EVERYWHERE: Holding(users),
        LONG_IDS: Holding(users, id_length=36),
    }


def restarts(users: int, rounds: int) -> tuple[list[Restart], int, int]:
    """Restarts of the dataflow; its active users, and the bytes of its recovery state."""
    clicks = Clicks(round(users * CLICKS_AN_HOUR * MINUTES / 60), users, MINUTES, skew=0)
    with tempfile.TemporaryDirectory() as folder, Sandbox(Path(folder) / "stack", kafka="auto") as sandbox:
        run = Restarts(sandbox, clicks, Path(folder))
        found = in_turn({"restart": run.restart}, rounds, "dataflow")
        return found["restart"], run.active_users, run.recovery_bytes


def memory(users: int, rounds: int) -> dict[str, list[Held]]:
    """What is held in memory, in some rounds: what the allocator can't give back differs from run to run."""
    with tempfile.TemporaryDirectory() as folder:
        ways = {name: lambda holding=holding: hold(holding, Path(folder)) for name, holding in holdings(users).items()}
        return in_turn(ways, rounds, "memory")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; returns the exit code."""
    chosen = options("benchmarks.state", "Memory per active user, snapshots, and the time of a restart.", arguments)
    users = USERS[chosen.size]
    held = memory(users, chosen.rounds if chosen.size == "full" else 1)
    started, active, recovery_bytes = restarts(users, chosen.rounds)
    keep(
        "state",
        chosen,
        "What state takes",
        {
            "held": {name: [asdict(one) for one in runs] for name, runs in held.items()},
            "restart": {
                "active_users": active,
                "recovery_bytes": recovery_bytes,
                "seconds": [asdict(one) for one in started],
            },
        },
        _text(held, started, active, recovery_bytes),
        plots={"bytes of memory for each active user": _plot(held)},
    )
    return 0


def _a_user(runs: list[Held]) -> list[Spread]:
    """Memory for each active user, in the order of KINDS."""
    sizes = zip(*((one.column_bytes, one.grown_bytes, one.restored_bytes) for one in runs), strict=True)
    return [Spread.of(size / runs[0].active_users for size in kind) for kind in sizes]


def _an_id(held: dict[str, list[Held]]) -> Spread:
    """Memory that deduplication adds, for each id."""
    rounds = zip(held[WITH_IDS], held[AS_THEY_COME], strict=True)
    return Spread.of((with_ids.grown_bytes - without.grown_bytes) / with_ids.ids for with_ids, without in rounds)


def _text(held: dict[str, list[Held]], started: list[Restart], active: int, recovery_bytes: int) -> str:
    users, most, longer = (_a_user(held[name])[1] for name in (AS_THEY_COME, EVERYWHERE, LONG_IDS))
    first = Spread.of(one.first_row for one in started)
    kinds = [f"{kind}, bytes a user" for kind in KINDS]
    head = ["an engine's state", "active users", *kinds, "snapshot, MB", "written in, ms", "restored in, ms"]
    lines = [
        "| | measured | budget | |",
        "|---|---|---|---|",
        _verdict("bytes of memory for an active user, clicks as they come", users, BYTES_A_USER),
        _verdict("the same, every user in every pane", most, BYTES_A_USER),
        _verdict("the same, every user in every pane, with ids of 36 characters", longer, BYTES_A_USER),
        _verdict("bytes of memory for a known id", _an_id(held), BYTES_AN_ID, ".1f"),
        _verdict(f"s from process start to the first new row, {active:,} active users", first, RESTART_S, ".1f"),
        "",
        f"| {' | '.join(head)} |",
        f"|{'---|' * len(head)}",
        *(
            f"| {name} | {runs[0].active_users:,} | {' | '.join(size.text() for size in _a_user(runs))} | "
            f"{runs[0].snapshot_bytes / 1e6:,.1f} | {Spread.of(one.snapshot_seconds * 1000 for one in runs).text()} | "
            f"{Spread.of(one.restore_seconds * 1000 for one in runs).text()} |"
            for name, runs in held.items()
        ),
        "",
        "Columns: exactly what the rows take, known ids included. Process: resident memory after the run less that",
        "before it, garbage collected. Restored process: the same where only the snapshot was read. Medians (least to",
        f"most): {len(held[AS_THEY_COME])} of memory, {len(started)} of restarts.",
        "",
        "| restart, s from the start of the process | |",
        "|---|---|",
        f"| Python and Feast are imported | {Spread.of(one.ready for one in started).text('.1f')} |",
        f"| first new row in Redis | {first.text('.1f')} |",
        f"| new rows of all partitions | {Spread.of(one.all_rows for one in started).text('.1f')} |",
        f"| end, with all committed | {Spread.of(one.exit for one in started).text('.1f')} |",
        "",
        f"Recovery state of {active:,} active users: {recovery_bytes / 1e6:,.1f} MB.",
        "",
    ]
    return "\n".join(lines)


def _verdict(what: str, measured: Spread, budget: float, form: str = ",.0f") -> str:
    return f"| {what} | {measured.text(form)} | {budget} | {'within' if measured.median <= budget else '**missed**'} |"


def _plot(held: dict[str, list[Held]]) -> Figure:
    from matplotlib.figure import Figure  # noqa: PLC0415  (takes a second)

    figure = Figure(figsize=(9, 3.2), layout="constrained")
    axes = figure.subplots()
    sizes_by_kind = zip(*map(_a_user, held.values()), strict=True)
    for number, (label, sizes) in enumerate(zip(KINDS, sizes_by_kind, strict=True)):
        axes.barh(
            [at + (number - 1) * 0.26 for at in range(len(held))],
            [size.median for size in sizes],
            height=0.24,
            label=label,
        )
    axes.axvline(BYTES_A_USER, color="#888", linestyle="--", label="budget (without ids)")
    axes.set_yticks(range(len(held)), list(held))
    axes.invert_yaxis()
    axes.set_xlabel("bytes for each active user")
    axes.grid(axis="x", alpha=0.3)
    axes.legend(fontsize=8, frameon=False)
    return figure


if __name__ == "__main__":
    sys.exit(main())
