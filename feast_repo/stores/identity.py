"""The identity of the data below DATA_ROOT: its random id, and the topic, declaration and registry it belongs to.

`identity.json` is created once and moves with the folder, so a moved or restored folder is recognized, and another
folder's data is not mistaken for it. A copy has the same id until `python -m stream.recovery adopt` gives it its own.

A registry is identified by the id that Feast gives each project in it. The id survives a teardown, a new apply, a
restore and a move to another database. A registry that was deleted and recreated can't be told from another
deployment's.
"""

from __future__ import annotations

import fcntl
import json
import logging
import uuid
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

import yaml

from feast_repo.errors import RefusedError
from feast_repo.settings import StoreSettings
from feast_repo.stores.offline import disk
from feast_repo.stores.offline.tables import PROGRESS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

logger = logging.getLogger(__name__)

FILE = "identity.json"
UNKNOWN = "unknown"
"""Stands for the ids of brokers that report none: librdkafka's own, and Kafka before 2.8."""


class IdentityError(RefusedError, ValueError):
    """The file is damaged, or contradicts what is found; the message names the remedy."""


@dataclass(frozen=True)
class StreamIdentity:
    """Where an event stream comes from. The ids are Kafka's, or UNKNOWN."""

    topic: str
    cluster_id: str
    topic_id: str
    partitions: int


@dataclass(frozen=True)
class Identity:
    """A DATA_ROOT's identity: `id` (32 hex digits), Feast's project, its streams and the views' meanings by name.

    `folder` is where the id was created (device and inode), by which `adopt` recognizes a copy. `streams`,
    `declarations` and `registries` (ids by Feast's project) are empty until a run of the dataflow has recorded them.
    """

    id: str
    project: str
    folder: tuple[int, int]
    streams: dict[str, StreamIdentity] = field(default_factory=dict)
    declarations: dict[str, dict[str, Any]] = field(default_factory=dict)
    registries: dict[str, str] = field(default_factory=dict)


def data_id(data_root: Path) -> str:
    """The id of the data below a folder, created if there is none.

    Raises:
        IdentityError: the file is damaged.
        OSError: the folder can't be written.
    """
    return ensure(data_root).id


def ensure(data_root: Path) -> Identity:
    """The identity of the data below a folder, created if there is none; concurrent processes get the same one.

    Raises:
        IdentityError: the file is damaged.
        OSError: the folder can't be written.
    """
    if (known := load(data_root)) is not None:
        return known
    with writing(data_root):
        if (known := load(data_root)) is not None:
            return known
        made = new(data_root)
        save(data_root, made)
    if holds_progress(data_root):
        logger.info("%s comes from an older version and had no identity: it is %s now", data_root, made.id)
    return made


def new(data_root: Path) -> Identity:
    """A new identity with a unique id; nothing is written."""
    return Identity(uuid.uuid4().hex, project(), folder(data_root))


def folder(data_root: Path) -> tuple[int, int]:
    """The folder's device and inode, which survive a rename and differ for a copy.

    Raises:
        OSError: the folder doesn't exist.
    """
    status = data_root.stat()
    return status.st_dev, status.st_ino


def load(data_root: Path) -> Identity | None:
    """The identity of the data below a folder; None if it has none.

    Raises:
        IdentityError: the file is damaged.
        OSError: the file can't be read.
    """
    path = data_root / FILE
    try:
        told = json.loads(path.read_bytes())
        streams = {name: StreamIdentity(**stream) for name, stream in told["streams"].items()}
        device, inode = told["folder"]
        registries = dict(told.get("registries", {}))  # older versions didn't record them
        declarations = told["declarations"] if "declarations" in told else of_one_view(dict(told["declaration"]))
        return Identity(told["id"], told["project"], (device, inode), streams, dict(declarations), registries)
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        message = f"{path} is damaged ({error!r}): restore it, or `python -m stream.recovery adopt` makes a new one"
        raise IdentityError(message) from error


def save(data_root: Path, identity: Identity) -> None:
    """Replace the identity durably and atomically. A read-modify-write must run inside `writing`.

    Raises:
        OSError: the disk is full or not writable; the old identity stays.
    """
    path = data_root / FILE
    temporary = path.with_suffix(".tmp")
    with disk.create(temporary) as file:
        file.write(json.dumps(asdict(identity), indent=1).encode())
        disk.sync(file)
    disk.rename(temporary, path)
    disk.sync_folder(data_root)


def check_registry(data_root: Path, project: str, registry: str) -> None:
    """Check that the data belongs to this registry, or to none of the project yet. Nothing is written.

    Raises:
        IdentityError: it belongs to another one, or the file is damaged.
        OSError: the file can't be read.
    """
    known = load(data_root)
    owner = registry if known is None else known.registries.get(project, registry)
    if owner not in {registry, UNKNOWN} and holds_progress(data_root):
        message = (
            f"{data_root} belongs to another registry (project {project!r} has the id {owner} there, and {registry} in "
            "this one): correct FEAST_REGISTRY_URL or DATA_ROOT; if the registry was lost and made anew, `python -m "
            "stream.recovery adopt RECOVERY_DIRECTORY`"
        )
        raise IdentityError(message)


def record_registry(data_root: Path, project: str, registry: str) -> None:
    """Record the registry that the data belongs to, replacing the previous one.

    Raises:
        IdentityError: the file is damaged.
        OSError: the folder can't be written.
    """
    ensure(data_root)
    with writing(data_root):
        known = load(data_root)
        assert known is not None  # noqa: S101  (nobody removes it)
        if known.registries.get(project) != registry:
            save(data_root, replace(known, registries={**known.registries, project: registry}))


@contextmanager
def writing(data_root: Path) -> Iterator[None]:
    """Lock the identity for changes by one process at a time.

    Raises:
        OSError: the folder can't be written.
    """
    data_root.mkdir(parents=True, exist_ok=True)
    with (data_root / ".identity.lock").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def of_one_view(declaration: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """What an older version recorded, which knew one view and not its name."""
    return {UNKNOWN: declaration} if declaration else {}


def holds_progress(data_root: Path) -> bool:
    """Whether a stream has stored data here."""
    return any((data_root / PROGRESS).rglob("*.parquet"))


def project() -> str:
    """The project's name in `feature_store.yaml`, as Feast reads it."""
    name: str = yaml.safe_load((StoreSettings().feature_repo / "feature_store.yaml").read_text())["project"]
    return name
