"""The command `python -m batch.training_set`; its code is `batch.training.training_set`."""

from __future__ import annotations

import sys

from batch.training.training_set import main

if __name__ == "__main__":
    sys.exit(main())
