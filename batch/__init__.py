"""What runs over stored data: profiles, backfill, parity, quality and drift."""

from __future__ import annotations

from feast_repo.signals import end_commands_in_one_line

end_commands_in_one_line()
