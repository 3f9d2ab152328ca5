"""The deployments of `prefect.yaml`, their only definition, as objects that can be served.

Where the catalog has several windowed views or services, what runs by itself runs for each of them.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

import yaml
from prefect.events import DeploymentEventTrigger
from prefect.schedules import Cron

from feast_repo.settings import PROJECT_ROOT, StreamSettings
from flows.telling import label

if TYPE_CHECKING:
    from prefect.deployments.runner import RunnerDeployment
    from prefect.flows import Flow

FILE = PROJECT_ROOT / "prefect.yaml"
ABOUT = {"backfill": "view", "parity": "view", "drift": "service", "training": "service"}
"""Flows that are about one windowed view or service, and the parameter that names it."""


def declared() -> list[dict[str, Any]]:
    """The deployments as declared in the file; those that run by themselves, for each view or service."""
    found: list[dict[str, Any]] = yaml.safe_load(FILE.read_text(encoding="utf-8"))["deployments"]
    return [one for declaration in found for one in _each(declaration)]


def _each(declaration: dict[str, Any]) -> list[dict[str, Any]]:
    flow = declaration["entrypoint"].partition(":")[2]
    kind = ABOUT.get(flow)
    if kind is None or not ("schedules" in declaration or "triggers" in declaration):
        return [declaration]
    catalog = StreamSettings().catalog
    known = [one.name for one in (catalog.windowed if kind == "view" else catalog.services)]
    untrained = {one.name for one in catalog.services if one.label is None} if flow == "training" else set()
    names = [name for name in known if name not in untrained]
    return [declaration] if names == known and len(names) == 1 else [_about(declaration, kind, name) for name in names]


def _about(declaration: dict[str, Any], kind: str, name: str) -> dict[str, Any]:
    """A deployment that is about one view or service, and is triggered by events about it only."""
    triggers = [
        {
            **one,
            "name": f"{one['name']}: {name}",
            "match": {**one["match"], label(kind): name},
            "parameters": {**one.get("parameters", {}), kind: name},
        }
        for one in declaration.get("triggers", [])
    ]
    own = {"name": f"{declaration['name']}-{name}", "parameters": {**declaration["parameters"], kind: name}}
    return {**declaration, **own, "triggers": triggers}


def flow_of(declaration: dict[str, Any]) -> Flow[..., Any]:
    """The flow that a deployment runs."""
    file, _, name = declaration["entrypoint"].partition(":")
    found: Flow[..., Any] = getattr(importlib.import_module(file.removesuffix(".py").replace("/", ".")), name)
    return found


def served(declaration: dict[str, Any]) -> RunnerDeployment:
    """A deployment for `prefect.serve`."""
    return flow_of(declaration).to_deployment(  # type: ignore[return-value]  # typed for both async and sync callers
        name=declaration["name"],
        description=declaration["description"],
        tags=declaration["tags"],
        parameters=declaration["parameters"],
        schedules=[Cron(one["cron"], timezone=one["timezone"]) for one in declaration.get("schedules", [])],
        concurrency_limit=declaration["concurrency_limit"],
        triggers=[
            DeploymentEventTrigger(**{name: value for name, value in one.items() if name != "type"})
            for one in declaration.get("triggers", [])
        ],
    )
