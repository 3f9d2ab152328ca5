"""The embedded Kafka broker: librdkafka's own test broker in a process that others connect to.

    python -m sandbox.broker --topic clickstream:64 --port-file broker.json

It is ready when the port file exists, with the addresses of the broker (`bootstrap`) and of its control port
(`control`, see `sandbox.embedded_kafka`), and ends on SIGTERM. Its log lives in memory only.

Limits: per partition it keeps 5 MiB (as stored, compressed) or 100,000 batches and silently drops older ones
(`sandbox.topics.check_retention` detects it); it has no real transactions and no CreateTopics request.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import signal
import socketserver
import sys
import threading
from pathlib import Path
from typing import ClassVar

import confluent_kafka

from sandbox.processes import LOOPBACK, RequestError

MAX_PARTITIONS = 10_000
ONLY_BROKER = 1
ALREADY_EXISTS = 36  # RD_KAFKA_RESP_ERR_TOPIC_ALREADY_EXISTS
PRODUCER = 0
MESSAGE_BYTES = 512

# Return type and argument types of the C functions used here.
SIGNATURES: dict[str, tuple[type | None, list[type]]] = {
    "rd_kafka_conf_new": (ctypes.c_void_p, []),
    "rd_kafka_new": (ctypes.c_void_p, [ctypes.c_int, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t]),
    "rd_kafka_destroy": (None, [ctypes.c_void_p]),
    "rd_kafka_err2str": (ctypes.c_char_p, [ctypes.c_int]),
    "rd_kafka_mock_cluster_new": (ctypes.c_void_p, [ctypes.c_void_p, ctypes.c_int]),
    "rd_kafka_mock_cluster_destroy": (None, [ctypes.c_void_p]),
    "rd_kafka_mock_cluster_bootstraps": (ctypes.c_char_p, [ctypes.c_void_p]),
    "rd_kafka_mock_group_initial_rebalance_delay_ms": (None, [ctypes.c_void_p, ctypes.c_int32]),
    "rd_kafka_mock_topic_create": (ctypes.c_int, [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int, ctypes.c_int]),
    "rd_kafka_mock_broker_set_down": (ctypes.c_int, [ctypes.c_void_p, ctypes.c_int32]),
    "rd_kafka_mock_broker_set_up": (ctypes.c_int, [ctypes.c_void_p, ctypes.c_int32]),
}


def load_librdkafka() -> ctypes.CDLL:
    """The library inside the confluent-kafka wheel, with the functions used here typed.

    Raises:
        RequestError: this build of confluent-kafka doesn't include the library.
    """
    package = Path(confluent_kafka.__file__).parent
    places = (package.parent / "confluent_kafka.libs", package / ".dylibs")  # Linux wheels, macOS wheels
    found = [path for place in places for path in sorted(place.glob("librdkafka*"))]
    if not found:
        message = "the embedded broker needs a confluent-kafka wheel with librdkafka inside: reinstall it with pip"
        raise RequestError(message)
    library = ctypes.CDLL(str(found[0]))
    for name, (result, arguments) in SIGNATURES.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library


class Broker:
    """One broker with its topics, in memory, inside this process."""

    def __init__(self) -> None:
        self._library = library = load_librdkafka()
        reason = ctypes.create_string_buffer(MESSAGE_BYTES)
        self._client = library.rd_kafka_new(PRODUCER, library.rd_kafka_conf_new(), reason, MESSAGE_BYTES)
        if not self._client:
            raise OSError(reason.value.decode())
        self._cluster = library.rd_kafka_mock_cluster_new(self._client, ONLY_BROKER)
        library.rd_kafka_mock_group_initial_rebalance_delay_ms(self._cluster, 0)  # a group starts at once
        self.bootstrap: str = library.rd_kafka_mock_cluster_bootstraps(self._cluster).decode()

    def create_topic(self, name: str, partitions: int) -> None:
        """Create a topic; an existing one is left unchanged.

        Raises:
            ValueError: this number of partitions is not possible.
            OSError: the library refuses, with its own message.
        """
        if not 1 <= partitions <= MAX_PARTITIONS:  # the library would abort the process
            message = f"a topic has 1 to {MAX_PARTITIONS} partitions, not {partitions}"
            raise ValueError(message)
        self._check(
            self._library.rd_kafka_mock_topic_create(self._cluster, name.encode(), partitions, 1), but=ALREADY_EXISTS
        )

    def set_down(self) -> None:
        """Drop all connections and refuse new ones; the log stays."""
        self._check(self._library.rd_kafka_mock_broker_set_down(self._cluster, ONLY_BROKER))

    def set_up(self) -> None:
        """Accept connections again, on the same port."""
        self._check(self._library.rd_kafka_mock_broker_set_up(self._cluster, ONLY_BROKER))

    def close(self) -> None:
        """Free everything."""
        self._library.rd_kafka_mock_cluster_destroy(self._cluster)
        self._library.rd_kafka_destroy(self._client)

    def _check(self, code: int, *, but: int = 0) -> None:
        if code not in {0, but}:
            raise OSError(self._library.rd_kafka_err2str(code).decode())


class _Control(socketserver.StreamRequestHandler):
    """One one-line command per connection: `create <topic> <partitions>`, `down` or `up`; answers `ok` or an error."""

    broker: ClassVar[Broker]

    def handle(self) -> None:
        """Run the command."""
        command, *arguments = self.rfile.readline().decode().split()
        try:
            match command, arguments:
                case "create", [name, partitions]:
                    self.broker.create_topic(name, int(partitions))
                case "down", []:
                    self.broker.set_down()
                case "up", []:
                    self.broker.set_up()
                case _:
                    message = f"unknown command {command!r}"
                    raise ValueError(message)  # noqa: TRY301  (one place answers all errors)
        except (OSError, ValueError) as error:
            self.wfile.write(f"{error}\n".encode())
        else:
            self.wfile.write(b"ok\n")


def topic_argument(text: str) -> tuple[str, int]:
    """Parse `name:partitions` from the command line."""
    name, _, partitions = text.rpartition(":")
    if not name or not partitions.isdecimal() or not 1 <= int(partitions) <= MAX_PARTITIONS:
        message = f"{text!r} is not <topic>:<partitions>, with 1 to {MAX_PARTITIONS} partitions"
        raise argparse.ArgumentTypeError(message)
    return name, int(partitions)


def main() -> int:
    """Serve until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(prog="python -m sandbox.broker", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--topic", type=topic_argument, action="append", default=[], help="<name>:<partitions>")
    parser.add_argument(
        "--port-file", type=Path, required=True, help="JSON file with the addresses, written when ready"
    )
    arguments = parser.parse_args()

    # Blocked before any thread starts, so the signal stays pending instead of ending the process midway.
    ends = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, ends)
    broker = _Control.broker = Broker()
    for name, partitions in arguments.topic:
        broker.create_topic(name, partitions)
    with socketserver.TCPServer((LOOPBACK, 0), _Control) as control:
        threading.Thread(target=control.serve_forever, daemon=True).start()
        ready = {"bootstrap": broker.bootstrap, "control": f"{LOOPBACK}:{control.server_address[1]}"}
        temporary = arguments.port_file.with_suffix(".tmp")
        temporary.write_text(json.dumps(ready))
        temporary.replace(arguments.port_file)
        signal.sigwait(ends)
        control.shutdown()
    broker.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
