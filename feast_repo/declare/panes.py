"""Columns of pane states, which the stream's engine and batch have in common."""

from __future__ import annotations

PANE, AFTER, WINDOW = "#pane", "#after", "#window"
"""Indices: of a pane (its start divided by the slide), of the window after which a row counts (the last one that had
closed when the record came, and at least the pane), of a window (its end divided by the slide). No event field or
feature has such a name."""
