"""Settings of the serving side."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003  (pydantic reads the annotation)
from typing import TYPE_CHECKING

from pydantic import Field

from feast_repo.commands import Command  # noqa: TC001  (as below)
from feast_repo.declare.services import FeatureService  # noqa: TC001  (read by pydantic as types of properties)
from feast_repo.declare.stored import View  # noqa: TC001  (read by pydantic as types of properties)
from feast_repo.settings import StreamSettings

if TYPE_CHECKING:
    import argparse


class ServingSettings(StreamSettings):
    """The stream's settings (the lateness decides when features are stale), and the settings of serving."""

    serving_service: str = Field(
        default="",
        description="Feature service to serve, train or predict with; empty: all are served, the only one trained.",
    )
    serving_api_keys: str = Field(
        default="",
        repr=False,
        description="Keys that may ask, separated by commas: one, and a second while keys are changed. Empty: anyone.",
    )
    serving_api_keys_file: Path | None = Field(
        default=None, description="File with such keys, one a line; together with SERVING_API_KEYS."
    )
    serving_concurrency: int = Field(
        default=256,
        ge=1,
        description="Requests that are answered at once, each 32 entities as one; more get 503 with Retry-After.",
    )
    serving_timeout_seconds: float = Field(
        default=1.0, gt=0, description="How long a request waits for the online store before it gets 503."
    )
    serving_refresh_seconds: float = Field(
        default=30.0, gt=0, description="How often registry, model and keys are looked at again."
    )
    serving_log_scores: bool = Field(
        default=True, description="1: predictions are kept in DATA_ROOT/predictions, for drift reports. 0: they aren't."
    )

    @property
    def services(self) -> tuple[FeatureService, ...]:
        """The feature services of a process that serves: the named one, or all.

        Raises:
            ChoiceError: the catalog has none, or none of this name.
        """
        if self.serving_service or not self.catalog.services:
            return (self.served,)
        return self.catalog.services

    @property
    def served(self) -> FeatureService:
        """The feature service that the model reads, with this deployment's allowed lateness.

        Raises:
            ChoiceError: the catalog doesn't have it, or has several and none is named.
        """
        return self.catalog.service(self.serving_service or None)

    @property
    def service(self) -> str:
        """The service's name, which its models are stored under."""
        return self.served.name

    @property
    def views(self) -> tuple[View, ...]:
        """The views that the model reads."""
        return self.served.views


def add_service(command: Command, *, several: bool = False) -> None:
    """Add `--service`, as it is for all commands of serving; `several`: without it, the command takes all."""
    command.add_choice("service", "SERVING_SERVICE, or all" if several else "SERVING_SERVICE, or the only one")


def settings_of(command: Command, options: argparse.Namespace, *, several: bool = False) -> ServingSettings:
    """The settings, with the service that `--service` names; exits if the catalog doesn't have it.

    `several`: as for `add_service`; else it exits too if the catalog has several and none is named.
    """
    settings = command.settings(ServingSettings)
    if options.service is not None:
        settings = settings.model_copy(update={"serving_service": options.service})
    if settings.serving_service or not several:
        command.chosen(settings.catalog.service, settings.serving_service or None)
    return settings
