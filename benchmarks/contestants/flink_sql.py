"""Flink SQL as its documentation has it, from PyFlink: a Kafka table with a watermark, and `HOP` windows over it.

    Kafka table (JSON) -> HOP -> GROUP BY user, window -> Arrow batches to Python -> Parquet and Redis

One slot (parallelism 1), state on the heap, objects reused. Flink cuts hopping windows into slices by itself. Rows come
to Python as the Arrow batches that `Table.to_pandas` is made of, one after the other. Apache Flink's requirements clash
with Feast's, so this runs in an environment of its own (`environments.py`) and writes by `plain_stores.py`: pyarrow and
a redis-py pipeline in Feast's format, which costs less than Feast's push. Flink has no Parquet sink without Hadoop's
jars.

Guarantee: none across a crash. Checkpoints are off, as they are unless asked for, so a restart reads the topic anew;
that spares it what this project's run pays for recovery. Watermarks are per partition, so windows are right as long as
events are at most 120 s out of order within their partition. At the end of the topic all windows close.

Not done, which this project does: event archive, dead letters (a broken message ends it), late rows, duplicates, rows
for users who stopped clicking, and exactly once in both stores.

`BENCH_STORES=none` writes nowhere: the engine and Arrow alone.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from pyflink.common import Configuration
from pyflink.java_gateway import get_gateway
from pyflink.table import EnvironmentSettings, TableEnvironment
from pyflink.table.serializers import ArrowSerializer

from benchmarks.contestants import say
from benchmarks.contestants.plain_stores import PlainStores, topic_ends
from sandbox.maven import MavenJars

if TYPE_CHECKING:
    from collections.abc import Iterator

ROWS_PER_BATCH = 50_000
CONNECTOR = MavenJars(
    name="flink-kafka",
    title="Flink's Kafka connector",
    pom=Path(__file__).with_suffix(".pom.xml"),
    main="flink-sql-connector-kafka-*.jar",
    remedy="leave out flink_sql",
)
CONFIGURATION = {
    "parallelism.default": "1",
    "pipeline.object-reuse": "true",
    "python.fn-execution.arrow.batch.size": str(ROWS_PER_BATCH),
    "table.local-time-zone": "UTC",
}
CLICKS = """
    CREATE TABLE clicks (
        user_id STRING,
        event_type STRING,
        event_timestamp BIGINT,
        price_cents BIGINT,
        event_time AS TO_TIMESTAMP_LTZ(event_timestamp, 3),
        WATERMARK FOR event_time AS event_time - INTERVAL '2' MINUTE
    ) WITH (
        'connector' = 'kafka',
        'properties.bootstrap.servers' = '{brokers}',
        'topic' = '{topic}',
        'scan.startup.mode' = 'earliest-offset',
        'scan.bounded.mode' = 'latest-offset',
        'format' = 'json'
    )
"""
WINDOWS = """
    SELECT
        user_id,
        window_end AS event_timestamp,
        COUNT(*) FILTER (WHERE event_type = 'click') AS click_count,
        COUNT(*) FILTER (WHERE event_type = 'view') AS view_count,
        COUNT(*) FILTER (WHERE event_type = 'add_to_cart') AS cart_count,
        COUNT(*) FILTER (WHERE event_type = 'purchase') AS purchase_count,
        COALESCE(SUM(price_cents) FILTER (WHERE event_type = 'purchase'), 0) AS revenue_cents
    FROM TABLE(HOP(TABLE clicks, DESCRIPTOR(event_time), INTERVAL '10' MINUTES, INTERVAL '1' HOUR))
    WHERE user_id IS NOT NULL
    GROUP BY user_id, window_start, window_end
"""


def environment(brokers: str, topic: str) -> TableEnvironment:
    """A local Flink that knows the topic as table `clicks`."""
    configuration = Configuration()
    jars = ";".join(jar.as_uri() for jar in CONNECTOR.ensure().glob("*.jar"))
    for name, value in {**CONFIGURATION, "pipeline.jars": jars}.items():
        configuration.set_string(name, value)
    settings = EnvironmentSettings.new_instance().in_streaming_mode().with_configuration(configuration).build()
    flink = TableEnvironment.create(settings)
    flink.execute_sql(CLICKS.format(brokers=brokers, topic=topic))
    return flink


def batches(flink: TableEnvironment) -> Iterator[pa.Table]:
    """The windows' rows as they come; the query starts with the first.

    This is the inside of `Table.to_pandas`, which would hand out everything at once in the end.
    """
    table = flink.sql_query(WINDOWS)
    arrow: Any = get_gateway().jvm.org.apache.flink.table.runtime.arrow.ArrowUtils
    chunks = arrow.collectAsPandasDataFrame(table._j_table, ROWS_PER_BATCH)  # noqa: SLF001
    if chunks.hasNext():
        serializer = ArrowSerializer(None, table.get_schema().to_row_data_type(), None)
        for batch in serializer.load_from_iterator(chunks):
            yield pa.Table.from_batches([batch])


def main() -> None:
    """Read the topic to its end."""
    brokers, topic = os.environ["KAFKA_BOOTSTRAP_SERVERS"], os.environ["KAFKA_TOPIC"]
    messages = sum(topic_ends(brokers, topic).values())
    stores = None
    if os.environ.get("BENCH_STORES") != "none":
        stores = PlainStores(Path(os.environ["DATA_ROOT"]), os.environ["REDIS_URL"])
    flink = environment(brokers, topic)
    say("ready")
    for rows in batches(flink):
        if stores is not None:
            stores.write(rows)
    say("done", messages=messages)


if __name__ == "__main__":
    main()
