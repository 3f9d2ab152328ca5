"""Every aggregate on every engine equals one reference in plain Python, whatever the log."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import duckdb
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st
from polars.testing import assert_frame_equal

from feast_repo.clickstream import clickstream
from feast_repo.declare.algebra import Aggregate, Count, Max, Min, Ratio, Sum
from feast_repo.declare.vocabulary import POLARS
from sandbox.oracle import recomputation
from tests.batch.archives import stream
from tests.batch.test_recompute import recomputed, rows_of
from tests.stream.reference import PLAIN, ReferenceWindows
from tests.stream.test_windows_properties import kinds_of_aggregates, logs, views

if TYPE_CHECKING:
    from feast_repo.declare.algebra import Feature
    from feast_repo.declare.views import WindowedView
    from feast_repo.declare.vocabulary import Term, Vocabulary
    from tests.stream.reference import Record

Row: TypeAlias = tuple[Any, ...]
Logs: TypeAlias = dict[int, list["Record"]]

EXAMPLES = {"stream": 60, "polars": 40, "spark": 6, "duckdb": 20}
"""Few with Spark, which takes seconds for each."""
EXACT = (Count, Sum, Min, Max)
"""The aggregates that are written in SQL as well."""


@pytest.fixture(params=EXAMPLES)
def engine(request: pytest.FixtureRequest) -> str:
    if request.param == "spark":
        request.getfixturevalue("spark_session")
    name: str = request.param
    return name


def expected(view: WindowedView, partitions: Logs) -> list[Row]:
    """List the rows of all partitions: user, end in ms, created in ms, features."""
    rows: list[Row] = []
    for log in partitions.values():
        reference = ReferenceWindows(view)
        rows += [row for record in log for window in reference.add(record)[2] for row in window.rows]
    return in_order(rows)


def found(engine: str, view: WindowedView, partitions: Logs) -> list[Row]:
    """List what an engine makes of the same logs."""
    with tempfile.TemporaryDirectory() as folder:
        rows = stream(Path(folder), view, partitions)
        if engine == "duckdb" and partitions:
            return in_order(by_sql(Path(folder), view))
        if engine != "stream":
            rows = rows_of(recomputed(engine, Path(folder), view), most_rows=1_000)
    times = pl.col("event_timestamp", "created_timestamp").dt.epoch("ms")
    return in_order(rows.select(*view.join_keys, times, *view.features).rows())


def by_sql(root: Path, view: WindowedView) -> list[Row]:
    key = view.join_keys[0]
    query = f"""
        select {key}, epoch_ms(event_timestamp), epoch_ms(created_timestamp), {", ".join(view.features)}
        from ({recomputation(root, view)})
    """  # noqa: S608  (names of the declaration)
    with duckdb.connect() as database:
        database.execute("set timezone = 'UTC'")
        rows: list[Row] = database.sql(query).fetchall()
    return rows


def in_order(rows: list[Row]) -> list[Row]:
    return sorted(rows, key=lambda row: (row[:3], repr(row)))


@st.composite
def cases(draw: st.DrawFn, engine: str) -> tuple[WindowedView, Logs]:
    """Make a view with each kind of aggregate that the engine knows, and logs of two partitions."""
    view = draw(views(clickstream if engine == "duckdb" else None))
    kinds = {
        f"{kind.__name__}_".lower(): made
        for kind, made in kinds_of_aggregates(view.source).items()
        if engine != "duckdb" or kind in EXACT
    }
    features: dict[str, Feature] = {name: draw(made) for name, made in kinds.items()}
    view = replace(view, features={**features, "ratio": Ratio("sum_", "count_")})
    partitions = {partition: draw(logs(view)) for partition in (0, 3)}
    if engine == "duckdb":  # its division rounds towards 0, and no click is from before 1970
        time = view.source.time
        partitions = {one: [record for record in log if record[time] >= 0] for one, log in partitions.items()}
    return view, {partition: log for partition, log in partitions.items() if log}


def test_every_aggregate_equals_plain_python(engine: str) -> None:
    @settings(max_examples=EXAMPLES[engine], deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(cases(engine))
    def check(case: tuple[WindowedView, Logs]) -> None:
        view, partitions = case
        assert found(engine, view, partitions) == expected(view, partitions)

    check()


ROWS = pl.DataFrame(
    [
        ("a", 2**63 - 1, "ü", [2, 3], ["b"]),
        ("a", 1, "z", [], ["\uffff", "😀"]),
        ("a", 1, "z", [3, -1], ["b", ""]),
        ("b", None, None, [], []),
        ("c", -5, "", [7], ["a longer string than 12 bytes"]),
        ("c", None, "😀", [7], []),
        ("c", 5, "\uffff", [], ["Z", "a"]),
    ],
    schema={"g": pl.String, "n": pl.Int64, "s": pl.String, "ns": pl.List(pl.Int64), "ss": pl.List(pl.String)},
    orient="row",
)


def every_word(on: Vocabulary) -> list[Term]:
    number, text, none = on.column("n"), on.column("s"), on.literal(None, pl.Int64())
    positive = on.or_else(number > on.literal(0, pl.Int64()), on.literal(value=False, dtype=pl.Boolean()))
    terms = {
        "count": on.count(),
        "absent": on.count(on.is_null(text)),
        "upper": on.sum(on.shifted(number, 2)),
        "not_positive": on.count(~positive | on.is_null(number)),
        "positive": on.count(positive),
        "sum": on.sum(number),
        "sum_where": on.sum(on.when(positive, number)),
        "sum_of_none": on.sum(on.or_else(none, none)),
        "least": on.least(number),
        "least_text": on.least(text),
        "greatest": on.greatest(on.or_else(number, on.literal(-9, pl.Int64()))),
        "greatest_text": on.greatest(text),
        "distinct": on.distinct(number),
        "distinct_text": on.distinct(text),
        "union": on.union(on.column("ns")),
        "union_text": on.union(on.column("ss")),
        "constant": on.union(on.literal([1], pl.List(pl.Int64()))),
        "empty": on.union(on.literal([], pl.List(pl.String()))),
    }
    return [term.alias(name) for name, term in terms.items()]


@pytest.mark.usefixtures("spark_session")
def test_every_word_means_the_same_in_every_engine() -> None:
    from pyspark.sql import SparkSession  # noqa: PLC0415  (an extra)

    from batch.recompute.spark_vocabulary import SPARK  # noqa: PLC0415

    session = SparkSession.getActiveSession()
    by_spark = session.createDataFrame(ROWS.to_arrow()).groupBy("g").agg(*every_word(SPARK)).toArrow()
    by_polars = ROWS.group_by("g").agg(every_word(POLARS)).sort("g")
    assert_frame_equal(pl.DataFrame(by_spark).sort("g"), by_polars)


def test_no_aggregate_is_left_out() -> None:
    shipped = {kind for kind in leaves(Aggregate) if kind.__module__.startswith("feast_repo.")}
    assert shipped >= {Count, Sum, Min, Max}
    assert shipped <= PLAIN.keys() == kinds_of_aggregates(clickstream).keys()


def leaves(kind: type[Any]) -> set[type[Any]]:
    """Find the classes below one that have none below them."""
    below = kind.__subclasses__()
    return set[type[Any]]().union(*map(leaves, below)) if below else {kind}
