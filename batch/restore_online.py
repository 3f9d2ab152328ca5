"""The command `python -m batch.restore_online`; its code is `batch.maintenance.restore_online`."""

from __future__ import annotations

import sys

from batch.maintenance.restore_online import main

if __name__ == "__main__":
    sys.exit(main())
