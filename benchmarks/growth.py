"""How the stream's cost grows: with active users, features, windows per slide, Kafka partitions and density of events.

    python -m benchmarks.growth              # the window engine alone
    python -m benchmarks.growth --size full  # 5 million users as well, and the dataflow on Kafka

The first three run the window engine alone on one partition's log in memory (`benchmarks/engine.py`), with a snapshot
and a restore at the end, as each epoch and each restart have them. The others run the whole dataflow on a real Kafka,
with recovery, into Redis and Parquet. All is on one core, and as it is shipped: copies of events are looked for. What
should not happen is that anything grows faster than linearly.

- Users: the events grow with them, so all work is linear if an event costs the same. A closing window puts its rows
  into a hash table and sorts its users, and known ids are searched: these outgrow the caches, and cost n log n.
- Features: each is one more column to aggregate, to merge and to store; the user ids cost the same for any number.
- Windows per slide: a window is merged from runs of panes that have been merged before, of which it needs few. Events
  per slide are the same, so what grows is mostly the rows that close: more users are active in a longer window.
- Long windows: the same log with views of other windows, each alone, and beside the shipped one in one engine.
- Partitions: the log is the same, cut into more parts; each has its own engine, files and smaller batches.
- Density: users are the same, and their events grow. The rows that close don't, and they cost more than events do.
"""

from __future__ import annotations

import sys
import tempfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from benchmarks.clicks import Clicks
from benchmarks.engine import Case, Run, run
from benchmarks.options import options
from benchmarks.results import keep
from benchmarks.rounds import Spread, in_turn, ratio
from benchmarks.scaling import Dimension, Point
from benchmarks.topic import aside, compete, produce
from feast_repo.features import user_click_features as view
from sandbox.stack import Sandbox

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.options import Size

HOUR = 65.0
PEAK = "peak of the process"
EVENTS_PER_USER = 4
SLIDE_MINUTES = view.slide_ms / 60_000
FEATURES, PANES, MOST_TIMES = (7, 20, 50), (6, 24, 144), 2
USERS = {"quick": (5_000, 50_000), "usual": (20_000, 200_000, 2_000_000), "full": (20_000, 200_000, 2_000_000)}
"""Among which clicks are drawn, 4 for each; by Zipf's law, about half of them are active in the last hour."""

MOST_USERS = 10_000_000
LOG = {"quick": (100_000, 20_000), "usual": (500_000, 100_000), "full": (1_000_000, 100_000)}
"""Events, and users among which they are drawn, where the log is the same for all points."""

SLIDE = {"quick": (1_000, 500), "usual": (5_000, 1_000), "full": (10_000, 2_000)}
"""Events of a slide, and users, where windows have several lengths."""

HOUR_BY_10, DAY_BY_10, DAY_BY_HOUR, WEEK_BY_DAY = (6, 10), (144, 10), (24, 60), (7, 24 * 60)
"""Panes of a window, and minutes of its slide."""

LONG: dict[str, tuple[tuple[int, int], ...]] = {
    "1 h / 10 min": (HOUR_BY_10,),
    "24 h / 10 min": (DAY_BY_10,),
    "24 h / 1 h": (DAY_BY_HOUR,),
    "7 d / 1 d": (WEEK_BY_DAY,),
    "1 h / 10 min, 24 h / 1 h and 7 d / 1 d": (HOUR_BY_10, DAY_BY_HOUR, WEEK_BY_DAY),
}
LONG_DAYS, LONG_SLIDE = 8, {"quick": (100, 50), "usual": (1_000, 200), "full": (2_000, 1_000)}
"""The log of all of them: events of ten minutes, and users."""

PARTITIONS, KAFKA_LOG = (4, 12, 64), (2_000_000, 100_000)
DENSITIES, DENSE_USERS = (1, 5, 25), 100_000


@dataclass(frozen=True)
class Flow:
    """One run of the whole dataflow."""

    cpu_seconds: float
    peak_bytes: int
    rows: int


def engine_cases(size: Size) -> dict[str, dict[int, Case]]:
    """What the engine alone does, by dimension and place on it."""
    events, users = LOG[size]
    a_slide, few = SLIDE[size]
    many = (*USERS[size], MOST_USERS) if size == "full" else USERS[size]
    return {
        "users": {count: Case(count * EVENTS_PER_USER, count, HOUR) for count in many},
        "features": {count: Case(events, users, HOUR, features=count) for count in FEATURES},
        "windows per slide": {
            count: Case(a_slide * (count + 2), few, SLIDE_MINUTES * (count + 2), panes=count) for count in PANES
        },
    }


def engine_dimensions(size: Size, rounds: int) -> list[Dimension]:
    """Run the engine alone."""
    cases = engine_cases(size)
    ways = {f"{name}: {at:,}": partial(run, case) for name, by in cases.items() for at, case in by.items()}
    found = in_turn(ways, rounds, "window engine")

    def points(name: str) -> list[Point]:
        return [_engine_point(at, case, found[f"{name}: {at:,}"]) for at, case in cases[name].items()]

    users = [
        Point(runs[0].active_users, point.microseconds, point.memory, point.milliseconds)
        for point, runs in zip(points("users"), (found[f"users: {at:,}"] for at in cases["users"]), strict=True)
    ]
    return [
        Dimension(
            "users",
            "active users",
            users,
            0,
            "Bound: hash tables, sorts and known ids that outgrow the caches and cost n log n.",
        ),
        Dimension("features", "features", points("features"), 1, "Bound: a column each; the user ids cost the same."),
        Dimension(
            "windows per slide",
            "panes per window",
            points("windows per slide"),
            1,
            f"An event with {PANES[-1]} panes takes {_times(points('windows per slide'))} times as long as one with "
            f"{PANES[0]}; the budget is {MOST_TIMES}. Bound: rows that close, and the spans that they are merged from.",
        ),
    ]


def _times(points: list[Point]) -> str:
    """How many times as long an event takes at the last point as at the first."""
    return ratio(points[-1].microseconds, points[0].microseconds).text(".2f")


def _engine_point(at: float, case: Case, runs: list[Run]) -> Point:
    memory = {
        "aggregates held": [one.state_bytes - one.ids_bytes for one in runs],
        "ids held": [one.ids_bytes for one in runs],
        PEAK: [one.peak_bytes for one in runs],
        "snapshot": [one.snapshot_bytes for one in runs],
    }
    milliseconds = {
        "snapshot written": [1e3 * one.snapshot_seconds for one in runs],
        "restored": [1e3 * one.restore_seconds for one in runs],
    }
    return Point(at, [1e6 * one.cpu_seconds / case.events for one in runs], memory, milliseconds)


def long_windows(size: Size, rounds: int) -> tuple[str, dict[str, Any]]:
    """Run views with long windows over one log, alone and beside the shipped one: text and figures."""
    a_slide, users = LONG_SLIDE[size]
    minutes = LONG_DAYS * 24 * 60
    events = a_slide * minutes // 10
    ways = {}
    for name, ((panes, slide), *beside) in LONG.items():
        case = Case(events, users, minutes, panes=panes, slide_minutes=slide, beside=tuple(beside))
        ways[name] = partial(run, case)
    found = in_turn(ways, rounds, "long windows")
    times = {name: [1e6 * one.cpu_seconds / events for one in runs] for name, runs in found.items()}
    lines = [
        f"## Long windows: {LONG_DAYS} days of {users:,} users\n",
        "| windows | CPU time an event, us | times the first | rows an event | aggregates held, MB |",
        "|---|---|---|---|---|",
    ]
    for name, runs in found.items():
        over = ratio(times[name], times[next(iter(LONG))])
        held = Spread.of((one.state_bytes - one.ids_bytes) / 1e6 for one in runs)
        figures = (
            Spread.of(times[name]).text(".2f"),
            over.text(".2f"),
            f"{runs[0].rows / events:.2f}",
            held.text(".2f"),
        )
        lines.append(f"| {name} | {' | '.join(figures)} |")
    return "\n".join([*lines, ""]), {"microseconds": times, "events": events, "users": users}


def flow_dimensions(rounds: int) -> list[Dimension]:
    """Run the whole dataflow."""
    events, users = KAFKA_LOG
    by_partitions = {count: (Clicks(events, users), count) for count in PARTITIONS}
    by_density = {count: (Clicks(DENSE_USERS * count, DENSE_USERS), PARTITIONS[1]) for count in DENSITIES}
    with tempfile.TemporaryDirectory() as folder, Sandbox(Path(folder) / "stack", kafka="auto") as sandbox:
        aside(sandbox)
        ways = {}
        for name, logs in (("partitions", by_partitions), ("density", by_density)):
            for at, (clicks, partitions) in logs.items():
                topic = f"{name}-{at}"
                sandbox.kafka.create_topic(topic, partitions)
                produce(sandbox, topic, clicks.records())
                ways[topic] = partial(_flow, sandbox, topic, Path(folder))
        found = in_turn(ways, rounds, "dataflow")

    def points(name: str, logs: dict[int, tuple[Clicks, int]]) -> list[Point]:
        return [
            Point(
                at,
                [1e6 * one.cpu_seconds / clicks.events for one in found[f"{name}-{at}"]],
                {PEAK: [one.peak_bytes for one in found[f"{name}-{at}"]]},
            )
            for at, (clicks, _) in logs.items()
        ]

    rows = " · ".join(f"{found[f'density-{at}'][0].rows / (DENSE_USERS * at):.2f}" for at in DENSITIES)
    return [
        Dimension(
            "partitions",
            "Kafka partitions",
            points("partitions", by_partitions),
            1,
            "Bound: an event's work is the same; smaller batches and more files, each with its own fixed cost.",
        ),
        Dimension(
            "density",
            "events per user and hour",
            points("density", by_density),
            0,
            f"Bound: rows that close, each of which goes to Redis and to Parquet: {rows} of them an event.",
        ),
    ]


def _flow(sandbox: Sandbox, topic: str, folder: Path) -> Flow:
    data = folder / "data"
    watched = compete(sandbox, "ours", topic, data)
    rows = pl.scan_parquet(data / "features" / "**" / "*.parquet").select(pl.len()).collect().item()
    return Flow(watched.cpu_seconds, watched.peak_bytes, rows)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; returns the exit code."""
    chosen = options(
        "benchmarks.growth", "How cost grows with users, features, windows, partitions, density.", arguments
    )
    dimensions = engine_dimensions(chosen.size, chosen.rounds)
    if chosen.size == "full":
        dimensions += flow_dimensions(chosen.rounds)
    of_long_windows, long_figures = long_windows(chosen.size, chosen.rounds)
    worse = [f"{one.name} ({', '.join(one.worse_than_linear)})" for one in dimensions if one.worse_than_linear]
    verdict = f"Worse than linear: {'; '.join(worse)}." if worse else "Nothing grows worse than linearly."
    text = "\n".join(
        [
            f"**{verdict}** Medians of {chosen.rounds}, on one core.\n",
            *(one.text() for one in dimensions),
            of_long_windows,
        ]
    )
    keep(
        "growth",
        chosen,
        "How cost grows",
        {
            "verdict": verdict,
            "dimensions": {one.name: _as_json(one) for one in dimensions},
            "long_windows": long_figures,
        },
        text,
        plots={f"{one.name}: time of an event and memory": one.plot() for one in dimensions},
    )
    return 0


def _as_json(dimension: Dimension) -> dict[str, Any]:
    return {
        "exponents": dimension.exponents(),
        "of_the_last_step": dimension.exponents(last_step=True),
        "linear_time": dimension.linear_time,
        "unit": dimension.unit,
        "points": [
            {
                "at": point.at,
                "microseconds": list(point.microseconds),
                "memory_bytes": point.memory,
                "milliseconds": point.milliseconds,
            }
            for point in dimension.points
        ],
    }


if __name__ == "__main__":
    sys.exit(main())
