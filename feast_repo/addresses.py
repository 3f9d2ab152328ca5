"""Server addresses in the settings. Errors never show an address, because it may hold a password."""

from __future__ import annotations

import re
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit

_REDIS_FORM = "write it like redis://user:password@host:6379/0 (rediss:// with TLS, unix:///path/to/socket?db=0)"
_REGISTRY_FORM = "write it like postgresql+psycopg://user:password@host:5432/database or sqlite:////path/registry.db"
_QUOTED = "signs such as / # ? % @ : in a user or password are percent-encoded, / as %2F"
_TOPIC = re.compile(r"[a-zA-Z0-9._-]{1,249}")
_REGISTRIES = {"postgresql", "sqlite", "mysql", "mariadb"}
_REDIS_OPTIONS = re.compile(
    "db|username|password|client_name|protocol|timeout|max_connections|retry_on_timeout|health_check_interval|"
    "socket_(timeout|connect_timeout|keepalive)|ssl_[a-z_]+"
)


def redis_url(url: str) -> str:
    """A validated Redis URL that redis-py interprets as intended.

    Raises:
        ValueError: it is none.
    """
    if not url.startswith(("redis://", "rediss://", "unix://")):
        message = f"it begins with none of redis://, rediss:// and unix://: {_REDIS_FORM}"
        raise ValueError(message)
    parts = _split(url, _REDIS_FORM)
    options = parse_qs(parts.query, keep_blank_values=True)
    if unknown := [name for name in options if not _REDIS_OPTIONS.fullmatch(name)]:
        message = f"{len(unknown)} of its options are none of redis-py's: {_REDIS_FORM}; {_QUOTED}"
        raise ValueError(message)
    if not all(db.isdigit() for db in options.get("db", [])):
        message = f"db is the number of a database: {_REDIS_FORM}"
        raise ValueError(message)
    if parts.scheme == "unix":
        if not parts.path.strip("/"):
            message = f"it names no socket: {_REDIS_FORM}"
            raise ValueError(message)
    elif not parts.hostname:
        message = f"it names no host: {_REDIS_FORM}; {_QUOTED}"
        raise ValueError(message)
    elif not re.fullmatch(r"/?\d*", unquote(parts.path)) or parts.fragment:  # redis-py would take database 0
        message = f"after the host comes the number of a database, as in /0: {_REDIS_FORM}; {_QUOTED}"
        raise ValueError(message)
    return url


def shown(url: str) -> str:
    """A store's URL without user and password."""
    parts = urlsplit(url)
    db = parse_qs(parts.query).get("db", [""])[0]
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}" + (f"?db={db}" if db else "")


def registry_url(url: str) -> str:
    """A validated SQLAlchemy URL of a database that can hold Feast's registry; empty stays empty.

    Raises:
        ValueError: it is none.
    """
    if not url:
        return url
    scheme, separator, _ = url.partition("://")
    if not separator or scheme.partition("+")[0] not in _REGISTRIES:
        message = f"it names no database that Feast's registry can live in: {_REGISTRY_FORM}"
        raise ValueError(message)
    if not scheme.startswith("sqlite"):
        _split(url, _REGISTRY_FORM)
    return url


def kafka_brokers(brokers: str) -> str:
    """A validated comma-separated list of `host:port`; the port may be omitted.

    Raises:
        ValueError: an entry is not of that form.
    """
    for broker in brokers.split(","):
        if not re.fullmatch(r"([A-Za-z_]+://)?(\[[0-9A-Fa-f:.%]+\]|[^\s:/,@\[\]]+)(:\d{1,5})?", broker.strip()):
            message = "a broker is host:port, and several have commas between, such as broker-1:9092,broker-2:9092"
            raise ValueError(message)
    return brokers


def kafka_topics(told: str) -> str:
    """Validated topics: one name, or `stream=name,stream=name`.

    Raises:
        ValueError: Kafka doesn't allow a name, or a stream is named twice.
    """
    streams = [stream for stream, _ in topics(told)]
    if any(not _TOPIC.fullmatch(topic) or topic in {".", ".."} for _, topic in topics(told)):
        message = "a topic's name has 1 to 249 letters, digits, dots, dashes and underscores"
        raise ValueError(message)
    if len(set(streams)) < len(streams):
        message = "several topics are given as stream=topic,stream=topic, each stream once"
        raise ValueError(message)
    return told


def topics(told: str) -> list[tuple[str, str]]:
    """Stream and topic of each part of such a text; a topic alone has the stream ""."""
    parts = [part.strip().rpartition("=") for part in told.split(",")] if told else []
    return [(stream.strip(), topic.strip()) for stream, _, topic in parts]


def _split(url: str, form: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        _ = parts.port  # parsed on access
    except ValueError as error:
        message = f"its host or port can't be read: {form}; {_QUOTED}"
        raise ValueError(message) from error
    return parts
