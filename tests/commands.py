"""A command's `main`, by the name that users run it by."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


def main_of(name: str) -> Callable[[Sequence[str]], int]:
    """What `python -m name` runs: of a package, its `__main__`."""
    module = import_module(name)
    if hasattr(module, "__path__"):
        module = import_module(f"{name}.__main__")
    main: Callable[[Sequence[str]], int] = module.main
    return main
