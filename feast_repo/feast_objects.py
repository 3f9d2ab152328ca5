"""Feast's objects, built from the catalog, with all that people are told of it.

Feast draws a view's lineage from its batch source. For a windowed view that is named after the Kafka stream, so lineage
begins there; the stream itself is registered beside it, with its topic.
"""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from feast import Entity, FeatureService, FeatureView, Field, FileSource, KafkaSource, PushSource, ValueType
from feast.data_format import JsonFormat, ParquetFormat
from feast.types import Array, Bool, Float64, Int64, String

from feast_repo.catalog import load
from feast_repo.declare.about import in_words
from feast_repo.declare.rows import SERVED
from feast_repo.declare.stored import offline_columns
from feast_repo.declare.views import WindowedView
from feast_repo.settings import StoreSettings
from feast_repo.stores.offline.source_columns import COLUMNS_TAG
from feast_repo.stores.offline.tables import events_folder, features_folder

if TYPE_CHECKING:
    from feast_repo.declare.about import Owned
    from feast_repo.declare.catalog import Catalog
    from feast_repo.declare.events import EventStream
    from feast_repo.declare.stored import View

FeastObject: TypeAlias = Entity | FeatureView | FeatureService | KafkaSource
FEAST_TYPES = {
    "Int64": Int64,
    "Float64": Float64,
    "String": String,
    "Bool": Bool,
    "List(Int64)": Array(Int64),
    "List(String)": Array(String),
}
KEY_TYPES = {"Int64": ValueType.INT64, "String": ValueType.STRING}


def all_objects(catalog: Catalog) -> list[FeastObject]:
    """Everything that `feast apply` registers, for the settings' DATA_ROOT; the sources come with their views."""
    entities = _entities(catalog)
    views = {view.name: _feature_view(view, entities) for view in catalog.views}
    services = [
        FeatureService(
            name=service.name,
            description=service.description,
            features=[views[view.name] for view in service.views],
            owner=service.owner,
            tags=_tags(
                service,
                kind="feature service",
                label=None if service.label is None else str(service.label),
                freshness=service.freshness,
            ),
        )
        for service in catalog.services
    ]
    return [*map(_kafka_source, catalog.streams), *entities.values(), *views.values(), *services]


def _tags(declared: Owned, **derived: str | timedelta | None) -> dict[str, str]:
    """The declared tags, and what follows from the declaration where it has a value."""
    told = {name: in_words(one) if isinstance(one, timedelta) else one for name, one in derived.items() if one}
    return {**declared.tags, **told}


def feast_objects(definitions: str) -> dict[str, FeastObject]:
    """The objects of a repository by attribute name: `feast apply` reads a module's attributes, not containers.

    `definitions`: the path of the repository's `definitions.py`.

    Raises:
        CatalogError: its `features.py` can't be loaded.
    """
    objects = all_objects(load(Path(definitions).resolve().parent))
    return {f"{type(one).__name__}_{one.name}": one for one in objects}


def _entities(catalog: Catalog) -> dict[str, Entity]:
    """Feast's entities by join key. Feast gives an entity one join key, so one of several keys becomes several."""
    found: dict[str, Entity] = {}
    for entity in sorted(catalog.entities, key=lambda entity: len(entity.join_keys)):
        alone = len(entity.join_keys) == 1
        for key, value_type in entity.join_keys.items():
            if key not in found:
                found[key] = Entity(
                    name=entity.name if alone else key,
                    join_keys=[key],
                    value_type=KEY_TYPES[value_type],
                    description=entity.description if alone else "",
                    owner=entity.owner if alone else "",
                    tags=_tags(entity) if alone else {},
                )
    return found


def _kafka_source(stream: EventStream) -> KafkaSource:
    """What a stream's messages hold, and its archive. The brokers are the deployment's business."""
    schema = ", ".join(f"{name} {str(dtype).lower()}" for name, dtype in stream.schema.items())
    return KafkaSource(
        name=_name_of(stream),
        topic=stream.topic,
        timestamp_field=stream.time,
        message_format=JsonFormat(schema_json=schema),
        kafka_bootstrap_servers="",
        watermark_delay_threshold=stream.allowed_lateness,
        batch_source=FileSource(
            name=f"{stream.name}_archive",
            path=str(events_folder(StoreSettings().data_root, stream)),
            file_format=ParquetFormat(),
            timestamp_field=stream.time,
            description=f"All accepted records of event stream {stream.name}.",
            owner=stream.owner,
        ),
        description=stream.description,
        owner=stream.owner,
        tags=_tags(stream, kind="event stream", event_time=stream.time, lateness=stream.allowed_lateness),
    )


def _name_of(stream: EventStream) -> str:
    return f"kafka_{stream.name}"


def _file_source(view: View) -> FileSource:
    # A push brings these columns; only the stream knows when a row was served.
    columns = {name: str(dtype) for name, dtype in offline_columns(view).items() if name != SERVED}
    name, about = f"{view.name}_source", "as published by a batch job."
    if isinstance(view, WindowedView):
        name, about = f"{_name_of(view.source)}_{view.name}", f"computed from event stream {view.source.name}."
    return FileSource(
        name=name,
        path=str(features_folder(StoreSettings().data_root, view.name)),
        file_format=ParquetFormat(),
        timestamp_field="event_timestamp",
        created_timestamp_column="created_timestamp",
        description=f"Rows of {view.name}, {about}",
        owner=view.owner,
        tags={COLUMNS_TAG: json.dumps(columns)},
    )


def _feature_view(view: View, entities: dict[str, Entity]) -> FeatureView:
    source: FileSource | PushSource = _file_source(view)
    derived: dict[str, str | timedelta | None] = {"kind": "batch view"}
    if isinstance(view, WindowedView):
        about = f"What event stream {view.source.name} pushes for {view.name}."
        source = PushSource(name=view.push_source, batch_source=source, description=about, owner=view.owner)
        derived = {"kind": "windowed view", "stream": view.source.name, "lateness": view.source.allowed_lateness}
        derived |= {"window": view.window, "slide": view.slide}
    return FeatureView(
        name=view.name,
        description=view.description,
        entities=[entities[key] for key in view.join_keys],
        ttl=view.ttl,
        schema=[Field(name=name, dtype=FEAST_TYPES[kind]) for name, kind in view.entity.join_keys.items()]
        + [_field(view, name) for name in view.features],
        source=source,
        online=True,
        owner=view.owner,
        tags=_tags(view, **derived, entity=view.entity.name, freshness=view.freshness),
    )


def _field(view: View, name: str) -> Field:
    """A feature; its description says what it is, if the declaration has none of its own."""
    feature, about = view.features[name], ""
    derived: dict[str, str | timedelta | None] = {"owner": feature.owner}
    if isinstance(view, WindowedView):
        formula = view.features[name].formula
        derived |= {"formula": formula, "window": view.window, "slide": view.slide}
        about = f"{formula}, in {in_words(view.window)} every {in_words(view.slide)}"
    return Field(
        name=name,
        dtype=FEAST_TYPES[view.value_types[name]],
        description=feature.description or about,
        tags=_tags(feature, **derived),
    )
