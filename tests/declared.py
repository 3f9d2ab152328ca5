"""Declarations that differ in one thing."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from feast_repo.declare.views import WindowedView


def on_stream(view: WindowedView, **changes: Any) -> WindowedView:
    """The view on an event stream with these changes."""
    return replace(view, source=replace(view.source, **changes))
