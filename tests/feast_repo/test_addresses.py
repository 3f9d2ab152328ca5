"""Addresses in settings: what people have is taken, what can't be meant is told in one line without the secret."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from feast_repo.settings import StoreSettings, StreamSettings, problem

SECRET = "s3cr3t"  # noqa: S105  (it stands for one)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("REDIS_URL", "redis://cache:6379/0"),
        ("REDIS_URL", "redis://cache"),
        ("REDIS_URL", "redis://[::1]:6379/15"),
        ("REDIS_URL", f"rediss://shop:{SECRET}%2F%23@cache:6380/3?ssl_cert_reqs=none&socket_timeout=2"),
        ("REDIS_URL", f"unix://shop:{SECRET}@/run/redis.sock?db=2"),
        ("REDIS_URL", "unix:///run/redis [1].sock"),
        ("FEAST_REGISTRY_URL", "sqlite:////var/lib/registry.db"),
        ("FEAST_REGISTRY_URL", "sqlite:///data/registry.db"),
        ("FEAST_REGISTRY_URL", f"postgresql+psycopg://feast:{SECRET}@db:5432/feast"),
        ("FEAST_REGISTRY_URL", f"postgresql://feast:{SECRET}@db/feast?sslmode=require"),
        ("KAFKA_BOOTSTRAP_SERVERS", "broker:9092"),
        ("KAFKA_BOOTSTRAP_SERVERS", "SASL_SSL://broker-1.example.com:9096, broker-2.example.com:9096"),
        ("KAFKA_BOOTSTRAP_SERVERS", "[::1]:9092"),
        ("KAFKA_TOPIC", "shop.clicks_v2-eu"),
    ],
)
def test_what_people_have_is_taken(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    assert getattr(StreamSettings(), name.lower()) == value


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("REDIS_URL", f"{SECRET}.cache:6379", "redis://"),
        ("REDIS_URL", f"http://{SECRET}@cache:6379", "redis://"),
        ("REDIS_URL", f"redis://:{SECRET}/w@cache:6379/0", "%2F"),
        ("REDIS_URL", f"redis://:{SECRET}#w@cache:6379/0", "%2F"),
        ("REDIS_URL", f"redis://:12?{SECRET}=w@cache:6379/0", "%2F"),
        ("REDIS_URL", f"redis://:12/{SECRET}@cache:6379/0", "%2F"),
        ("REDIS_URL", f"redis://cache:6379/{SECRET}", "number of a database"),
        ("REDIS_URL", f"redis://cache:6379/0?sokcet_timeout={SECRET}", "redis-py"),
        ("REDIS_URL", "redis://cache:70000/0", "port"),
        ("REDIS_URL", "redis://cache:6379/0?db=one", "number of a database"),
        ("REDIS_URL", "unix://", "socket"),
        ("REDIS_URL", "redis://", "host"),
        ("FEAST_REGISTRY_URL", f"/var/{SECRET}.db", "sqlite:////"),
        ("FEAST_REGISTRY_URL", f"postgres://feast:{SECRET}@db/feast", "postgresql+psycopg://"),
        ("FEAST_REGISTRY_URL", f"postgresql://feast:{SECRET}/x@db:5432/feast", "%2F"),
        ("KAFKA_BOOTSTRAP_SERVERS", "broker:9092;other:9092", "commas"),
        ("KAFKA_BOOTSTRAP_SERVERS", "broker:port", "host:port"),
        ("KAFKA_TOPIC", "clicks/eu", "249"),
    ],
)
def test_what_cannot_be_meant_is_told_without_the_secret(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, words: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ValidationError) as caught:
        StreamSettings()
    line = problem(caught.value)
    assert line.startswith(f"{name}: ")
    assert words in line
    assert "\n" not in line
    assert SECRET not in f"{line} {caught.value}"


def test_empty_registry_is_a_file_below_the_data_root() -> None:
    settings = StoreSettings()
    assert settings.registry_url == f"sqlite:///{settings.data_root}/registry.db"
