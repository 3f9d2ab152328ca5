"""Checks features and predictions for drift."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from prefect import flow

from feast_repo.settings import StreamSettings
from flows import commands
from flows.ranges import Hours, Instant, last_closed_hours
from flows.telling import emit, tell

REFERENCES = {
    "day before": timedelta(days=1),
    "week before": timedelta(days=7),
    "four weeks before": timedelta(days=28),
}


def _name() -> str:
    return f"drift at {datetime.now(UTC):%Y-%m-%d %H:%M}"


@flow(name="drift", flow_run_name=_name, timeout_seconds=2 * 3600)
def drift(
    reference: Literal["day before", "week before", "four weeks before"] = "day before",
    hours: Hours = 24,
    end: Instant | None = None,
    fail_on: Literal["minor", "major"] = "major",
    service: str | None = None,
) -> dict[str, Any]:
    """Compare the last closed hours (or those before `end`) with the same hours a while ago.

    `service`: whose features and predictions, if the catalog has several.

    Drift of at least `fail_on` emits `drift.detected`, which starts a training. The run itself does not fail, because a
    change in behaviour is a finding, not an error.
    """
    stop = end or last_closed_hours(hours, StreamSettings().catalog.service(service).windowed)[1]
    length, ago = timedelta(hours=hours), max(REFERENCES[reference], timedelta(hours=hours))
    current, before = (stop - length, stop), (stop - ago - length, stop - ago)
    arguments = [
        *commands.choice(service=service),
        "--current",
        *(one.isoformat() for one in current),
        "--reference",
        *(one.isoformat() for one in before),
    ]
    report = commands.run_command("batch.drift", [*arguments, "--fail-on", fail_on])
    figures = {
        "verdict": report["verdict"],
        "current": report["current"]["text"],
        "reference": report["reference"]["text"],
        **{one["feature"]: "; ".join(filter(None, (one["severity"], one["says"]))) for one in report["features"]},
    }
    tell("drift", "Drift of features and predictions", figures, [report["file"]])
    if report["status"]:
        drifted = [one["feature"] for one in report["features"] if one["severity"] in {"minor", "major"}]
        emit(
            "drift.detected",
            {
                "service": report["service"],
                "severity": report["severity"],
                "features": drifted,
                "verdict": report["verdict"],
            },
        )
    return report
