"""The whole stack on one machine without Docker, and the demo."""

from __future__ import annotations

from feast_repo.signals import end_commands_in_one_line

end_commands_in_one_line()
