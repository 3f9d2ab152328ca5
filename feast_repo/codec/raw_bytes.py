"""Raw bytes within a line of JSON: as text if they are UTF-8, else as base64 under a name that says so."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping


def as_member(name: str, data: bytes | None) -> dict[str, str | None]:
    """The JSON member that holds the bytes: `name`, or `<name>_base64`."""
    try:
        return {name: None if data is None else data.decode()}
    except UnicodeDecodeError:
        return {f"{name}_base64": base64.b64encode(data or b"").decode()}


def from_member(name: str, line: Mapping[str, Any]) -> bytes:
    """The bytes that `as_member` wrote.

    Raises:
        KeyError, TypeError, AttributeError, ValueError: the member is missing, or is not text or not base64.
    """
    if f"{name}_base64" in line:
        return base64.b64decode(line[f"{name}_base64"], validate=True)
    data: bytes = line[name].encode()
    return data
