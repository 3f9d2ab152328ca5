"""The command `python -m batch.profiles`; its code is `simulation.profiles`."""

from __future__ import annotations

import sys

from simulation.profiles import main

if __name__ == "__main__":
    sys.exit(main())
