"""Names of the dataflow and its steps. Recovery state is stored under them, so they never change."""

from __future__ import annotations

FLOW = "clicks_to_features"
KAFKA = "kafka"
WINDOWS = "windows"
STORES = "stores"

PARTS = 4
"""Parts of the output, each with its own files per epoch: few enough to keep files few, enough for some workers."""


def parts() -> list[str]:
    """The output's parts, whatever the number of workers or Kafka partitions."""
    return [f"stores-{part}" for part in range(PARTS)]
