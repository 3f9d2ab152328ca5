"""The access log outlives an output that fails."""

from __future__ import annotations

import asyncio
import errno
import io
import logging
from typing import TYPE_CHECKING

from serving.access_log import AccessLog
from tests.serving.conftest import wait_for

if TYPE_CHECKING:
    import pytest


class Full(io.StringIO):
    """A disk without room, until it is emptied."""

    full = True

    def write(self, text: str) -> int:
        if self.full:
            raise OSError(errno.ENOSPC, "No space left on device")
        return super().write(text)


def test_a_full_disk_loses_lines_but_not_the_log(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    output = Full()
    monkeypatch.setattr("sys.stdout", output)

    async def serve() -> None:
        log = AccessLog()
        log.write("GET", "/healthz", 200, 0.001)
        with caplog.at_level(logging.WARNING):
            log.start()
        assert "are lost: [Errno 28]" in caplog.text
        output.full = False
        log.write("GET", "/readyz", 200, 0.001)
        await asyncio.to_thread(wait_for, lambda: "/readyz" in output.getvalue())
        log.stop()

    asyncio.run(serve())
    assert "/healthz" not in output.getvalue()
