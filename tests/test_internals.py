"""What we use of libraries beyond their public names is in few places, which say what they were checked on."""

from __future__ import annotations

import re
from importlib import import_module
from importlib.metadata import version

import pytest
from packaging.version import Version

from tests.test_imports import modules, top

PRIVATE = re.compile(r"noqa: SLF001")
PLACES = {
    "batch.recompute.spark_engine",
    "feast_repo.stores.internals",
    "serving.training",
    "stream.kafka",
    "stream.recovery_store",
}


def test_private_names_are_used_in_few_places() -> None:
    found = {name for name, file in modules().items() if top(name) != "benchmarks" and PRIVATE.search(file.read_text())}
    assert found <= PLACES


@pytest.mark.parametrize("place", sorted(PLACES))
def test_installed_versions_are_those_that_were_checked(place: str) -> None:
    """Another version: look at what is used there, run all tests, then put the new version down."""
    for library, checked in import_module(place).CHECKED_ON.items():
        assert Version(version(library)) == Version(checked), library
