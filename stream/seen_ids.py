"""The events that a partition has seen, pane by pane, to detect duplicate deliveries.

An event is identified by a 128-bit hash (16 bytes) of its id and time, kept only while its pane lives: a later copy is
late in all of its windows, so it counts nowhere anyway. The probability that two different events of one pane collide
is n^2 / 2^129 for n events, below 1 in 10^22 for a hundred million.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

if TYPE_CHECKING:
    from numpy.typing import NDArray

    BoolArray = NDArray[np.bool_]
    Int64Array = NDArray[np.int64]
    UInt64Array = NDArray[np.uint64]

FIRST_SEED, SECOND_SEED = 0x5EED_0001, 0x5EED_0002
FIRST_FACTOR, SECOND_FACTOR = np.uint64(0x9E37_79B9_7F4A_7C15), np.uint64(0xC2B2_AE3D_27D4_EB4F)
"""Odd numbers, because multiplying by them keeps different times different."""

SAMPLE = pl.Series(["", "event-1", "an id that is longer than thirty-two characters"])
HASHING = (SAMPLE.hash(FIRST_SEED) ^ SAMPLE.hash(SECOND_SEED)).to_numpy().tobytes().hex()
"""Identifies the hash function of stored ids: Polars may change its hash in any release."""


_NONE: UInt64Array = np.empty(0, np.uint64)


@dataclass(frozen=True)
class Ids:
    """Two independent 64-bit hashes of each event."""

    first: UInt64Array
    second: UInt64Array

    def take(self, at: Int64Array | BoolArray) -> Ids:
        """Some of them, by index or by mask."""
        return Ids(self.first[at], self.second[at])

    def sorted(self) -> Ids:
        """All ids, sorted by the first hash."""
        return self.take(np.argsort(self.first, kind="stable"))


def ids_of(event_ids: pl.Series, times_ms: Int64Array) -> Ids:
    """The hashes that identify each event."""
    times = times_ms.view(np.uint64)
    return Ids(
        event_ids.hash(FIRST_SEED).to_numpy() + times * FIRST_FACTOR,
        event_ids.hash(SECOND_SEED).to_numpy() ^ times * SECOND_FACTOR,
    )


class SeenIds:
    """The events of the live panes.

        is_copy = seen.add(panes, ids)     # in offset order
        seen.forget(upto=pane)

    Each pane has sorted runs. As in a log-structured merge tree, a run is merged into the one before it once it is at
    least half its size, so an id is merged, and looked up, O(log n) times.
    """

    def __init__(self) -> None:
        self._runs: dict[int, list[Ids]] = {}

    def __len__(self) -> int:
        """How many events are known."""
        return sum(len(run.first) for runs in self._runs.values() for run in runs)

    @property
    def nbytes(self) -> int:
        """Memory in bytes that the ids take."""
        return sum(run.first.nbytes + run.second.nbytes for runs in self._runs.values() for run in runs)

    def add(self, panes: Int64Array, ids: Ids) -> BoolArray:
        """Take the next events; returns which of them were seen before, in earlier calls or earlier in this one.

        `panes`: index of each event's pane. It follows from the event's time, so equal ids have equal panes.
        """
        copies = _repeated(ids)
        for pane in np.unique(panes):
            at = np.flatnonzero((panes == pane) & ~copies)
            runs = self._runs.setdefault(int(pane), [])
            added = ids.take(at)
            order = np.argsort(added.first, kind="stable")  # in order, lookups walk through a run instead of jumping
            at, added = at[order], added.take(order)
            known = np.zeros(len(at), dtype=bool)
            for run in runs:
                known |= _contains(run, added)
            copies[at[known]] = True
            _append(runs, added.take(~known))
        return copies

    def forget(self, upto: int) -> None:
        """Drop the panes with an index up to this one."""
        for pane in [pane for pane in self._runs if pane <= upto]:
            del self._runs[pane]

    def to_bytes(self) -> bytes:
        """All ids as one Arrow IPC file, one row per pane; uncompressed, because hashes don't compress."""
        merged = {pane: _merged(runs) for pane, runs in sorted(self._runs.items()) if runs}
        rows = pl.DataFrame(
            {
                "pane": np.repeat(np.fromiter(merged, np.int64), [len(run.first) for run in merged.values()]),
                "first": np.concatenate([_NONE, *(run.first for run in merged.values())]),
                "second": np.concatenate([_NONE, *(run.second for run in merged.values())]),
            }
        )
        frame = rows.group_by(pl.col("pane").set_sorted(), maintain_order=True).agg("first", "second")
        buffer = io.BytesIO()
        frame.write_ipc(buffer)
        return buffer.getvalue()

    def load(self, data: bytes) -> None:
        """Load the state that `to_bytes` returned."""
        frame = pl.read_ipc(io.BytesIO(data))
        self._runs = {
            pane: [Ids(frame["first"][row].to_numpy(), frame["second"][row].to_numpy())]
            for row, pane in enumerate(frame["pane"])
        }


def _repeated(ids: Ids) -> BoolArray:
    """Which ids occur earlier in the same array."""
    series = pl.Series(ids.first)
    if series.n_unique() == len(series):  # nearly always
        return np.zeros(len(series), dtype=bool)
    both = pl.DataFrame({"first": ids.first, "second": ids.second})
    return ~both.select(pl.struct("first", "second").is_first_distinct()).to_series().to_numpy()


def _contains(run: Ids, wanted: Ids) -> BoolArray:
    """Which ids are in a sorted run."""
    low = np.searchsorted(run.first, wanted.first)
    inside = np.flatnonzero(low < len(run.first))
    low = low[inside]
    inside, low = (of[run.first[low] == wanted.first[inside]] for of in (inside, low))
    found = np.zeros(len(wanted.first), dtype=bool)
    found[inside] = run.second[low] == wanted.second[inside]
    for one, at in zip(inside[~found[inside]], low[~found[inside]], strict=True):  # events that share the first half
        same = run.second[at : np.searchsorted(run.first, wanted.first[one], side="right")]
        found[one] = bool((same == wanted.second[one]).any())
    return found


def _merged(runs: list[Ids]) -> Ids:
    """Merge sorted runs into one."""
    return Ids(np.concatenate([run.first for run in runs]), np.concatenate([run.second for run in runs])).sorted()


def _append(runs: list[Ids], added: Ids) -> None:
    """Append a sorted run, and merge runs while there are too many."""
    if not len(added.first):
        return
    runs.append(added)
    while len(runs) > 1 and len(runs[-2].first) <= 2 * len(runs[-1].first):
        runs[-2:] = [_merged(runs[-2:])]
