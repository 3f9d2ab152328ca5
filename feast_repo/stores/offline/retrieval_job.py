"""The offline store's retrieval job for Feast: an Arrow table that is read on demand."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import TYPE_CHECKING

import ibis
import pyarrow as pa
import pyarrow.parquet as pq
from feast.errors import SavedDatasetLocationAlreadyExists
from feast.infra.offline_stores.duckdb import _write_data_source
from feast.infra.offline_stores.file_source import FileSource
from feast.infra.offline_stores.offline_store import RetrievalJob
from pyarrow import fs

from feast_repo.stores.offline.parquet import whole_file
from feast_repo.stores.offline.source_reader import is_parquet

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import pandas as pd
    from feast.infra.offline_stores.offline_store import RetrievalMetadata
    from feast.on_demand_feature_view import OnDemandFeatureView
    from feast.repo_config import RepoConfig
    from feast.saved_dataset import SavedDatasetStorage


class ArrowJob(RetrievalJob):
    """Runs `read` each time a result is requested, and applies on-demand views to it."""

    def __init__(
        self,
        read: Callable[[], pa.Table],
        config: RepoConfig,
        *,
        on_demand: Sequence[OnDemandFeatureView] = (),
        full_feature_names: bool = False,
        metadata: RetrievalMetadata | None = None,
    ) -> None:
        self._read, self._config, self._full_feature_names = read, config, full_feature_names
        self._metadata = metadata
        # Feast applies all but those that are expressions of Ibis.
        self._expressions = [view for view in on_demand if view.mode == "substrait"]
        self._on_demand = [view for view in on_demand if view.mode != "substrait"]

    @property
    def full_feature_names(self) -> bool:
        """Whether feature names are prefixed with their view's name."""
        return self._full_feature_names

    @property
    def on_demand_feature_views(self) -> list[OnDemandFeatureView]:
        """The views that Feast applies to the result."""
        return self._on_demand

    @property
    def metadata(self) -> RetrievalMetadata | None:
        """The metadata of the request."""
        return self._metadata

    def _to_arrow_internal(self, timeout: int | None = None) -> pa.Table:
        del timeout
        table = self._read()
        for view in self._expressions:
            table = view.transform_ibis(ibis.memtable(table), self._full_feature_names).to_pyarrow()
        return table

    def _to_df_internal(self, timeout: int | None = None) -> pd.DataFrame:
        return self._to_arrow_internal(timeout).to_pandas()

    def persist(self, storage: SavedDatasetStorage, allow_overwrite: bool = False, timeout: int | None = None) -> None:  # noqa: FBT001, FBT002  (Feast's signature)
        """Store the result, with on-demand features, as a saved dataset.

        Raises:
            SavedDatasetLocationAlreadyExists: the location exists and may not be overwritten.
        """
        target, repo_path = storage.to_data_source(), self._config.repo_path
        table = self.to_arrow(timeout=timeout)
        if not is_parquet(target):
            _write_data_source(ibis.memtable(table), target, str(repo_path), "overwrite", allow_overwrite)
            return
        path = FileSource.get_uri_for_file_path(repo_path, target.path)
        filesystem, path = FileSource.create_filesystem_and_path(path, target.s3_endpoint_override)
        if filesystem is None and not allow_overwrite and Path(path).exists():
            raise SavedDatasetLocationAlreadyExists(location=target.path)
        if path.endswith(".parquet"):
            write_file(table, path, filesystem)
        else:
            pq.write_to_dataset(table, path, filesystem=filesystem)

    def supports_remote_storage_export(self) -> bool:
        """Whether there is a `staging_location`."""
        return self._config.offline_store.staging_location is not None

    def to_remote_storage(self) -> list[str]:
        """Write the result as Parquet below `staging_location`, a folder or a URL; returns the files' addresses.

        Raises:
            ValueError: there is no `staging_location`.
        """
        offline = self._config.offline_store
        if offline.staging_location is None:
            message = "offline_store: staging_location is not set"
            raise ValueError(message)
        address = f"{offline.staging_location.rstrip('/')}/{uuid.uuid4()}/data.parquet"
        path = FileSource.get_uri_for_file_path(self._config.repo_path, address)
        filesystem, path = FileSource.create_filesystem_and_path(path, offline.staging_location_endpoint_override or "")
        if filesystem is None and "://" in path:
            filesystem, path = fs.FileSystem.from_uri(path)
        write_file(self.to_arrow(), path, filesystem)
        return [address if "://" in address else path]


def write_file(table: pa.Table, path: str, filesystem: fs.FileSystem | None = None) -> None:
    """Write a table to a Parquet file. A local file appears atomically.

    Raises:
        OSError: it can't be written.
    """
    if filesystem is not None:
        pq.write_table(table, path, filesystem=filesystem)
        return
    with whole_file(Path(path)) as file:
        pq.write_table(table, file)
