"""What the state of a window engine takes in memory and as a snapshot, in a process of its own.

Two figures for memory: the bytes of the columns, exactly; and the memory of the process after garbage collection less
what it was before (resident, without the pages that are free for the kernel to take), which holds fragments as well.
"""

from __future__ import annotations

import gc
import json
import re
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from benchmarks.clicks import START_MS
from benchmarks.engine import BATCH, Case
from benchmarks.watch import cores
from feast_repo.clickstream import clickstream
from feast_repo.features import user_click_features as shipped
from feast_repo.settings import PROJECT_ROOT
from stream.windows import WindowEngine

if TYPE_CHECKING:
    from collections.abc import Iterator

    from feast_repo.declare.views import WindowedView

SETTLED_BYTES, SETTLE_S, SETTLE_ROUNDS = 1_000_000, 0.6, 10


@dataclass(frozen=True)
class Holding:
    """State to make: `events` clicks of `users` as they come, or without `events`, of every user in every pane.

    `id_length`: characters of the user ids where every user is in every pane.
    """

    users: int
    events: int | None = None
    id_length: int = 11
    deduplicate: bool = False

    def batches(self) -> Iterator[pl.DataFrame]:
        """The log, as `WindowEngine.process` takes it."""
        if self.events is None:
            return _everywhere(self.users, self.id_length)
        return Case(self.events, self.users, 65.0).batches()


@dataclass(frozen=True)
class Held:
    """Bytes in memory after a run, and after a restore in a fresh process; bytes and seconds of the snapshot.

    `active_users` had a row in the last window; `ids` is how many events are known.
    """

    active_users: int
    ids: int
    column_bytes: int
    grown_bytes: int
    restored_bytes: int
    snapshot_bytes: int
    snapshot_seconds: float
    restore_seconds: float


def hold(holding: Holding, folder: Path) -> Held:
    """Make the state in one process and read it back in another.

    Raises:
        subprocess.CalledProcessError: one of them failed; its complaint went to standard error.
    """
    snapshot = folder / "snapshot"
    parts = [_in_a_process(step, holding, snapshot) for step in ("grow", "restore")]
    return Held(**parts[0], **parts[1])


def _in_a_process(step: str, holding: Holding, snapshot: Path) -> dict[str, Any]:
    command = ["taskset", "--cpu-list", ",".join(map(str, cores()[0])), sys.executable, "-m", "benchmarks.held"]
    arguments = [step, json.dumps(asdict(holding)), str(snapshot)]
    done = subprocess.run([*command, *arguments], cwd=PROJECT_ROOT, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def grow(holding: Holding, snapshot: Path) -> dict[str, Any]:
    """Run the engine over the log and write its snapshot to the file."""
    view = _warm(holding)
    engine = WindowEngine(view.source, [view])
    before, active = _held_bytes(), 0
    for batch in holding.batches():
        if windows := engine.process(batch).windows:
            active = len(windows[-1].rows)
    del batch, windows
    grown = _held_bytes() - before
    start = time.perf_counter()
    state = engine.snapshot()
    seconds = time.perf_counter() - start
    snapshot.write_bytes(state)
    aggregates, ids = engine.nbytes
    return {
        "active_users": active,
        "ids": ids // 16,
        "column_bytes": aggregates + ids,
        "grown_bytes": grown,
        "snapshot_bytes": len(state),
        "snapshot_seconds": seconds,
    }


def restore(holding: Holding, snapshot: Path) -> dict[str, Any]:
    """Read a snapshot back."""
    view, state = _warm(holding), snapshot.read_bytes()
    before = _held_bytes()
    start = time.perf_counter()
    engine = WindowEngine.restore(view.source, [view], state)
    seconds = time.perf_counter() - start
    after = _held_bytes()
    del engine
    return {"restored_bytes": after - before, "restore_seconds": seconds}


def _warm(holding: Holding) -> WindowedView:
    """The view, once everything is loaded that making a log and an engine need."""
    source = shipped.source if holding.deduplicate else replace(shipped.source, event_id=None)
    view = replace(shipped, source=source)
    engine = WindowEngine(view.source, [view])
    for batch in islice(holding.batches(), 1):
        engine.process(batch)
    for batch in _everywhere(BATCH, holding.id_length):
        engine.process(batch)
    WindowEngine.restore(view.source, [view], engine.snapshot())
    return view


def _everywhere(users: int, id_length: int) -> Iterator[pl.DataFrame]:
    """A click of each user in each pane of a window, in as many slides as a pane lives, in changing order."""
    chance = np.random.default_rng(1)
    names = "u" + pl.select(pl.int_range(users).cast(pl.String).str.zfill(id_length - 1)).to_series()
    kinds = pl.Series(["view", "click", "add_to_cart", "purchase"])
    for pane in range(shipped.panes_per_window + 1):
        order = chance.permutation(users)
        for at in range(0, users, BATCH):
            some = order[at : at + BATCH]
            kind = chance.integers(0, len(kinds), len(some))
            time_ms = START_MS + pane * shipped.slide_ms + at * (shipped.slide_ms - 1) // users
            yield pl.DataFrame(
                {
                    "kafka_timestamp": np.full(len(some), time_ms),
                    "event_id": (pl.Series(some) + pane * users).cast(pl.String).str.zfill(32),
                    "user_id": names.gather(some),
                    "event_type": kinds.gather(kind),
                    "event_timestamp": np.full(len(some), time_ms),
                    "product_id": None,
                    "session_id": None,
                    "price_cents": chance.integers(100, 50_000, len(some)),
                },
                schema={"kafka_timestamp": pl.Int64, **clickstream.schema},
            )


def _held_bytes() -> int:
    """Resident memory that the process needs: once garbage is collected and the allocator has given pages back."""
    found = []
    for _ in range(SETTLE_ROUNDS):
        gc.collect()
        pl.Series(np.arange(BATCH)).sort()  # the allocator gives pages back while it is asked for memory
        sizes = dict(re.findall(r"^(\w+): +(\d+) kB", Path("/proc/self/smaps_rollup").read_text(), re.MULTILINE))
        found.append((int(sizes["Rss"]) - int(sizes["LazyFree"])) * 1024)
        if len(found) > 1 and abs(found[-1] - found[-2]) < SETTLED_BYTES:
            break
        time.sleep(SETTLE_S)
    return found[-1]


if __name__ == "__main__":
    _step, _holding, _snapshot = sys.argv[1:]
    _work = {"grow": grow, "restore": restore}[_step]
    sys.stdout.write(json.dumps(_work(Holding(**json.loads(_holding)), Path(_snapshot))))
