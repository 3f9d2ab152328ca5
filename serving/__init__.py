"""Predictions from online features: reader, model, HTTP service, commands.

In: rows in Redis, and a training set. Out: features with age and status, predictions.
Guarantee: no training-serving skew, because models see features as in training; a row that is too old is never served
as fresh.
"""

from __future__ import annotations

import os

from feast_repo.signals import end_commands_in_one_line

end_commands_in_one_line()

# Frames are small, so threads would only add hand-overs, as in `stream`. Polars reads this when it is first used.
os.environ.setdefault("POLARS_MAX_THREADS", "1")
