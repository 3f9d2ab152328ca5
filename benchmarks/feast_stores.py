"""Feast with our plug-ins, and Feast as it comes, on one Redis and the same Parquet."""

from __future__ import annotations

import os
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from redis import Redis

from sandbox.processes import Guard, free_port
from sandbox.redis_server import RedisServer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from feast import FeatureStore


@dataclass(frozen=True)
class Stores:
    """A folder that is DATA_ROOT, and a Redis; the settings of this process and of its children lead there."""

    root: Path
    redis: Redis
    redis_url: str
    _opened: list[FeatureStore] = field(default_factory=list)

    def ours(self) -> FeatureStore:
        """Feast with our plug-ins, as the commands open it."""
        from feast_repo.stores.opening import ensure_applied, open_store  # noqa: PLC0415  (after the settings; takes seconds)

        store = open_store()
        self._opened.append(store)
        ensure_applied(store)
        return store

    def stock(self, offline: str) -> FeatureStore:
        """Feast with its own Redis store and one of its own offline stores (`duckdb`, `dask`) over our Parquet files.

        The same project and views, so that it writes the same keys. Its registry is another one.
        """
        import yaml  # noqa: PLC0415
        from feast import FeatureStore, RepoConfig  # noqa: PLC0415  (takes seconds)

        from feast_repo.settings import StoreSettings  # noqa: PLC0415

        settings: dict[str, Any] = yaml.safe_load((StoreSettings().feature_repo / "feature_store.yaml").read_text())
        settings |= {
            "registry": {**settings["registry"], "path": f"sqlite:///{self.root}/stock-{offline}.db"},
            "online_store": {"type": "redis", "connection_string": self.redis_url.split("/")[2]},
            "offline_store": {"type": offline},
        }
        store = FeatureStore(config=RepoConfig(repo_path=self.root, **settings))
        self._opened.append(store)
        store.apply(_stock_objects())
        store.refresh_registry()  # else it is up to a minute behind
        return store

    def close(self) -> None:
        """Let the stores go of their registries, which are about to vanish."""
        for store in self._opened:
            store.registry._exit_handler()  # noqa: SLF001  (the timer of the cache; Feast stops it when Python ends)
            store.registry.write_engine.dispose()


@contextmanager
def own_stores() -> Iterator[Stores]:
    """An empty Redis without persistence, and an empty folder; the settings are as before when they are gone."""
    with tempfile.TemporaryDirectory() as folder:
        root, guard = Path(folder) / "data", Guard()
        root.mkdir()
        server = RedisServer(Path(folder) / "redis", free_port(), guard)
        server.start()
        before = os.environ.copy()
        os.environ |= {
            "REDIS_URL": server.url,
            "DATA_ROOT": str(root),
            "FEAST_REGISTRY_URL": f"sqlite:///{folder}/registry.db",
        }
        try:
            with Redis.from_url(server.url) as redis:
                stores = Stores(root, redis, server.url)
                yield stores
                stores.close()
        finally:
            os.environ.clear()
            os.environ.update(before)
            server.close()
            guard.close()


def _stock_objects() -> list[Any]:
    """Our declarations with plain files as their sources."""
    from feast import FeatureService, FeatureView, FileSource, PushSource  # noqa: PLC0415
    from feast.data_format import ParquetFormat  # noqa: PLC0415

    from feast_repo.feast_objects import all_objects  # noqa: PLC0415
    from feast_repo.settings import StoreSettings  # noqa: PLC0415

    objects = all_objects(StoreSettings().catalog)
    entities = {one.name: one for one in objects if type(one).__name__ == "Entity"}
    views: dict[str, FeatureView] = {}
    for view in (one for one in objects if isinstance(one, FeatureView)):
        files = FileSource(
            name=view.batch_source.name,
            path=f"{view.batch_source.path}/*/*.parquet",
            file_format=ParquetFormat(),
            timestamp_field=view.batch_source.timestamp_field,
            created_timestamp_column=view.batch_source.created_timestamp_column,
        )
        push = view.stream_source
        views[view.name] = FeatureView(
            name=view.name,
            entities=[entities[name] for name in view.entities],
            ttl=view.ttl,
            schema=view.schema,
            source=files if push is None else PushSource(name=push.name, batch_source=files),
        )
    services = [
        FeatureService(name=one.name, features=[views[part.name] for part in one.feature_view_projections])
        for one in objects
        if isinstance(one, FeatureService)
    ]
    return [*entities.values(), *views.values(), *services]
