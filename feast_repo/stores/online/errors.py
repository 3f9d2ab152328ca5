"""Classifies Redis errors: whether waiting helps, and the one-line message with the remedy."""

from __future__ import annotations

from redis.exceptions import (
    AskError,
    AuthenticationError,
    AuthorizationError,
    BusyLoadingError,
    ClusterDownError,
    ConnectionError as RedisConnectionError,
    MasterDownError,
    NoPermissionError,
    NoScriptError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
    TimeoutError as RedisTimeoutError,
    TryAgainError,
)

from feast_repo.errors import FeatureStoreError, RefusedError, UnavailableError

PASSING_REPLIES = frozenset(
    {"LOADING", "READONLY", "NOREPLICAS", "MISCONF", "MASTERDOWN", "CLUSTERDOWN", "BUSY", "OOM", "TRYAGAIN"}
)
"""First words of error replies from a server that will accept the same command later."""

_PASSING = (
    RedisConnectionError,
    RedisTimeoutError,
    ReadOnlyError,
    OutOfMemoryError,
    MasterDownError,
    ClusterDownError,
    TryAgainError,
)
_REFUSED = (AuthenticationError, AuthorizationError, NoPermissionError)
_OF_REPLY: dict[str, type[RedisError]] = {
    "LOADING": BusyLoadingError,
    "NOSCRIPT": NoScriptError,
    "READONLY": ReadOnlyError,
    "OOM": OutOfMemoryError,
    "NOAUTH": AuthenticationError,
    "NOPERM": NoPermissionError,
}


class ClusterNodeError(RedisError):
    """REDIS_URL names a node of a Redis Cluster, where most keys live elsewhere."""

    def __init__(self) -> None:
        super().__init__(
            "REDIS_URL names a node of a Redis Cluster, and this online store keeps all keys on one server: name a "
            "server without cluster mode, or use Feast's own store (online_store: type: redis, redis_type: "
            "redis_cluster, in feature_store.yaml)"
        )


def reply_error(text: str) -> RedisError:
    """The exception for an error reply, in the form hiredis requires."""
    code = text.partition(" ")[0]
    return ClusterNodeError() if code in {"MOVED", "ASK"} else _OF_REPLY.get(code, ResponseError)(text)


def can_pass(error: Exception) -> bool:
    """Whether the same command may succeed later without a change of settings."""
    if isinstance(error, _REFUSED):  # connection errors in redis-py, because a connection begins with a login
        return False
    return isinstance(error, _PASSING) or str(error).partition(" ")[0] in PASSING_REPLIES


def explained(error: RedisError) -> FeatureStoreError:
    """The error for users, in one line with the remedy; its exit code says whether a retry may help."""
    if isinstance(error, ClusterNodeError | AskError):
        return RefusedError(str(ClusterNodeError()))
    if isinstance(error, _REFUSED):
        return RefusedError(f"Redis refuses us ({error}): correct REDIS_URL (its user and password)")
    if can_pass(error):
        return UnavailableError(f"Redis does not answer ({error}): check REDIS_URL, then run this again")
    return RefusedError(f"Redis refuses a command ({error}): check REDIS_URL and the server's configuration")
