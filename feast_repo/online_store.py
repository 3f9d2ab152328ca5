"""The name that a `feature_store.yaml` has for the store; its code is `feast_repo.stores.online.store`."""

from __future__ import annotations

from feast_repo.stores.online.store import RedisUrlOnlineStore, RedisUrlOnlineStoreConfig

__all__ = ["RedisUrlOnlineStore", "RedisUrlOnlineStoreConfig"]
