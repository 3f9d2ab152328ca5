"""Generates the events of a stream into Kafka, for demos, tests and benchmarks.

python -m stream.generator --rate 10                                  live, until Ctrl-C
python -m stream.generator --events 300000 --hours 4 --late-share 0.01   the last hours, as fast as possible

They are made up from the stream's declaration, those of the shop by `simulation/clicks.py`.
"""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from confluent_kafka import KafkaException
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn
from rich.text import Text

from feast_repo.commands import Command, instant, integer, number, stop_event
from feast_repo.errors import ExitCode, FeatureStoreError
from feast_repo.settings import StreamSettings
from simulation.clock import BLOCK, USUAL, Simulation, Traffic, historical, live
from simulation.events import simulate
from simulation.profiles import DEFAULT_SEED, DEFAULT_USERS, MOST_SEED, MOST_USERS
from simulation.records import COPY, EVENT, HEARTBEAT, LATE
from simulation.sources import DRIFTS, source_of
from stream.kafka import topic_partitions
from stream.producing import FileSink, Sink, TopicSink

if TYPE_CHECKING:
    import argparse
    import threading
    from collections.abc import Callable, Iterator, Sequence

    import polars as pl

DEFAULT_HOURS = 4.0
PACE_S = 0.1
"""At a given rate, records are sent in batches of this duration."""
MOST_EVENTS = 10**12
MOST_HOURS = 24 * 366 * 10
MOST_DISORDER_S = 24 * 3600


@dataclass
class Report:
    """What was sent and how long it took."""

    simulation: Simulation
    kinds: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0
    failed: int = 0
    stopped: bool = False

    def count(self, records: pl.DataFrame) -> None:
        """Count records that were sent."""
        self.kinds.update(dict(records["kind"].value_counts().iter_rows()))

    @property
    def events(self) -> int:
        """Number of records sent, without copies and heartbeats."""
        return self.kinds.total() - self.kinds[COPY] - self.kinds[HEARTBEAT]

    @property
    def malformed(self) -> dict[str, int]:
        """Number of malformed records by the reason for which they must be rejected."""
        return {kind: n for kind, n in sorted(self.kinds.items()) if kind not in {EVENT, LATE, COPY, HEARTBEAT}}

    def as_json(self) -> dict[str, Any]:
        """For programs. Times are epoch ms."""
        return {
            "events": self.events,
            "late": self.kinds[LATE],
            "malformed": self.malformed,
            "copies": self.kinds[COPY],
            "heartbeats": self.kinds[HEARTBEAT],
            "failed": self.failed,
            "stopped": self.stopped,
            "seconds": round(self.seconds, 3),
            "events_per_second": round(self.events / self.seconds) if self.seconds else 0,
            "seed": self.simulation.traffic.seed,
            "start_ms": self.simulation.start_ms,
            "heartbeat_ms": self.simulation.heartbeat_ms,
        }

    def __str__(self) -> str:
        """For people, in one line."""
        malformed = ", ".join(f"{kind} {n:,}" for kind, n in self.malformed.items())
        return (
            f"{self.events:,} events in {self.seconds:.1f} s ({self.events / max(self.seconds, 1e-9):,.0f}/s): "
            f"{self.kinds[LATE]:,} late, {sum(self.malformed.values()):,} malformed{malformed and f' ({malformed})'}, "
            f"{self.kinds[COPY]:,} copies and {self.kinds[HEARTBEAT]:,} heartbeats"
        )


def due_s(simulation: Simulation, rate: float | None, *, sent: int, arrival_ms: int, begun_s: float) -> float:
    """When records may be sent, in epoch seconds, after `sent` others; the last of them arrives at `arrival_ms`.

    A live run follows the simulated clock, a historical run a given rate; otherwise it runs as fast as possible.
    """
    if simulation.heartbeat_ms is None:
        return arrival_ms / 1000
    return begun_s + sent / rate if rate else begun_s


def generate(simulation: Simulation, sink: Sink, *, rate: float | None, stop: threading.Event) -> Report:
    """Simulate and send everything when it is due, until the end or until `stop` is set.

    Raises:
        KafkaException: the producer has failed fatally.
        OSError: the file can't be written.
    """
    report = Report(simulation)
    begun_s = time.time()
    at_once = BLOCK if rate is None else max(1, round(rate * PACE_S))
    with closing(sink), _progress(simulation.events) as show:
        for records in (part for block in simulate(simulation) for part in block.iter_slices(at_once)):
            due = due_s(simulation, rate, sent=report.events, arrival_ms=records["arrival_ms"][-1], begun_s=begun_s)
            if stop.wait(max(0.0, due - time.time())):
                report.stopped = True
                break
            sink.send(records)
            report.count(records)
            show(report.events)
    report.seconds = time.time() - begun_s
    report.failed = sink.failed
    return report


class _Speed(ProgressColumn):
    """Events per second."""

    def render(self, task: Task) -> Text:
        """As text."""
        return Text(f"{task.speed or 0:,.0f} events/s")


@contextmanager
def _progress(events: int | None) -> Iterator[Callable[[int], None]]:
    """A progress bar on stderr if it is a terminal; the function takes the number of events sent so far."""
    columns = (TextColumn("events"), BarColumn(), MofNCompleteColumn(), _Speed())
    with Progress(*columns, console=Console(stderr=True), disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task("events", total=events)
        yield lambda sent: bar.update(task, completed=sent)


def _command() -> Command:
    """The command line."""
    command = Command("python -m stream.generator", "Generate events of a stream: live at a rate, or hours of history.")
    add = command.add_argument
    command.add_choice("stream")
    add("--rate", type=number(above=0.0), help="events per second; without --start and --hours: live")
    add("--events", type=integer(1, MOST_EVENTS), help="number of events; a live stream without it ends with Ctrl-C")
    add(
        "--users",
        type=integer(1, MOST_USERS),
        default=DEFAULT_USERS,
        help="number of entities, the values of the key (%(default)s)",
    )
    add("--start", type=instant, help="start of history, ISO 8601 UTC (default: history ends just before now)")
    add("--hours", type=number(above=0.0, maximum=MOST_HOURS), help="length of history, 4 by default")
    add("--seed", type=integer(0, MOST_SEED), default=DEFAULT_SEED, help="as in batch.profiles (%(default)s)")
    add(
        "--disorder-seconds",
        type=number(maximum=MOST_DISORDER_S),
        default=5.0,
        help="maximum delay of a record after its event (%(default)s)",
    )
    add("--late-share", type=number(maximum=1), default=0.0, help="share delayed beyond the allowed lateness")
    add("--malformed-share", type=number(maximum=1), default=0.0, help="share that must become dead letters")
    add(
        "--copied-share", type=number(maximum=1), default=0.0, help="share that is delivered twice, with the same bytes"
    )
    add("--drift", choices=DRIFTS, default=USUAL, help="only of the shop: shoppers with other habits (%(default)s)")
    add(
        "--to",
        type=Path,
        metavar="FILE.jsonl",
        help="write values to a file, one per line, instead of producing; empty values are left out",
    )
    add("--drain", action="store_true", help="end history earlier, so that the heartbeats close every window")
    add("--json", action="store_true", help="print the result as one JSON object")
    return command


def plan(options: argparse.Namespace, settings: StreamSettings, *, now_ms: int) -> Simulation:
    """The simulation for the options.

    Raises:
        ValueError: options contradict each other, or end in the future; the message names the remedy.
        RefusedError: there is no such stream, or its events can't be made up.
        KafkaUnavailableError: the topic's partitions can't be queried.
    """
    traffic = Traffic(
        users=options.users,
        seed=options.seed,
        disorder_ms=round(options.disorder_seconds * 1000),
        late_share=options.late_share,
        malformed_share=options.malformed_share,
        drift=options.drift,
        copied_share=options.copied_share,
    )
    if traffic.late_share + traffic.malformed_share > 1:
        message = "--late-share and --malformed-share add up to more than 1; lower one of them"
        raise ValueError(message)
    is_live = options.rate and options.hours is None and options.start is None
    if is_live and options.drain:
        message = "--drain is for history; add --hours, or let python -m stream.heartbeat close the windows"
        raise ValueError(message)
    if not is_live and options.events is None:
        message = "say how many events history has with --events N, or ask for a live stream with --rate R alone"
        raise ValueError(message)
    catalog = settings.catalog
    stream = catalog.stream(options.stream)
    # Queried for a live stream too, to find out now whether the topic exists. A file has one heartbeat at its end.
    partitions = (0,) if options.to else tuple(topic_partitions(settings, stream.topic))
    if is_live:
        simulation = live(stream, traffic, rate=options.rate, events=options.events, now_ms=now_ms)
    else:
        simulation = historical(
            stream,
            catalog.views_of(stream),
            traffic,
            events=options.events,
            hours=options.hours or DEFAULT_HOURS,
            now_ms=now_ms,
            start_ms=None if options.start is None else round(options.start.timestamp() * 1000),
            drain=options.drain,
            partitions=partitions,
        )
    source_of(simulation)  # refuses what can't be made up before anything is opened
    return simulation


def _fail(reason: str) -> int:
    sys.stderr.write(f"stream.generator: {reason}\n")
    return ExitCode.FAILED


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    command = _command()
    options = command.parse_args(arguments)
    settings = command.settings(StreamSettings)
    with stop_event("stopped without knowing what the broker has taken") as stop:
        try:
            simulation = plan(options, settings, now_ms=time.time_ns() // 1_000_000)
            sink = FileSink(options.to) if options.to else TopicSink(settings, simulation.stream.topic, stop)
        except FeatureStoreError as error:
            command.fail(error)
        except (ValueError, OSError) as error:
            command.error(str(error))
        except KafkaException as error:
            command.error(f"{error.args[0].str()}; check KAFKA_PROPERTIES_FILE")
        try:
            report = generate(simulation, sink, rate=options.rate, stop=stop)
        except OSError as error:
            return _fail(f"can't write {options.to}: {error.strerror}")
        except KafkaException as error:
            return _fail(f"the producer gave up: {error.args[0].str()}")
    sys.stdout.write((json.dumps(report.as_json()) if options.json else str(report)) + "\n")
    if report.failed:
        reason = sink.last_error or "no answer in time"
        return _fail(f"{report.failed:,} records were not delivered: {reason}; check the broker and repeat the run")
    if report.stopped and simulation.heartbeat_ms is not None:
        return _fail("stopped before the end of history: windows stay open; repeat the run on an empty topic")
    return 0


if __name__ == "__main__":
    sys.exit(main())
