"""The columns of stored rows: what every view has beside its join keys and features."""

from __future__ import annotations

EVENT_TIME, CREATED = "event_timestamp", "created_timestamp"
"""When a row becomes valid (for a window: its end), and when it could first have been known."""

SERVED = "served_timestamp"
"""The wall-clock time by which Redis had acknowledged the row: a fact of the run, null for rows that no stream pushed.
After a replay it may be too late, never too early."""

ROW_COLUMNS = (EVENT_TIME, CREATED, SERVED, "writer")
"""The columns of a stored row besides join keys and features."""
