"""The served schema: the views of a feature service from the registry, with their declared meaning."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from feast_repo.declare.entities import KEY_TYPES
from feast_repo.declare.events import milliseconds
from feast_repo.declare.freshness import stale_after_ms
from feast_repo.declare.views import WindowedView
from feast_repo.errors import RefusedError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import timedelta

    from feast import FeatureStore, FeatureView

    from feast_repo.declare.stored import View
    from serving.messages import Asked


@dataclass(frozen=True)
class ServedView:
    """One view; `join_keys` and `types` are Feast types by name.

    Times in ms; `ttl_ms` is None if rows never expire, `stale_after_ms` if they are never stale. Of a `streamed` view
    the stream's lag is limited, of others the row's age.
    """

    name: str
    join_keys: dict[str, str]
    types: dict[str, str]
    ttl_ms: int | None
    stale_after_ms: int | None
    defaults: dict[str, Any]
    streamed: bool = False


@dataclass(frozen=True)
class ServedSchema:
    """The views that one feature service reads; they may be of several entities."""

    project: str
    service: str
    views: tuple[ServedView, ...]

    @cached_property
    def join_keys(self) -> dict[str, str]:
        """The join keys of all views, with their types."""
        return {name: kind for view in self.views for name, kind in view.join_keys.items()}

    @cached_property
    def only_key(self) -> str | None:
        """The join key, if there is one only."""
        return next(iter(self.join_keys)) if len(self.join_keys) == 1 else None

    @cached_property
    def user_key(self) -> str | None:
        """The only join key, if it is a String: entities may then be given as plain ids."""
        return self.only_key if list(self.join_keys.values()) == ["String"] else None

    def entity(self, asked: Asked) -> Mapping[str, Any]:
        """The values of all join keys, by name.

        Raises:
            ValueError: one is missing or has another type; the message names it.
        """
        if isinstance(asked, str):
            if self.user_key is None:
                message = (
                    f"an id alone is no entity of {self.service!r}, whose join keys are {', '.join(self.join_keys)}"
                )
                raise ValueError(message)
            return {self.user_key: asked}
        for name, kind in self.join_keys.items():
            value = asked.get(name)
            if not (type(value) is str if kind == "String" else type(value) is int and -(1 << 63) <= value < 1 << 63):
                message = f"an entity of {self.service!r} needs the join key {name!r}, of type {kind}"
                raise ValueError(message)
        return asked


class SchemaError(RefusedError):
    """The registry does not describe the feature service; the message names the remedy."""


def read_schema(
    store: FeatureStore, service_name: str, declared: Iterable[View], freshness: timedelta | None = None
) -> ServedSchema:
    """The service as currently stored in the registry's database, bypassing Feast's cache.

    A view or feature that is not declared here is also served, with null as its default. `freshness`: the service's
    objective.

    Raises:
        SchemaError: the registry has no such service, or one of its views has join keys that are not served.
        sqlalchemy.exc.SQLAlchemyError: the registry's database is away.
    """
    from feast.errors import FeastObjectNotFoundException  # noqa: PLC0415  (Feast takes seconds to import)

    try:
        service = store.registry.get_feature_service(service_name, store.project)
        projections = list(service.feature_view_projections)
        views = {one.name: store.registry.get_feature_view(one.name, store.project) for one in projections}
    except FeastObjectNotFoundException as error:
        message = f"{' '.join(str(error).split())}: run `feast apply` in feast_repo/"
        raise SchemaError(message) from error
    meanings = {view.name: view for view in declared}
    served = [_served(one, views[one.name], meanings.get(one.name), freshness) for one in projections]
    schema = ServedSchema(store.project, service_name, tuple(served))
    for projection, view in zip(projections, served, strict=True):
        if problem := _problem(projection, view, schema):
            message = f"feature service {service_name!r}, view {view.name!r}: {problem}"
            raise SchemaError(message)
    return schema


def _problem(projection: Any, view: ServedView, schema: ServedSchema) -> str | None:
    """Why an entity's rows of the view could not be looked up."""
    if not view.join_keys:
        return "it has no join key, so it is not served"
    if projection.join_key_map:
        return "it renames join keys, which is not served"
    for name, kind in view.join_keys.items():
        if kind not in KEY_TYPES:
            return f"join key {name!r} is of type {kind}; served are {' and '.join(KEY_TYPES)}"
        if kind != schema.join_keys[name]:
            return f"join key {name!r} is of type {kind}, and {schema.join_keys[name]} in another view"
    return None


def _served(projection: Any, view: FeatureView, meaning: View | None, freshness: timedelta | None) -> ServedView:
    types = {field.name: str(field.dtype) for field in projection.features}
    defaults = {} if meaning is None else meaning.defaults
    return ServedView(
        name=projection.name,
        join_keys={field.name: str(field.dtype) for field in view.entity_columns},
        types=types,
        ttl_ms=milliseconds(view.ttl) if view.ttl else None,
        stale_after_ms=None if meaning is None else stale_after_ms(meaning, freshness),
        defaults={name: defaults.get(name) for name in types},
        streamed=isinstance(meaning, WindowedView),
    )
