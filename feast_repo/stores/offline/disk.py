"""Durable data files: the few disk operations that the guarantees depend on, by their order.

    with disk.create(temporary) as file:
        ...
        disk.sync(file)
    disk.rename(temporary, path)
    disk.sync_folder(path.parent)

A file's content survives a power cut after `sync`; its name, and so the effect of a rename, after `sync_folder`.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    from pathlib import Path

_durable: set[Path] = set()
"""Folders that this process knows to be durable."""


def create(path: Path) -> BinaryIO:
    """Open a file for writing, new or truncated.

    Raises:
        OSError: the disk is full or not writable.
    """
    return path.open("wb")


def sync(file: BinaryIO) -> None:
    """Make the written content durable.

    Raises:
        OSError: the disk is full or broken.
    """
    file.flush()
    os.fsync(file.fileno())


def rename(old: Path, new: Path) -> None:
    """Rename a file, replacing an existing one.

    Raises:
        OSError: the folder is not writable.
    """
    old.replace(new)


def remove(path: Path) -> None:
    """Remove a file, if it exists.

    Raises:
        OSError: the folder is not writable.
    """
    path.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable.

    Raises:
        OSError: the disk is broken.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_folder(folder: Path) -> None:
    """Create a folder and its missing parents, each durable in its parent.

    A run may have been killed between creating a folder and making it durable, so each process syncs an existing folder
    on first use.

    Raises:
        OSError: the disk is full or not writable.
    """
    if folder.is_dir():
        if folder in _durable:
            return
    else:
        make_folder(folder.parent)
        add_folder(folder)
    if os.access(folder.parent, os.R_OK | os.W_OK):  # otherwise we did not create it
        sync_folder(folder.parent)
    _durable.add(folder)


def settle(folder: Path) -> None:
    """Make a folder's content durable before relying on it: its writer may have been killed just before doing so.

    Raises:
        OSError: the disk is full or broken.
    """
    if folder.is_dir():
        make_folder(folder)
        sync_folder(folder)


def add_folder(folder: Path) -> None:
    """Create one folder unless it exists.

    Raises:
        OSError: the disk is full or not writable.
    """
    folder.mkdir(exist_ok=True)
