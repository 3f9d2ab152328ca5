"""The command `python -m batch.backfill`; its code is `batch.recompute.backfill`."""

from __future__ import annotations

import sys

from batch.recompute.backfill import main

if __name__ == "__main__":
    sys.exit(main())
