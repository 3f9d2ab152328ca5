"""Settings from the environment, one name each, described in `.env.example`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from feast_repo import addresses

PROJECT_ROOT = Path(__file__).resolve().parent.parent
SANDBOX_ENV = PROJECT_ROOT / "sandbox.env"


def _below_project(path: Path) -> Path:
    return (PROJECT_ROOT / path.expanduser()).resolve()


class StoreSettings(BaseSettings):
    """Where the stores are. The environment wins over `sandbox.env` (there while a sandbox runs), that over `.env`."""

    model_config = SettingsConfigDict(
        env_file=(PROJECT_ROOT / ".env", SANDBOX_ENV),
        env_ignore_empty=True,
        extra="ignore",
        frozen=True,
        hide_input_in_errors=True,  # Feast's own commands print a validation error whole, and a URL may hold a password
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


def problem(invalid: ValidationError) -> str:
    """The first wrong setting in one line, without its value, which may hold a secret."""
    first = invalid.errors(include_url=False, include_input=False)[0]
    return f"{'.'.join(map(str, first['loc'])).upper()}: {first['msg'].removeprefix('Value error, ')}; see .env.example"
