"""When events happen and how they reach Kafka: the clock of every simulated stream.

    simulation = historical(stream, catalog.views_of(stream), Traffic(), events=300_000, hours=4, now_ms=now_ms, ...)

What happens is the business of a source (`simulation/source.py`); `simulation/events.py` puts both together.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from feast_repo.declare.fields import Timestamp
from feast_repo.errors import RefusedError
from simulation.profiles import DEFAULT_SEED, DEFAULT_USERS
from simulation.records import COPIED, FIRST_FLAW

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from feast_repo.declare.events import EventStream
    from feast_repo.declare.views import WindowedView

USUAL = "none"
"""No drift."""
MOST_EXTRA_DELAY_MS = 78 * 60_000
"""How far beyond the allowed lateness a late record may arrive: some miss one window, some all six."""
BLOCK = 50_000
"""Events generated at once: enough for efficient vectorised calls, few enough to stay in the processor's cache."""


@dataclass(frozen=True)
class Traffic:
    """Whose events, and how disordered they arrive.

    Shares are of all records but heartbeats; those of late and malformed ones total at most 1.

    `users` counts the keys. A record arrives up to `disorder_ms` after its event, a late record more than the allowed
    lateness after it. A share of the others is delivered again, byte for byte, up to `disorder_ms` after that; these
    copies come on top of the records. `drift` names a change of habits that the stream's source knows.
    """

    users: int = DEFAULT_USERS
    seed: int = DEFAULT_SEED
    disorder_ms: int = 5_000
    late_share: float = 0.0
    malformed_share: float = 0.0
    drift: str = field(default=USUAL, repr=False)
    copied_share: float = field(default=0.0, repr=False)


@dataclass(frozen=True, kw_only=True)
class Simulation:
    """All parameters that determine the records. Times are epoch ms UTC.

    Event number k happens at a random time in the k-th interval of `interval_ms` after `start_ms`; without `events` the
    stream is endless. With `heartbeat_ms`, the last records are one heartbeat of that event time for each of
    `partitions`, arriving at that time; records that would arrive later arrive just before them. `block` is how many
    events are encoded at once; it changes no byte.
    """

    stream: EventStream = field(repr=False)
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
        """A tag that keeps the ids of different simulations of a stream apart."""
        told = repr(replace(self, block=BLOCK))
        told = told if self.traffic.drift == USUAL else f"{told} {self.traffic.drift}"
        told = told if not self.traffic.copied_share else f"{told} copied {self.traffic.copied_share}"
        return hashlib.blake2b(told.encode(), digest_size=6).hexdigest()


class FutureError(RefusedError, ValueError):
    """The simulated time would reach beyond now; the message names the latest start."""


def historical(
    stream: EventStream,
    views: Sequence[WindowedView],
    traffic: Traffic,
    *,
    events: int,
    hours: float,
    now_ms: int,
    start_ms: int | None = None,
    drain: bool = False,
    partitions: tuple[int, ...],
) -> Simulation:
    """Events over past hours, and heartbeats that close every window of the views up to the last event's slide.

    Of several views, the longest slide and window count. A stream without views has heartbeats right after its events.
    Without a start, the heartbeats have the latest possible time before `now_ms`, so the newest windows are fresh. With
    `drain`, they are a window and a slide later after the events, so expiry rows are closed too.

    Raises:
        FutureError: a given start puts the heartbeats after `now_ms`.
    """
    slide_ms = max((view.slide_ms for view in views), default=1)
    tail_ms = max((view.window_ms for view in views), default=0) + slide_ms if drain else 0
    span_ms = round(hours * 3_600_000)
    tick_ms = _tick_ms(stream)
    last_close_ms = _down(_down(now_ms, tick_ms) - stream.lateness_ms, slide_ms)
    latest_ms = last_close_ms - tail_ms - span_ms
    start = latest_ms if start_ms is None else start_ms
    if start > latest_ms:
        latest = np.datetime_as_string(np.datetime64(latest_ms, "ms"), unit="s")
        message = f"the windows would close in the future; start at {latest}Z or before"
        raise FutureError(message)
    close_ms = _up(start + span_ms, slide_ms) + tail_ms
    return Simulation(
        stream=stream,
        traffic=traffic,
        start_ms=start,
        interval_ms=span_ms / events,
        events=events,
        lateness_ms=stream.lateness_ms,
        heartbeat_ms=_up(close_ms + stream.lateness_ms, tick_ms),
        partitions=partitions,
    )


def live(stream: EventStream, traffic: Traffic, *, rate: float, events: int | None, now_ms: int) -> Simulation:
    """Events from now on, `rate` per second, in blocks of about 100 ms; no heartbeats, because time goes on anyway."""
    return Simulation(
        stream=stream,
        traffic=traffic,
        start_ms=now_ms,
        interval_ms=1000 / rate,
        events=events,
        lateness_ms=stream.lateness_ms,
        block=min(max(round(rate / 10), 1), BLOCK),
    )


def on_the_clock(
    frames: Iterable[pl.DataFrame], simulation: Simulation, flaws: int
) -> Iterator[tuple[pl.DataFrame, float]]:
    """What happens, in blocks and on time; beside each, the time (ms) before which no later event happens.

    Adds the columns `number` (from 0), `at_ms`, `arrival_ms` and `kind`: 0 is in time, 1 late, COPIED a copy, and what
    follows from FIRST_FLAW on are `flaws` ways to be malformed, which take turns. `frames` is endless.
    """
    tick_ms = _tick_ms(simulation.stream)
    times = _blocks(_times(simulation, flaws), simulation.block)
    for block, on_time in zip(_blocks(frames, simulation.block), times, strict=False):
        begun = int(on_time["number"][-1]) + 1
        done = begun == simulation.events
        next_ms = simulation.start_ms + math.floor(begun * simulation.interval_ms)
        events = block.head(on_time.height).hstack(on_time)
        copies = events.filter(pl.col("again_ms").is_not_null())
        copies = copies.with_columns(arrival_ms=pl.col("again_ms"), kind=pl.lit(COPIED, pl.Int32))
        yield pl.concat([events, copies]).drop("again_ms"), math.inf if done else _down(next_ms, tick_ms)
        if done:
            return


def _times(simulation: Simulation, flaws: int) -> Iterator[pl.DataFrame]:
    """When events happen and arrive, in frames of BLOCK: their size decides what is drawn."""
    traffic = simulation.traffic
    rng, copying = (np.random.default_rng([traffic.seed, number]) for number in (30, 31))
    last_arrival_ms = simulation.end_ms if simulation.heartbeat_ms is None else simulation.heartbeat_ms
    tick_ms = _tick_ms(simulation.stream)
    begun = flawed = 0
    while begun != simulation.events:
        count = BLOCK if simulation.events is None else min(BLOCK, simulation.events - begun)
        number = np.arange(begun, begun + count)
        at_ms = simulation.start_ms + ((number + rng.random(count)) * simulation.interval_ms).astype(np.int64)
        at_ms = np.minimum(at_ms, simulation.end_ms - 1).astype(np.int64)
        at_ms -= at_ms % tick_ms
        lot = rng.random(count)
        malformed = lot < traffic.malformed_share
        delayed = ~malformed & (lot < traffic.malformed_share + traffic.late_share)
        delay_ms = rng.integers(0, traffic.disorder_ms, count, endpoint=True)
        long_delay_ms = simulation.lateness_ms + rng.integers(1, MOST_EXTRA_DELAY_MS, count)
        arrival_ms = np.minimum(at_ms + np.where(delayed, long_delay_ms, delay_ms), last_arrival_ms).astype(np.int64)
        flaw = FIRST_FLAW + (flawed + np.cumsum(malformed) - 1) % flaws
        is_late = arrival_ms - at_ms > simulation.lateness_ms
        copied = ~malformed & (copying.random(count) < traffic.copied_share)
        again_ms = np.minimum(
            arrival_ms + copying.integers(0, traffic.disorder_ms, count, endpoint=True), last_arrival_ms
        )
        begun, flawed = begun + count, flawed + int(malformed.sum())
        yield pl.DataFrame(
            {
                "number": number,
                "at_ms": at_ms,
                "arrival_ms": arrival_ms,
                "kind": pl.Series(np.where(malformed, flaw, is_late)).cast(pl.Int32),
                "again_ms": pl.select(
                    pl.when(pl.Series(copied)).then(pl.Series(again_ms.astype(np.int64)))
                ).to_series(),
            }
        )


def _blocks(frames: Iterable[pl.DataFrame], size: int) -> Iterator[pl.DataFrame]:
    """Regroup rows into frames of one size; the last may be smaller."""
    rest = pl.DataFrame()
    for frame in frames:
        rows = pl.concat([rest, frame])
        whole = rows.height // size * size
        yield from (rows.slice(offset, size) for offset in range(0, whole, size))
        rest = rows.slice(whole)
    if not rest.is_empty():
        yield rest


def _tick_ms(stream: EventStream) -> int:
    """What an event's time is a multiple of, since its format holds no more."""
    time = stream.by_name[stream.time]
    return 1_000 if isinstance(time, Timestamp) and time.format == "s" else 1


def _down(time_ms: int, step_ms: int) -> int:
    return time_ms // step_ms * step_ms


def _up(time_ms: int, step_ms: int) -> int:
    return -(-time_ms // step_ms) * step_ms
