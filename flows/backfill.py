"""Backfill from the archive, day by day."""

from __future__ import annotations

from typing import Any, Literal

from prefect import flow
from prefect.cache_policies import DEFAULT
from prefect.runtime import flow_run

from flows import commands
from flows.ranges import Instant, bounds, by_day, check, shown
from flows.telling import tell_rows


def _name() -> str:
    given = flow_run.get_parameters()
    what = "heal" if given.get("heal") else f"backfill {given.get('mode')}"
    return f"{what} {shown(given.get('start'), given.get('end'), given.get('view'))}"


# A batch job locks the data exclusively, so days run one after the other.
@flow(name="backfill", flow_run_name=_name, timeout_seconds=12 * 3600)
def backfill(
    start: Instant,
    end: Instant,
    engine: Literal["polars", "spark"] = "polars",
    mode: Literal["as-seen", "complete"] = "as-seen",
    heal: bool = False,  # noqa: FBT001, FBT002  (parameters of a deployment have names)
    view: str | None = None,
) -> list[dict[str, Any]]:
    """Compute window ends from `start` to before `end` and add missing rows; `heal` corrects stored rows.

    `view`: which windowed view, if the catalog has several. A retry keeps finished days, and a second run of
    the same range changes nothing.
    """
    check(start, end)
    day = commands.run_command.with_options(cache_policy=DEFAULT, persist_result=True)
    options = [
        *commands.choice(view=view),
        "--engine",
        engine,
        "--mode",
        "complete" if heal else mode,
        *(["--heal"] if heal else []),
    ]
    reports: list[dict[str, Any]] = []
    try:
        for first, stop in by_day(start, end):
            report = day("batch.backfill", [*bounds(first, stop), *options])
            reports.append({"day": f"{first:%Y-%m-%d}", **report})
    finally:  # finished days are reported even if a later day fails
        figures = ("day", "windows", "rows", "added", "healed", "healed_online", "seconds")
        rows = [{name: report[name] for name in figures} for report in reports]
        tell_rows("backfill", "Windows computed from the archive, by day", rows)
    return reports
