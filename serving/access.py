"""API keys from the environment or a file; two are valid while they are rotated."""

from __future__ import annotations

import hashlib
import hmac
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from serving.settings import ServingSettings

HEADER = b"x-api-key"


class ApiKeys:
    """The valid keys; without any, every request is allowed.

    Raises:
        OSError: the key file can't be read.
        ValueError: keys are configured but empty, which would open the service to anyone.
    """

    def __init__(self, settings: ServingSettings) -> None:
        keys = [key.strip() for key in settings.serving_api_keys.split(",") if key.strip()]
        if settings.serving_api_keys and not keys:
            message = "SERVING_API_KEYS holds no key: leave it empty to let anyone ask"
            raise ValueError(message)
        file = settings.serving_api_keys_file
        if file is not None:
            in_file = [line.strip() for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
            if not in_file:
                message = f"SERVING_API_KEYS_FILE: {file} holds no key"
                raise ValueError(message)
            keys += in_file
        self._hashes = [_hash(key.encode()) for key in keys]

    @property
    def required(self) -> bool:
        """Whether a key is required."""
        return bool(self._hashes)

    def allow(self, key: bytes | None) -> bool:
        """Whether a request with this key is allowed; takes the same time for every wrong key."""
        if not self._hashes:
            return True
        given = _hash(key or b"")
        # All keys are compared, so the time doesn't reveal which one matched.
        return max([hmac.compare_digest(given, known) for known in self._hashes])


def _hash(key: bytes) -> bytes:
    """A hash, because comparing the keys themselves would reveal their length."""
    return hashlib.sha256(key).digest()
