from __future__ import annotations

import shutil
from importlib.util import find_spec
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

WITH_SPARK = find_spec("pyspark") is not None and shutil.which("java") is not None


@pytest.fixture(scope="session")
def spark_session() -> Iterator[None]:
    """One Spark for all tests: the engine takes the session that is there, and leaves it running."""
    if not WITH_SPARK:
        pytest.skip("Spark is not here: pip install pyspark, and Java 17")
    from batch.recompute.spark_engine import SparkEngine  # noqa: PLC0415  (an extra)

    engine = SparkEngine("unused", "local[2]")
    yield
    engine.close()


@pytest.fixture(params=["polars", "spark"])
def engine_name(request: pytest.FixtureRequest) -> str:
    """Each of the engines that recompute."""
    if request.param == "spark":
        request.getfixturevalue("spark_session")
    name: str = request.param
    return name
