"""The shop's clicks: sessions of shoppers, as records.

Written for the declaration `clickstream`; other streams are made up from theirs (`simulation/declared.py`).
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, ClassVar

import polars as pl

from feast_repo.clickstream import clickstream
from simulation.malformed import Flaw, flaws
from simulation.profiles import make_profiles
from simulation.records import FIRST_FLAW, HEARTBEAT, MESSAGE, heartbeat_id, heartbeats, messages
from simulation.sessions import DRIFTS, PRODUCTS, STEP_TYPES, browse

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from simulation.clock import Simulation

FLAWS = flaws(clickstream)
MALFORMED_KINDS = tuple(dict.fromkeys(flaw.reason for flaw in FLAWS))

RECORD: dict[str, pl.DataType] = {**MESSAGE, **clickstream.schema}
"""A message and its event's fields, which are null for a malformed one."""


class Shop:
    """Makes up clicks, as frames of RECORD. Repeated strings are built once."""

    written_for = clickstream
    drifts = tuple(DRIFTS)
    flaws: ClassVar[tuple[Flaw, ...]] = FLAWS

    def __init__(self, simulation: Simulation) -> None:
        self._simulation = simulation
        self._run = simulation.run
        self._steps = pl.Series(STEP_TYPES)
        self._products = pl.select("p_" + pl.int_range(1, PRODUCTS + 1).cast(pl.String).str.zfill(5)).to_series()

    @cached_property
    def _profiles(self) -> pl.DataFrame:
        traffic = self._simulation.traffic
        return make_profiles(traffic.users, traffic.seed)

    def draw(self) -> Iterator[pl.DataFrame]:
        """Steps of sessions, as numbers."""
        traffic = self._simulation.traffic
        per_second = 1000 / self._simulation.interval_ms
        return browse(self._profiles, steps_per_second=per_second, seed=traffic.seed, drift=traffic.drift)

    def encode(self, rows: pl.DataFrame) -> pl.DataFrame:
        """Convert rows of numbers to rows of RECORD, in the same order."""
        fields = pl.DataFrame(
            {
                "event_id": rows.select(pl.lit(f"{self._run}-") + pl.col("number").cast(pl.String)).to_series(),
                "user_id": self._profiles["user_id"].gather(rows["user"]),
                "event_type": self._steps.gather(rows["step"]),
                "event_timestamp": rows["at_ms"],
                "product_id": self._products.gather(rows["product"]),
                "session_id": rows.select(pl.lit(f"{self._run}-s") + pl.col("session").cast(pl.String)).to_series(),
                "price_cents": rows["price_cents"],
            },
            schema=clickstream.schema,
        )
        values = fields.select(pl.struct(pl.all()).struct.json_encode().cast(pl.Binary)).to_series()
        sent = messages(clickstream, self.flaws, rows, fields, values)
        return sent.hstack(fields.select(pl.when(rows["kind"] < FIRST_FLAW).then(pl.all())))

    def heartbeats(self, at_ms: int, partitions: Sequence[int]) -> pl.DataFrame:
        """One heartbeat per partition."""
        ids = [heartbeat_id(clickstream, self._run, partition) for partition in partitions]
        fields = pl.DataFrame({"event_id": ids, "event_type": HEARTBEAT, clickstream.time: at_ms})
        sent = heartbeats(clickstream, self._run, at_ms, partitions).hstack(fields)
        return sent.select(
            pl.col(name) if name in sent.columns else pl.lit(None, dtype).alias(name) for name, dtype in RECORD.items()
        )
