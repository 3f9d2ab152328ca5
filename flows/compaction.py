"""Merges the many small files of a day into few."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from prefect import flow

from flows import commands
from flows.telling import tell_rows


def _name() -> str:
    return f"compaction at {datetime.now(UTC):%Y-%m-%d %H:%M}"


@flow(name="compaction", flow_run_name=_name, timeout_seconds=2 * 3600)
def compaction(stream: str | None = None) -> dict[str, Any]:
    """Merge files with committed rows while the stream runs on: of all streams and their views, or of one."""
    report = commands.run_command("batch.compaction", commands.choice(stream=stream))
    rows = [{"table": name, **figures} for name, figures in report["tables"].items()]
    tell_rows("compaction", "Files by table", rows)
    return report
