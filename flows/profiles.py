"""Profiles: generated or imported, gated, published if they are good, and materialized to the online store."""

from __future__ import annotations

import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

from prefect import flow
from prefect.runtime import flow_run
from pydantic import Field

from flows import commands
from flows.materialize import materialize
from flows.telling import CheckFailedError, emit, tell, tell_rows


def _name() -> str:
    source = flow_run.get_parameters().get("source")
    return f"profiles {'generated' if source is None else Path(source).name} at {datetime.now(UTC):%Y-%m-%d %H:%M}"


@flow(name="profiles", flow_run_name=_name, timeout_seconds=2 * 3600)
def profiles(
    source: Path | None = None,
    users: Annotated[int, Field(ge=1)] = 10_000,
    seed: Annotated[int, Field(ge=0)] = 42,
    look_back_days: Annotated[float, Field(gt=0)] = 7,
    view: str | None = None,
) -> dict[str, Any]:
    """Publish the good rows of `source` (.csv or .parquet; none: of generated profiles), then materialize them.

    `view`: of which batch view, if the catalog has several. If a rule of the whole table fails, nothing is published,
    `quality.failed` is emitted, and the run fails.
    """
    with tempfile.TemporaryDirectory(prefix="profiles-") as folder:
        gate = ["gate"]
        if source is None:
            made = ["--users", str(users), "--seed", str(seed)]
            made += commands.choice(view=view)
            source = Path(commands.run_command("batch.profiles", made, {"DATA_ROOT": folder})["files"][0])
            # The same for all attempts of a run, and later than the rows published by the previous run.
            gate += ["--time", flow_run.get_scheduled_start_time().isoformat()]
        report = commands.run_command("batch.quality", [*gate, *commands.choice(view=view), "--input", str(source)])
    figures = {name: report[name] for name in ("verdict", "rows", "good", "quarantined")}
    tell("profiles", f"Quality of {report['table']}", figures, report["files"])
    tell_rows("profiles-rules", "Rules of the quality gate", [_row(one) for one in report["findings"]])
    if report["status"]:
        failed = [one["rule"] for one in report["findings"] if not one["holds"]]
        emit("quality.failed", {"verdict": report["verdict"], "rules": failed, "source": str(source)})
        raise CheckFailedError(report["verdict"])
    materialize(look_back_days=look_back_days, view=view)
    return report


def _row(finding: dict[str, Any]) -> dict[str, Any]:
    columns = {"rule": "rule", "says": "says", "holds": "held", "broken": "broken rows"}
    return {shown: finding[name] for name, shown in columns.items()}
