"""Loads the catalog of a feature repository: the `catalog` that its `features.py` exports."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from feast_repo.declare.catalog import Catalog
from feast_repo.errors import RefusedError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import ModuleType

OURS = Path(__file__).resolve().parent
"""The feature repository of this project, the shop's."""


class CatalogError(RefusedError):
    """A feature repository can't be loaded; the message says where and why."""


@cache
def load(folder: Path) -> Catalog:
    """The catalog of a folder, loaded once. Several folders may be loaded in one process.

    Raises:
        CatalogError: there is no `features.py`, it fails, or it exports no `catalog`.
    """
    file = folder / "features.py"
    if not file.is_file():
        message = f"FEATURE_REPO: {folder} has no features.py, which declares the features"
        raise CatalogError(message)
    try:
        found = importlib.import_module("feast_repo.features") if folder == OURS else _run(file)
    except Exception as error:  # whatever a user's file may raise
        where = _line_in(folder, error)
        message = f"FEATURE_REPO: {where or file}: {type(error).__name__}: {error}"
        raise CatalogError(message) from error
    catalog = getattr(found, "catalog", None)
    if not isinstance(catalog, Catalog):
        message = f"FEATURE_REPO: {file} exports no `catalog = Catalog(...)`"
        raise CatalogError(message)
    return catalog


def _run(file: Path) -> ModuleType:
    """Run a `features.py`, which may import its neighbours by their names, as under Feast's own commands.

    The neighbours are forgotten afterwards, since another repository may have files of the same names.
    """
    folder = file.parent
    spec = importlib.util.spec_from_file_location(f"features of {folder}", file)
    assert spec is not None  # noqa: S101  (the file ends with .py)
    assert spec.loader is not None  # noqa: S101
    module = importlib.util.module_from_spec(spec)
    hidden = _neighbours(folder, sys.modules)
    sys.path.insert(0, str(folder))
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(folder))
        for name in _neighbours(folder, sys.modules).keys() - hidden.keys():
            del sys.modules[name]
    return module


def _neighbours(folder: Path, modules: Mapping[str, ModuleType]) -> dict[str, ModuleType]:
    """The imported modules that lie in a folder."""
    files = {name: getattr(module, "__file__", None) for name, module in list(modules.items())}
    return {name: modules[name] for name, file in files.items() if file and Path(file).is_relative_to(folder)}


def _line_in(folder: Path, error: BaseException) -> str:
    """The place in the folder's files that an error comes from; empty if it comes from none of them."""
    place, at = "", error.__traceback__
    while at is not None:
        if Path(at.tb_frame.f_code.co_filename).is_relative_to(folder):
            place = f"{at.tb_frame.f_code.co_filename}, line {at.tb_lineno}"
        at = at.tb_next
    return place
