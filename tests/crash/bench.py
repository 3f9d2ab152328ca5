"""What one process opens once for many worlds: a server of its own, Feast's store and its pusher."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from feast_repo.settings import StoreSettings, StreamSettings
from feast_repo.stores.opening import ensure_applied, open_store
from sandbox.processes import free_port
from sandbox.redis_server import RedisServer
from tests.crash.world import Bench

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sandbox.processes import Guard


@contextmanager
def opened(folder: Path, guard: Guard) -> Iterator[tuple[Bench, dict[str, str]]]:
    """A bench below a folder, and the environment that belongs to it."""
    server = RedisServer(folder / "redis", free_port(), guard)
    server.start()
    environment = {
        "DATA_ROOT": str(folder / "data"),
        "REDIS_URL": server.url,
        "FEAST_REGISTRY_URL": f"sqlite:///{folder / 'registry.db'}",
        "STREAM_STOP_AT_END": "1",
    }
    with pytest.MonkeyPatch.context() as patch:
        for settings in (StoreSettings, StreamSettings):
            patch.setitem(settings.model_config, "env_file", None)
        for name, value in environment.items():
            patch.setenv(name, value)
        store = open_store()
        ensure_applied(store)
        bench = Bench(store, server.url)
    try:
        yield bench, environment
    finally:
        bench.redis.close()
        store.registry._exit_handler()  # noqa: SLF001  (the timer of the cache)
        store.registry.write_engine.dispose()
        server.close()


def enter(environment: dict[str, str]) -> None:
    """Have this process's settings be those of a bench."""
    for settings in (StoreSettings, StreamSettings):
        settings.model_config["env_file"] = None
    os.environ.update(environment)
