"""Jobs over stored data. The modules here are commands; their code is in the packages.

In: the archive and stored rows. Out: backfilled and healed rows, reports, training sets.
Guarantee: jobs read only what the stream has committed, and both engines give the same results.
"""

from __future__ import annotations

import os

from feast_repo.signals import end_commands_in_one_line

end_commands_in_one_line()

# Archives are taken chunk by chunk, and several jobs share a machine with the stream: one thread each, as in `stream`.
# Polars reads this when it is first used.
os.environ.setdefault("POLARS_MAX_THREADS", "1")
