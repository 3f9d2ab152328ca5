"""Register all deployments with a Prefect server, and run them from this process.

    prefect server start                                        # in another terminal: http://127.0.0.1:4200
    PREFECT_API_URL=http://127.0.0.1:4200/api python -m flows.serve

Each run is a separate process. Ctrl-C ends this one; schedules stay active, so runs due meanwhile are late, not lost.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from prefect import serve
from prefect.client.orchestration import get_client
from prefect.settings import PREFECT_API_URL

from feast_repo.commands import Command, integer
from feast_repo.settings import StreamSettings
from flows.deployments import declared, served

if TYPE_CHECKING:
    from collections.abc import Sequence

MOST_AT_ONCE = 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    command = Command("python -m flows.serve", "Register all deployments with a Prefect server, and run them.")
    command.add_argument("--limit", type=integer(1, 1_000), default=MOST_AT_ONCE, help="concurrent runs (%(default)s)")
    options = command.parse_args(arguments)
    command.settings(StreamSettings)  # report wrong settings now rather than in every run
    url = PREFECT_API_URL.value()
    if not url:
        command.error("PREFECT_API_URL is not set: start `prefect server start`, and set http://127.0.0.1:4200/api")
    with get_client(sync_client=True) as client:
        if error := client.api_healthcheck():
            command.error(f"the Prefect server at {url} does not answer ({error}): start `prefect server start`")
    serve(*map(served, declared()), pause_on_shutdown=False, limit=options.limit)
    return 0


if __name__ == "__main__":
    sys.exit(main())
