"""Feast as somebody without this project would have it online: its own Redis store, written by `FeatureStore.push`.

Offline it keeps this project's day folders, since Feast's own file stores read and rewrite one whole file at each push:
with them, every contestant that pushes would be measured by that alone.
"""

from __future__ import annotations

import os
from urllib.parse import urlsplit

from feast import FeatureStore, RepoConfig

from feast_repo.stores.opening import ensure_applied, open_store

PUSH_SOURCE = "user_clicks_push"


def stock_store() -> FeatureStore:
    """Feast's store at the environment's addresses, its first connections made.

    `skip_dedup` is Feast's quickest way to write: stored times are not read, so whoever pushes must keep to the order
    of time.

    Raises:
        ValueError: `REDIS_URL` has more than a host and a port, which is all that Feast's own store takes from it.
    """
    address = urlsplit(os.environ["REDIS_URL"])
    if address.scheme != "redis" or address.username or address.password or address.path not in {"", "/", "/0"}:
        message = "REDIS_URL: Feast's own Redis store is given redis://HOST:PORT/0 here, without a password"
        raise ValueError(message)
    ours = open_store()
    ensure_applied(ours)
    config = RepoConfig(
        project=ours.project,
        provider="local",
        registry=ours.config.registry,
        entity_key_serialization_version=ours.config.entity_key_serialization_version,
        online_store={"type": "redis", "connection_string": f"{address.hostname}:{address.port}", "skip_dedup": True},
        offline_store={"type": "feast_repo.offline_store.PartitionedParquetOfflineStore"},
    )
    store = FeatureStore(config=config)
    store.get_online_features(["user_click_features:click_count"], [{"user_id": ""}])  # connects, loads the registry
    return store
