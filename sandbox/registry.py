"""Feast's registry in the sandbox: a SQLite file, or the database that FEAST_REGISTRY_URL names."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from sandbox.processes import SandboxError

if TYPE_CHECKING:
    from collections.abc import Mapping


SQLITE = "sqlite:///"


def registry_answers(url: str) -> bool:
    """Whether the SQLite file exists or the database accepts connections."""
    if url.startswith(SQLITE):
        return Path(url.removeprefix(SQLITE)).is_file()

    from sqlalchemy import create_engine, make_url  # noqa: PLC0415  (a second that a sandbox of its own can save)
    from sqlalchemy.exc import SQLAlchemyError  # noqa: PLC0415  (as above)

    address = make_url(url)
    if address.drivername == "postgresql":  # the only installed driver
        address = address.set(drivername="postgresql+psycopg")
    engine = create_engine(address)
    try:
        with engine.connect():
            return True
    except SQLAlchemyError:
        return False
    finally:
        engine.dispose()


def apply_registry(environment: Mapping[str, str]) -> None:
    """Do what `feast apply` does for the stores in `environment`, which is set for this whole process.

    Raises:
        SandboxError: the registry's features differ from the declared ones, or DATA_ROOT belongs to another registry.
    """
    os.environ.update(environment)
    from feast_repo.stores.identity import IdentityError  # noqa: PLC0415  (as below)
    from feast_repo.stores.opening import (  # noqa: PLC0415  (Feast takes seconds to import)
        RegistryMismatchError,
        RegistryUnavailableError,
        ensure_applied,
        open_store,
    )

    try:
        ensure_applied(open_store())
    except (RegistryMismatchError, RegistryUnavailableError, IdentityError) as error:
        raise SandboxError(str(error)) from error
