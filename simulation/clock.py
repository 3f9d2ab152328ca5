"""A clickstream as it reaches Kafka: timed sessions with disorder, late and malformed records, and heartbeats.

    simulation = historical(view, Traffic(), events=300_000, hours=4, now_ms=now_ms, partitions=(0, 1))
    for records in simulate(simulation):  # a frame with the columns of RECORD
        ...

Everything is a pure function of the `Simulation`: equal simulations give the same bytes in the same order.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from feast_repo.errors import RefusedError
from simulation.profiles import DEFAULT_SEED, DEFAULT_USERS, make_profiles
from simulation.records import FIRST_FLAW, FLAWS, EventEncoder, heartbeats
from simulation.sessions import USUAL, browse

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from feast_repo.declare.views import WindowedView

MOST_EXTRA_DELAY_MS = 78 * 60_000
"""How far beyond the allowed lateness a late record may arrive: some miss one window, some all six."""
BLOCK = 50_000
"""Events generated at once: enough for efficient vectorised calls, few enough to stay in the processor's cache."""


@dataclass(frozen=True)
class Traffic:
    """Who clicks, and how disordered it arrives. Shares are of all records but heartbeats and total at most 1.

    A record arrives up to `disorder_ms` after its event, a late record more than the allowed lateness after it. `drift`
    names a change of habits (see `sessions.py`).
    """

    users: int = DEFAULT_USERS
    seed: int = DEFAULT_SEED
    disorder_ms: int = 5_000
    late_share: float = 0.0
    malformed_share: float = 0.0
    drift: str = field(default=USUAL, repr=False)


@dataclass(frozen=True, kw_only=True)
class Simulation:
    """All parameters that determine the records. Times are epoch ms UTC.

    Event number k happens at a random time in the k-th interval of `interval_ms` after `start_ms`; without `events` the
    stream is endless. With `heartbeat_ms`, the last records are one heartbeat of that event time for each of
    `partitions`, arriving at that time; records that would arrive later arrive just before them.
    """

    traffic: Traffic
    start_ms: int
    interval_ms: float
    events: int | None
    lateness_ms: int
    heartbeat_ms: int | None = None
    partitions: tuple[int, ...] = ()
    block: int = BLOCK

    @property
    def end_ms(self) -> float:
        """The time before which all events happen; infinite without `events`."""
        return math.inf if self.events is None else self.start_ms + math.ceil(self.events * self.interval_ms)

    @property
    def run(self) -> str:
        """A tag that keeps the ids of different simulations apart."""
        told = repr(self) if self.traffic.drift == USUAL else f"{self!r} {self.traffic.drift}"
        return hashlib.blake2b(told.encode(), digest_size=6).hexdigest()


class FutureError(RefusedError, ValueError):
    """The simulated time would reach beyond now; the message names the latest start."""


def historical(
    view: WindowedView,
    traffic: Traffic,
    *,
    events: int,
    hours: float,
    now_ms: int,
    start_ms: int | None = None,
    drain: bool = False,
    partitions: tuple[int, ...],
) -> Simulation:
    """Events over past hours, and heartbeats that close every window up to the last event's slide.

    Without a start, the heartbeats have the latest possible time before `now_ms`, so the newest windows are fresh. With
    `drain`, they are a window and a slide later after the events, so expiry rows are closed too.

    Raises:
        FutureError: a given start puts the heartbeats after `now_ms`.
    """
    span_ms = round(hours * 3_600_000)
    tail_ms = view.window_ms + view.slide_ms if drain else 0
    last_close_ms = (now_ms - view.lateness_ms) // view.slide_ms * view.slide_ms
    latest_ms = last_close_ms - tail_ms - span_ms
    start = latest_ms if start_ms is None else start_ms
    if start > latest_ms:
        latest = np.datetime_as_string(np.datetime64(latest_ms, "ms"), unit="s")
        message = f"the windows would close in the future; start at {latest}Z or before"
        raise FutureError(message)
    close_ms = -(-(start + span_ms) // view.slide_ms) * view.slide_ms + tail_ms
    return Simulation(
        traffic=traffic,
        start_ms=start,
        interval_ms=span_ms / events,
        events=events,
        lateness_ms=view.lateness_ms,
        heartbeat_ms=close_ms + view.lateness_ms,
        partitions=partitions,
    )


def live(view: WindowedView, traffic: Traffic, *, rate: float, events: int | None, now_ms: int) -> Simulation:
    """Events from now on, `rate` per second, in blocks of about 100 ms; no heartbeats, because time goes on anyway."""
    return Simulation(
        traffic=traffic,
        start_ms=now_ms,
        interval_ms=1000 / rate,
        events=events,
        lateness_ms=view.lateness_ms,
        block=min(max(round(rate / 10), 1), BLOCK),
    )


def simulate(simulation: Simulation) -> Iterator[pl.DataFrame]:
    """Records in arrival order, as non-empty frames of RECORD of about `block` rows.

    Memory: a block, the concurrent sessions, and a few integers for each record in flight.
    """
    profiles = make_profiles(simulation.traffic.users, simulation.traffic.seed)
    encoder = EventEncoder(simulation.run, profiles["user_id"])
    traffic = simulation.traffic
    steps = browse(profiles, steps_per_second=1000 / simulation.interval_ms, seed=traffic.seed, drift=traffic.drift)
    under_way = pl.DataFrame()
    for events, next_ms in _on_the_clock(_blocks(steps, simulation.block), simulation):
        under_way = pl.concat([under_way, events])
        has_arrived = under_way["arrival_ms"] < next_ms  # no later event can arrive earlier
        arrived = under_way.filter(has_arrived)
        under_way = under_way.filter(~has_arrived)
        if not arrived.is_empty():
            yield encoder.encode(arrived.sort("arrival_ms", maintain_order=True))
    if simulation.heartbeat_ms is not None:
        yield heartbeats(simulation.run, simulation.heartbeat_ms, simulation.partitions)


def _blocks(frames: Iterable[pl.DataFrame], size: int) -> Iterator[pl.DataFrame]:
    """Regroup rows into frames of one size."""
    rest = pl.DataFrame()
    for frame in frames:
        rows = pl.concat([rest, frame])
        whole = rows.height // size * size
        yield from (rows.slice(offset, size) for offset in range(0, whole, size))
        rest = rows.slice(whole)


def _on_the_clock(blocks: Iterable[pl.DataFrame], simulation: Simulation) -> Iterator[tuple[pl.DataFrame, float]]:
    """Add number, event time, arrival time and kind to each step, and the time before which no later event happens."""
    traffic = simulation.traffic
    rng = np.random.default_rng([traffic.seed, 30])
    last_arrival_ms = simulation.end_ms if simulation.heartbeat_ms is None else simulation.heartbeat_ms
    begun = flawed = 0
    for block in blocks:
        steps = block if simulation.events is None else block.head(simulation.events - begun)
        number = np.arange(begun, begun + steps.height)
        at_ms = simulation.start_ms + ((number + rng.random(steps.height)) * simulation.interval_ms).astype(np.int64)
        at_ms = np.minimum(at_ms, simulation.end_ms - 1).astype(np.int64)
        lot = rng.random(steps.height)
        malformed = lot < traffic.malformed_share
        delayed = ~malformed & (lot < traffic.malformed_share + traffic.late_share)
        delay_ms = rng.integers(0, traffic.disorder_ms, steps.height, endpoint=True)
        long_delay_ms = simulation.lateness_ms + rng.integers(1, MOST_EXTRA_DELAY_MS, steps.height)
        arrival_ms = np.minimum(at_ms + np.where(delayed, long_delay_ms, delay_ms), last_arrival_ms).astype(np.int64)
        flaw = FIRST_FLAW + (flawed + np.cumsum(malformed) - 1) % len(FLAWS)
        is_late = arrival_ms - at_ms > simulation.lateness_ms
        begun, flawed = begun + steps.height, flawed + int(malformed.sum())
        done = begun == simulation.events
        next_ms = math.inf if done else simulation.start_ms + math.floor(begun * simulation.interval_ms)
        yield (
            steps.with_columns(
                number=number,
                at_ms=at_ms,
                arrival_ms=arrival_ms,
                kind=pl.Series(np.where(malformed, flaw, is_late)).cast(pl.Int32),
            ),
            next_ms,
        )
        if done:
            return
