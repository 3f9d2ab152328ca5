"""The layout of a JSON object as types for msgspec: members at their paths, in objects within objects."""

from __future__ import annotations

from operator import attrgetter
from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

Path: TypeAlias = tuple[str, ...]


class Layout:
    """An object with values of known types at some paths, none of which leads through another.

    An absent or null value is None. Other members are skipped.
    """

    def __init__(self, wires: Mapping[Path, Any]) -> None:
        members: dict[str, dict[Path, Any]] = {}
        for path, wire in wires.items():
            members.setdefault(path[0], {})[path[1:]] = wire
        self._values: list[tuple[str, Callable[[Any], Any]]] = []
        self._objects: list[tuple[str, Callable[[Any], Any], Layout]] = []
        fields, names = [], {}
        for position, (name, below) in enumerate(members.items()):
            attribute = f"field_{position}"  # a member may have any name, an attribute may not
            names[attribute] = name
            if () in below:
                fields.append((attribute, below[()] | None, None))
                self._values.append((name, attrgetter(attribute)))
            else:
                inner = Layout(below)
                fields.append((attribute, inner.type | None, None))
                self._objects.append((name, attrgetter(attribute), inner))
        self.type: Any = msgspec.defstruct("Layout", fields, rename=names, gc=False)
        self.blank = self.type()

    def lists(self, objects: Sequence[Any]) -> dict[Path, list[Any]]:
        """The values at each path, one for each of the objects."""
        found: dict[Path, list[Any]] = {(name,): list(map(get, objects)) for name, get in self._values}
        for name, get, inner in self._objects:
            within = [held or inner.blank for held in map(get, objects)]
            found |= {(name, *path): values for path, values in inner.lists(within).items()}
        return found
