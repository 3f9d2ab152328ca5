"""Whose data Redis holds: `<project>:identity` has the id (see `identity.py`) and the location of the DATA_ROOT.

All keys include the project's name, so several projects can share a server. Two DATA_ROOTs of one project can't: each
would serve the other's rows. Data from a folder on this machine that no longer exists has no owner: the next DATA_ROOT
takes Redis over, and logs that.
"""

from __future__ import annotations

import logging
import re
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

from feast_repo.addresses import shown
from feast_repo.errors import RefusedError
from feast_repo.stores.identity import data_id, load
from feast_repo.stores.online.marker import SWAP_MARK, marker_key
from feast_repo.stores.progress import confirmed_key, progress_key

if TYPE_CHECKING:
    from redis import Redis

    from feast_repo.settings import StoreSettings

logger = logging.getLogger(__name__)


class ForeignRedisError(RefusedError, ValueError):
    """Redis holds the data of another DATA_ROOT; the message names the remedy."""


def identity_key(project: str) -> str:
    """The Redis key of the id."""
    return f"{project}:identity"


def claim(redis: Redis, project: str, data_root: Path) -> bool:
    """Before writing: ensure that Redis holds this data or none; returns whether it has just become this data's.

    Raises:
        ForeignRedisError: it holds other data; nothing was changed.
        redis.RedisError: Redis is away.
        OSError: the folder can't be written.
    """
    mine = _Owner(data_id(data_root), socket.gethostname(), str(data_root))
    key = identity_key(project)
    if redis.set(key, mine.written(), nx=True):
        return True
    held = cast("bytes", redis.get(key))
    owner = _Owner.read(held)
    if owner.id == mine.id:
        if owner != mine:  # the folder has moved
            redis.set(key, mine.written())
        return False
    if not owner.is_gone:
        raise ForeignRedisError(_refusal(owner, mine.id, project, data_root))
    if redis.eval(SWAP_MARK, 1, key, held, mine.written()):
        for key_of in (progress_key, confirmed_key):  # the other data's positions
            if keys := list(redis.scan_iter(match=_literal(key_of(project, "")) + "*")):
                redis.delete(*keys)
        logger.warning(
            "Redis holds rows of data that was in %s, which is no longer there: they are taken over, and stay until "
            "newer rows replace them or they expire; to begin with an empty Redis, run FLUSHDB on it",
            owner.folder,
        )
        return True
    return claim(redis, project, data_root)  # another process was faster


def claim_settings(redis: Redis, project: str, settings: StoreSettings) -> tuple[bool, str]:
    """As `claim`, for the Redis of the settings, which has no owner if no setting names it; also returns a log line.

    Raises:
        ForeignRedisError: it holds other data; nothing was changed.
        redis.RedisError: Redis is away.
        OSError: the folder can't be written.
    """
    known = [identity_key(project), *(marker_key(project, view.name) for view in settings.catalog.views)]
    is_set = "redis_url" in settings.model_fields_set
    if not is_set and redis.dbsize() and not redis.exists(*known):
        message = (
            f"REDIS_URL is not set, and Redis at {shown(settings.redis_url)} holds keys of somebody else: set "
            "REDIS_URL, or start the sandbox"
        )
        raise ForeignRedisError(message)
    is_new = claim(redis, project, settings.data_root)
    return is_new, f"writing to Redis at {shown(settings.redis_url)}, project {project}, from {settings.data_root}"


def check(redis: Redis, project: str, data_root: Path) -> None:
    """Before reading: as `claim`, but nothing is written. A folder without data of its own may read any Redis.

    Raises:
        ForeignRedisError: it holds other data.
        redis.RedisError: Redis is away.
    """
    held = cast("bytes | None", redis.get(identity_key(project)))
    known = load(data_root)
    if held is not None and known is not None and (owner := _Owner.read(held)).id != known.id:
        raise ForeignRedisError(_refusal(owner, known.id, project, data_root))


def adopt(redis: Redis, project: str, data_root: Path) -> None:
    """Record that Redis holds this data from now on, whatever it held before.

    Raises:
        redis.RedisError: Redis is away.
        OSError: the folder can't be written.
    """
    owner = _Owner(data_id(data_root), socket.gethostname(), str(data_root))
    redis.set(identity_key(project), owner.written())


@dataclass(frozen=True)
class _Owner:
    """The owner of the data in Redis: its id, and the machine and folder that it was last written from."""

    id: str
    host: str = ""
    folder: str = ""

    @classmethod
    def read(cls, held: bytes) -> _Owner:
        return cls(*held.decode().split("\n", 2))

    def written(self) -> str:
        return f"{self.id}\n{self.host}\n{self.folder}"

    @property
    def is_gone(self) -> bool:
        return self.host == socket.gethostname() and not Path(self.folder).exists()


def _literal(key: str) -> str:
    """A key as a pattern that matches nothing else."""
    return re.sub(r"([\\*?\[\]^-])", r"\\\1", key)


def _refusal(owner: _Owner, mine: str, project: str, data_root: Path) -> str:
    where = f" in {owner.folder} on {owner.host}" if owner.folder else ""
    return (
        f"Redis holds project {project!r} of another DATA_ROOT (data {owner.id}{where}; {data_root} is data {mine}): "
        "use another database number in REDIS_URL or another project in feature_store.yaml, or `python -m "
        "stream.recovery adopt` if the data was moved on purpose"
    )
