"""Compares the age of stored values with the freshness objectives."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from prefect import flow

from flows import commands
from flows.telling import CheckFailedError, emit, tell_rows


def _name() -> str:
    return f"freshness at {datetime.now(UTC):%Y-%m-%d %H:%M}"


@flow(name="freshness", flow_run_name=_name, timeout_seconds=600)
def freshness(view: str | None = None) -> dict[str, Any]:
    """Compare all views, or one. Each that is stale emits `freshness.failed`, and the run fails."""
    report = commands.run_command("batch.freshness", commands.choice(view=view), timeout_minutes=5)
    tell_rows("freshness", "Age of stored values", report["views"])
    stale = [one for one in report["views"] if one["stale"]]
    for one in stale:
        emit("freshness.failed", one)
    if stale:
        message = f"older than their objectives allow: {', '.join(one['view'] for one in stale)}"
        raise CheckFailedError(message)
    return report
