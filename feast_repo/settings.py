"""Settings from environment variables, described in `.env.example`."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from feast_repo import addresses
from feast_repo.declare.views import WindowedView  # noqa: TC001  (read by pydantic as a property's type)
from feast_repo.features import user_click_features

FEATURE_REPO = Path(__file__).resolve().parent
"""The folder of `feature_store.yaml` and the declarations."""
PROJECT_ROOT = FEATURE_REPO.parent
SANDBOX_ENV = PROJECT_ROOT / "sandbox.env"


def _below_project(path: Path) -> Path:
    return (PROJECT_ROOT / path.expanduser()).resolve()


class StoreSettings(BaseSettings):
    """Where the stores are. The environment overrides `sandbox.env` (present while a sandbox runs), and that `.env`."""

    model_config = SettingsConfigDict(
        env_file=(PROJECT_ROOT / ".env", SANDBOX_ENV),
        env_ignore_empty=True,
        extra="ignore",
        frozen=True,
        hide_input_in_errors=True,  # Feast's commands print validation errors in full, and a URL may hold a password
    )

    data_root: Annotated[Path, AfterValidator(_below_project)] = Field(
        default=Path("data"),
        description="Folder of all Parquet data; a relative path is relative to the project's folder.",
    )
    redis_url: Annotated[str, AfterValidator(addresses.redis_url)] = Field(
        default="redis://127.0.0.1:6379/0",
        repr=False,
        description="Online store, as redis://, rediss:// (TLS) or unix:// (socket) URL.",
    )
    feast_registry_url: Annotated[str, AfterValidator(addresses.registry_url)] = Field(
        default="",
        repr=False,
        description="Feast's SQL registry as SQLAlchemy URL (postgresql+psycopg://...); empty: SQLite in DATA_ROOT.",
    )

    @property
    def registry_url(self) -> str:
        """The registry's SQLAlchemy URL."""
        return self.feast_registry_url or f"sqlite:///{self.data_root / 'registry.db'}"


class StreamSettings(StoreSettings):
    """The store settings and the location of the events."""

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
        """The declared view, with this deployment's allowed lateness if it sets one."""
        if self.allowed_lateness_seconds is None:
            return user_click_features
        return replace(user_click_features, allowed_lateness=timedelta(seconds=self.allowed_lateness_seconds))


def problem(invalid: ValidationError) -> str:
    """The first wrong setting in one line, without its value, which may hold a secret."""
    first = invalid.errors(include_url=False, include_input=False)[0]
    return f"{'.'.join(map(str, first['loc'])).upper()}: {first['msg'].removeprefix('Value error, ')}; see .env.example"
