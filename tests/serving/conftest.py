"""A trained model, features of a few users, and the service in a thread."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest
from feast.data_source import PushMode

from batch.training.labels import label_of
from feast_repo.declare.events import UTC_MICROSECONDS
from feast_repo.features import purchase_prediction, user_click_features as clicks, user_profile_features as profiles
from feast_repo.stores.progress import Progress, announce, progress_key
from serving.__main__ import server_of
from serving.app import App
from serving.model import ModelFolder
from serving.services import Services, open_services
from serving.settings import ServingSettings
from serving.training import Trained, split_by_time, train
from simulation.training_rows import training_rows
from tests.feast_repo.conftest import opened, redis, store  # noqa: F401  (fixtures)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from feast import FeatureStore
    from redis import Redis

USERS = [f"user_{number:06d}" for number in range(1, 6)]


def now_slide() -> datetime:
    """The last window end."""
    slide = clicks.slide_ms / 1000
    return datetime.fromtimestamp(time.time() // slide * slide, tz=UTC)


@pytest.fixture(scope="session")
def trained() -> Trained:
    """A model that is good enough to be told from chance."""
    return train(purchase_prediction, split_by_time(training_rows(), label_of(purchase_prediction)[0]), "hash", 1, "v1")


@pytest.fixture
def data_root(trained: Trained) -> Path:
    """DATA_ROOT with the model in it."""
    root = ServingSettings().data_root
    models = ModelFolder(root, "purchase_prediction")
    models.save(trained.card, trained.onnx)
    models.promote(trained.card.version)
    return root


def push(store: FeatureStore, users: list[str], at: datetime, **values: Any) -> None:  # noqa: F811
    """Write click features online, as Feast does."""
    empty = dict.fromkeys(clicks.features, 0) | {"cart_rate": 0.0, "conversion_rate": 0.0}
    frame = pl.DataFrame([{"user_id": user, **empty, **values} for user in users]).with_columns(
        event_timestamp=pl.lit(at).cast(UTC_MICROSECONDS), created_timestamp=pl.lit(at).cast(UTC_MICROSECONDS)
    )
    store.push(clicks.push_source, frame.to_pandas(), to=PushMode.ONLINE)


def write_profiles(store: FeatureStore, users: list[str], at: datetime, **values: Any) -> None:  # noqa: F811
    """Write profiles online, as Feast does."""
    known = {"age": 40, "country": "DE", "subscription_tier": "free", "activity_weight": 0.25}
    frame = pl.DataFrame([{"user_id": user, **known, **values} for user in users]).with_columns(
        event_timestamp=pl.lit(at).cast(UTC_MICROSECONDS), created_timestamp=pl.lit(at).cast(UTC_MICROSECONDS)
    )
    store.write_to_online_store(profiles.name, frame.to_pandas())


def tell_progress(store: FeatureStore, redis: Redis, *ends: datetime | None) -> None:  # noqa: F811
    """What the stream tells of its partitions, as if windows could end at any time."""
    positions = [
        Progress("topic", number, 1, None if end is None else round(end.timestamp() * 1000))
        for number, end in enumerate(ends)
    ]
    at_any_time = replace(clicks, slide=timedelta(milliseconds=1))
    announce(redis, progress_key(store.project, clicks.name), positions, at_any_time)


@dataclass
class Reply:
    """An answer of the service."""

    status: int
    body: Any
    headers: dict[str, str]


@dataclass
class Client:
    """Asks the service."""

    url: str

    def ask(self, path: str, body: Any = None, *, method: str | None = None, **headers: str) -> Reply:
        data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        request = urllib.request.Request(self.url + path, data, names, method=method)  # noqa: S310  (loopback)
        try:
            with urllib.request.urlopen(request, timeout=30) as reply:  # noqa: S310
                return Reply(reply.status, _parsed(reply), dict(reply.headers))
        except urllib.error.HTTPError as error:
            with error:
                return Reply(error.code, _parsed(error), dict(error.headers))

    def predict(self, *users: str, **headers: str) -> Reply:
        return self.ask("/v1/predictions", {"user_ids": list(users)}, **headers)


def _parsed(reply: Any) -> Any:
    text = reply.read()
    return json.loads(text) if text and reply.headers["content-type"] == "application/json" else text.decode()


@contextlib.contextmanager
def serving(service: Services, *, concurrency: int = 64, body_timeout_s: float = 10.0) -> Iterator[Client]:
    """The service over HTTP, in a thread."""
    server = server_of(App(service, concurrency=concurrency, body_timeout_s=body_timeout_s))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            wait_for(lambda: server.started or not thread.is_alive())
            yield Client(f"http://127.0.0.1:{listener.getsockname()[1]}")
        finally:
            server.should_exit = True
            thread.join(30)
    assert not thread.is_alive()


def wait_for(condition: Callable[[], object], seconds: float = 30) -> None:
    """Wait until something holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come to hold"
        threading.Event().wait(0.01)


@pytest.fixture
def service(store: FeatureStore, data_root: Path, monkeypatch: pytest.MonkeyPatch) -> Services:  # noqa: F811
    """The services on an empty Redis, looking for changes several times a second."""
    del data_root
    monkeypatch.setenv("SERVING_REFRESH_SECONDS", "0.1")
    settings = ServingSettings()
    return open_services(store, settings)


@pytest.fixture
def client(service: Services) -> Iterator[Client]:
    """Asks that service."""
    with serving(service) as asking:
        yield asking
