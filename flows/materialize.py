"""Materializes batch features to the online store, and verifies what is served."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any

from prefect import flow
from pydantic import Field

from flows import commands
from flows.telling import CheckFailedError, tell_rows


def _name() -> str:
    return f"materialize at {datetime.now(UTC):%Y-%m-%d %H:%M}"


@flow(name="materialize", flow_run_name=_name, timeout_seconds=2 * 3600)
def materialize(
    look_back_days: Annotated[float, Field(gt=0)] = 7,
    sample: Annotated[int, Field(ge=0)] = 1_000,
    view: str | None = None,
) -> dict[str, Any]:
    """Write each entity's newest row of the last days, then compare a sample of entities with the stored rows.

    Of all batch views, or of `view`.
    """
    arguments = [*commands.choice(view=view), "--look-back-days", str(look_back_days), "--sample", str(sample)]
    report = commands.run_command("batch.materialize", arguments)
    figures = ("written", "equal", "different", "missing", "behind")
    rows = [
        {
            "view": name,
            "entities": one["users"],
            **{what: one[what] for what in figures},
            "missing share": one["missing"] / max(one["users"], 1),
            "median age, s": one["age_seconds"].get("median"),
        }
        for name, one in report["views"].items()
    ]
    tell_rows("materialize", "What is served against what is stored", rows)
    if report["status"]:
        wrong = sum(one["wrong"] for one in report["views"].values())
        message = f"{wrong} entities are not served what is stored"
        raise CheckFailedError(message)
    return report
