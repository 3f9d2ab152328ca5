"""Feast's objects, built from the declarations in `features.py`; `feast apply` reads this file."""

from __future__ import annotations

import json

from feast import Entity, FeatureService, FeatureView, Field, FileSource, PushSource, ValueType
from feast.data_format import ParquetFormat
from feast.types import Float64, Int64, String

from feast_repo.declare.views import SERVED, BatchView, WindowedView, offline_columns
from feast_repo.features import purchase_prediction
from feast_repo.settings import StoreSettings
from feast_repo.stores.offline.source_columns import COLUMNS_TAG
from feast_repo.stores.offline.tables import features_folder

FEAST_TYPES = {"Int64": Int64, "Float64": Float64, "String": String}

services = [purchase_prediction]
declared_views: list[WindowedView | BatchView] = list(
    {view.name: view for service in services for view in service.views}.values()
)


def _file_source(view: WindowedView | BatchView) -> FileSource:
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


def _feature_view(view: WindowedView | BatchView, entity: Entity) -> FeatureView:
    source: FileSource | PushSource = _file_source(view)
    if isinstance(view, WindowedView):
        source = PushSource(name=view.push_source, batch_source=source)
    return FeatureView(
        name=view.name,
        description=view.description,
        entities=[entity],
        ttl=view.ttl,
        schema=[
            Field(name=view.entity.join_key, dtype=String),
            *(Field(name=name, dtype=FEAST_TYPES[value_type]) for name, value_type in view.value_types.items()),
        ],
        source=source,
        online=True,
    )


def all_objects() -> list[Entity | FeatureView | FeatureService]:
    """Everything that `feast apply` registers, for the settings' DATA_ROOT; the sources come with their views."""
    entities = {
        view.entity.name: Entity(
            name=view.entity.name,
            join_keys=[view.entity.join_key],
            value_type=ValueType.STRING,
            description=view.entity.description,
        )
        for view in declared_views
    }
    views = {view.name: _feature_view(view, entities[view.entity.name]) for view in declared_views}
    feature_services = [
        FeatureService(
            name=service.name,
            description=service.description,
            features=[views[view.name] for view in service.views],
        )
        for service in services
    ]
    return [*entities.values(), *views.values(), *feature_services]


# `feast apply` reads a module's attributes, not containers.
globals().update({f"{type(one).__name__}_{one.name}": one for one in all_objects()})
