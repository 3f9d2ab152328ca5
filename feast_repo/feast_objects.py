"""Feast's objects, built from the catalog."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from feast import Entity, FeatureService, FeatureView, Field, FileSource, PushSource, ValueType
from feast.data_format import ParquetFormat
from feast.types import Array, Bool, Float64, Int64, String

from feast_repo.catalog import load
from feast_repo.declare.rows import SERVED
from feast_repo.declare.stored import offline_columns
from feast_repo.declare.views import WindowedView
from feast_repo.settings import StoreSettings
from feast_repo.stores.offline.source_columns import COLUMNS_TAG
from feast_repo.stores.offline.tables import features_folder

if TYPE_CHECKING:
    from feast_repo.declare.catalog import Catalog
    from feast_repo.declare.stored import View

FeastObject: TypeAlias = Entity | FeatureView | FeatureService
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
        )
        for service in catalog.services
    ]
    return [*entities.values(), *views.values(), *services]


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
                )
    return found


def _file_source(view: View) -> FileSource:
    # A push brings these columns; only the stream knows when a row was served.
    columns = {name: str(dtype) for name, dtype in offline_columns(view).items() if name != SERVED}
    return FileSource(
        name=f"{view.name}_source",
        path=str(features_folder(StoreSettings().data_root, view.name)),
        file_format=ParquetFormat(),
        timestamp_field="event_timestamp",
        created_timestamp_column="created_timestamp",
        tags={COLUMNS_TAG: json.dumps(columns)},
    )


def _feature_view(view: View, entities: dict[str, Entity]) -> FeatureView:
    source: FileSource | PushSource = _file_source(view)
    if isinstance(view, WindowedView):
        source = PushSource(name=view.push_source, batch_source=source)
    types = {**view.entity.join_keys, **view.value_types}
    return FeatureView(
        name=view.name,
        description=view.description,
        entities=[entities[key] for key in view.join_keys],
        ttl=view.ttl,
        schema=[Field(name=name, dtype=FEAST_TYPES[value_type]) for name, value_type in types.items()],
        source=source,
        online=True,
    )
