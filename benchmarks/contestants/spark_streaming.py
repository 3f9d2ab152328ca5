"""Spark Structured Streaming as its guide has it: a watermark, sliding windows, append mode, `foreachBatch`.

    Kafka -> from_json -> withWatermark, window -> each micro-batch: Parquet by Spark, newest rows by Feast's push

One task at a time (`local[1]`) with one shuffle partition, since it gets one core; Arrow between Java and Python. Only
each user's newest row of a micro-batch goes to Redis, since the older ones would be overwritten at once.

Guarantee: exactly once in effect, with a checkpoint that is kept. A micro-batch that is repeated has the same rows, and
overwrites its own Parquet folder and the same Redis rows. The watermark is one for all partitions, so a partition that
lags behind the others by more than the allowed lateness would lose rows; the program fails if any row was dropped.

Not done, which this project does: event archive, dead letters (a broken message becomes nulls and vanishes), late rows,
duplicates, and rows for users who stopped clicking.

`BENCH_STORES=none` writes nowhere: the engine alone.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from pyspark.sql import SparkSession, functions as F  # noqa: N812  (as Spark's own documentation has it)

from benchmarks.contestants import say
from sandbox.maven import MavenJars

if TYPE_CHECKING:
    from collections.abc import Callable

    from pyspark.sql import DataFrame

MESSAGES_PER_BATCH = 2_000_000  # the more, the quicker, as long as the state fits into memory
ROWS_PER_PUSH = 50_000
SCHEMA = "user_id string, event_type string, event_timestamp bigint, price_cents bigint"
CONNECTOR = MavenJars(
    name="spark-kafka",
    title="Spark's Kafka connector",
    pom=Path(__file__).with_suffix(".pom.xml"),
    main="spark-sql-kafka-*.jar",
    remedy="leave out spark_streaming",
)
CONFIGURATION = {
    "spark.driver.host": "127.0.0.1",
    "spark.driver.bindAddress": "127.0.0.1",
    "spark.driver.memory": "3g",
    "spark.log.level": "ERROR",
    "spark.sql.execution.arrow.pyspark.enabled": "true",
    "spark.sql.parquet.compression.codec": "zstd",
    "spark.sql.session.timeZone": "UTC",
    "spark.sql.shuffle.partitions": "1",
    "spark.sql.streaming.numRecentProgressUpdates": "10000",
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
}


def session() -> SparkSession:
    """Spark with its Kafka connector."""
    builder = SparkSession.builder.master("local[1]").appName("spark_streaming")
    jars = ",".join(str(jar) for jar in CONNECTOR.ensure().glob("*.jar"))
    for name, value in {**CONFIGURATION, "spark.jars": jars}.items():
        builder = builder.config(name, value)
    return builder.getOrCreate()


def windows(spark: SparkSession) -> DataFrame:
    """The features of each closed window."""
    messages = (
        spark.readStream.format("kafka")
        .option("kafka.bootstrap.servers", os.environ["KAFKA_BOOTSTRAP_SERVERS"])
        .option("subscribe", os.environ["KAFKA_TOPIC"])
        .option("startingOffsets", "earliest")
        .option("maxOffsetsPerTrigger", MESSAGES_PER_BATCH)
        .load()
    )
    clicks = (
        messages.select(F.from_json(F.col("value").cast("string"), SCHEMA).alias("click"))
        .select("click.*", F.timestamp_millis("click.event_timestamp").alias("at"))
        .withWatermark("at", "2 minutes")
        # Heartbeats have no user. The condition names the time, since Spark would else filter before it takes the
        # watermark, which heartbeats are to move.
        .where(F.when(F.col("at").isNotNull(), F.col("user_id")).isNotNull())
    )
    kind = F.col("event_type")
    counts = clicks.groupBy("user_id", F.window("at", "1 hour", "10 minutes").alias("window")).agg(
        F.count_if(kind == "click").alias("click_count"),
        F.count_if(kind == "view").alias("view_count"),
        F.count_if(kind == "add_to_cart").alias("cart_count"),
        F.count_if(kind == "purchase").alias("purchase_count"),
        F.sum(F.when(kind == "purchase", F.col("price_cents")).otherwise(0)).alias("revenue_cents"),
    )
    rate = "coalesce(try_divide({}, view_count), 0.0d)"
    return counts.select(
        "user_id",
        F.col("window.end").alias("event_timestamp"),
        F.current_timestamp().alias("created_timestamp"),
        "click_count",
        "view_count",
        "cart_count",
        "purchase_count",
        "revenue_cents",
        F.expr(rate.format("cart_count")).alias("cart_rate"),
        F.expr(rate.format("purchase_count")).alias("conversion_rate"),
    )


def writer(folder: Path) -> Callable[[DataFrame, int], None]:
    """What writes a micro-batch to both stores."""
    from feast.data_source import PushMode  # noqa: PLC0415  (takes seconds, and isn't needed without stores)

    from benchmarks.contestants.feast_store import PUSH_SOURCE, stock_store  # noqa: PLC0415

    store = stock_store()

    def write(batch: DataFrame, number: int) -> None:
        """Write one; again if it is repeated."""
        batch.persist()
        batch.write.mode("overwrite").parquet(str(folder / f"batch-{number:06d}"))
        rows = batch.toPandas().sort_values("event_timestamp").drop_duplicates("user_id", keep="last")
        batch.unpersist()
        rows["event_timestamp"] = rows["event_timestamp"].dt.tz_localize("UTC")
        rows["created_timestamp"] = rows["created_timestamp"].dt.tz_localize("UTC")
        for start in range(0, len(rows), ROWS_PER_PUSH):
            store.push(PUSH_SOURCE, rows[start : start + ROWS_PER_PUSH], to=PushMode.ONLINE)

    return write


def main() -> None:
    """Read the topic to its end."""
    data_root = Path(os.environ["DATA_ROOT"])
    spark = session()
    stream = windows(spark).writeStream.outputMode("append").trigger(availableNow=True)
    if os.environ.get("BENCH_STORES") == "none":
        stream = stream.format("noop")
    else:
        stream = stream.foreachBatch(writer(data_root / "features" / "user_click_features"))
    with tempfile.TemporaryDirectory(dir=data_root, prefix="spark-checkpoint-") as checkpoint:
        say("ready")
        query = stream.option("checkpointLocation", checkpoint).start()
        query.awaitTermination()
        progress = query.recentProgress
        if dropped := sum(state["numRowsDroppedByWatermark"] for one in progress for state in one["stateOperators"]):
            message = f"{dropped} rows came later than the watermark allows: a partition was read too far behind others"
            raise RuntimeError(message)
        messages = sum(one["numInputRows"] for one in progress)
        say("done", messages=messages)
    spark.stop()


if __name__ == "__main__":
    main()
