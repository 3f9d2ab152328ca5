"""The name under which `feature_store.yaml` finds the store; its code is `feast_repo.stores.offline.store`."""

from __future__ import annotations

from feast_repo.stores.offline.store import PartitionedParquetOfflineStore, PartitionedParquetOfflineStoreConfig

__all__ = ["PartitionedParquetOfflineStore", "PartitionedParquetOfflineStoreConfig"]
