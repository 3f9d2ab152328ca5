"""Feast's store, opened once for all worlds, on a server of its own."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pytest

from feast_repo.store import ensure_applied, open_store
from sandbox.processes import free_port
from sandbox.redis_server import RedisServer
from tests.crash.world import Bench

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sandbox.processes import Guard


@pytest.fixture(scope="session")
def opened_bench(tmp_path_factory: pytest.TempPathFactory, guard: Guard) -> Iterator[tuple[Bench, Path]]:
    folder = tmp_path_factory.mktemp("crash")
    server = RedisServer(folder / "redis", free_port(), guard)
    server.start()
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("DATA_ROOT", str(folder / "data"))
        environment.setenv("REDIS_URL", server.url)
        environment.setenv("FEAST_REGISTRY_URL", f"sqlite:///{folder / 'registry.db'}")
        store = open_store()
        ensure_applied(store)
        yield Bench(store, server.url), folder / "data"
    store.registry._exit_handler()  # noqa: SLF001  (the timer of the cache)
    store.registry.write_engine.dispose()
    server.close()


@pytest.fixture
def bench(opened_bench: tuple[Bench, Path], monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    monkeypatch.setenv("DATA_ROOT", str(opened_bench[1]))
    monkeypatch.setenv("STREAM_STOP_AT_END", "1")
    logging.disable(logging.CRITICAL)  # thousands of parts that are away and back
    yield opened_bench[0]
    logging.disable(logging.NOTSET)
