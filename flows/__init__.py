"""The batch jobs on schedule: thin Prefect flows, which run the project's commands and tell what came of them.

In: parameters of a run. Out: what the command prints, as artifacts and events.
Guarantee: a check that fails fails its run; only causes that pass are retried.
"""

from __future__ import annotations

from feast_repo.signals import end_commands_in_one_line

end_commands_in_one_line()
