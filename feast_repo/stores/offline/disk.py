"""What makes data files durable: the few operations on the disk whose order carries guarantees.

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
"""Folders that this process has made durable, or found to be."""


def create(path: Path) -> BinaryIO:
    """A new file for writing, or an old one emptied.

    Raises:
        OSError: the disk is full or not writable.
    """
    return path.open("wb")


def sync(file: BinaryIO) -> None:
    """Make what was written durable.

    Raises:
        OSError: the disk is full or broken.
    """
    file.flush()
    os.fsync(file.fileno())


def rename(old: Path, new: Path) -> None:
    """Give a file its name, in place of what has it.

    Raises:
        OSError: the folder is not writable.
    """
    old.replace(new)


def remove(path: Path) -> None:
    """Remove a file that may be gone already.

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
    """Create a folder and what is missing above it, each durable in its parent.

    A folder that is there may have been made by a run that was killed before it was durable, so the first use of it by
    this process makes sure.

    Raises:
        OSError: the disk is full or not writable.
    """
    if folder.is_dir():
        if folder in _durable:
            return
    else:
        make_folder(folder.parent)
        add_folder(folder)
    if os.access(folder.parent, os.R_OK | os.W_OK):  # else it was not made by us
        sync_folder(folder.parent)
    _durable.add(folder)


def settle(folder: Path) -> None:
    """Make what a folder holds durable, before it is relied on: who put it there may have been killed just before.

    Raises:
        OSError: the disk is full or broken.
    """
    if folder.is_dir():
        make_folder(folder)
        sync_folder(folder)


def add_folder(folder: Path) -> None:
    """Create one folder unless it is there.

    Raises:
        OSError: the disk is full or not writable.
    """
    folder.mkdir(exist_ok=True)
