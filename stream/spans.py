"""Runs of panes, merged in advance, so that a long window is merged from few of them.

A tree over the indices of panes: a span of level 1 covers FAN panes, one of level 2 FAN spans of level 1, and so on,
each aligned to its own length. A window of N panes is covered by O(FAN log N) spans; a span is merged once, when the
first window that contains it closes, and serves all windows that do. So closing a window costs in proportion to the
rows that it has, not to panes x entities. This works for every commutative monoid, without inverse.

Window aggregates from partial aggregates that overlapping windows share: Arasu and Widom, "Resource Sharing in
Continuous Sliding-Window Aggregates" (VLDB 2004); Tangwongsan et al., "General Incremental Sliding-Window Aggregation"
(PVLDB 8(7), 2015). Here a partial aggregate has a row per entity, which makes its size matter: a span that would have
more than half of the rows of its parts is read as those. So all levels together hold fewer rows than the panes do, and
reading is at most twice as much as if all spans were merged.

A late record is added to its pane and to each merged span that covers it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterator

    import polars as pl

    from stream.states import States

FAN = 8
"""Fewer spans cover a window if it is small, fewer rows are stored twice if it is large."""

Runs: TypeAlias = list["pl.DataFrame"]
"""Rows of state with the same meaning as all of them merged, the largest first."""


class Spans:
    """The panes of one partition, and merged runs of them for windows of `panes_per_window`."""

    def __init__(self, states: States, panes_per_window: int) -> None:
        self._states = states
        # A span that is longer serves fewer windows than it takes to pay.
        self._longest = panes_per_window // 2
        self.panes: dict[int, Runs] = {}
        self._merged: dict[tuple[int, int], Runs | None] = {}
        """By length and start, of the spans that a window has needed; None: read as its parts."""

    def frames(self) -> Iterator[pl.DataFrame]:
        """All rows that are held."""
        for runs in (*self.panes.values(), *self._merged.values()):
            yield from runs or ()

    def add(self, pane: int, rows: pl.DataFrame) -> None:
        """Add rows of state, one per entity, to a pane."""
        run = self._states.shrunk(rows)
        self._states.push(self.panes.setdefault(pane, []), run)
        length = FAN
        while length <= self._longest:
            if runs := self._merged.get((length, pane // length * length)):
                self._states.push(runs, run)
            length *= FAN

    def cover(self, first: int, end: int, settled: int) -> Runs:
        """Rows of the panes from `first` to before `end`, none of them twice.

        Panes from `settled` (at most `end`) on are still filling up, so spans with them are not worth merging yet.
        """
        runs: Runs = []
        while first < end:
            length = 1
            while first % (length * FAN) == 0 and length * FAN <= min(self._longest, settled - first):
                length *= FAN
            runs += self._span(length, first)
            first += length
        return runs

    def _span(self, length: int, first: int) -> Runs:
        if length == 1:
            return self.panes.get(first, [])
        if (length, first) not in self._merged:
            parts = self._parts(length, first)
            merged = self._states.run(parts) if parts else None
            worth_it = merged is not None and 2 * len(merged) <= sum(map(len, parts))
            self._merged[length, first] = [merged] if merged is not None and worth_it else None
        return self._merged[length, first] or self._parts(length, first)

    def _parts(self, length: int, first: int) -> Runs:
        step = length // FAN
        return [run for start in range(first, first + length, step) for run in self._span(step, start)]

    def forget(self, first: int) -> None:
        """Forget the panes before `first`, and the spans that no window after theirs contains."""
        self.panes = {pane: runs for pane, runs in self.panes.items() if pane >= first}
        self._merged = {span: runs for span, runs in self._merged.items() if span[1] > first}

    def compact(self) -> None:
        """Leave one run of each pane."""
        self.panes = {pane: [self._states.run(runs)] for pane, runs in self.panes.items()}
