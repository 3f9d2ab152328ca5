"""From Kafka to closed windows in Redis and Parquet, on one core: ours, the limit, and what else one could take.

    python -m benchmarks.stream

Real Apache Kafka with all messages in it before the start; each contestant has one core for all of its threads and
processes, Kafka and Redis have another. Time runs from the moment before the first message is read until everything is
durable in both stores, so imports, JVMs and connections are left out. Then the rows in Parquet are compared with a
recomputation in SQL, and what Feast reads from Redis with the newest rows in Parquet; a difference ends the benchmark.

`limit` is no feature store: it takes each message's parts and decodes it to columns. The others are told in
`benchmarks/contestants`; they neither archive events nor keep broken ones apart nor look for copies.
"""

from __future__ import annotations

import os
import sys
import tempfile
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl
from matplotlib.figure import Figure

from benchmarks.clicks import EVENT_COLUMNS, Clicks, differences, expected_rows
from benchmarks.options import options
from benchmarks.results import keep
from benchmarks.rounds import Spread, in_turn, ratio
from benchmarks.topic import aside, compete, produce
from feast_repo.features import user_click_features as view
from sandbox.stack import Sandbox

if TYPE_CHECKING:
    from collections.abc import Sequence

    from feast import FeatureStore

    from benchmarks.options import Options
    from benchmarks.watch import Watched

EVENTS, QUICK_EVENTS = 2_000_000, 200_000
FEW, MANY = 12, 64
ONLINE_USERS = 1_000
BUDGETS = {"limit": ">= 0.6", "stock_bytewax": ">= 10", "spark_streaming": ">= 3"}


class WrongError(Exception):
    """A contestant's rows are not those that the events lead to."""


@dataclass(frozen=True)
class Contest:
    """A topic, the rows that it must lead to, and where to run."""

    sandbox: Sandbox
    topic: str
    clicks: Clicks
    expected: pl.DataFrame
    folder: Path

    @classmethod
    def prepare(cls, sandbox: Sandbox, clicks: Clicks, partitions: int, folder: Path) -> Contest:
        """Fill a topic."""
        topic, seen = f"clicks-{partitions}", []
        sandbox.kafka.create_topic(topic, partitions)
        for frame in clicks.records():
            produce(sandbox, topic, [frame])
            seen.append(frame.select(EVENT_COLUMNS))
        return cls(sandbox, topic, clicks, expected_rows(pl.concat(seen), clicks.ends), folder)

    def run(self, contestant: str, *arguments: str, on: set[int] | None = None, **environment: str) -> Watched:
        """One run, whose result is looked at.

        Raises:
            WrongError: it is not what the events lead to.
            ContestantError: the contestant failed.
        """
        folder = self.folder / "run"
        watched = compete(self.sandbox, contestant, self.topic, folder, *arguments, on=on, **environment)
        if watched.told["messages"] != self.clicks.events:
            message = f"{contestant} read {watched.told['messages']} of {self.clicks.events} messages"
            raise WrongError(message)
        if contestant != "limit" and "BENCH_STORES" not in environment:
            self._check(contestant, folder)
        return watched

    def _check(self, contestant: str, folder: Path) -> None:
        if wrong := differences(self.expected, folder):
            message = f"{contestant}: {wrong} of {len(self.expected)} rows differ from the recomputation"
            raise WrongError(message)
        if wrong := _online_differences(folder):
            message = f"{contestant}: Redis differs from the newest rows in Parquet for {wrong} of {ONLINE_USERS} users"
            raise WrongError(message)


def _online_differences(folder: Path) -> int:
    """For how many users Feast reads something else from Redis than their newest row in Parquet."""
    newest = (
        pl.scan_parquet(folder / "features" / "**" / "*.parquet", hive_partitioning=False)
        .select(pl.col("user_id").cast(pl.String), pl.col("event_timestamp"), *view.features)
        .sort("event_timestamp", descending=True)
        .unique("user_id", keep="first")
        .sort("user_id")
        .head(ONLINE_USERS)
        .collect()
    )
    wanted = [f"{view.name}:{name}" for name in view.features]
    read = _store().get_online_features(wanted, [{"user_id": user} for user in newest["user_id"]]).to_dict()
    columns = {name: newest[name].to_list() for name in view.features}
    return sum(any(read[name][row] != columns[name][row] for name in columns) for row in range(len(newest)))


@cache
def _store() -> FeatureStore:
    from feast_repo.stores.opening import ensure_applied, open_store  # noqa: PLC0415  (after the settings)

    store = open_store()
    ensure_applied(store)
    return store


def peers(chosen: Options) -> dict[str, int]:
    """Rounds of each contestant beside ours and the limit."""
    found = {"spark_streaming": chosen.rounds, "stock_bytewax": chosen.rounds}
    if chosen.size == "full":
        found |= {"stock_bytewax_tuned": chosen.rounds, "flink_sql": chosen.rounds, "quix_streams": 1}
    return found


def measure(contest: Contest, rounds: dict[str, int]) -> dict[str, list[Watched]]:
    """All contestants in turn."""
    return in_turn({name: partial(contest.run, name) for name in rounds}, rounds, contest.topic)


def two_processes(contest: Contest, rounds: int) -> dict[str, list[Watched]]:
    """Ours on all cores, which the servers share: one process and two."""
    cores = os.sched_getaffinity(0)
    ways = {
        "one process": partial(contest.run, "ours", on=cores),
        "two processes": partial(contest.run, "ours_twice", on=cores),
    }
    return in_turn(ways, rounds, "processes")


def _row(name: str, runs: Sequence[Watched], events: int, ours: Sequence[Watched]) -> str:
    rate = Spread.of(events / one.seconds for one in runs)
    cpu = Spread.of(one.cpu_seconds * 1e6 / events for one in runs)
    peak = max(one.peak_bytes for one in runs) / 1e6
    times = "" if runs is ours else ratio(_rates(ours, events)[: len(runs)], _rates(runs, events)).text(".2f")
    budget = BUDGETS.get(name, "")
    return f"| {name} | {times} | {budget} | {rate.text()} | {cpu.text('.2f')} | {peak:,.0f} | {len(runs)} |"


def _rates(runs: Sequence[Watched], events: int) -> list[float]:
    return [events / one.seconds for one in runs]


def table(found: dict[str, list[Watched]], events: int) -> str:
    """Ratios first."""
    head = "| | ours is so many times as fast | budget | events/s | CPU-s a million events | peak MB | runs |"
    ours = next(iter(found.values()))
    return "\n".join([head, "|---" * 7 + "|", *(_row(name, runs, events, ours) for name, runs in found.items()), ""])


def plot(found: dict[str, list[Watched]], events: int) -> Figure:
    """Events/s of each, with the spread as a line."""
    figure = Figure(figsize=(8, 0.6 * len(found) + 1.2))
    axes = figure.subplots()
    for place, (name, runs) in enumerate(reversed(found.items())):
        rate = Spread.of(_rates(runs, events))
        axes.barh(place, rate.median, color="#1f77b4" if name == "ours" else "#b0b7bf")
        axes.plot([rate.least, rate.most], [place, place], color="black", linewidth=1)
        axes.text(rate.most, place, f"  {rate.median:,.0f}", va="center")
    axes.set_yticks(range(len(found)), list(reversed(found)))
    axes.set_xlabel("events/s on one core (the line: least to greatest)")
    axes.margins(x=0.15)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; returns the exit code."""
    chosen = options("benchmarks.stream", "From Kafka to both stores on one core, beside others.", arguments)
    clicks = Clicks(QUICK_EVENTS if chosen.quick else EVENTS)
    runs: dict[str, dict[str, list[Watched]]] = {}
    with tempfile.TemporaryDirectory() as folder, Sandbox(Path(folder) / "stack", kafka="apache") as sandbox:
        aside(sandbox)
        os.environ.update(sandbox.environment)
        few = Contest.prepare(sandbox, clicks, FEW, Path(folder))
        runs["few"] = measure(few, {"ours": chosen.rounds, "limit": chosen.rounds, **peers(chosen)})
        if chosen.size == "full":
            runs["engine"] = {"spark_streaming": [few.run("spark_streaming", BENCH_STORES="none")]}
            runs["processes"] = two_processes(few, chosen.rounds)
        if chosen.size != "usual":
            many = Contest.prepare(sandbox, clicks, MANY, Path(folder))
            runs["many"] = measure(many, {"ours": chosen.rounds, "limit": chosen.rounds})
    rows = len(few.expected)
    keep(
        "stream",
        chosen,
        "Stream",
        as_json(runs),
        told(runs, clicks, rows),
        plots={f"events/s with {FEW} partitions": plot(runs["few"], clicks.events)},
    )
    return 0


def as_json(runs: dict[str, dict[str, list[Watched]]]) -> dict[str, Any]:
    """Everything that was measured."""
    return {
        part: {
            name: [
                {"seconds": one.seconds, "cpu_seconds": one.cpu_seconds, "peak_bytes": one.peak_bytes} for one in all_
            ]
            for name, all_ in found.items()
        }
        for part, found in runs.items()
    }


def told(runs: dict[str, dict[str, list[Watched]]], clicks: Clicks, rows: int) -> str:
    """For people."""
    log = (
        f"{clicks.events:,} events of {clicks.users:,} users over {clicks.minutes:g} minutes of event time, about 200 "
        f"bytes each as JSON, lead to {rows:,} rows in {len(clicks.ends)} windows ({rows / clicks.events:.2f} rows an "
        "event). One core each; the servers have another. Medians (least to greatest); ratios are of each round.\n"
    )
    parts = [log, f"With {FEW} partitions:\n", table(runs["few"], clicks.events)]
    if "many" in runs:
        parts += [f"With {MANY} partitions:\n", table(runs["many"], clicks.events)]
    if "engine" in runs:
        ours, spark = runs["few"]["ours"], runs["engine"]["spark_streaming"]
        times = ratio([spark[0].seconds], [Spread.of(one.seconds for one in ours).median])
        parts.append(
            f"Spark without any store, its engine alone, took {spark[0].seconds:.1f} s: ours, with both stores and the "
            f"archive, is {times.median:.2f} times as fast as that.\n"
        )
    if "processes" in runs:
        one, two = ([each.seconds for each in runs["processes"][name]] for name in ("one process", "two processes"))
        parts.append(
            f"On both cores, which Kafka and Redis share, two processes are {ratio(one, two).text('.2f')} times as "
            "fast as one.\n"
        )
    return "\n".join(parts)


if __name__ == "__main__":
    sys.exit(main())
