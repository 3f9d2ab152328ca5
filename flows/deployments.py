"""The deployments of `prefect.yaml`, their only definition, as objects that can be served."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

import yaml
from prefect.events import DeploymentEventTrigger
from prefect.schedules import Cron

from feast_repo.settings import PROJECT_ROOT

if TYPE_CHECKING:
    from prefect.deployments.runner import RunnerDeployment
    from prefect.flows import Flow

FILE = PROJECT_ROOT / "prefect.yaml"


def declared() -> list[dict[str, Any]]:
    """The deployments as declared in the file."""
    found: list[dict[str, Any]] = yaml.safe_load(FILE.read_text(encoding="utf-8"))["deployments"]
    return found


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
