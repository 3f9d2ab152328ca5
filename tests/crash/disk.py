"""The disk with a memory: real files, every operation a point where the machine can stop, and power cuts.

It stands in for the functions of `feast_repo.stores.offline.disk` and notes each operation. After a power cut, what was
not synced may be there or not: each name on its own, and of a file's content nothing, a half, or all.
"""

from __future__ import annotations

import itertools
import shutil
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

from feast_repo.stores.offline import disk

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    import pytest

TORN: tuple[Callable[[bytes], bytes], ...] = (lambda _: b"", lambda content: content[: len(content) // 2])
"""What a power cut may make of content that was not synced, beside leaving it whole."""

FOLDER = -1
"""In the place of a file's number: the name is a folder's."""

Tree = dict["Path", "bytes | None"]
"""All below a folder: the content of files, None for folders."""


class Entry(NamedTuple):
    """A change of names that no sync of their folder has made durable: `old` goes, `new` is there as `number`."""

    folder: Path
    old: Path | None
    new: Path | None
    number: int


@dataclass
class Memory:
    """What the disk holds for sure, and what it holds only if the power stays."""

    root: Path
    names: dict[Path, int] = field(default_factory=dict)
    contents: dict[int, bytes] = field(default_factory=dict)
    pending: list[Entry] = field(default_factory=list)
    unsynced: set[int] = field(default_factory=set)

    def states(self) -> Iterator[Tree]:
        """All trees that a power cut may leave: the worst first, what was last seen at the end."""
        for kept in itertools.product((False, True), repeat=len(self.pending)):
            names = self._names(kept)
            torn = sorted(self.unsynced & set(names.values()))
            for shapes in itertools.product((*TORN, bytes), repeat=len(torn)):
                yield self._tree(names, dict(zip(torn, shapes, strict=True)))

    def state_now(self) -> Tree:
        """What is seen as long as the power stays."""
        return self._tree(self.now(), {})

    def state(self, chance: random.Random) -> Tree:
        """One of them."""
        names = self._names([chance.random() < 0.5 for _ in self.pending])
        return self._tree(names, {number: chance.choice((*TORN, bytes)) for number in self.unsynced})

    def now(self) -> dict[Path, int]:
        """Which file has which name, as long as the power stays."""
        return self._names([True] * len(self.pending))

    def sync(self, folder: Path) -> None:
        """Make the changes of names in a folder durable."""
        mine = [entry.folder == folder for entry in self.pending]
        self.names = self._names(mine)
        self.pending = [entry for entry, is_mine in zip(self.pending, mine, strict=True) if not is_mine]

    def _names(self, kept: Sequence[bool]) -> dict[Path, int]:
        names = dict(self.names)
        for is_kept, entry in zip(kept, self.pending, strict=True):
            if is_kept:
                if entry.old is not None:
                    names.pop(entry.old, None)
                if entry.new is not None:
                    names[entry.new] = entry.number
        return names

    def _tree(self, names: Mapping[Path, int], shapes: Mapping[int, Callable[[bytes], bytes]]) -> Tree:
        tree: Tree = {}
        for path, number in sorted(names.items()):
            if path.parent == self.root or path.parent in tree:  # else its folder is gone
                whole = self.contents.get(number, b"")
                tree[path] = None if number == FOLDER else shapes.get(number, bytes)(whole)
        return tree


class SimulatedDisk:
    """The functions of `offline.disk`, for what is below a root. `point` is called before each operation."""

    def __init__(self, root: Path, point: Callable[[str], None]) -> None:
        self.root = root
        self.point = point
        self.memory = Memory(root)
        self._numbers = itertools.count()
        self._open: dict[int, tuple[int, Path]] = {}

    def install(self, patch: pytest.MonkeyPatch) -> None:
        """Take the place of the real operations."""
        for name in ("create", "sync", "rename", "remove", "sync_folder", "add_folder"):
            patch.setattr(disk, name, getattr(self, name))

    def settle(self) -> None:
        """Take what is there now as durable."""
        self.memory = Memory(self.root)
        for path in sorted(self.root.rglob("*")):
            if path.is_dir():
                self.memory.names[path] = FOLDER
            else:
                self.memory.names[path] = number = next(self._numbers)
                self.memory.contents[number] = path.read_bytes()

    def put(self, tree: Tree) -> None:
        """Have this below the root, and nothing else."""
        shutil.rmtree(self.root, ignore_errors=True)
        self.root.mkdir()
        for path, content in tree.items():
            if content is None:
                path.mkdir()
            else:
                path.write_bytes(content)
        self.settle()

    def create(self, path: Path) -> BinaryIO:
        self.point("create a file")
        file, number = path.open("wb"), next(self._numbers)
        self._open[id(file)] = number, path
        self._change(None, path, number)
        self.memory.unsynced.add(number)
        return file

    def sync(self, file: BinaryIO) -> None:
        number, path = self._open[id(file)]
        self.point("sync a file")
        file.flush()
        self.memory.contents[number] = path.read_bytes()
        self.memory.unsynced.discard(number)

    def rename(self, old: Path, new: Path) -> None:
        self.point(f"rename to {new.name}")
        number = self.memory.now()[old]
        if number in self.memory.unsynced:
            self.memory.contents[number] = old.read_bytes()
        old.replace(new)
        self._change(old, new, number)

    def remove(self, path: Path) -> None:
        self.point("remove a file")
        if path.exists():
            path.unlink()
            self._change(path, None, FOLDER)

    def add_folder(self, folder: Path) -> None:
        self.point(f"add folder {folder.name}")
        if not folder.is_dir():
            folder.mkdir()
            self._change(None, folder, FOLDER)

    def _change(self, old: Path | None, new: Path | None, number: int) -> None:
        folder = (old or new or self.root).parent
        self.memory.pending.append(Entry(folder, old, new, number))

    def sync_folder(self, folder: Path) -> None:
        self.point(f"sync folder {folder.name}")
        self.memory.sync(folder)
