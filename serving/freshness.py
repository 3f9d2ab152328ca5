"""Freshness of stored rows: the status of a row, and the defaults that are served without one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from serving.messages import ViewRead

if TYPE_CHECKING:
    from serving.schema import ServedView


class Freshness:
    """Judges the rows of one view."""

    def __init__(self, view: ServedView) -> None:
        self._ttl_ms, self._stale_after_ms = view.ttl_ms, view.stale_after_ms
        self._streamed = view.streamed
        self._names, self._defaults = tuple(view.types), dict(view.defaults)

    def read(self, values: list[Any], time_ms: float | None, now_ms: float, closed_end_ms: int | None) -> ViewRead:
        """A row's values in the view's order, as served; `time_ms` is None without a row.

        `closed_end_ms`: the end of the last window that the stream has closed in all partitions; None if unknown.
        """
        behind_ms = None if closed_end_ms is None or not self._streamed else now_ms - closed_end_ms
        lag = None if behind_ms is None else round(behind_ms) / 1000
        if time_ms is None:
            return ViewRead("missing", None, lag, dict(self._defaults))
        age_ms = now_ms - time_ms
        age = round(age_ms) / 1000
        if self._ttl_ms is not None and age_ms > self._ttl_ms:
            return ViewRead("expired", age, lag, dict(self._defaults))
        features = dict(zip(self._names, values, strict=True))
        if None in values:
            features = {
                name: self._defaults[name] if value is None else value  # as in training sets
                for name, value in features.items()
            }
        # An entity's row may be old because nothing has happened since, so of a stream's view its lag counts. Without
        # information about the stream, the row is not trusted.
        old_ms = behind_ms if self._streamed else age_ms
        stale = self._stale_after_ms is not None and (old_ms is None or old_ms > self._stale_after_ms)
        return ViewRead("stale" if stale else "fresh", age, lag, features)
