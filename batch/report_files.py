"""Writes a report as two files, each atomically: JSON for programs and an HTML page for people."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path


class Named(Protocol):
    """A declaration with a name."""

    @property
    def name(self) -> str:
        """Unique among its kind."""


def stem(what: str, about: Named, among: Sequence[Named]) -> str:
    """The name of files about a declaration: it is part of the name if the catalog has several of its kind."""
    return f"{what}-{about.name}" if len(among) > 1 else what


def write_report(folder: Path, stem: str, report: Mapping[str, Any], page: str) -> list[Path]:
    """Write `<stem>.json` and `<stem>.html`; returns the files.

    Raises:
        OSError: the folder is not writable.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for suffix, text in (("json", json.dumps(report, indent=1) + "\n"), ("html", page)):
        file = folder / f"{stem}.{suffix}"
        temporary = file.with_name(f".{file.name}.{os.getpid()}.tmp")
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(file)
        files.append(file)
    return files
