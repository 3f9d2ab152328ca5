"""The served schema: the views of a feature service from the registry, with their declared meaning."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from feast_repo.declare.events import milliseconds
from feast_repo.declare.views import WindowedView
from feast_repo.errors import RefusedError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import timedelta

    from feast import FeatureStore

    from feast_repo.declare.views import BatchView

MARGIN_MS = 60_000
"""Allowance beyond the lateness for closing, writing and announcing a window: epochs, retries, a restart."""


@dataclass(frozen=True)
class ServedView:
    """One view. Times in ms; `ttl_ms` is None if rows never expire, `stale_after_ms` if no stream writes the view."""

    name: str
    types: dict[str, str]
    ttl_ms: int | None
    stale_after_ms: int | None
    defaults: dict[str, Any]


@dataclass(frozen=True)
class ServedSchema:
    """The views that one feature service reads, for entities with one String join key."""

    project: str
    service: str
    join_key: str
    views: tuple[ServedView, ...]


class SchemaError(RefusedError):
    """The registry does not describe the feature service; the message names the remedy."""


def read_schema(store: FeatureStore, service_name: str, declared: Iterable[WindowedView | BatchView]) -> ServedSchema:
    """The service as currently stored in the registry's database, bypassing Feast's cache.

    A view or feature that is not declared here is also served, with null as its default.

    Raises:
        SchemaError: the registry has no such service, or the service needs more than a user's id.
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
    join_keys = {tuple(view.join_keys) for view in views.values()}
    if len(join_keys) != 1 or len(keys := join_keys.pop()) != 1:
        message = f"feature service {service_name!r} does not read views of one entity with one join key"
        raise SchemaError(message)
    meanings = {view.name: view for view in declared}
    served = [_served(one, views[one.name].ttl, meanings.get(one.name)) for one in projections]
    return ServedSchema(store.project, service_name, keys[0], tuple(served))


def _served(projection: Any, ttl: timedelta | None, meaning: WindowedView | BatchView | None) -> ServedView:
    types = {field.name: str(field.dtype) for field in projection.features}
    defaults = {} if meaning is None else meaning.defaults
    stale_after_ms = None
    if isinstance(meaning, WindowedView):
        # Just before the next window closes, the last one ended one slide plus the lateness ago.
        stale_after_ms = meaning.slide_ms + meaning.lateness_ms + MARGIN_MS
    return ServedView(
        name=projection.name,
        types=types,
        ttl_ms=milliseconds(ttl) if ttl else None,
        stale_after_ms=stale_after_ms,
        defaults={name: defaults.get(name) for name in types},
    )
