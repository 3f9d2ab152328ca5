"""Features from the archive, day by day."""

from __future__ import annotations

from datetime import datetime  # noqa: TC003  (Prefect reads the annotation)
from typing import Any, Literal

from prefect import flow
from prefect.cache_policies import DEFAULT
from prefect.runtime import flow_run

from flows import commands
from flows.ranges import bounds, by_day, shown
from flows.telling import tell_rows


def _name() -> str:
    given = flow_run.get_parameters()
    what = "heal" if given.get("heal") else f"backfill {given.get('mode')}"
    return f"{what} {shown(given.get('start'), given.get('end'))}"


# A batch job holds the only lock on the data, so days come one after another.
@flow(name="backfill", flow_run_name=_name, timeout_seconds=12 * 3600)
def backfill(
    start: datetime,
    end: datetime,
    engine: Literal["polars", "spark"] = "polars",
    mode: Literal["as-seen", "complete"] = "as-seen",
    heal: bool = False,  # noqa: FBT001, FBT002  (parameters of a deployment have names)
) -> list[dict[str, Any]]:
    """Compute window ends from `start` to before `end`, and add what is lacking; `heal` corrects what is stored.

    Days that are done stay done when the run is retried, and a second run of the same range changes nothing.
    """
    if start >= end:
        message = f"start {start.isoformat()} must be before end {end.isoformat()}"
        raise ValueError(message)
    day = commands.run_command.with_options(cache_policy=DEFAULT, persist_result=True)
    options = ["--engine", engine, "--mode", "complete" if heal else mode, *(["--heal"] if heal else [])]
    reports = []
    for first, stop in by_day(start, end):
        report = day("batch.backfill", [*bounds(first, stop), *options])
        reports.append({"day": f"{first:%Y-%m-%d}", **report})
    figures = ("day", "windows", "rows", "added", "healed", "healed_online", "seconds")
    rows = [{name: report[name] for name in figures} for report in reports]
    tell_rows("backfill", "Windows computed from the archive, by day", rows)
    return reports
