"""
The command line by argparse, and its help. Loaded only where there is something to say.
"""

from __future__ import annotations

import argparse

from collections.abc import Mapping, Sequence
from typing import Any, Final, NoReturn

from migration_gate.commands.calls import COMMANDS, UsageError


PROGRAM: Final = "entrypoint.py"
DESCRIPTION: Final = """\
Stands before an application: waits for PostgreSQL, applies the pending SQL migrations,
exits 0 (open: the application may start) or 1 (closed: it must not).
"""
EPILOG: Final = """\
COMMAND --help describes one of them.

Settings are environment variables: DATABASE_URL or POSTGRES_HOST, POSTGRES_PORT,
POSTGRES_USER, POSTGRES_PASSWORD, POSTGRES_DB or libpq's PG… name the database,
GATE_MIGRATIONS the folder. docs/settings.md lists them all.

GATE_TARGETS lists the schemas or databases of a fleet, each of which has a history of
its own, and one run goes over all of them: docs/fleets.md. With GATE_TARGET a run is
about the one that it names.
"""
# Of a command over a fleet; those that need no database know nothing of one.
OVER_ALL_TARGETS: Final = "With GATE_TARGETS, over all of them; GATE_TARGET names one."
OVER_ONE_TARGET: Final = "With GATE_TARGETS, about the one that GATE_TARGET names."


def parse_options(name: str, arguments: Sequence[str]) -> dict[str, Any]:
    """
    Read the arguments of a command.

    Raises:
        UsageError: It does not take these. Which they were is not said: one that is a
            mistake may be a secret.
    """
    return vars(_build()[1][name].parse_args(arguments))


def describe(arguments: Sequence[str]) -> str:
    """Return the help: of the first command among the arguments, or of them all."""
    program, commands = _build()
    for word in arguments:
        if word in commands:
            commands[word].epilog = _describe_targets(word)
            return commands[word].format_help()
    return program.format_help()


def _describe_targets(name: str) -> str | None:
    """Say what a command is about where there is a fleet; None where it is the same."""
    from migration_gate.commands.fleet.calls import OVER_ALL

    if not COMMANDS[name].needs_database:
        return None
    return OVER_ALL_TARGETS if name in OVER_ALL else OVER_ONE_TARGET


class _Parser(argparse.ArgumentParser):
    """A parser that raises, where argparse would print and exit."""

    def error(self, message: str) -> NoReturn:  # noqa: ARG002  # quotes arguments
        name = self.prog.rpartition(" ")[2]
        usage = " ".join(self.format_usage().split())
        raise UsageError(
            f"command {name} does not take these arguments",
            hint=f"{usage[0].upper()}{usage[1:]}",
        )


def _build() -> tuple[_Parser, Mapping[str, argparse.ArgumentParser]]:
    """Return the parser of the program and those of the commands."""
    program = _Parser(
        prog=PROGRAM,
        usage="%(prog)s [COMMAND]",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        add_help=False,
    )
    each = program.add_subparsers(title="commands", metavar="COMMAND", prog=PROGRAM)
    for name, command in COMMANDS.items():
        parser = each.add_parser(
            name,
            help=command.does,
            description=f"{command.does[0].upper()}{command.does[1:]}.",
            allow_abbrev=False,
            add_help=False,
        )
        if command.arguments is not None:
            command.arguments(parser)
        _add_help(parser)
    _add_help(program)
    program.add_argument("--version", action="store_true", help="show the version")
    return program, each.choices


def _add_help(parser: argparse.ArgumentParser) -> None:
    """Describe what commands.main answers before anything is parsed."""
    parser.add_argument(
        "-h",
        "--help",
        action="store_true",
        default=argparse.SUPPRESS,
        help="show this text",
    )
