"""Repeatable measurements; results are kept with the hardware they ran on."""

from __future__ import annotations

from feast_repo.signals import end_commands_in_one_line

end_commands_in_one_line()
