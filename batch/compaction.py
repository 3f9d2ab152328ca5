"""The command `python -m batch.compaction`; its code is `batch.maintenance.compaction`."""

from __future__ import annotations

import sys

from batch.maintenance.compaction import main

if __name__ == "__main__":
    sys.exit(main())
