"""The batch jobs on schedule: thin Prefect flows, which run the project's commands and tell what came of them."""

from __future__ import annotations

from feast_repo.signals import end_commands_in_one_line

end_commands_in_one_line()
