"""Errors of a service that can't answer for now."""

from __future__ import annotations

from feast_repo.errors import UnavailableError


class OnlineStoreError(UnavailableError):
    """The online store is away, too slow, or refuses commands."""


class NotReadyError(UnavailableError):
    """Predictions can't be made at the moment; the message says why."""
