"""Opens Feast's store for our commands: from the settings, with a registry that has the declarations."""

from __future__ import annotations

import logging
import random
import threading
import time
from concurrent.futures import Future
from typing import TYPE_CHECKING

from feast import FeatureStore, FeatureView
from feast.errors import FeastError
from sqlalchemy.exc import SQLAlchemyError

from feast_repo.errors import RefusedError, UnavailableError
from feast_repo.settings import StoreSettings
from feast_repo.stores import identity, registry

if TYPE_CHECKING:
    from collections.abc import Callable

logger = logging.getLogger(__name__)

TRIES = 6
ANSWER_WITHIN_S = 5.0
"""For all attempts together: a starting command reports within 15 s, imports included, that the registry is away."""


class RegistryMismatchError(RefusedError):
    """The registry differs from the declarations; the message names the remedy."""


class RegistryUnavailableError(UnavailableError):
    """The registry's database does not answer; the message names the remedy."""


def open_store() -> FeatureStore:
    """Feast's store with the settings' registry, Redis and Parquet folder.

    Raises:
        RegistryUnavailableError: the registry's database does not answer.
    """
    registry.install()
    store = FeatureStore(repo_path=str(StoreSettings().feature_repo))
    despite_others(lambda: store.registry)  # the first use connects and creates the tables
    return store


def ensure_applied(store: FeatureStore) -> None:
    """Ensure that the registry holds the views as declared.

    Missing objects are added (for a new registry, all of them); existing objects are never changed. Safe to call from
    several processes at once.

    Raises:
        IdentityError: the data below DATA_ROOT belongs to another registry; nothing was changed.
        RegistryMismatchError: the registry holds a view that differs from the declaration.
        RegistryUnavailableError: the registry's database does not answer.
    """
    from feast_repo.feast_objects import all_objects  # noqa: PLC0415  (stores come before declarations)

    identity.check_registry(StoreSettings().data_root, store.project, registry_id(store))

    def complete() -> None:
        objects = all_objects(StoreSettings().catalog)
        declared = {one.name: one for one in objects if isinstance(one, FeatureView)}
        known = {one.name: one for one in store.registry.list_feature_views(store.project, allow_cache=False)}
        both = sorted(declared.keys() & known.keys())
        if differing := [name for name in both if _meaning(declared[name]) != _meaning(known[name])]:
            message = (
                f"the registry's {', '.join(differing)} differ from the declaration or point to another DATA_ROOT: "
                "run `feast apply` in the folder of features.py, or correct DATA_ROOT or FEAST_REGISTRY_URL"
            )
            raise RegistryMismatchError(message)
        held = {
            *(("FeatureView", name) for name in known),
            *(("Entity", one.name) for one in store.registry.list_entities(store.project, allow_cache=False)),
            *(("KafkaSource", one.name) for one in store.registry.list_data_sources(store.project, allow_cache=False)),
            *(("FeatureService", one.name) for one in store.registry.list_feature_services(store.project)),
        }
        if lacking := [one for one in objects if (type(one).__name__, one.name) not in held]:
            logger.info("adding to the registry: %s", ", ".join(one.name for one in lacking))
            store.apply(lacking)

    despite_others(complete)
    despite_others(store.refresh_registry)


def registry_id(store: FeatureStore) -> str:
    """The registry's identity: Feast's random id of the project in it.

    Raises:
        RegistryUnavailableError: the registry's database does not answer.
    """
    found: list[str | None] = []
    despite_others(lambda: found.append(store.registry.get_project_metadata(store.project, "project_uuid")))
    return found[-1] or identity.UNKNOWN


def despite_others(operation: Callable[[], object]) -> None:
    """Run an operation on the registry; retry if another process is creating the same tables or rows.

    Raises:
        RegistryUnavailableError: the database keeps failing, or does not answer within `ANSWER_WITHIN_S`.
    """
    deadline = time.monotonic() + ANSWER_WITHIN_S
    for attempt in range(1, TRIES + 1):
        try:
            _answered(operation, deadline - time.monotonic())
        except (SQLAlchemyError, FeastError, TimeoutError) as error:
            if attempt == TRIES or time.monotonic() > deadline:
                if isinstance(error, FeastError):
                    raise
                reason = str(getattr(error, "orig", None) or error).strip().partition("\n")[0]
                message = f"Feast's registry does not answer: {reason}; check FEAST_REGISTRY_URL"
                raise RegistryUnavailableError(message) from error
            time.sleep(random.uniform(0.05, 0.2) * attempt)  # noqa: S311  (jitter, not a secret)
        else:
            return


def _answered(operation: Callable[[], object], within_s: float) -> None:
    """Run an operation on the registry in a thread that can be abandoned: drivers wait forever for a frozen server.

    Raises:
        TimeoutError: it takes longer.
    """
    done: Future[object] = Future()

    def work() -> None:
        try:
            done.set_result(operation())
        except BaseException as error:  # noqa: BLE001  (raised where it is waited for)
            done.set_exception(error)

    threading.Thread(target=work, name="registry", daemon=True).start()
    try:
        done.result(max(0.0, within_s))
    except TimeoutError:
        if done.done():  # the operation itself raised it
            raise
        message = f"no answer within {ANSWER_WITHIN_S:.0f} s"
        raise TimeoutError(message) from None


def _meaning(view: FeatureView) -> tuple[object, ...]:
    """The parts of a view that must be equal in registry and declaration for the stream to write it."""
    fields = [(field.name, str(field.dtype)) for field in view.features]
    stream = None if view.stream_source is None else view.stream_source.name
    return (view.join_keys, sorted(fields), view.ttl, view.batch_source.path, stream)
