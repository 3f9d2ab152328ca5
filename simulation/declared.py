"""The events of any stream, made up from its declaration alone.

Entities are as active as Zipf's law has it. Each field has plausible values by its type and rules (`values.py`), which
are independent of each other; optional fields are sometimes absent.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from feast_repo.codec.decoding import Decoder, RawBatch
from feast_repo.codec.encoding import encode
from feast_repo.declare.fields import Text
from feast_repo.errors import RefusedError
from simulation.clock import BLOCK, USUAL
from simulation.malformed import flaws
from simulation.records import heartbeats, messages
from simulation.values import Values, texts

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from feast_repo.declare.events import EventStream
    from simulation.clock import Simulation

ID_DIGITS = 12
"""Enough for the most events that can be asked for."""
SAMPLE = 200
"""Events on which it is tried whether the decoder accepts them."""


class SimulationError(RefusedError, ValueError):
    """Such events can't be made up; the message names the stream and the cause."""


class Declared:
    """Makes up events of a stream, as frames of `message_schema`.

    Of the fields that read the same value, one is made up, and the others must accept it. An id of limited length is
    unique among as many events as its digits can count.

    Raises:
        SimulationError: the stream knows no such drift, or wouldn't accept the events.
    """

    def __init__(self, simulation: Simulation) -> None:
        self._simulation = simulation
        self._stream = stream = simulation.stream
        self._run = simulation.run
        self._values = {
            name: Values(
                stream.by_name[name],
                entities=simulation.traffic.users if name == stream.key else None,
                never=stream.heartbeat if name == stream.kind else None,
            )
            for name in _made_up(stream)
        }
        self.flaws = flaws(stream)
        self._refuse_what_is_refused()

    def draw(self) -> Iterator[pl.DataFrame]:
        """A draw for each value, in columns named by the field's place in the declaration."""
        places = [place for place, field in enumerate(self._stream.fields) if field.name in self._values]
        chances = {str(place): np.random.default_rng([self._simulation.traffic.seed, 40, place]) for place in places}
        while True:
            yield pl.DataFrame({place: chance.random(BLOCK) for place, chance in chances.items()})

    def encode(self, rows: pl.DataFrame) -> pl.DataFrame:
        """Messages of timed draws, in the same order."""
        fields = self._fields(rows)
        return messages(self._stream, self.flaws, rows, fields, self._sound(fields))

    def heartbeats(self, at_ms: int, partitions: Sequence[int]) -> pl.DataFrame:
        """One heartbeat per partition."""
        return heartbeats(self._stream, self._run, at_ms, partitions)

    def _fields(self, rows: pl.DataFrame) -> pl.DataFrame:
        """The declared fields."""
        columns: dict[str, pl.Series | None] = dict.fromkeys(self._stream.schema)
        for place, name in enumerate(columns):
            if name in self._values:
                columns[name] = self._values[name].column(rows[str(place)].to_numpy(), rows["at_ms"])
        columns[self._stream.time] = rows["at_ms"]
        event_id = None if self._stream.event_id is None else self._stream.by_name[self._stream.event_id]
        if isinstance(event_id, Text):
            columns[event_id.name] = texts(event_id, f"{self._run}-", rows["number"], ID_DIGITS)
        return pl.DataFrame(columns, schema=self._stream.schema)

    def _sound(self, fields: pl.DataFrame) -> pl.Series:
        return pl.Series([encode(self._stream, event) for event in fields.iter_rows(named=True)], dtype=pl.Binary)

    def _refuse_what_is_refused(self) -> None:
        """Try the first events, at the time of the first one.

        Raises:
            SimulationError: the stream knows no such drift, or wouldn't accept the events.
        """
        stream, start_ms = self._stream, self._simulation.start_ms
        if self._simulation.traffic.drift != USUAL:
            message = f"event stream {stream.name!r} knows no drift; leave it out"
            raise SimulationError(message)
        rows = next(self.draw()).head(SAMPLE)
        rows = rows.with_columns(number=pl.int_range(pl.len()), at_ms=pl.lit(start_ms, pl.Int64))
        fields = self._fields(rows)
        keys = fields[stream.key].cast(pl.String).cast(pl.Binary).to_list()
        offsets = list(range(SAMPLE))
        batch = RawBatch(0, self._sound(fields).to_list(), keys, [start_ms] * SAMPLE, offsets)
        refused = Decoder(stream).decode(batch).dead_letters["reason"]
        if not refused.is_empty():
            message = f"event stream {stream.name!r}: it would reject the events that are made up for it: {refused[0]}"
            raise SimulationError(message)


def _made_up(stream: EventStream) -> list[str]:
    """The fields with values of their own, but for time and id: one at each path, rather the one with more rules."""
    roles = (stream.time, stream.event_id, stream.key, stream.kind)
    chosen: dict[tuple[str, ...], str] = {}
    for field in sorted(stream.fields, key=lambda field: (field.name not in roles, isinstance(field, Text))):
        chosen.setdefault(field.components, field.name)
    return [name for name in chosen.values() if name not in {stream.time, stream.event_id}]
