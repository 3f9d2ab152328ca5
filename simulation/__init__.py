"""Generators: events of any stream, clicks and profiles with disorder, late and malformed records, and drift.

In: a seed. Out: messages for Kafka, files of history, profiles.
Guarantee: the same seed gives the same bytes.
"""

from __future__ import annotations

from feast_repo.signals import end_commands_in_one_line

end_commands_in_one_line()
