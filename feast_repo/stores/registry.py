"""Takes the registry's address from the settings, for Feast's own command line too.

Feast reads the address from `feature_store.yaml`, where only `${VARIABLE}` depends on the environment, without a
default. SQLAlchemy lets a plug-in named in a URL replace that URL, so the file names this plug-in.
"""

from __future__ import annotations

import logging
from pathlib import Path

from sqlalchemy import URL, make_url
from sqlalchemy.dialects import plugins
from sqlalchemy.engine import CreateEnginePlugin

from feast_repo.settings import PROJECT_ROOT, StoreSettings

PLUGIN = "feature_store_settings"
CONNECT_WITHIN_S = "4"
"""PostgreSQL's driver by itself would wait two minutes for a server that accepts connections and never answers."""


class RegistryFromSettings(CreateEnginePlugin):
    """Connects to `StoreSettings().registry_url`; creates the folder of an SQLite file."""

    def update_url(self, url: URL) -> URL:
        """Replace the URL that names this plug-in with the real address."""
        del url
        settings = StoreSettings()
        if not settings.feast_registry_url:  # not through a URL, in which a "?" of the path would begin the options
            address = URL.create("sqlite", database=str(settings.data_root / "registry.db"))
        else:
            address = make_url(settings.feast_registry_url)
        if address.drivername == "postgresql":  # the only installed driver
            address = address.set(drivername="postgresql+psycopg")
        if address.drivername == "postgresql+psycopg" and "connect_timeout" not in address.query:
            return address.update_query_dict({"connect_timeout": CONNECT_WITHIN_S})
        if address.get_backend_name() == "sqlite" and address.database and address.database != ":memory:":
            # Like DATA_ROOT: `feast apply` in feast_repo/ and the stream must not mean two files by one relative path.
            file = PROJECT_ROOT / Path(address.database)
            file.parent.mkdir(parents=True, exist_ok=True)
            return address.set(database=str(file))
        return address


def install() -> None:
    """Register the plug-in with SQLAlchemy; idempotent."""
    plugins.register(PLUGIN, __name__, RegistryFromSettings.__name__)
    logging.getLogger("feast.repo_config").addFilter(_is_news)


def _is_news(record: logging.LogRecord) -> bool:
    """Filter out a warning that every command would print about a deliberate choice in feature_store.yaml.

    It says that in thread mode a view may count as materializing for up to a minute too long. Views are served
    meanwhile, so this has no effect.
    """
    return "`serve_features_while_materializing` is enabled together with" not in str(record.msg)
