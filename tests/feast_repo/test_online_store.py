from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest
from pydantic import ValidationError
from redis import Redis

from feast_repo.stores.online.store import CONNECTION, RedisUrlOnlineStore, RedisUrlOnlineStoreConfig
from feast_repo.stores.opening import ensure_applied
from feast_repo.stores.push import Pusher
from sandbox.held_proxy import HeldProxy
from tests.feast_repo.rows import PUSH_SOURCE, clicks, everything

if TYPE_CHECKING:
    from collections.abc import Callable

    from feast import FeatureStore

FEATURES = ["user_click_features:click_count"]


@pytest.mark.parametrize("password", ["a,b=c", "p@ss:w/rd%"])
def test_the_url_may_have_a_database_and_any_password(
    redis_url: str, opened: Callable[[], FeatureStore], monkeypatch: pytest.MonkeyPatch, password: str
) -> None:
    with Redis.from_url(redis_url) as admin:
        admin.acl_setuser(
            "shop", enabled=True, passwords=[f"+{password}"], categories=["+@all"], keys=["*"], reset=True
        )
        quoted = password.replace("%", "%25").replace("@", "%40").replace(":", "%3A").replace("/", "%2F")
        address = redis_url.removeprefix("redis://").removesuffix("/0")
        monkeypatch.setenv("REDIS_URL", f"redis://shop:{quoted}@{address}/3")
        try:
            ensure_applied(store := opened())
            assert Pusher(store, PUSH_SOURCE).push_online(clicks(["user_000001"])) == 1
            assert everything(admin) == {}
            with Redis.from_url(f"{redis_url.removesuffix('/0')}/3") as third:
                assert len(everything(third)) == 1
            asked = [{"user_id": "user_000001"}]
            assert store.get_online_features(FEATURES, asked).to_dict()["click_count"] == [0]
        finally:
            admin.acl_deluser("shop")


def test_asynchronous_reads_use_the_url_too(store: FeatureStore) -> None:
    Pusher(store, PUSH_SOURCE).push_online(clicks(["a reader"], click_count=987_654))

    async def read() -> object:
        online = await store.get_online_features_async(FEATURES, [{"user_id": "a reader"}])
        client = await store._get_provider().online_store._get_client_async(store.config.online_store)  # noqa: SLF001  (to close it in its loop)
        await client.aclose()
        return online.to_dict()["click_count"]

    assert asyncio.run(read()) == [987_654]


def test_a_read_without_an_answer_is_asked_once_more(
    redis_url: str, opened: Callable[[], FeatureStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    ensure_applied(opened())
    with HeldProxy(urlsplit(redis_url).port or 0) as proxy:
        monkeypatch.setenv("REDIS_URL", f"redis://127.0.0.1:{proxy.port}/0?socket_timeout=0.5")
        store = opened()
        Pusher(store, PUSH_SOURCE).push_online(clicks(["a patient reader"], click_count=31))
        proxy.keep_back(b"HMGET")
        online = store.get_online_features(FEATURES, [{"user_id": "a patient reader"}])
        assert online.to_dict()["click_count"] == [31]
        assert proxy.held_bytes > 0


def test_encrypted_addresses_are_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_URL", "rediss://:secret@redis.example:6380/2")
    client = RedisUrlOnlineStore()._get_client(RedisUrlOnlineStoreConfig())  # noqa: SLF001  (where Feast gets its client)
    assert client.connection_pool.connection_class.__name__ == "SSLConnection"
    assert client.connection_pool.connection_kwargs["db"] == 2


def test_a_connection_string_of_feasts_is_heeded() -> None:
    text = "redis.example:6380,ssl=true,db=2,username=shop,password=secret,socket_timeout=1.5"
    client = RedisUrlOnlineStore()._get_client(RedisUrlOnlineStoreConfig(connection_string=text))  # noqa: SLF001  (where Feast gets its client)
    pool = client.connection_pool
    assert pool.connection_class.__name__ == "SSLConnection"
    expected = {"host": "redis.example", "port": 6380, "db": 2, "username": "shop", "password": "secret"}
    assert {name: pool.connection_kwargs[name] for name in expected} == expected
    assert pool.connection_kwargs["socket_timeout"] == 1.5
    assert pool.connection_kwargs["socket_connect_timeout"] == CONNECTION["socket_connect_timeout"]


@pytest.mark.parametrize("option", [{"redis_type": "redis_cluster"}, {"client": "glide"}])
def test_options_that_would_be_ignored_are_refused(option: dict[str, str]) -> None:
    (name,) = option
    with pytest.raises(ValidationError, match=rf"{name}.*REDIS_URL"):
        RedisUrlOnlineStoreConfig(**option)
