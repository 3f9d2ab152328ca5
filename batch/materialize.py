"""The command `python -m batch.materialize`; its code is `batch.maintenance.materialize`."""

from __future__ import annotations

import sys

from batch.maintenance.materialize import main

if __name__ == "__main__":
    sys.exit(main())
