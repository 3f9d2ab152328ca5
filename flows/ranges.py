"""Time ranges of flows: the hours that the stream has closed, days of a range, and how runs are named after them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from feast_repo.progress import ProgressRecord
from feast_repo.tables import progress_folder
from stream.settings import StreamSettings

HOUR, DAY = timedelta(hours=1), timedelta(days=1)


class NothingClosedError(Exception):
    """The stream has not closed a window in all its partitions yet."""


def last_closed_hours(hours: int) -> tuple[datetime, datetime]:
    """The last full hours whose windows are closed in all partitions, as bounds of window ends: start <= end < stop.

    Raises:
        NothingClosedError: there are none.
    """
    record = ProgressRecord(progress_folder(StreamSettings().data_root)).load()
    ends = [one.last_closed_end_ms for one in record.values() if one.last_closed_end_ms is not None]
    if not ends:
        message = "the stream has not closed a window yet: start it, or name a range"
        raise NothingClosedError(message)
    last = datetime.fromtimestamp(min(ends) / 1000, tz=UTC)
    stop = last.replace(minute=0, second=0, microsecond=0)
    return stop - hours * HOUR, stop


def by_day(start: datetime, end: datetime) -> list[tuple[datetime, datetime]]:
    """A range cut at midnight UTC."""
    start, end = start.astimezone(UTC), end.astimezone(UTC)
    parts = []
    while start < end:
        midnight = start.replace(hour=0, minute=0, second=0, microsecond=0) + DAY
        parts.append((start, min(midnight, end)))
        start = midnight
    return parts


def bounds(start: datetime | None, end: datetime | None) -> list[str]:
    """A range as a command's arguments."""
    named = (("--start", start), ("--end", end))
    return [word for name, time in named if time is not None for word in (name, time.isoformat())]


def shown(start: datetime | None, end: datetime | None) -> str:
    """A range in the name of a run."""
    if start is None and end is None:
        return f"at {datetime.now(UTC):%Y-%m-%d %H:%M}"
    return " to ".join("..." if time is None else f"{time:%Y-%m-%d %H:%M}" for time in (start, end))
