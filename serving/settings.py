"""Settings of the serving side."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003  (pydantic reads the annotation)

from pydantic import Field

from feast_repo.declare.views import View  # noqa: TC001  (read by pydantic as a property's type)
from feast_repo.settings import StreamSettings


class ServingSettings(StreamSettings):
    """The stream's settings (the lateness decides when features are stale), and the settings of serving."""

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
        description="Requests that are answered at once, each 32 users as one; more get 503 with Retry-After.",
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
    def service(self) -> str:
        """The feature service that the model reads."""
        return self.catalog.service().name

    @property
    def views(self) -> tuple[View, ...]:
        """The views that the model reads, with this deployment's allowed lateness."""
        return self.catalog.service().views
