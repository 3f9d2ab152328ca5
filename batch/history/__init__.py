"""Imports history that never went through the stream into the archive's format.

In: JSON lines or Parquet files. Out: archived records, and a file of rejects with place and reason.
Guarantee: the same codec and rules apply as to messages.
"""

from __future__ import annotations

from batch.history.importing import bring_in

__all__ = ["bring_in"]
