"""Settings from the environment, one name each, described in `.env.example`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field
from pydantic_settings import BaseSettings, SettingsConfigDict

PROJECT_ROOT = Path(__file__).resolve().parent.parent
SANDBOX_ENV = PROJECT_ROOT / "sandbox.env"


def _below_project(path: Path) -> Path:
    return (PROJECT_ROOT / path.expanduser()).resolve()


class StoreSettings(BaseSettings):
    """Where the stores are. The environment wins over `sandbox.env` (there while a sandbox runs), that over `.env`."""

    model_config = SettingsConfigDict(
        env_file=(PROJECT_ROOT / ".env", SANDBOX_ENV), env_ignore_empty=True, extra="ignore", frozen=True
    )

    data_root: Annotated[Path, AfterValidator(_below_project)] = Field(
        default=Path("data"),
        description="Folder of all Parquet data; a relative path is relative to the project's folder.",
    )
    redis_url: str = Field(
        default="redis://127.0.0.1:6379/0", repr=False, description="Online store, as redis:// or rediss:// URL."
    )
    feast_registry_url: str = Field(
        default="",
        repr=False,
        description="Feast's SQL registry as SQLAlchemy URL (postgresql+psycopg://...); empty: SQLite in DATA_ROOT.",
    )

    @property
    def registry_url(self) -> str:
        """The registry's SQLAlchemy URL."""
        return self.feast_registry_url or f"sqlite:///{self.data_root / 'registry.db'}"
