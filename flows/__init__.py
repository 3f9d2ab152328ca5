"""Scheduled batch jobs: thin Prefect flows that run the project's commands and report their results.

In: parameters of a run. Out: the command's output, as artifacts and events.
Guarantee: a failed check fails its run; only transient causes are retried.
"""

from __future__ import annotations

from feast_repo.signals import end_commands_in_one_line

end_commands_in_one_line()
