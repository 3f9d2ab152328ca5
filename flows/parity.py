"""Checks the parity of the stream's rows with batch."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from prefect import flow
from prefect.runtime import flow_run
from prefect.variables import Variable
from pydantic import Field

from feast_repo.settings import StreamSettings
from flows import commands
from flows.ranges import Hours, Instant, bounds, check, last_closed_hours, shown
from flows.telling import CheckFailedError, emit, tell

ASKED = "feature_store_heals_asked_for"
REMEMBERED = 50
"""Ranges, in the order of the requests."""


def _name() -> str:
    given = flow_run.get_parameters()
    return f"parity {given.get('mode')} {shown(given.get('start'), given.get('end'), given.get('view'))}"


@flow(name="parity", flow_run_name=_name, timeout_seconds=3600)
def parity(
    hours: Hours = 1,
    start: Instant | None = None,
    end: Instant | None = None,
    mode: Literal["as-seen", "complete"] = "as-seen",
    engine: Literal["polars", "spark"] = "polars",
    online: bool = True,  # noqa: FBT001, FBT002  (parameters of a deployment have names)
    sample: Annotated[int, Field(ge=1)] = 1_000,
    view: str | None = None,
) -> dict[str, Any]:
    """Compare the last closed hours, or the window ends from `start` to before `end`.

    `view`: which windowed view, if the catalog has several.

    Unexplained differences emit `parity.failed` and fail the run, because a correction would hide a bug. Differences
    explained by late events (found with `mode="complete"`) emit `parity.explained` once per range, which starts a heal.
    """
    if start is None and end is None:
        start, end = last_closed_hours(hours, [StreamSettings().catalog.view(view)])
    if start is None or end is None:
        message = "name both start and end, or neither"
        raise ValueError(message)
    check(start, end)
    options = [
        *commands.choice(view=view),
        "--engine",
        engine,
        "--mode",
        mode,
        *(["--online", "--sample", str(sample)] if online else []),
    ]
    report = commands.run_command("batch.parity", [*bounds(start, end), *options])
    rows, served = report["rows"], report["online"] or {}
    figures = {
        "holds": report["holds"],
        **rows,
        **({"online entities": served["users"], "online wrong": served["wrong"]} if served else {}),
    }
    tell("parity", f"Stream against batch, {mode}, {shown(start, end)}", figures, report["files"])
    about = {
        "view": report["view"],
        "start": start.isoformat(),
        "end": end.isoformat(),
        "mode": mode,
        "unexplained": rows["unexplained"],
        "explained": rows["explained"],
        "online_wrong": served.get("wrong", 0),
    }
    if report["status"]:
        emit("parity.failed", about)
        message = f"{rows['unexplained']:,} rows differ without a reason, {served.get('wrong', 0):,} entities online"
        raise CheckFailedError(message)
    if rows["explained"]:
        _ask_for_heal(f"{report['view']} {start.isoformat()}/{end.isoformat()}", about)
    return report


def _ask_for_heal(span: str, about: dict[str, Any]) -> None:
    """Emit `parity.explained`, unless a heal of the range was already requested for as many differing rows.

    Otherwise a heal that changes nothing would be requested forever.

    Raises:
        CheckFailedError: the heal was already requested.
    """
    asked: dict[str, Any] = dict(Variable.get(ASKED, default={}) or {})
    if asked.get(span) == about["explained"]:
        emit("parity.failed", about)
        message = (
            f"{about['explained']:,} rows differ as before, and their heal was asked for: look at the runs of "
            "backfill/heal"
        )
        raise CheckFailedError(message)
    asked = {**{name: rows for name, rows in asked.items() if name != span}, span: about["explained"]}
    Variable.set(ASKED, dict(list(asked.items())[-REMEMBERED:]), overwrite=True)
    emit("parity.explained", about)
