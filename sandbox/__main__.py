"""The stack on this machine without Docker.

python -m sandbox up        # start what is not running yet, and point all commands to it through sandbox.env
python -m sandbox status    # exit 0 if all is up, 1 if not
python -m sandbox down      # stop what up started
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from typing import TYPE_CHECKING

from pydantic import ValidationError
from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from feast_repo.errors import ExitCode, FeatureStoreError
from feast_repo.settings import problem
from sandbox.lifecycle import down, notes, problems, up
from sandbox.settings import SandboxSettings
from sandbox.state import load, settings_root, shown, without_password

if TYPE_CHECKING:
    from sandbox.state import State


def partitions(text: str) -> int:
    """Parse a number of partitions from the command line."""
    if not text.isdecimal() or int(text) < 1:
        message = f"{text!r} is not a positive number"
        raise argparse.ArgumentTypeError(message)
    return int(text)


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m sandbox", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    for name, does in {
        "up": "start Kafka, a Redis-compatible server and the registry",
        "status": "tell what is up; exit 1 if something is not",
        "down": "end what up started",
    }.items():
        command = commands.add_parser(name, help=does, description=does)
        command.add_argument("--json", action="store_true", help="print JSON for programs")
        if name == "up":
            command.add_argument(
                "--kafka",
                choices=["embedded", "apache", "auto"],
                help="which Kafka to start (else SANDBOX_KAFKA, embedded)",
            )
            command.add_argument(
                "--partitions", type=partitions, help="of a newly created topic (64 on embedded Kafka, else 12)"
            )
            command.add_argument("--topic", help="topic of the events (else KAFKA_TOPIC, or as declared)")
    return parser.parse_args(arguments)


def report(settings: SandboxSettings, state: State | None, *, as_json: bool) -> int:
    """Print what runs where; returns 0 if everything is up, else 1."""
    root = settings.data_root
    if state is None:
        elsewhere = settings_root()
        hint = f"; one was started in {elsewhere}" if elsewhere not in {None, root} else ""
        print_plain(
            {"up": False, "parts": []},
            f"no sandbox in {root}{hint}; `python -m sandbox up` starts one",
            as_json=as_json,
        )
        return ExitCode.FAILED
    found, told = problems(root, settings, state), notes(root, settings, state)
    if as_json:
        parts = [
            {"role": part.role, "kind": part.kind, "url": without_password(part.url), "pid": part.pid or None}
            | {
                "name": part.name,
                "limits": part.limits or None,
                "log": part.log or None,
                "problem": found.get(part.role),
            }
            for part in state.parts
        ]
        document = {"up": not found, "parts": parts, "environment": shown(state.environment)}
        print_plain({**document, "problems": found, "notes": told}, "", as_json=True)
    else:
        table = Table("part", "what", Column("where", overflow="fold"), "pid", "state")
        for part in state.parts:
            state_of = f"[red]{found[part.role]}[/]" if part.role in found else "[green]up[/]"
            pid = str(part.pid) if part.pid else "-"
            table.add_row(part.role, part.name, escape(without_password(part.url)), pid, state_of)
        Console().print(table)
        lines = [f"{part.name}: {part.limits}" for part in state.parts if part.limits]
        topics = ", ".join(stream.topic for stream in settings.catalog.streams)
        lines += [f"{'topic' if len(settings.catalog.streams) == 1 else 'topics'} {topics}; data and logs in {root}"]
        lines += [f"note: {line}" for line in [*told, *([found["settings"]] if "settings" in found else [])]]
        sys.stdout.writelines(f"{line}\n" for line in lines)
    return ExitCode.FAILED if found else 0


def print_plain(document: dict[str, object], line: str, *, as_json: bool) -> None:
    """One line for people, or the document for programs."""
    sys.stdout.write(f"{json.dumps(document, indent=2) if as_json else line}\n")


def run(options: argparse.Namespace) -> int:
    """Run one command; the exit code."""
    settings = SandboxSettings()
    root = settings.data_root
    if options.command == "down":
        ended = down(root)
        names = ", ".join(f"{part.role} ({part.pid})" for part in ended)
        document: dict[str, object] = {"ended": [{"role": part.role, "pid": part.pid} for part in ended]}
        print_plain(document, f"ended {names}" if ended else f"no sandbox is up in {root}", as_json=options.json)
        return 0
    if options.command == "status":
        return report(settings, load(root), as_json=options.json)
    if options.topic:
        settings = settings.model_copy(update={"kafka_topic": options.topic})
    state = up(settings, kafka=options.kafka, partitions=options.partitions)
    return report(settings, state, as_json=options.json)


def main(arguments: list[str] | None = None) -> int:
    """Run one command; problems are reported in one line."""
    options = parse(arguments)
    logging.basicConfig(format="%(message)s")
    logging.getLogger("sandbox").setLevel(logging.INFO)  # slow steps are logged
    try:
        return run(options)
    except ValidationError as error:
        line, code = f"setting {problem(error)}", ExitCode.REFUSED
    except FeatureStoreError as error:
        line, code = str(error), error.exit_code
    except OSError as error:
        line, code = str(error), ExitCode.FAILED
    except KeyboardInterrupt:
        line, code = "interrupted; what this command had started is ended again", ExitCode.INTERRUPTED
    sys.stderr.write(f"error: {line}\n")
    return code


if __name__ == "__main__":
    sys.exit(main())
