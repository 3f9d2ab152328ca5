"""The events of a stream as they reach Kafka: with disorder, late and malformed records, and heartbeats.

    simulation = historical(stream, views, Traffic(), events=300_000, hours=4, now_ms=now_ms, partitions=(0, 1))
    for records in simulate(simulation):  # a frame with the columns of `message_schema`
        ...

Everything is a pure function of the `Simulation`: equal simulations give the same bytes in the same order.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from simulation.clock import on_the_clock
from simulation.sources import source_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from simulation.clock import Simulation


def simulate(simulation: Simulation) -> Iterator[pl.DataFrame]:
    """Records in arrival order, as non-empty frames of about `block` rows.

    Memory: some BLOCK events, what the source holds back, and a few integers for each record in flight.

    Raises:
        RefusedError: such events can't be made up; the message says why.
    """
    source = source_of(simulation)
    under_way = pl.DataFrame()
    for events, next_ms in on_the_clock(source.draw(), simulation, len(source.flaws)):
        under_way = pl.concat([under_way, events])
        has_arrived = under_way["arrival_ms"] < next_ms  # no later event can arrive earlier
        arrived = under_way.filter(has_arrived)
        under_way = under_way.filter(~has_arrived)
        if not arrived.is_empty():
            yield source.encode(arrived.sort("arrival_ms", "number", maintain_order=True))
    if simulation.heartbeat_ms is not None:
        yield source.heartbeats(simulation.heartbeat_ms, simulation.partitions)
