"""Recomputation with Polars, for one machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from batch.recompute.archive import (
    CLOSINGS,
    DAYS,
    LATE,
    MISMATCHES,
    MOST_MISMATCHES,
    PARTITION,
    Timeline,
    days_of,
    files_of,
)
from feast_repo.declare.arrival import archived_arrival_ms
from feast_repo.declare.panes import AFTER, PANE, WINDOW
from feast_repo.declare.vocabulary import POLARS
from feast_repo.stores.offline.parquet import despite_compaction, scan
from feast_repo.stores.offline.tables import event_columns

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from batch.recompute.archive import Chunk, Mode, Scope
    from feast_repo.declare.views import WindowedView

LOG = (PARTITION, "offset")


class PolarsEngine:
    """Recomputes from a folder of events."""

    def __init__(self, events: Path) -> None:
        self._events = events

    def close(self) -> None:
        """Nothing to release."""

    def timeline(self, scope: Scope) -> Timeline:
        """Read the log once, day by day; memory holds one day and the records that await earlier offsets."""
        order = _Order(scope, goes_back=any(day < scope.first_day for day in days_of(self._events)))
        days = [_by_pane(scope, rows) for rows in self._in_order(scope, order)]
        if scope.history is not None:
            days += [_by_pane(scope, self._times(scope, scope.history, day)) for day in days_of(scope.history)]
        counts = pl.concat([pl.DataFrame(schema=DAYS), *days]).group_by("day", PANE).agg(pl.col("rows").sum())
        return Timeline(order.closings(), counts.sort("day", PANE), order.mismatches(), order.mismatched)

    def _in_order(self, scope: Scope, order: _Order) -> Iterator[pl.DataFrame]:
        """Yield each day's records, and pass all on in offset order, whatever their Kafka times."""
        days = days_of(self._events, scope.first_day)
        lowest = [self._lowest(scope, day) for day in days]
        waiting = pl.DataFrame()
        for number, day in enumerate(days):
            rows = self._times(scope, self._events, day)
            yield rows
            later = pl.concat([pl.DataFrame(schema=lowest[number].schema), *lowest[number + 1 :]])
            horizon = later.group_by(PARTITION).agg(pl.col("lowest").min())
            ready = pl.concat([waiting, rows], how="diagonal").join(horizon, on=PARTITION, how="left")
            is_next = pl.col("lowest").is_null() | (pl.col("offset") < pl.col("lowest"))
            order.add(ready.filter(is_next).drop("lowest"))
            waiting = ready.filter(~is_next).drop("lowest")

    def _lowest(self, scope: Scope, day: str) -> pl.DataFrame:
        def read() -> pl.DataFrame:
            log = _scan(scope, self._events, (day,))
            return log.group_by(PARTITION).agg(pl.col("offset").min().alias("lowest")).collect()

        return despite_compaction(read)

    def _times(self, scope: Scope, folder: Path, day: str) -> pl.DataFrame:
        def read() -> pl.DataFrame:
            log = _scan(scope, folder, (day,)).select(
                *LOG,
                pl.lit(day).alias("day"),
                archived_arrival_ms(scope.view.source.time, scope.view.lateness_ms).alias("arrival_ms"),
                pl.col("watermark").dt.epoch("ms").alias("watermark_ms"),
                pl.col(scope.view.source.time).dt.epoch("ms").alias("event_ms"),
            )
            return log.unique(LOG).collect()

        return despite_compaction(read)

    def windows(self, scope: Scope, chunk: Chunk, mode: Mode) -> pl.DataFrame:
        """The states of a chunk's windows."""
        view = scope.view
        panes = despite_compaction(lambda: self._panes(scope, chunk, mode))
        pane, after = panes[PANE].to_numpy(), panes[AFTER].to_numpy()
        expiry = pane + view.panes_per_window + 1
        first = np.maximum((after if mode == "as-seen" else pane) + 1, chunk.first)
        copies = np.maximum(np.minimum(expiry, chunk.last) - first + 1, 0)
        source = np.repeat(np.arange(len(panes)), copies)
        window = first[source] + np.arange(len(source)) - np.repeat(np.cumsum(copies) - copies, copies)
        is_expiry = pl.Series(window == expiry[source])
        is_late = (window <= after[source]) | (is_expiry.to_numpy() & (after[source] >= expiry[source] - 1))
        empty = [
            pl.when(is_expiry).then(pl.lit(view.empty_state[name], dtype)).otherwise(pl.col(name)).alias(name)
            for name, dtype in view.state_types.items()
        ]
        keys = view.join_keys
        spread = panes.select(PARTITION, *keys, *view.state_types)[source].with_columns(
            pl.Series(WINDOW, window, dtype=pl.Int64), pl.Series(LATE, is_late), *empty
        )
        merged = spread.group_by(PARTITION, *keys, WINDOW).agg(pl.col(LATE).any(), *view.merge(POLARS))
        closed = merged.join(scope.reach, on=PARTITION).filter(pl.col(WINDOW) <= pl.col("last"))
        return closed.select(PARTITION, *keys, WINDOW, LATE, *view.state_types)

    def _panes(self, scope: Scope, chunk: Chunk, mode: Mode) -> pl.DataFrame:
        view, events = scope.view, scope.view.source
        start_ms, end_ms = scope.first_pane_ms(chunk.first), chunk.last * view.slide_ms
        log = _scan(scope, self._events, chunk.days)
        if scope.history is not None:
            log = pl.concat([_scan(scope, scope.history, chunk.days), log])
        log = log.filter(pl.col(events.time).dt.epoch("ms").is_between(start_ms, end_ms, closed="left"))
        log = _once(view, log).filter(~events.is_heartbeat)
        slide, last = view.slide_ms, pl.col(PANE) + view.panes_per_window
        times = log.select(
            *dict.fromkeys((PARTITION, *view.join_keys, "watermark", events.time, *view.input_columns))
        ).with_columns(pl.col(events.time).dt.epoch("ms"), pl.col("watermark").dt.epoch("ms") // slide)
        placed = times.with_columns((pl.col(events.time) // slide).alias(PANE)).with_columns(
            pl.col("watermark").fill_null(pl.col(PANE)).clip(pl.col(PANE), last).alias(AFTER)
        )
        if mode == "as-seen":
            placed = placed.filter(pl.col(AFTER) < last)
        return placed.group_by(PARTITION, *view.join_keys, PANE, AFTER).agg(view.lift(POLARS)).collect()


def _scan(scope: Scope, folder: Path, days: tuple[str, ...]) -> pl.LazyFrame:
    """The archived records of some days, up to the scope's reach."""
    columns = event_columns(scope.view.source)
    log = scan(files_of(folder, days), columns)
    bounds = scope.reach.lazy().select(PARTITION, "next_offset")
    return log.join(bounds, on=PARTITION).filter(pl.col("offset") < pl.col("next_offset")).drop("next_offset")


def _once(view: WindowedView, log: pl.LazyFrame) -> pl.LazyFrame:
    """Each event once if declared so, and each record once in any case: compaction may briefly show one twice."""
    events = view.source
    if events.event_id is None:
        return log.unique(LOG)
    return log.sort("offset").unique((PARTITION, events.event_id, events.time), keep="first", maintain_order=True)


def _by_pane(scope: Scope, rows: pl.DataFrame) -> pl.DataFrame:
    pane = (pl.col("event_ms") // scope.view.slide_ms).alias(PANE)
    return rows.group_by("day", pane).agg(pl.len().cast(pl.Int64).alias("rows")).select(*DAYS)


class _Order:
    """The running maxima of each partition's log, part by part in offset order."""

    def __init__(self, scope: Scope, *, goes_back: bool) -> None:
        self._view = scope.view
        self._unseen_ms = scope.unseen_ms(goes_back=goes_back)
        self._carried = pl.DataFrame(schema={PARTITION: pl.Int32, "event_before": pl.Int64, "kafka_before": pl.Int64})
        self._closings: list[pl.DataFrame] = []
        self._mismatches: list[pl.DataFrame] = []
        self.mismatched = 0

    def add(self, rows: pl.DataFrame) -> None:
        """Take the next records of all partitions: LOG, arrival_ms, event_ms, watermark_ms."""
        if rows.is_empty():
            return
        lateness = self._view.lateness_ms
        # A record gives its own time and, by its watermark, the maximum of those before it.
        told = pl.max_horizontal(pl.col("event_ms") - lateness, "watermark_ms")
        rows = rows.sort(LOG).join(self._carried, on=PARTITION, how="left", maintain_order="left")
        rows = rows.with_columns(
            pl.max_horizontal(told.cum_max().over(PARTITION), "event_before").alias("reached"),
            pl.max_horizontal(pl.col("arrival_ms").cum_max().over(PARTITION), "kafka_before").alias("latest"),
        ).with_columns(pl.col("reached").shift(1).over(PARTITION).fill_null(pl.col("event_before")).alias("seen"))
        self._recheck(rows)
        closed = (pl.col("reached") // self._view.slide_ms).alias(WINDOW)
        self._closings.append(rows.group_by(PARTITION, closed).agg(pl.col("latest").min().alias("created_ms")))
        last = rows.group_by(PARTITION).agg(
            pl.col("reached").max().alias("event_before"), pl.col("latest").max().alias("kafka_before")
        )
        self._carried = pl.concat([last, self._carried.join(last, on=PARTITION, how="anti")])

    def _recheck(self, rows: pl.DataFrame) -> None:
        archived, seen = pl.col("watermark_ms"), pl.col("seen")
        wrong = archived.ne_missing(seen)
        if self._unseen_ms is not None:
            wrong &= (archived < seen) | (archived > self._unseen_ms)
        found = rows.filter(wrong)
        self.mismatched += len(found)
        self._mismatches.append(
            found.head(MOST_MISMATCHES).select(*LOG, archived.alias("archived_ms"), seen.alias("recomputed_ms"))
        )

    def closings(self) -> pl.DataFrame:
        """All closings, as CLOSINGS."""
        rows = pl.concat([pl.DataFrame(schema=CLOSINGS), *(part.select(*CLOSINGS) for part in self._closings)])
        return rows.group_by(PARTITION, WINDOW).agg(pl.col("created_ms").min()).sort(PARTITION, WINDOW)

    def mismatches(self) -> pl.DataFrame:
        """The first mismatches, as MISMATCHES."""
        return pl.concat([pl.DataFrame(schema=MISMATCHES), *self._mismatches]).sort(LOG).head(MOST_MISMATCHES)
