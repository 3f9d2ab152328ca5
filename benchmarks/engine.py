"""One run of the window engine over one partition's log, in a process of its own: so its peak memory means something.

The log is made chunk by chunk and given to the engine in batches of 10,000, as the dataflow does; only the engine's
part counts. Time is CPU time on one core, which others on the machine disturb least.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.clicks import Clicks
from benchmarks.watch import cores
from feast_repo.declare.algebra import Count, Feature, Max, Min, Ratio, Sum, field
from feast_repo.features import user_click_features as shipped
from feast_repo.settings import PROJECT_ROOT
from stream.windows import WindowEngine

if TYPE_CHECKING:
    from collections.abc import Iterator

    import polars as pl

    from feast_repo.declare.views import WindowedView

BATCH = 10_000
MINUTE = timedelta(minutes=1)


@dataclass(frozen=True)
class Case:
    """What the engine is to do. The view is the shipped one but for what is said here.

    `panes`: slides per window. `beside`: further views of the stream, by panes and minutes of the slide.
    """

    events: int
    users: int
    minutes: float
    features: int = len(shipped.features)
    panes: int = shipped.panes_per_window
    slide_minutes: int = shipped.slide // MINUTE
    beside: tuple[tuple[int, int], ...] = ()

    @property
    def views(self) -> list[WindowedView]:
        """The declarations: for more features, a mix of all kinds is added to the shipped ones."""
        features = {**shipped.features, **_more(self.features)}
        return [
            replace(
                shipped,
                name=f"{panes}_panes_of_{minutes}_minutes",
                window=panes * minutes * MINUTE,
                slide=minutes * MINUTE,
                features=features,
            )
            for panes, minutes in ((self.panes, self.slide_minutes), *self.beside)
        ]

    def batches(self) -> Iterator[pl.DataFrame]:
        """The log, as `WindowEngine.process` takes it."""
        for chunk in Clicks(self.events, self.users, self.minutes).clicks():
            yield from chunk.rename({"arrival_ms": "kafka_timestamp"}).iter_slices(BATCH)


@dataclass(frozen=True)
class Run:
    """CPU seconds, and the greatest memory of the process while the engine worked (bytes), a chunk of the log included.

    `state_bytes` are those of the columns that it held at the end, `ids_bytes` the known ids among them; a snapshot
    was taken of them and restored. `active_users` had a row in the last window, and `rows` were closed in all.
    """

    cpu_seconds: float
    peak_bytes: int
    state_bytes: int
    ids_bytes: int
    snapshot_bytes: int
    snapshot_seconds: float
    restore_seconds: float
    active_users: int
    rows: int


def run(case: Case) -> Run:
    """Run the engine in a new process on the measured core.

    Raises:
        subprocess.CalledProcessError: it failed; its complaint went to standard error.
    """
    command = ["taskset", "--cpu-list", ",".join(map(str, cores()[0])), sys.executable, "-m", "benchmarks.engine"]
    done = subprocess.run(
        [*command, json.dumps(asdict(case))], cwd=PROJECT_ROOT, stdout=subprocess.PIPE, text=True, check=True
    )
    return Run(**json.loads(done.stdout))


def measure(case: Case) -> Run:
    """Run the engine in this process."""
    _warm_up(case)
    views = case.views
    engine = WindowEngine(shipped.source, views)
    peak, seconds, rows, active = 0, 0.0, 0, 0
    for batch in case.batches():
        Path("/proc/self/clear_refs").write_text("5")  # let VmHWM begin anew
        start = time.process_time()
        windows = engine.process(batch).windows
        seconds += time.process_time() - start
        peak = max(peak, _most_resident())
        if windows:
            active = len(windows[-1].rows)
            rows += sum(len(window.rows) for window in windows)
    aggregates, ids = engine.nbytes
    start = time.perf_counter()
    state = engine.snapshot()
    taken = time.perf_counter() - start
    start = time.perf_counter()
    WindowEngine.restore(shipped.source, views, state)
    restored = time.perf_counter() - start
    return Run(seconds, peak, aggregates + ids, ids, len(state), taken, restored, active, rows)


def _warm_up(case: Case) -> None:
    """Let everything be loaded and compiled."""
    engine = WindowEngine(shipped.source, case.views)
    for batch in replace(case, events=10 * BATCH, users=1000).batches():
        engine.process(batch)
    WindowEngine.restore(shipped.source, case.views, engine.snapshot())


def _most_resident() -> int:
    """The greatest memory of this process since VmHWM began anew, as the kernel counts it, bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) * 1024


def _more(features: int) -> dict[str, Feature]:
    """What to add to the shipped features: counts, sums, least and greatest values, and ratios in turn."""
    kinds = ("view", "click", "add_to_cart", "purchase")
    found: dict[str, Feature] = {}
    for number in range(features - len(shipped.features)):
        where = (field("event_type") == kinds[number % 4]) & (field("price_cents") > 100 * number)
        found[f"more_{number}"] = (
            Count(where=where),
            Sum("price_cents", where=where),
            Min("price_cents", where=where),
            Max("price_cents", where=where),
            Ratio(f"more_{number - 4}", "view_count"),
        )[number % 5]
    return found


if __name__ == "__main__":
    sys.stdout.write(json.dumps(asdict(measure(Case(**json.loads(sys.argv[1]))))))
