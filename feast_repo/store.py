"""Opening Feast's store as our commands do: from the settings, with a registry that knows the declarations."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import TYPE_CHECKING

from feast import FeatureStore
from sqlalchemy.exc import SQLAlchemyError

from feast_repo import registry

if TYPE_CHECKING:
    from feast import FeatureView

logger = logging.getLogger(__name__)

REPO = Path(__file__).resolve().parent
TRIES = 5


class RegistryMismatchError(Exception):
    """The registry holds something else than the declarations; the message names the remedy."""


def open_store() -> FeatureStore:
    """Feast's store with the settings' registry, Redis and Parquet folder."""
    registry.install()
    for attempt in range(1, TRIES + 1):
        try:
            return FeatureStore(repo_path=str(REPO))
        except SQLAlchemyError:  # another process is just creating the same tables
            if attempt == TRIES:
                raise
            time.sleep(0.2 * attempt)
    raise AssertionError


def ensure_applied(store: FeatureStore) -> None:
    """Make sure that the registry holds the views as they are declared.

    A registry without any view gets them, since there is nothing to overwrite; several processes may do this at once.

    Raises:
        RegistryMismatchError: it holds views, and they differ from the declarations.
    """
    from feast_repo.definitions import entities, feature_services, feature_views  # noqa: PLC0415  (reads the settings)

    declared = {name: _meaning(view) for name, view in feature_views.items()}
    for attempt in range(1, TRIES + 1):
        if not store.registry.list_feature_views(store.project, allow_cache=False):
            logger.info("the registry is empty: applying the declared features")
            try:
                store.apply([*entities.values(), *feature_views.values(), *feature_services])
            except SQLAlchemyError:
                if attempt == TRIES:
                    raise
                time.sleep(0.2 * attempt)
                continue
        break
    known = {view.name: _meaning(view) for view in store.registry.list_feature_views(store.project, allow_cache=False)}
    if differing := sorted(name for name, meaning in declared.items() if known.get(name) != meaning):
        message = (
            f"the registry's {', '.join(differing)} differ from the declaration or point to another DATA_ROOT: "
            "run `feast apply` in feast_repo/, or correct DATA_ROOT or FEAST_REGISTRY_URL"
        )
        raise RegistryMismatchError(message)
    store.refresh_registry()


def _meaning(view: FeatureView) -> tuple[object, ...]:
    """What must be equal for the stream to write what the registry describes."""
    fields = [(field.name, str(field.dtype)) for field in view.features]
    stream = None if view.stream_source is None else view.stream_source.name
    return (view.join_keys, sorted(fields), view.ttl, view.batch_source.path, stream)
