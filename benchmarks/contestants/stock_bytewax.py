"""Bytewax as its documentation has it: its Kafka source, `fold_window` for each user, Feast's push.

    KafkaSource -> decode -> fold_window -> rows -> collect -> FeatureStore.push

What its parts let one choose is chosen well: messages are decoded a batch at a time by a typed decoder in C, values are
folded unordered, windows never wake up by themselves, rows are pushed by 20,000 (to Redis each user's newest only,
since the older ones would be overwritten at once). Python is left as it comes: `stock_bytewax_tuned` is the same with
the garbage collector held back.

Guarantee: none across a crash. Recovery is off, as it is unless asked for, so a restart reads the topic anew; that
spares it the snapshots that this project's run makes. Windows are right as long as a user's events are in one partition
and at most 120 s out of order: the clock that mixes in the time of day is held still, so that a slow moment of the
machine can't close a window early, and a user's windows close with the user's next event or at the end of the topic.
Live, where a quiet user's windows must close too, the clock would have to run again.

Not done, which this project does: event archive, dead letters (one broken message ends it), late rows, duplicates,
rows for users who stopped clicking, exactly once in both stores, and closing windows by time alone.
"""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, TypeAlias

import bytewax.operators as op
import bytewax.operators.windowing as win
import msgspec
import pandas as pd
from bytewax.connectors.kafka import KafkaSource
from bytewax.dataflow import Dataflow
from bytewax.outputs import DynamicSink, StatelessSinkPartition
from bytewax.run import cli_main
from feast.data_source import PushMode

from benchmarks.contestants import say
from benchmarks.contestants.feast_store import PUSH_SOURCE, stock_store

if TYPE_CHECKING:
    from feast import FeatureStore

MESSAGES_PER_POLL = 1_000
ROWS_PER_PUSH = 20_000
MOST_WAIT = timedelta(seconds=10)
WINDOW, SLIDE, LATENESS = timedelta(hours=1), timedelta(minutes=10), timedelta(minutes=2)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
COUNTS = ["click_count", "view_count", "cart_count", "purchase_count", "revenue_cents"]
PLACES = {"click": 0, "view": 1, "add_to_cart": 2, "purchase": 3}
PURCHASES, REVENUE = 3, 4

Value: TypeAlias = tuple[datetime, int, int]
"""Event time, the place of its count, and cents."""


class Click(msgspec.Struct, gc=False):
    """The fields of a message that matter here."""

    event_type: str
    event_timestamp: int
    user_id: str | None = None
    price_cents: int | None = None


class PushPartition(StatelessSinkPartition[list[list[Any]]]):
    """Pushes each group of rows."""

    def __init__(self, store: FeatureStore) -> None:
        self._store = store

    def write_batch(self, items: list[list[list[Any]]]) -> None:
        """Push."""
        for rows in items:
            frame = pd.DataFrame(rows, columns=["user_id", "event_timestamp", *COUNTS])
            frame["event_timestamp"] = pd.to_datetime(frame["event_timestamp"], utc=True)
            frame = frame.sort_values("event_timestamp", kind="stable")
            views = frame["view_count"].where(frame["view_count"] > 0)
            frame["cart_rate"] = (frame["cart_count"] / views).fillna(0.0)
            frame["conversion_rate"] = (frame["purchase_count"] / views).fillna(0.0)
            frame["created_timestamp"] = datetime.now(UTC)
            frame["writer"] = "stock_bytewax"
            self._store.push(PUSH_SOURCE, frame, to=PushMode.OFFLINE)
            self._store.push(PUSH_SOURCE, frame.drop_duplicates("user_id", keep="last"), to=PushMode.ONLINE)


class PushSink(DynamicSink[list[list[Any]]]):
    """Feast's push as a sink."""

    def __init__(self, store: FeatureStore) -> None:
        self._store = store

    def build(self, step_id: str, worker_index: int, worker_count: int) -> PushPartition:
        """One for each worker."""
        del step_id, worker_index, worker_count
        return PushPartition(self._store)


class Clicks:
    """Messages to values by user, and how many messages there were."""

    def __init__(self) -> None:
        self.messages = 0
        self._decode = msgspec.json.Decoder(Click).decode

    def values(self, messages: list[Any]) -> list[tuple[str, Value]]:
        """Decode a batch of Kafka messages; heartbeats have no user."""
        self.messages += len(messages)
        from_epoch, utc, place, decode = datetime.fromtimestamp, UTC, PLACES, self._decode
        return [
            (
                click.user_id,
                (from_epoch(click.event_timestamp / 1000, utc), place[click.event_type], click.price_cents or 0),
            )
            for click in [decode(message.value) for message in messages]
            if click.user_id is not None
        ]


def _fold(counts: list[int], value: Value) -> list[int]:
    """Count one event."""
    _, place, cents = value
    counts[place] += 1
    if place == PURCHASES:
        counts[REVENUE] += cents
    return counts


def _merge(one: list[int], other: list[int]) -> list[int]:
    """Sliding windows are never merged, but the operator asks for it."""
    return [a + b for a, b in zip(one, other, strict=True)]


def _rows(closed: list[tuple[str, tuple[int, list[int]]]]) -> list[tuple[str, list[Any]]]:
    """Closed windows as rows, all under one key, so that they can be collected."""
    return [("", [user, EPOCH + SLIDE * window + WINDOW, *counts]) for user, (window, counts) in closed]


def dataflow(brokers: str, topic: str, store: FeatureStore, clicks: Clicks) -> Dataflow:
    """The whole pipeline."""
    flow = Dataflow("stock_bytewax")
    source = KafkaSource(
        brokers.split(","), [topic], tail=False, batch_size=MESSAGES_PER_POLL, add_config={"auto.offset.reset": "error"}
    )
    messages = op.input("kafka", flow, source)
    by_user = op.flat_map_batch("decode", messages, clicks.values)
    started = datetime.now(UTC)
    clock: win.EventClock[Value] = win.EventClock(
        ts_getter=lambda value: value[0],
        wait_for_system_duration=LATENESS,
        now_getter=lambda: started,
        to_system_utc=lambda _: None,
    )
    windower = win.SlidingWindower(length=WINDOW, offset=SLIDE, align_to=EPOCH)
    windows = win.fold_window(
        "windows", by_user, clock, windower, lambda: [0] * len(COUNTS), _fold, _merge, ordered=False
    )
    rows = op.flat_map_batch("rows", windows.down, _rows)
    collected = op.collect("collect", rows, timeout=MOST_WAIT, max_size=ROWS_PER_PUSH)
    op.output("push", op.key_rm("groups", collected), PushSink(store))
    return flow


def main() -> None:
    """Read the topic to its end."""
    store, clicks = stock_store(), Clicks()
    flow = dataflow(os.environ["KAFKA_BOOTSTRAP_SERVERS"], os.environ["KAFKA_TOPIC"], store, clicks)
    say("ready")
    # Bytewax takes its snapshots at the end of an epoch with recovery off, too.
    run: Any = cli_main  # it has no annotations
    run(flow, epoch_interval=timedelta(days=1))
    say("done", messages=clicks.messages)


if __name__ == "__main__":
    main()
