"""Freshness objectives: how old a value may be when it is read, and the limit of a view that declares none."""

from __future__ import annotations

from datetime import timedelta
from typing import Protocol

from feast_repo.declare.events import milliseconds

MARGIN = timedelta(minutes=1)
"""Allowance beyond the lateness for closing, writing and announcing a window: epochs, retries, a restart."""


class Aging(Protocol):
    """What a view says about the age of its values."""

    @property
    def freshness(self) -> timedelta | None:
        """The objective, if it declares one."""

    @property
    def least_freshness(self) -> timedelta | None:
        """How old values of a windowed view become between two windows; None for a batch view."""


def problem_of_freshness(freshness: timedelta | None, least: timedelta | None) -> str | None:
    """Why an objective could never be met; None if it can, or if there is none.

    `least`: as `least_freshness`.
    """
    if freshness is None:
        return None
    if freshness <= timedelta(0):
        return f"freshness {freshness} must be positive"
    if least is not None and freshness < least:
        return (
            f"freshness {freshness} could never be met: values are {least} old before the next window closes (slide + "
            "allowed lateness); declare that or more"
        )
    return None


def stale_after_ms(view: Aging, service: timedelta | None = None) -> int | None:
    """The age from which on a view's values are stale, in ms; None if they never are.

    That is the view's objective. Without one, values of a windowed view are stale when the next window should long have
    closed, and those of a batch view never. The `service`'s objective makes it shorter, never longer.
    """
    own = view.freshness
    if own is None and view.least_freshness is not None:
        own = view.least_freshness + MARGIN
    limits = [one for one in (own, service) if one is not None]
    return milliseconds(min(limits)) if limits else None
