"""A real Prefect server for all tests of this folder, and stores with a little of everything in them."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from prefect.client.orchestration import get_client
from prefect.events.worker import EventsWorker
from prefect.logging.handlers import APILogWorker
from prefect.settings import PREFECT_API_URL, PREFECT_HOME, temporary_settings

from batch.maintenance.restore_online import main as restore_online
from feast_repo.settings import StreamSettings
from sandbox.processes import free_port
from simulation.profiles import make_profiles, publish_profiles
from tests.batch.archives import clicks, stream
from tests.feast_repo.conftest import opened, redis, store  # noqa: F401  (fixtures)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PREFECT = Path(sys.executable).with_name("prefect")
EVENTS, HOURS, PARTITIONS, USERS = 3_000, 30, 2, 250


def wait_for(condition: Callable[[], Any], seconds: float = 90) -> Any:
    """Wait until something holds; returns it."""
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, "it did not come to hold"
        threading.Event().wait(0.2)
    return found


@pytest.fixture(scope="package")
def prefect_environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The settings that lead to a Prefect server of these tests' own."""
    home, port = tmp_path_factory.mktemp("prefect"), free_port()
    environment = {
        "PREFECT_HOME": str(home),
        "PREFECT_API_URL": f"http://127.0.0.1:{port}/api",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
    }
    with (home / "server.log").open("w") as log:
        server = subprocess.Popen(
            [PREFECT, "server", "start", "--host", "127.0.0.1", "--port", str(port)],
            env={**os.environ, **environment},
            stdout=log,
            stderr=log,
        )

    def healthy() -> bool:
        assert server.poll() is None, (home / "server.log").read_text()
        try:
            with urllib.request.urlopen(f"{environment['PREFECT_API_URL']}/health", timeout=2) as reply:  # noqa: S310
                return bool(reply.status == 200)
        except OSError:
            return False

    try:
        wait_for(healthy)
        with temporary_settings({PREFECT_API_URL: environment["PREFECT_API_URL"], PREFECT_HOME: home}):
            yield environment
            # Their connections' pings draw from Python's one random generator, and any property that draws an example
            # at that moment fails: Hypothesis takes it for the strategy's own doing.
            for worker in (EventsWorker, APILogWorker):
                worker.drain_all(timeout=30)
    finally:
        server.terminate()
        server.wait(30)


def filled(monkeypatch: pytest.MonkeyPatch, users: int = USERS, events: int = EVENTS) -> Path:
    """DATA_ROOT with clicks, features and profiles, and Redis with the newest of them."""
    settings = StreamSettings()
    monkeypatch.setenv("FEAST_REGISTRY_URL", settings.registry_url)  # a sandbox's settings must not win
    logs = clicks(hours=HOURS, events=events, partitions=PARTITIONS, users=users)
    rows = stream(settings.data_root, settings.catalog.view(), logs)
    publish_profiles(make_profiles(users, 1), rows["event_timestamp"].min(), settings.data_root)  # type: ignore[arg-type]
    assert restore_online([]) == 0
    return settings.data_root


@pytest.fixture
def land(store: object, prefect_environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Path:  # noqa: F811
    """The data of most tests."""
    del store, prefect_environment
    return filled(monkeypatch)


@pytest.fixture
def busy_land(store: object, prefect_environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Path:  # noqa: F811
    """Enough users that what they do can be learned."""
    del store, prefect_environment
    return filled(monkeypatch, users=2_000, events=30_000)


def ask(method: str, path: str, body: dict[str, Any] | None = None) -> Any:
    """A question to the Prefect server."""
    with get_client(sync_client=True) as client:
        reply = client._client.request(method, path, json=body)  # noqa: SLF001  (what has no method of its own)
        reply.raise_for_status()
        return reply.json()


def events(name: str, about: str) -> list[dict[str, Any]]:
    """The payloads of the events of a name that the server has, of those that contain a text."""
    found = ask("POST", "/events/filter", {"filter": {"event": {"name": [name]}}, "limit": 50})["events"]
    return [one["payload"] for one in found if about in str(one["payload"])]


def artifact(key: str) -> dict[str, Any]:
    """The latest artifact of a key."""
    found: dict[str, Any] = ask("GET", f"/artifacts/{key}/latest")
    return found
