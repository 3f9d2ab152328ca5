"""The dataflow: events from Kafka to features in Redis and Parquet.

In: messages of a topic, partition by partition. Out: rows of closed windows, the archive, late records, dead letters.
Guarantee: exactly-once in the stores, through crashes and restarts; what is stored is a pure function of the log.
"""

from __future__ import annotations

import os

from feast_repo.signals import end_commands_in_one_line

end_commands_in_one_line()

# A worker is one thread and its frames are small: Polars' thread pool would only add hand-overs. More workers, not more
# threads, use more cores. Polars reads this when it is first used.
os.environ.setdefault("POLARS_MAX_THREADS", "1")
