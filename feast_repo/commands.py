"""What all commands share: one-line errors with exit codes, argument types, and stopping on a signal."""

from __future__ import annotations

import argparse
import errno
import math
import signal
import sys
import threading
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NoReturn, TypeVar

import polars as pl
from pydantic import ValidationError
from redis.exceptions import RedisError
from rich.console import Console

from feast_repo import signals
from feast_repo.catalog import CatalogError
from feast_repo.declare.catalog import ChoiceError
from feast_repo.errors import ExitCode, FeatureStoreError
from feast_repo.settings import problem
from feast_repo.stores.online.errors import explained

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from typing import Literal

    from feast import FeatureStore
    from redis import Redis

    from feast_repo.settings import StoreSettings

    Choice = Literal["view", "stream", "service"]
    Settings = TypeVar("Settings", bound=StoreSettings)

T = TypeVar("T")

IN_THE_MIDDLE = {errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
"""Errors of a disk that come while something is written, so that a part of it may be done."""
STOP_WITHIN_S = 8.0
"""After SIGTERM: orchestrators kill after ten seconds or more, and a killed process can't report unfinished work."""


class Command(argparse.ArgumentParser):
    """An argument parser that reports bad input in one line, without usage text, and allows no abbreviated options."""

    def __init__(self, prog: str, description: str) -> None:
        super().__init__(prog=prog, description=description, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        """Print one line to stderr and exit with 2."""
        self._end(message, ExitCode.REFUSED)

    def fail(self, error: FeatureStoreError) -> NoReturn:
        """Print the error's line to stderr and exit with its code."""
        self._end(str(error), error.exit_code)

    def _end(self, message: str, code: ExitCode) -> NoReturn:
        if signals.command is not None:
            signals.command.end_if_interrupted()
        line = " ".join(line.strip() for line in message.splitlines())  # inner spaces may belong to a path
        sys.stderr.write(f"{self.prog.removeprefix('python -m ')}: {line}\n")
        raise SystemExit(int(code))

    @contextmanager
    def telling(self, folder: Path) -> Iterator[None]:
        """Report store and file errors in one line and exit with their code; `folder` is DATA_ROOT."""
        try:
            yield
        except FeatureStoreError as error:
            self.fail(error)
        except RedisError as error:
            self.fail(explained(error))
        except OSError as error:
            self._end(str(error), ExitCode.FAILED if error.errno in IN_THE_MIDDLE else ExitCode.REFUSED)
        except pl.exceptions.PolarsError as error:
            self.error(f"a file below {folder} can't be read: {error}")

    def settings(self, kind: type[Settings]) -> Settings:
        """Settings from the environment; an error names the first wrong one without its value, which may be secret."""
        try:
            found = kind()
            found.catalog  # noqa: B018  (loaded here, so that a wrong declaration is reported here)
        except ValidationError as invalid:
            self.error(problem(invalid))
        except CatalogError as error:
            self.fail(error)
        return found

    def add_choice(self, kind: Choice, otherwise: str = "the only one") -> None:
        """Add `--view`, `--stream` or `--service`, a name in the catalog; `otherwise`: what is taken without it."""
        self.add_argument(f"--{kind}", metavar="NAME", help=f"{kind} of the catalog (default: {otherwise})")

    def chosen(self, choose: Callable[[str | None], T], name: str | None) -> T:
        """What one of the catalog's methods finds by a name, or without; exits with its line if it finds nothing."""
        try:
            return choose(name)
        except ChoiceError as error:
            self.fail(error)

    def feature_store(self) -> FeatureStore:
        """Feast's store; what the registry lacks of the declared views is added."""
        from feast_repo.stores.opening import ensure_applied, open_store  # noqa: PLC0415  (Feast takes seconds to import)

        try:
            store = open_store()
            ensure_applied(store)
        except FeatureStoreError as error:
            self.fail(error)
        except OSError as error:
            self.error(str(error))
        return store

    def claim_redis(self, redis: Redis, project: str, settings: StoreSettings) -> None:
        """Before rows are written: refuse a Redis with another DATA_ROOT's data, and report where the rows go.

        Raises:
            ForeignRedisError: it holds other data.
            redis.RedisError: Redis is away.
            OSError: the folder can't be written.
        """
        from feast_repo.stores.online.owner import claim_settings  # noqa: PLC0415  (it imports features)

        _, where = claim_settings(redis, project, settings)
        sys.stderr.write(f"{self.prog.removeprefix('python -m ')}: {where}\n")

    def check_redis(self, store: FeatureStore, settings: StoreSettings) -> None:
        """Before rows are read: refuse a Redis with another DATA_ROOT's data.

        Raises:
            ForeignRedisError: it holds other data.
            redis.RedisError: Redis is away.
        """
        from feast_repo.stores.online.owner import check  # noqa: PLC0415
        from feast_repo.stores.online.store import RedisUrlOnlineStoreConfig, connect  # noqa: PLC0415  (needs Feast)

        if isinstance(store.config.online_store, RedisUrlOnlineStoreConfig):
            with connect(settings.redis_url) as redis:
                check(redis, store.project, settings.data_root)


def instant(text: str) -> datetime:
    """Parse an ISO 8601 time argument; without an offset it is UTC."""
    try:
        time = datetime.fromisoformat(text)
    except ValueError as error:
        message = f"{text!r} is no ISO 8601 time; write it like 2026-01-31T12:00:00Z"
        raise argparse.ArgumentTypeError(message) from error
    return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)


def integer(minimum: int, maximum: int) -> Callable[[str], int]:
    """An argument type for whole numbers within bounds."""

    def parse(text: str) -> int:
        if text.isascii() and text.isdigit() and minimum <= int(text) <= maximum:
            return int(text)
        message = f"{text!r} is no whole number from {minimum:,} to {maximum:,}"
        raise argparse.ArgumentTypeError(message)

    return parse


def number(*, above: float | None = None, minimum: float = 0.0, maximum: float = math.inf) -> Callable[[str], float]:
    """An argument type for finite numbers above a bound or from a minimum on."""

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        enough = value >= minimum if above is None else value > above
        if enough and value <= maximum and math.isfinite(value):
            return value
        low = f"from {minimum:g}" if above is None else f"above {above:g}"
        message = f"{text!r} is no number {low}" + (f" to {maximum:g}" if math.isfinite(maximum) else "")
        raise argparse.ArgumentTypeError(message)

    return parse


def as_it_is() -> Console:
    """A console for stdout that prints text verbatim, without markup or emoji names.

    Tables fit a terminal; in a file or a pipe they are as wide as their content, for programs to read.
    """
    return Console(width=None if sys.stdout.isatty() else 1_000, markup=False, emoji=False)


@contextmanager
def stop_event(unfinished: str = "") -> Iterator[threading.Event]:
    """An event that SIGTERM and SIGINT set within the block; the previous handlers are restored afterwards.

    A command still running `STOP_WITHIN_S` after the first signal is ended, whatever it waits for: with exit code 1 and
    the line `unfinished`, which says what is not done, or with 0 if `unfinished` is empty.
    """
    stop = threading.Event()
    if signals.command is not None:
        line = f"{signals.module()}: {unfinished}" if unfinished else ""
        signals.command.allow(STOP_WITHIN_S, lambda _: (int(bool(unfinished)), line))
    before = {number: signal.signal(number, lambda *_: stop.set()) for number in signals.STOPS}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
