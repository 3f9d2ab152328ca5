"""The output of flows for people and automations: artifacts and events."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.events import emit_event

from feast_repo.errors import FeatureStoreError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

RESOURCE = "ml-feature-store"


def label(kind: str) -> str:
    """The label of events that names the view or service that they are about."""
    return f"{RESOURCE}.{kind}"


class CheckFailedError(FeatureStoreError):
    """A check failed; its findings are in the run's artifacts."""


def tell(key: str, title: str, figures: Mapping[str, Any], files: Sequence[str | Path] = ()) -> None:
    """Create a Markdown artifact: figures as a table, and links to reports on disk.

    A link shows its path, because browsers don't open local files from a server's page.
    """
    lines = [f"## {title}", "", "| | |", "|---|---|"]
    lines += [f"| {name.replace('_', ' ')} | {_shown(value)} |" for name, value in figures.items()]
    pages = [Path(file) for file in files if str(file).endswith(".html")]
    lines += ["", *(f"- [{page.absolute()}]({page.absolute().as_uri()})" for page in pages)]
    create_markdown_artifact(key=key, markdown="\n".join(lines), description=title)


def tell_rows(key: str, title: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Create a table artifact."""
    create_table_artifact(key=key, table=[dict(row) for row in rows], description=title)


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:,.4g}" if isinstance(value, float) else str(value)


def emit(event: str, payload: Mapping[str, Any]) -> None:
    """Emit an event that automations may wait for, such as `drift.detected`, with the payload's choice as labels."""
    about = event.partition(".")[0]
    labels = {label(kind): str(payload[kind]) for kind in ("view", "service") if kind in payload}
    emit_event(
        event=event,
        resource={"prefect.resource.id": f"{RESOURCE}.{about}", "prefect.resource.name": about, **labels},
        payload=dict(payload),
    )
