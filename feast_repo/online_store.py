"""The name under which `feature_store.yaml` finds the store; its code is `feast_repo.stores.online.store`."""

from __future__ import annotations

from feast_repo.stores.online.store import RedisUrlOnlineStore, RedisUrlOnlineStoreConfig

__all__ = ["RedisUrlOnlineStore", "RedisUrlOnlineStoreConfig"]
