"""Serve features and predictions over HTTP.

    python -m serving                       # http://127.0.0.1:8000/openapi.json
    python -m serving --service fraud       # one of several; without it, requests name theirs

One process uses one core; for more cores, run more processes on other ports behind a load balancer. On SIGTERM it
finishes the requests in progress and ends.
"""

from __future__ import annotations

import gc
import logging
import resource
import socket
import sys
from typing import TYPE_CHECKING

import uvicorn
from sqlalchemy.exc import SQLAlchemyError

from feast_repo import signals
from feast_repo.commands import Command, integer, stop_event
from feast_repo.errors import FeatureStoreError, UnavailableError
from serving.app import App
from serving.settings import add_service, settings_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import FrameType

    from serving.services import Services
    from serving.settings import ServingSettings

BACKLOG = 4_096
SHUTDOWN_S = 5
"""For requests in progress; they answer 503 sooner if Redis does not answer."""
SWITCH_S = 0.0005
"""How long the threads that check the registry may delay a request; Python's default is ten times as long."""


def opened(command: Command, settings: ServingSettings) -> Services:
    """The services on the settings' stores."""
    from serving.services import open_services  # noqa: PLC0415  (needs Feast, which takes seconds to import)

    store = command.feature_store()
    try:
        return open_services(store, settings)
    except FeatureStoreError as error:
        command.fail(error)
    except SQLAlchemyError as error:
        command.fail(UnavailableError(str(error)))
    except (OSError, ValueError) as error:
        command.error(str(error))


class HttpServer(uvicorn.Server):
    """uvicorn's server, which handles signals itself; this one also starts our deadline for the shutdown."""

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Start the shutdown."""
        if signals.command is not None:
            signals.command.wake(sig)
        super().handle_exit(sig, frame)


def server_of(app: App) -> HttpServer:
    """The HTTP server around the application."""
    config = uvicorn.Config(
        app,
        access_log=False,
        backlog=BACKLOG,
        http="httptools",
        lifespan="on",
        log_level="warning",
        loop="uvloop",
        proxy_headers=False,  # nothing uses the client's address
        server_header=False,
        timeout_graceful_shutdown=SHUTDOWN_S,
        ws="none",
    )
    return HttpServer(config)


def _allow_connections() -> None:
    """Raise the limit of open files to its maximum: the usual 1024 allow too few connections."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    command = Command("python -m serving", "Serve features and predictions over HTTP.")
    command.add_argument("--host", default="127.0.0.1", help="address to listen on (%(default)s)")
    command.add_argument("--port", type=integer(0, 65_535), default=8000, help="0: any free one (%(default)s)")
    add_service(command, several=True)
    options = command.parse_args(arguments)
    settings = settings_of(command, options, several=True)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    try:
        listener = socket.create_server((options.host, options.port), backlog=BACKLOG)
    except OSError as error:
        command.error(f"can't listen on {options.host}:{options.port}: {error}; name another with --host and --port")
    _allow_connections()
    with listener:
        app = App(opened(command, settings), concurrency=settings.serving_concurrency)
        sys.setswitchinterval(SWITCH_S)
        gc.collect()
        gc.freeze()  # a full collection would scan all of Feast again, for a tenth of a second
        host, port = listener.getsockname()[:2]
        logging.getLogger("serving").info("listening on http://%s:%d", host, port)
        try:
            # The server ends by itself on SIGTERM, and then raises the signal again.
            with stop_event("did not end in order, so the last minute's scores may be lost"):
                server_of(app).run(sockets=[listener])
        finally:
            gc.unfreeze()  # frozen objects are never freed, and DuckDB's bindings would list them at exit
    return 0


if __name__ == "__main__":
    sys.exit(main())
