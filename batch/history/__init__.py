"""History that never went through the stream, brought into the shape of the archive.

In: JSON lines or Parquet files. Out: archived records, and a file of rejects with place and reason.
Guarantee: judged by the codec and rules that messages are judged by.
"""

from __future__ import annotations

from batch.history.importing import bring_in

__all__ = ["bring_in"]
