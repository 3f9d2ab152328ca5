"""What a running sandbox consists of, on disk: for `down` and `status`, and for the commands that use it.

`DATA_ROOT/sandbox/state.json` lists the parts; `sandbox.env` at the project's root holds the settings that lead to
them, which `StoreSettings` reads.
Both appear whole or not at all, readable by their owner only (URLs may hold passwords).
"""

from __future__ import annotations

import json
import os
import re
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from dotenv import dotenv_values

import feast_repo.settings
from sandbox.processes import Process

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True)
class StackPart:
    """One part of a sandbox: where it answers, and the process if we started one."""

    role: str  # kafka, redis
    kind: str  # embedded, apache, valkey, yours
    url: str
    name: str
    limits: str = ""
    pid: int = 0
    started: str = ""
    log: str = ""
    control: str = ""

    @property
    def process(self) -> Process | None:
        """The process that we started, None for a server of the user's own."""
        return Process(self.pid, self.started) if self.pid else None


@dataclass(frozen=True)
class State:
    """A sandbox that is up, or was when its state was written."""

    parts: tuple[StackPart, ...]
    environment: dict[str, str]

    def part(self, role: str) -> StackPart | None:
        """The part with this role."""
        return next((part for part in self.parts if part.role == role), None)


def state_file(data_root: Path) -> Path:
    """Where the state of this data root's sandbox is."""
    return data_root / "sandbox" / "state.json"


def load(data_root: Path) -> State | None:
    """The state; None if no sandbox was started here (or the file is not a state of ours)."""
    try:
        found = json.loads(state_file(data_root).read_text())
        return State(tuple(StackPart(**part) for part in found["parts"]), dict(found["environment"]))
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None


def save(data_root: Path, state: State) -> None:
    """Write the state, and `sandbox.env` for every command started from now on."""
    write_private(state_file(data_root), json.dumps(asdict(state), indent=2))
    lines = ["# Written by `python -m sandbox up`; `python -m sandbox down` removes it."]
    lines += [f"{name}={quoted(value)}" for name, value in state.environment.items()]
    write_private(feast_repo.settings.SANDBOX_ENV, "\n".join(lines) + "\n")


def forget(data_root: Path) -> None:
    """Remove the state, and `sandbox.env` if it belongs to this data root."""
    if settings_root() in {None, data_root}:
        feast_repo.settings.SANDBOX_ENV.unlink(missing_ok=True)
    state_file(data_root).unlink(missing_ok=True)


def settings_root() -> Path | None:
    """The data root that `sandbox.env` names, None without such a file."""
    named = dotenv_values(feast_repo.settings.SANDBOX_ENV).get("DATA_ROOT")
    return Path(named) if named else None


def quoted(value: str) -> str:
    """A value for an env file: plain if possible, because not every reader removes quotes."""
    if re.fullmatch(r"[\w./:@,+-]*", value):
        return value
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def write_private(path: Path, text: str) -> None:
    """Replace a file's content atomically, with access for its owner only."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # created with mode 0600
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
    Path(temporary).replace(path)


def without_password(url: str) -> str:
    """A URL that is safe to show."""
    parts = urlsplit(url)
    return parts._replace(netloc=f"***@{parts.netloc.rpartition('@')[2]}").geturl() if "@" in parts.netloc else url


def shown(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment without passwords."""
    return {name: without_password(value) for name, value in environment.items()}
