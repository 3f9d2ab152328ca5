"""The command `python -m stream.generator`; its code is `simulation.generator`."""

from __future__ import annotations

import sys

from simulation.generator import main

if __name__ == "__main__":
    sys.exit(main())
