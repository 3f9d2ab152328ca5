"""The feature services of a process, and what they share: keys, readiness and what is done periodically."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

import msgspec

from feast_repo.errors import RefusedError
from serving import metrics
from serving.access import ApiKeys
from serving.errors import OnlineStoreError
from serving.messages import Part, Readiness
from serving.reader import open_reader
from serving.score_log import EVERY_S
from serving.service import Service

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from feast import FeatureStore

    from serving.messages import Asked
    from serving.settings import ServingSettings

logger = logging.getLogger(__name__)


class _Named(msgspec.Struct):
    service: str


_service_of = msgspec.json.Decoder(_Named).decode


class UnknownServiceError(RefusedError):
    """A request names no service that is served here, or has to name one; the message lists them."""


class Services:
    """The feature services by name. Registry, models and keys are reloaded periodically without stalling requests."""

    def __init__(self, services: Sequence[Service], settings: ServingSettings) -> None:
        self.by_name = {service.name: service for service in services}
        self._settings = settings
        self.keys = ApiKeys(settings)
        self._tasks: list[asyncio.Task[None]] = []
        self._tell()

    def named(self, name: str | None) -> Service:
        """The service of this name; None: the only one.

        Raises:
            UnknownServiceError: there is none of this name, or several and no name.
        """
        if name is None and len(self.by_name) == 1:
            return next(iter(self.by_name.values()))
        if name is None or name not in self.by_name:
            here = ", ".join(self.by_name)
            message = f"name the service: {here}" if name is None else f"there is no such service here, but {here}"
            raise UnknownServiceError(message)
        return self.by_name[name]

    def asked(self, body: bytes) -> tuple[Service, list[Asked]]:
        """The service and the entities of a request's body.

        Raises:
            msgspec.MsgspecError: the body is no such request; the message names the place, and quotes no value.
            UnicodeDecodeError: it is no UTF-8.
            UnknownServiceError: it names no service that is served here.
        """
        service = self.named(_service_of(body).service if len(self.by_name) > 1 else None)
        return service, service.requests.decode(body)

    async def readiness(self) -> Readiness:
        """Whether the service can answer; probes the online store.

        Where there are several, one that waits for its first model doesn't take the others out of service.
        """
        services = self.by_name.values()
        try:
            await next(iter(services)).probe()
            redis = Part(ok=True, detail="answers")
        except OnlineStoreError as error:
            redis = Part(ok=False, detail=f"the online store does not answer: {error}")
        metrics.ready.labels("redis").set(redis.ok)
        ready = redis.ok and any(service.model_part.ok for service in services)
        return Readiness(
            ready,
            redis,
            self._together({name: one.registry_part for name, one in self.by_name.items()}),
            self._together({name: one.model_part for name, one in self.by_name.items()}),
        )

    @staticmethod
    def _together(parts: dict[str, Part]) -> Part:
        if len(parts) == 1:
            return next(iter(parts.values()))
        details = "; ".join(f"{name}: {part.detail}" for name, part in parts.items())
        return Part(ok=all(part.ok for part in parts.values()), detail=details)

    async def refresh(self) -> None:
        """Reload keys, registry and models once."""
        try:  # first, because a revoked key must not stay valid while the registry hangs
            self.keys = await asyncio.to_thread(ApiKeys, self._settings)
        except (OSError, ValueError) as error:
            logger.warning("the API keys stay as they were: %s", error)
        for service in self.by_name.values():
            service.use(*await asyncio.to_thread(service.look))
        self._tell()

    def _tell(self) -> None:
        services = self.by_name.values()
        metrics.ready.labels("registry").set(all(one.registry_part.ok for one in services))
        metrics.ready.labels("model").set(all(one.model_part.ok for one in services))

    async def start(self) -> None:
        """Start reloading periodically and storing scores."""
        try:
            for service in self.by_name.values():
                await service.warm_up()
        except OnlineStoreError as error:
            logger.warning("the online store does not answer yet: %s", error)
        self._tasks = [
            asyncio.create_task(self._every(self._settings.serving_refresh_seconds, self.refresh)),
            asyncio.create_task(self._every(EVERY_S, self._keep_scores)),
        ]

    async def stop(self) -> None:
        """Stop both, store the remaining scores, and close the online store."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._keep_scores()
        for service in self.by_name.values():
            await service.reader.close()

    async def _keep_scores(self) -> None:
        for service in self.by_name.values():
            await asyncio.to_thread(service.keep_scores)

    @staticmethod
    async def _every(seconds: float, work: Callable[[], Awaitable[None]]) -> None:
        while True:
            await asyncio.sleep(seconds)
            try:
                await work()
            except Exception:  # whatever it is, the service must continue and log it
                logger.exception("trying again in %g s", seconds)


def open_services(store: FeatureStore, settings: ServingSettings) -> Services:
    """The services that the settings choose, on their stores.

    Raises:
        SchemaError: the registry does not describe one of them.
        ForeignRedisError: Redis holds another DATA_ROOT's data.
        OSError, ValueError: the API keys can't be read.
        sqlalchemy.exc.SQLAlchemyError: the registry's database is away.
    """
    chosen = settings.services
    return Services(
        [
            Service(store, open_reader(store, settings, one), settings, one, beside_others=len(chosen) > 1)
            for one in chosen
        ],
        settings,
    )
