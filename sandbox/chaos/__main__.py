"""Break the real parts repeatedly while clicks arrive, then count what was lost: `make chaos`.

    python -m sandbox.chaos --faults 50 --seeds 1,2,3

Everything runs in a separate folder. After the last fault the clicks end, the dataflow reads the rest, and Parquet and
Redis are compared with a recomputation from the archive and from the topic. Exits with 0 only if nothing is lost,
duplicated, wrong or behind. A seed reproduces the clicks and the order of the faults (not the moment of each hit).
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import tempfile
import time
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from feast_repo.commands import Command, integer
from feast_repo.settings import StreamSettings
from feast_repo.stores.offline.tables import progress_folder
from sandbox.apache_kafka import ApacheKafka
from sandbox.chaos.faults import FAULTS, schedule, small_disk
from sandbox.chaos.results import Drill, keep
from sandbox.chaos.runs import DrillError, Runs
from sandbox.chaos.scene import Scene
from sandbox.chaos.traffic import ClickTraffic
from sandbox.chaos.verdict import judge, produced
from sandbox.processes import SandboxError
from sandbox.stack import Sandbox

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sandbox.settings import KafkaChoice

PARTITIONS = 6
MESSAGES_BETWEEN = 500
"""Messages that must be stored before the next fault, to show that the system has recovered from the last one."""

console = Console(stderr=True)


def drill(folder: Path, seed: int, kinds: Sequence[str] | int, kafka: KafkaChoice) -> Drill:
    """Run one drill in an empty folder, with a number of random faults or with given kinds.

    Raises:
        DrillError: a part broke its promise during a fault.
        SandboxError: a server does not start.
    """
    start, chance = time.monotonic(), random.Random(seed)  # noqa: S311  (a drill is repeatable)
    done = []
    with small_disk(folder / "data") as mounted, Sandbox(folder / "stack", kafka=kafka, partitions=PARTITIONS) as stack:
        environment = {**stack.environment, "DATA_ROOT": str(folder / "data")}
        os.environ.update(environment)  # for what runs in this process
        settings = StreamSettings()
        runs = Runs(
            environment,
            folder / "recovery",
            progress_folder(settings.data_root, settings.catalog.stream()),
            folder / "dataflow.log",
        )
        scene = Scene(stack, runs, settings.data_root, environment, chance)
        with ClickTraffic(settings, seed, PARTITIONS) as traffic:
            runs.start()
            try:
                if isinstance(kinds, int):
                    real = stack.kafka.kind == ApacheKafka.kind
                    kinds = schedule(kinds, seed, small_disk=mounted, real_kafka=real)
                for number, kind in enumerate(kinds, start=1):
                    runs.wait_for_progress(MESSAGES_BETWEEN)
                    scene.wait_until_back()
                    seen = FAULTS[kind](scene)
                    done.append((kind, seen))
                    console.print(f"{time.monotonic() - start:6.0f} s  {number:3}  {kind}: {seen}", highlight=False)
                runs.wait_for_progress(MESSAGES_BETWEEN)
                traffic.end()
                runs.stop()
                runs.start(stop_at_end=True)
                if (codes := runs.codes()) != {0}:
                    message = f"the last run ended with {codes}: {runs.said()[-2000:]}"
                    raise DrillError(message)
            finally:
                runs.kill()
        log = produced(settings)
        if len(log) != traffic.sent:
            message = f"{traffic.sent} messages were sent, and the topic holds {len(log)}"
            raise DrillError(message)
        verdict = judge(settings, log, traffic.malformed, folder / "scratch")
        return Drill(seed, stack.kafka.name, done, traffic.copies, time.monotonic() - start, verdict)


def show(drills: list[Drill]) -> Table:
    """The drills side by side."""
    table = Table("", *(f"seed {one.seed}" for one in drills), title="Fault drill")
    table.add_row("faults", *(str(len(one.faults)) for one in drills))
    table.add_row("minutes", *(f"{one.seconds / 60:.1f}" for one in drills))
    table.add_row("copies among the messages", *(f"{one.copies:,}" for one in drills))
    for name in asdict(drills[0].verdict):
        table.add_row(name.replace("_", " "), *(f"{getattr(one.verdict, name):,}" for one in drills))
    kinds = [Counter(kind for kind, _ in one.faults) for one in drills]
    for kind in FAULTS:
        table.add_row(f"  {kind.replace('_', ' ')}", *(str(counts[kind]) for counts in kinds))
    return table


def seeds(text: str) -> list[int]:
    """Parse comma-separated whole numbers."""
    try:
        return [int(part) for part in text.split(",")]
    except ValueError as error:
        message = f"{text!r} is no list of seeds; write it like 1,2,3"
        raise argparse.ArgumentTypeError(message) from error


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    command = Command("python -m sandbox.chaos", "Break the real parts at random, then count what was lost.")
    add = command.add_argument
    add("--faults", type=integer(1, 1_000), default=50, help="faults per drill (%(default)s)")
    add("--seeds", type=seeds, default=[1], help="one drill per seed, such as 1,2,3 (%(default)s)")
    add("--broker", choices=["apache", "embedded", "auto"], default="auto", help="auto: Apache Kafka if it can run")
    add("--json", action="store_true", help="print the result as one JSON object")
    add("--to", type=Path, help="folder of chaos.json and chaos.md, to which passing seeds are added")
    options = command.parse_args(arguments)
    drills = []
    for seed in options.seeds:
        again = f"python -m sandbox.chaos --faults {options.faults} --seeds {seed} --broker {options.broker}"
        console.print(f"seed {seed}: {again}", highlight=False)
        with tempfile.TemporaryDirectory(prefix="chaos-", ignore_cleanup_errors=True) as folder:
            try:
                drills.append(drill(Path(folder), seed, options.faults, options.broker))
            except (DrillError, SandboxError) as error:
                console.print(f"FAILED with seed {seed}: {error}\nrepeat it with: {again}", style="red", markup=False)
                return 1
        verdict = drills[-1].verdict
        console.print(f"seed {seed}: {'nothing lost, twice, wrong or behind' if verdict.faultless else verdict}")
        if options.to is not None and verdict.faultless:
            keep(options.to, again, drills[-1])
    if options.json:
        sys.stdout.write(json.dumps([asdict(one) for one in drills]) + "\n")
    else:
        Console().print(show(drills))
    if failed := [one.seed for one in drills if not one.verdict.faultless]:
        console.print(f"FAILED with seeds {failed}", style="red")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
