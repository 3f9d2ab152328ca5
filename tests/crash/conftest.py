"""Feast's store, opened once for all worlds, on a server of its own."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pytest

from tests.crash.bench import opened

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sandbox.processes import Guard
    from tests.crash.world import Bench


@pytest.fixture(scope="session")
def opened_bench(tmp_path_factory: pytest.TempPathFactory, guard: Guard) -> Iterator[tuple[Bench, dict[str, str]]]:
    with opened(tmp_path_factory.mktemp("crash"), guard) as bench:
        yield bench


@pytest.fixture
def bench(opened_bench: tuple[Bench, dict[str, str]], monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    bench, environment = opened_bench
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    logging.disable(logging.CRITICAL)  # thousands of parts that are away and back
    yield bench
    logging.disable(logging.NOTSET)
