"""Settings from environment variables, described in `.env.example`."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from feast_repo import addresses
from feast_repo.catalog import CatalogError, load
from feast_repo.declare.catalog import Catalog, ChoiceError

PROJECT_ROOT = Path(__file__).resolve().parent.parent
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

    feature_repo: Annotated[Path, AfterValidator(_below_project)] = Field(
        default=Path("feast_repo"),
        description="Folder of features.py and feature_store.yaml; relative paths begin in the project's folder.",
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
    def catalog(self) -> Catalog:
        """What `features.py` declares.

        Raises:
            CatalogError: it can't be loaded.
        """
        return load(self.feature_repo)

    @property
    def registry_url(self) -> str:
        """The registry's SQLAlchemy URL."""
        return self.feast_registry_url or f"sqlite:///{self.data_root / 'registry.db'}"


class StreamSettings(StoreSettings):
    """The store settings and the location of the events."""

    kafka_bootstrap_servers: Annotated[str, AfterValidator(addresses.kafka_brokers)] = Field(
        default="127.0.0.1:9092", description="Brokers to start from."
    )
    kafka_topic: Annotated[str, AfterValidator(addresses.kafka_topics)] = Field(
        default="",
        description="Topic of the events, instead of what is declared; of several streams: stream=topic,stream=topic.",
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
    def catalog(self) -> Catalog:
        """What `features.py` declares, with this deployment's topics and allowed lateness if it sets them.

        Raises:
            CatalogError: it can't be loaded, or has no stream that a setting names.
        """
        return _deployed(super().catalog, self.kafka_topic, self.allowed_lateness_seconds)


def _deployed(declared: Catalog, told: str, seconds: int | None) -> Catalog:
    try:
        topics = {stream or declared.stream().name: topic for stream, topic in addresses.topics(told)}
        return declared.deployed(topics, None if seconds is None else timedelta(seconds=seconds))
    except (ChoiceError, ValueError) as error:
        told_by = {"KAFKA_TOPIC": told or None, "ALLOWED_LATENESS_SECONDS": seconds}
        message = f"{', '.join(f'{name}={value}' for name, value in told_by.items() if value is not None)}: {error}"
        raise CatalogError(message) from error


def problem(invalid: ValidationError) -> str:
    """The first wrong setting in one line, without its value, which may hold a secret."""
    first = invalid.errors(include_url=False, include_input=False)[0]
    return f"{'.'.join(map(str, first['loc'])).upper()}: {first['msg'].removeprefix('Value error, ')}; see .env.example"
