"""All benchmarks, one after the other: `make bench`."""

from __future__ import annotations

import sys

from benchmarks import deduplicate, hostile, serving

if __name__ == "__main__":
    sys.exit(max(deduplicate.main([]), hostile.main([]), serving.main([])))
