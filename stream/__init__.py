"""The dataflow: events from Kafka to features in Redis and Parquet.

In: messages of a topic, partition by partition. Out: rows of closed windows, the archive, late records, dead letters.
Guarantee: exactly-once in the stores, across crashes and restarts; the stored data is a pure function of the log.
"""

from __future__ import annotations

import os

from feast_repo.signals import end_commands_in_one_line

end_commands_in_one_line()

# A worker is one thread with small frames, so Polars' thread pool would only add hand-overs. To use more cores, run
# more workers rather than more threads. Polars reads this variable on first use.
os.environ.setdefault("POLARS_MAX_THREADS", "1")
