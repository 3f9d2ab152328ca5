"""Settings of everything that talks to Kafka."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path  # noqa: TC003  (pydantic reads the annotation)
from typing import Annotated

from pydantic import AfterValidator, Field

from feast_repo import addresses
from feast_repo.features import user_click_features
from feast_repo.settings import StoreSettings
from feast_repo.views import WindowedView  # noqa: TC001  (read by pydantic as a property's type)


class StreamSettings(StoreSettings):
    """The store settings, and where the events are."""

    kafka_bootstrap_servers: Annotated[str, AfterValidator(addresses.kafka_brokers)] = Field(
        default="127.0.0.1:9092", description="Brokers to start from."
    )
    kafka_topic: Annotated[str, AfterValidator(addresses.kafka_topic)] = Field(
        default="clickstream", description="Topic of the events."
    )
    kafka_properties_file: Path | None = Field(
        default=None, description="File of librdkafka properties, one key=value a line (TLS, SASL, tuning)."
    )
    allowed_lateness_seconds: int | None = Field(
        default=None, ge=0, description="How long a window stays open for late events, instead of what is declared."
    )
    stream_stop_at_end: bool = Field(
        default=False, description="1: end cleanly at the offsets that were the topic's end when the run started."
    )

    stream_metrics_port: int | None = Field(
        default=None,
        ge=1,
        le=65_000,
        description="Port on 127.0.0.1 for Prometheus (plus the process number with -i); empty: no metrics.",
    )

    @property
    def view(self) -> WindowedView:
        """The declared view, with the lateness of this deployment if it has one of its own."""
        if self.allowed_lateness_seconds is None:
            return user_click_features
        return replace(user_click_features, allowed_lateness=timedelta(seconds=self.allowed_lateness_seconds))
