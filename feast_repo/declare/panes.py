"""Columns of pane states, shared by the stream's engine and batch."""

from __future__ import annotations

PANE, AFTER, WINDOW = "#pane", "#after", "#window"
"""Indices: of a pane (its start divided by the slide), of the window after which a row counts (the last one that had
closed when the record arrived, and at least the pane), of a window (its end divided by the slide). No event field or
feature can have such a name."""
