"""What is measured against each other, each a program of its own.

A contestant reads the topic to its end, computes the features of `feast_repo/features.py`, and writes each closed
window to Redis and to Parquet below `DATA_ROOT/features`. It finds both, and Kafka, in the environment, as every
command of this project does. On standard output it prints a line of JSON twice: `{"event": "ready"}` once all imports
and connections are made, and `{"event": "done", "messages": N}` once all is durable.
"""

from __future__ import annotations

import json


def say(event: str, **more: object) -> None:
    """Print one line for the harness."""
    print(json.dumps({"event": event, **more}), flush=True)  # noqa: T201  (the protocol)
