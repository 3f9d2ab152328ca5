"""Repeatable measurements, with what else one could use in the same run.

In: a size. Out: ratios with their spread, kept with the hardware that they ran on.
Guarantee: contestants do the same work, in turns, and their results are compared before their times.
"""

from __future__ import annotations

from feast_repo.signals import end_commands_in_one_line

end_commands_in_one_line()
