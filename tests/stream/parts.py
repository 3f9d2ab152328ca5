"""A part of the stores for tests."""

from __future__ import annotations

from typing import TYPE_CHECKING

from feast_repo.features import user_click_features as view
from feast_repo.settings import StreamSettings
from stream.availability import Emptied
from stream.run_report import RunReport
from stream.stores import StorePart, StreamStores

if TYPE_CHECKING:
    from feast_repo.stores.push import Pusher


def part_with(pusher: Pusher) -> StorePart:
    """The stores of the clickstream, which push through this."""
    stream, report = view.source, RunReport(view.source, [view])
    stores = StreamStores(StreamSettings(), stream, {view.name: pusher}, report, Emptied())
    return StorePart({stream.name: stores})
