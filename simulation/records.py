"""Simulated steps as records: the message bytes and their fields."""

from __future__ import annotations

import numpy as np
import polars as pl

from feast_repo.clickstream import clickstream
from feast_repo.codec.heartbeats import heartbeat
from simulation.malformed import flaws
from simulation.sessions import PRODUCTS, STEP_TYPES

EVENT, LATE, HEARTBEAT = "event", "late", "heartbeat"
FLAWS = flaws(clickstream)
MALFORMED_KINDS = tuple(dict.fromkeys(flaw.reason for flaw in FLAWS))
KINDS = (EVENT, LATE, *(flaw.reason for flaw in FLAWS))
FIRST_FLAW = 2

RECORD: dict[str, pl.DataType] = {
    "arrival_ms": pl.Int64(),
    "partition": pl.Int32(),
    "key": pl.String(),
    "value": pl.Binary(),
    "kind": pl.String(),
    **clickstream.schema,
}
"""A record: its Kafka timestamp (arrival at the broker), its partition (null: by key), its kind, and its fields.

`kind` is `event`, `late` (delayed beyond the allowed lateness), `heartbeat`, or the dead-letter reason of a malformed
record, which has null fields.
"""


class EventEncoder:
    """Encodes numbers as records. Repeated strings are built once."""

    def __init__(self, run: str, user_ids: pl.Series) -> None:
        self._run = run
        self._user_ids = user_ids
        self._steps = pl.Series(STEP_TYPES)
        self._products = pl.select("p_" + pl.int_range(1, PRODUCTS + 1).cast(pl.String).str.zfill(5)).to_series()
        self._kinds = pl.Series(KINDS)

    def encode(self, rows: pl.DataFrame) -> pl.DataFrame:
        """Convert rows of numbers to rows of RECORD, in the same order."""
        fields = pl.DataFrame(
            {
                "event_id": rows.select(pl.lit(f"{self._run}-") + pl.col("number").cast(pl.String)).to_series(),
                "user_id": self._user_ids.gather(rows["user"]),
                "event_type": self._steps.gather(rows["step"]),
                "event_timestamp": rows["at_ms"],
                "product_id": self._products.gather(rows["product"]),
                "session_id": rows.select(pl.lit(f"{self._run}-s") + pl.col("session").cast(pl.String)).to_series(),
                "price_cents": rows["price_cents"],
            },
            schema=clickstream.schema,
        )
        value = fields.select(pl.struct(pl.all()).struct.json_encode().cast(pl.Binary)).to_series()
        malformed = rows["kind"] >= FIRST_FLAW
        key = fields["user_id"]
        if malformed.any():
            value = _break(value, fields, rows["kind"], rows["arrival_ms"], malformed.arg_true())
            fields = fields.select(pl.when(~malformed).then(pl.all()))
        return fields.select(
            rows["arrival_ms"],
            pl.lit(None, RECORD["partition"]).alias("partition"),
            key.alias("key"),
            value.alias("value"),
            self._kinds.gather(rows["kind"]).alias("kind"),
            pl.all(),
        )


def _break(
    value: pl.Series, fields: pl.DataFrame, kind: pl.Series, arrival_ms: pl.Series, malformed: pl.Series
) -> pl.Series:
    """Replace the values of the rows listed in `malformed`."""
    broken = [
        FLAWS[flaw - FIRST_FLAW].apply(event, arrival)
        for flaw, event, arrival in zip(
            kind.gather(malformed), fields[malformed].iter_rows(named=True), arrival_ms.gather(malformed), strict=True
        )
    ]
    source = np.arange(len(value))
    source[malformed.to_numpy()] = len(value) + np.arange(len(broken))
    return pl.concat([value, pl.Series(broken, dtype=pl.Binary)]).gather(source)


def heartbeats(run: str, at_ms: int, partitions: tuple[int, ...]) -> pl.DataFrame:
    """One heartbeat per partition."""
    ids = [f"{run}-heartbeat-{partition}" for partition in partitions]
    columns = {
        **dict.fromkeys(RECORD),
        "arrival_ms": at_ms,
        "partition": partitions,
        "value": [heartbeat(clickstream, event_id, at_ms)[0] for event_id in ids],
        "kind": HEARTBEAT,
        "event_id": ids,
        "event_type": HEARTBEAT,
        clickstream.time: at_ms,
    }
    return pl.DataFrame(columns, schema=RECORD)
