"""Trains a new model and serves it if it is good enough."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any

from prefect import flow
from pydantic import Field

from flows import commands
from flows.ranges import Instant, bounds
from flows.telling import CheckFailedError, tell


def _name() -> str:
    return f"training at {datetime.now(UTC):%Y-%m-%d %H:%M}"


@flow(name="training", flow_run_name=_name, timeout_seconds=4 * 3600)
def training(
    start: Instant | None = None,
    end: Instant | None = None,
    seed: Annotated[int, Field(ge=0)] = 1,
    as_created: bool = False,  # noqa: FBT001, FBT002  (a flow's parameters are named)
    service: str | None = None,
) -> dict[str, Any]:
    """Build the point-in-time training set of the whole archive (or of a range), train, compare, and promote.

    `as_created` is for history that was streamed all at once: its features were not served at their time. If the model
    is not good enough to be served, the run fails, but its report is still in the artifact. `service`: whose model, if
    the catalog has several.
    """
    which = commands.choice(service=service)
    arguments = [*which, *bounds(start, end), *(["--as-created"] if as_created else [])]
    rows = commands.run_command("batch.training_set", arguments)
    report = commands.run_command("serving.train", [*which, "--training-set", rows["file"], "--seed", str(seed)])
    figures = {
        "verdict": report["verdict"],
        "version": report["version"],
        "served": report["promoted"],
        "pairs": rows["rows"],
        **{f"log loss, {whose}": metrics["log_loss"] for whose, metrics in report["metrics"].items()},
        **{f"ROC AUC, {whose}": metrics["roc_auc"] for whose, metrics in report["metrics"].items()},
    }
    tell("training", "A new model", figures, [report["report"]])
    if report["status"]:
        raise CheckFailedError(report["verdict"])
    return report
