"""What the data below DATA_ROOT is: its random id, and which topic and declaration it came from.

`identity.json` is made once and moves with the folder, so a moved or restored folder is known again, and the data of
another one is not taken for it. A copy has the same id: `python -m stream.recovery adopt` gives it one of its own.
"""

from __future__ import annotations

import fcntl
import json
import logging
import uuid
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from feast_repo import disk
from feast_repo.tables import progress_folder

if TYPE_CHECKING:
    from collections.abc import Iterator

logger = logging.getLogger(__name__)

FILE = "identity.json"
UNKNOWN = "unknown"
"""What a broker that can't tell an id is put down with: librdkafka's own, and Kafka before 2.8."""


class IdentityError(ValueError):
    """The file is damaged, or what it says isn't what is there; the message names the remedy."""


@dataclass(frozen=True)
class StreamIdentity:
    """Where an event stream comes from. The ids are Kafka's, or UNKNOWN."""

    topic: str
    cluster_id: str
    topic_id: str
    partitions: int


@dataclass(frozen=True)
class Identity:
    """What a DATA_ROOT is: `id` (32 hex digits), Feast's project, its streams by declared name, and the view's meaning.

    `folder` is where the id was given (device and inode), so that `adopt` knows a copy. `streams` and `declaration` are
    empty until a run of the dataflow has recorded them.
    """

    id: str
    project: str
    folder: tuple[int, int]
    streams: dict[str, StreamIdentity] = field(default_factory=dict)
    declaration: dict[str, Any] = field(default_factory=dict)


def data_id(data_root: Path) -> str:
    """The id of the data below a folder, made when there is none.

    Raises:
        IdentityError: the file is damaged.
        OSError: the folder can't be written.
    """
    return ensure(data_root).id


def ensure(data_root: Path) -> Identity:
    """The identity of the data below a folder, made when there is none; several processes get the same one.

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
    if progress_folder(data_root).exists():
        logger.info("%s comes from an older version and had no identity: it is %s now", data_root, made.id)
    return made


def new(data_root: Path) -> Identity:
    """An identity with an id that no other data has; nothing is written."""
    return Identity(uuid.uuid4().hex, project(), folder(data_root))


def folder(data_root: Path) -> tuple[int, int]:
    """The folder's device and inode, which it keeps when it is renamed, and which a copy doesn't have.

    Raises:
        OSError: it isn't there.
    """
    status = data_root.stat()
    return status.st_dev, status.st_ino


def load(data_root: Path) -> Identity | None:
    """The identity of the data below a folder; None where it has none.

    Raises:
        IdentityError: the file is damaged.
        OSError: the file can't be read.
    """
    path = data_root / FILE
    try:
        told = json.loads(path.read_bytes())
        streams = {name: StreamIdentity(**stream) for name, stream in told["streams"].items()}
        device, inode = told["folder"]
        return Identity(told["id"], told["project"], (device, inode), streams, told["declaration"])
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        message = f"{path} is damaged ({error!r}): restore it, or `python -m stream.recovery adopt` makes a new one"
        raise IdentityError(message) from error


def save(data_root: Path, identity: Identity) -> None:
    """Replace the identity, durably and in one step. Whoever reads it to change it does so inside `writing`.

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


@contextmanager
def writing(data_root: Path) -> Iterator[None]:
    """Let one process at a time change the identity.

    Raises:
        OSError: the folder can't be written.
    """
    data_root.mkdir(parents=True, exist_ok=True)
    with (data_root / ".identity.lock").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def project() -> str:
    """The project's name in `feature_store.yaml`, as Feast reads it."""
    name: str = yaml.safe_load((Path(__file__).parent / "feature_store.yaml").read_text())["project"]
    return name
