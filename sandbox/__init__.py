"""The whole stack on one machine without Docker, and the demo.

In: only this project's dependencies. Out: Kafka, Redis and a registry on 127.0.0.1, and `sandbox.env`.
Guarantee: it ends only processes that it has started, and deletes only files that it has created.
"""

from __future__ import annotations

from feast_repo.signals import end_commands_in_one_line

end_commands_in_one_line()
