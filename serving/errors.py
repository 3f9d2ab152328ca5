"""Why the service can't answer for now."""

from __future__ import annotations

from feast_repo.errors import UnavailableError


class OnlineStoreError(UnavailableError):
    """The online store is away, too slow, or refuses."""


class NotReadyError(UnavailableError):
    """Predictions can't be made now; the message says why."""
