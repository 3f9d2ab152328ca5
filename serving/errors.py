"""Why the service can't answer for now."""

from __future__ import annotations


class OnlineStoreError(Exception):
    """The online store is away, too slow, or refuses."""


class NotReadyError(Exception):
    """Predictions can't be made now; the message says why."""
