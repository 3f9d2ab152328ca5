"""Time ranges of flows: the hours that the stream has closed, the days of a range, and run names."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated

from pydantic import AfterValidator, Field

from feast_repo.errors import FeatureStoreError
from feast_repo.settings import StreamSettings
from feast_repo.stores.offline.tables import progress_folder
from feast_repo.stores.progress import ProgressRecord

if TYPE_CHECKING:
    from collections.abc import Sequence

    from feast_repo.declare.views import WindowedView

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
MOST_HOURS = 366 * 24


def _in_utc(time: datetime) -> datetime:
    return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)


Instant = Annotated[datetime, AfterValidator(_in_utc)]
"""A time parameter; without an offset it is UTC, as in the commands."""
Hours = Annotated[int, Field(ge=1, le=MOST_HOURS)]
"""The length of a range that ends at the last window closed by the stream."""


class NothingClosedError(FeatureStoreError):
    """The stream has not yet closed a window in all its partitions."""


def last_closed_hours(hours: int, views: Sequence[WindowedView] | None = None) -> tuple[datetime, datetime]:
    """The last full hours with windows closed in all partitions, as bounds of window ends: start <= end < stop.

    Of some views, or of all that the catalog has. They are as many hours as the slide has if that is longer, so each
    view has a window in them.

    Raises:
        NothingClosedError: there are none.
    """
    settings = StreamSettings()
    views = settings.catalog.windowed if views is None else views
    next_ends = [
        closed_ms + view.slide_ms
        for view in views
        for one in ProgressRecord(progress_folder(settings.data_root, view.source)).load().values()
        if (closed_ms := view.closed_end_ms(one.watermark_ms)) is not None
    ]
    if not next_ends:
        message = "the stream has not closed a window yet: start it, or name a range"
        raise NothingClosedError(message)
    stop = datetime.fromtimestamp(min(next_ends) / 1000, tz=UTC).replace(minute=0, second=0, microsecond=0)
    return stop - max(hours * HOUR, *(view.slide for view in views)), stop


def check(start: datetime, end: datetime) -> None:
    """Refuse an empty range.

    Raises:
        ValueError: the range ends at or before its start.
    """
    if start >= end:
        message = f"start {start.isoformat()} must be before end {end.isoformat()}"
        raise ValueError(message)


def by_day(start: datetime, end: datetime) -> list[tuple[datetime, datetime]]:
    """A range of UTC times, split at midnight."""
    parts = []
    while start < end:
        midnight = start.replace(hour=0, minute=0, second=0, microsecond=0) + DAY
        parts.append((start, min(midnight, end)))
        start = midnight
    return parts


def bounds(start: datetime | None, end: datetime | None) -> list[str]:
    """A range as command arguments."""
    named = (("--start", start), ("--end", end))
    return [word for name, time in named if time is not None for word in (name, time.isoformat())]


def shown(start: datetime | None, end: datetime | None, about: str | None = None) -> str:
    """A range for the name of a run, with what it is about if the catalog has several."""
    if about is not None:
        return f"{about} {shown(start, end)}"
    if start is None and end is None:
        return f"at {datetime.now(UTC):%Y-%m-%d %H:%M}"
    return " to ".join("..." if time is None else f"{time:%Y-%m-%d %H:%M}" for time in (start, end))
