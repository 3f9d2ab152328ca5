"""Purchase predictions from online features: reader, model, HTTP service, command."""

from __future__ import annotations

from feast_repo.signals import end_commands_in_one_line

end_commands_in_one_line()
