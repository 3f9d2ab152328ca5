"""The service behind any interface: features and predictions, and the parts they need."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING

from sqlalchemy.exc import SQLAlchemyError

from serving import metrics
from serving.access import ApiKeys
from serving.errors import NotReadyError, OnlineStoreError
from serving.features import misfit
from serving.messages import EntityFeatures, Part, Predictions, Readiness, prediction_of
from serving.model import Model, ModelError, ModelFolder
from serving.requests import RequestFormat
from serving.schema import SchemaError, ServedSchema, read_schema
from serving.score_log import EVERY_S, ScoreLog

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from feast import FeatureStore

    from serving.messages import Asked, Entity
    from serving.reader import Reader
    from serving.settings import ServingSettings

logger = logging.getLogger(__name__)

PROBE: dict[str, str | int] = {"String": "readiness-probe", "Int64": -(1 << 63)}
"""Read as a probe of the online store, and to connect: values of join keys, by type, that hardly any entity has."""


class Service:
    """Features and predictions. Registry, model and keys are reloaded periodically without stalling requests."""

    def __init__(self, store: FeatureStore, reader: Reader, settings: ServingSettings) -> None:
        self._store, self._settings = store, settings
        self.reader = reader
        self.requests = RequestFormat(reader.schema)
        self.keys = ApiKeys(settings)
        self._models = ModelFolder(settings.data_root, settings.service)
        self._model, self._model_part = self._fitting(reader.schema, None)
        self._registry_part = Part(ok=True, detail=f"feature service {settings.service}")
        self._scores = (
            ScoreLog(settings.data_root, settings.served, settings.catalog.services)
            if settings.serving_log_scores
            else None
        )
        self._tasks: list[asyncio.Task[None]] = []

    async def features(self, entities: Sequence[Asked]) -> list[EntityFeatures]:
        """Features in the order of the entities.

        Raises:
            OnlineStoreError: the online store is away, too slow, or refuses.
        """
        rows = await self.reader.read_async(entities)
        metrics.count_rows(rows)
        return rows

    async def predict(self, entities: Sequence[Asked]) -> Predictions:
        """Predictions in the order of the entities.

        Raises:
            OnlineStoreError: the online store is away, too slow, or refuses.
            NotReadyError: there is no model that fits.
        """
        # Taken before the await, as the reader takes its schema: a refresh in between changes neither.
        if (model := self._model) is None:
            raise NotReadyError(self._model_part.detail)
        rows = await self.features(entities)
        probabilities = model.predict(rows)
        metrics.count_probabilities(probabilities)
        if self._scores is not None:
            self._scores.add(time.time(), entities, probabilities, model.card.version)
        return Predictions(
            model.card.version,
            [prediction_of(row, probability) for row, probability in zip(rows, probabilities, strict=True)],
        )

    async def readiness(self) -> Readiness:
        """Whether predictions can be made; probes the online store."""
        try:
            await self.reader.read_async([self._probe()])
            redis = Part(ok=True, detail="answers")
        except OnlineStoreError as error:
            redis = Part(ok=False, detail=f"the online store does not answer: {error}")
        metrics.ready.labels("redis").set(redis.ok)
        return Readiness(redis.ok and self._model_part.ok, redis, self._registry_part, self._model_part)

    async def refresh(self) -> None:
        """Reload keys, registry and model once."""
        try:  # first, because a revoked key must not stay valid while the registry hangs
            self.keys = await asyncio.to_thread(ApiKeys, self._settings)
        except (OSError, ValueError) as error:
            logger.warning("the API keys stay as they were: %s", error)
        schema, self._registry_part = await asyncio.to_thread(self._read_registry)
        model, part = await asyncio.to_thread(self._fitting, schema, self._model)
        # No await in between: a request sees both old or both new.
        if schema != self.reader.schema:
            logger.info("the registry has changed: reading its new schema")
            self.reader.use(schema)
            self.requests = RequestFormat(schema)
        self._model, self._model_part = model, part

    def _read_registry(self) -> tuple[ServedSchema, Part]:
        try:
            schema = read_schema(
                self._store, self._settings.service, self._settings.views, self._settings.served.freshness
            )
        except (SchemaError, SQLAlchemyError) as error:
            reason = str(getattr(error, "orig", None) or error).strip().partition("\n")[0]
            logger.warning("the registry can't be read: %s", reason)
            metrics.ready.labels("registry").set(0)
            return self.reader.schema, Part(ok=False, detail=f"going on with what was read before: {reason}")
        metrics.ready.labels("registry").set(1)
        return schema, Part(ok=True, detail=f"feature service {self._settings.service}")

    def _fitting(self, schema: ServedSchema, before: Model | None) -> tuple[Model | None, Part]:
        """The model to serve, if it fits the schema."""
        model, problem = before, None
        try:
            version = self._models.current
            if model is None or model.card.version != version:
                model = self._models.load(version)
                logger.info("serving model %s", model.card.version)
            problem = misfit(model.card.features, schema)
        except ModelError as error:
            problem = str(error)
        if problem is not None and before is not None and misfit(before.card.features, schema) is None:
            logger.warning("model %s stays: %s", before.card.version, problem)
            model, problem = before, None
        metrics.ready.labels("model").set(problem is None)
        if problem is not None or model is None:
            return None, Part(ok=False, detail=problem or "there is no model")
        metrics.serve_model(model.card.version)
        return model, Part(ok=True, detail=model.card.version)

    def _probe(self) -> Entity:
        return {name: PROBE[kind] for name, kind in self.reader.schema.join_keys.items()}

    async def start(self) -> None:
        """Start reloading periodically and storing scores."""
        await self._warm_up()
        self._tasks = [
            asyncio.create_task(self._every(self._settings.serving_refresh_seconds, self.refresh)),
            asyncio.create_task(self._every(EVERY_S, self._keep_scores)),
        ]

    async def _warm_up(self) -> None:
        """Connect and run the model once; otherwise the first request would take several times as long as others."""
        try:
            rows = await self.reader.read_async([self._probe()])
        except OnlineStoreError as error:
            logger.warning("the online store does not answer yet: %s", error)
            return
        if self._model is not None:
            self._model.predict(rows)

    async def stop(self) -> None:
        """Stop both, store the remaining scores, and close the online store."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._keep_scores()
        await self.reader.close()

    async def _keep_scores(self) -> None:
        if self._scores is not None:
            await asyncio.to_thread(self._scores.flush)

    @staticmethod
    async def _every(seconds: float, work: Callable[[], Awaitable[None]]) -> None:
        while True:
            await asyncio.sleep(seconds)
            try:
                await work()
            except Exception:  # whatever it is, the service must continue and log it
                logger.exception("trying again in %g s", seconds)
