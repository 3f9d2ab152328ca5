"""One feature service behind any interface: its features and predictions."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from sqlalchemy.exc import SQLAlchemyError

from serving import metrics
from serving.errors import NotReadyError
from serving.features import misfit
from serving.messages import Part, Predictions, prediction_of
from serving.model import Model, ModelError, ModelFolder
from serving.requests import RequestFormat
from serving.schema import SchemaError, ServedSchema, read_schema
from serving.score_log import ScoreLog

if TYPE_CHECKING:
    from collections.abc import Sequence

    from feast import FeatureStore

    from feast_repo.declare.services import FeatureService
    from serving.messages import Asked, Entity, EntityFeatures
    from serving.reader import Reader
    from serving.settings import ServingSettings

logger = logging.getLogger(__name__)

PROBE: dict[str, str | int] = {"String": "readiness-probe", "Int64": -(1 << 63)}
"""Read as a probe of the online store, and to connect: values of join keys, by type, that hardly any entity has."""


class Service:
    """Features and predictions of one feature service, with the schema and the model that were looked at last.

    `beside_others`: requests have to name the service.
    """

    def __init__(
        self,
        store: FeatureStore,
        reader: Reader,
        settings: ServingSettings,
        declared: FeatureService,
        *,
        beside_others: bool = False,
    ) -> None:
        self.name, self.declared, self.reader = declared.name, declared, reader
        self._store, self._beside_others = store, beside_others
        self._serve(reader.schema)
        self._models = ModelFolder(settings.data_root, declared.name)
        self._model, self.model_part = self._fitting(reader.schema, None)
        self.registry_part = Part(ok=True, detail=f"feature service {declared.name}")
        self._scores = (
            ScoreLog(settings.data_root, declared, settings.catalog.services) if settings.serving_log_scores else None
        )

    @property
    def predicts(self) -> bool:
        """Whether a model belongs to it: without a label it only has features."""
        return self.declared.label is not None

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
            raise NotReadyError(self.model_part.detail)
        rows = await self.features(entities)
        probabilities = model.predict(rows)
        metrics.count_probabilities(self.name, probabilities)
        if self._scores is not None:
            self._scores.add(time.time(), entities, probabilities, model.card.version)
        return Predictions(
            model.card.version,
            [prediction_of(row, probability) for row, probability in zip(rows, probabilities, strict=True)],
        )

    async def probe(self) -> list[EntityFeatures]:
        """Read an entity that hardly exists, as a request would.

        Raises:
            OnlineStoreError: the online store is away, too slow, or refuses.
        """
        entity: Entity = {name: PROBE[kind] for name, kind in self.reader.schema.join_keys.items()}
        return await self.reader.read_async([entity])

    async def warm_up(self) -> None:
        """Connect and run the model once; otherwise the first request would take several times as long as others.

        Raises:
            OnlineStoreError: the online store is away, too slow, or refuses.
        """
        rows = await self.probe()
        if self._model is not None:
            self._model.predict(rows)

    def look(self) -> tuple[ServedSchema, Part, Model | None, Part]:
        """The registry and the model as they are now, for `use`; takes a while and changes nothing."""
        schema, registry_part = self._read_registry()
        return schema, registry_part, *self._fitting(schema, self._model)

    def use(self, schema: ServedSchema, registry_part: Part, model: Model | None, model_part: Part) -> None:
        """Answer by these from now on. There is no await in it: a request sees both old or both new."""
        if schema != self.reader.schema:
            logger.info("the registry has changed: reading the new schema of %s", self.name)
            self.reader.use(schema)
            self._serve(schema)
        self.registry_part, self._model, self.model_part = registry_part, model, model_part

    def _serve(self, schema: ServedSchema) -> None:
        self.requests = RequestFormat(schema, beside_others=self._beside_others)
        metrics.serve_freshness(self.name, {view.name: view.stale_after_ms for view in schema.views})

    def _read_registry(self) -> tuple[ServedSchema, Part]:
        try:
            schema = read_schema(self._store, self.name, self.declared.views, self.declared.freshness)
        except (SchemaError, SQLAlchemyError) as error:
            reason = str(getattr(error, "orig", None) or error).strip().partition("\n")[0]
            logger.warning("the registry can't be read: %s", reason)
            return self.reader.schema, Part(ok=False, detail=f"going on with what was read before: {reason}")
        return schema, Part(ok=True, detail=f"feature service {self.name}")

    def _fitting(self, schema: ServedSchema, before: Model | None) -> tuple[Model | None, Part]:
        """The model to serve, if it fits the schema."""
        if not self.predicts:
            return None, Part(ok=True, detail=f"{self.name} declares no label: it has features only")
        model, problem = before, None
        try:
            version = self._models.current
            if model is None or model.card.version != version:
                model = self._models.load(version)
                logger.info("serving model %s of %s", model.card.version, self.name)
            problem = misfit(model.card.features, schema)
        except ModelError as error:
            problem = str(error)
        if problem is not None and before is not None and misfit(before.card.features, schema) is None:
            logger.warning("%s: model %s stays: %s", self.name, before.card.version, problem)
            model, problem = before, None
        if problem is not None or model is None:
            return None, Part(ok=False, detail=problem or "there is no model")
        metrics.serve_model(self.name, model.card.version)
        return model, Part(ok=True, detail=model.card.version)

    def keep_scores(self) -> None:
        """Store the predictions made since the last time."""
        if self._scores is not None:
            self._scores.flush()
