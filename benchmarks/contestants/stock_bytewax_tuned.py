"""`stock_bytewax` with Python's garbage collector held back.

Windows are many small objects, and by default the collector looks through them again and again: nearly half of the
processor time of `stock_bytewax`. No documentation of Bytewax or Feast speaks of it, so this is what an expert gets.
"""

from __future__ import annotations

import gc

from benchmarks.contestants.stock_bytewax import main

COLLECT_AFTER = (200_000, 20, 100)
"""Objects between two collections of the young, and collections between two of the older generations."""

if __name__ == "__main__":
    gc.freeze()  # what is imported stays
    gc.set_threshold(*COLLECT_AFTER)
    main()
