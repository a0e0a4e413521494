"""
The commands: what each does, where it stands, what it takes. A new one is a row here.

Names a command's module instead of importing it, and needs argparse only where there
is something to parse: a start without arguments, as nearly all are, loads neither.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from migration_gate.report.errors import GateError
from migration_gate.settings.settings import ADOPTED_TOOLS


if TYPE_CHECKING:
    from argparse import ArgumentParser


DEFAULT: Final = "migrate"


class UsageError(GateError):
    """The arguments are not those of any command."""

    reason = "settings"


class Command(NamedTuple):
    """
    One command.

    Its module has ``function(settings, log, tally, **options)``, which raises where the
    gate stays closed; the options are named by the ``dest`` of the arguments.
    """

    does: str
    module: str
    function: str
    arguments: Callable[[ArgumentParser], None] | None = None
    answers: bool = False  # on stdout; the log goes to stderr
    needs_database: bool = True

    def load(self) -> Callable[..., None]:
        """Import the function."""
        module = import_module(f"migration_gate.commands.{self.module}")
        function: Callable[..., None] = getattr(module, self.function)
        return function


class Call(NamedTuple):
    """One call of the program: the command, and what is about this one call."""

    name: str
    command: Command
    options: dict[str, Any]


def read_call(arguments: Sequence[str]) -> Call:
    """
    Read a command and its arguments.

    Raises:
        UsageError: No such command, or not its arguments.
    """
    name, *rest = arguments or [DEFAULT]
    command = COMMANDS.get(name)
    if command is None:
        names = ", ".join(COMMANDS)
        from migration_gate.settings.spelling import closest

        meant = closest(name, COMMANDS)
        guess = "" if meant is None else f'Was "{meant}" meant? '
        raise UsageError(
            "unknown command, which is the first argument",
            hint=f"{guess}The commands are: {names}.",
        )
    if not rest and command.arguments is None:
        return Call(name, command, {})
    from migration_gate.commands.parser import parse_options

    return Call(name, command, parse_options(name, rest))


def _take_json(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--json", dest="as_json", action="store_true", help="answer a program"
    )


def _take_form(parser: ArgumentParser) -> None:
    form = parser.add_mutually_exclusive_group()
    form.add_argument(
        "--json", dest="as_json", action="store_true", help="answer a program"
    )
    form.add_argument(
        "--html", dest="as_html", action="store_true", help="answer with a page"
    )


def _take_answer(parser: ArgumentParser) -> None:
    parser.add_argument(
        "versions",
        metavar="VERSION",
        nargs="*",
        help="a migration's file name, with or without ending, or its number",
    )
    answer = parser.add_mutually_exclusive_group(required=True)
    answer.add_argument(
        "--applied",
        dest="is_applied",
        action="store_true",
        help="it is: its objects exist already, or the statement in doubt did run",
    )
    answer.add_argument(
        "--not-applied",
        dest="is_applied",
        action="store_false",
        help="it is not: the next migrate runs it, or the statement in doubt, again",
    )
    parser.add_argument(
        "--through",
        metavar="VERSION",
        help="with --applied: this one and all that come before it",
    )


def _take_rehearsal(parser: ArgumentParser) -> None:
    form = parser.add_mutually_exclusive_group()
    form.add_argument(
        "--json",
        dest="form",
        action="store_const",
        const="json",
        default="table",
        help="answer a program",
    )
    form.add_argument(
        "--markdown",
        dest="form",
        action="store_const",
        const="markdown",
        help="answer with what a pull request shows",
    )
    parser.add_argument(
        "--from",
        dest="first",
        metavar="VERSION",
        help="where pending begins elsewhere: what comes before is not told of",
    )
    parser.add_argument(
        "--yes-it-is-disposable",
        dest="is_disposable",
        action="store_true",
        help="rehearse though others are connected to the database",
    )


def _take_tool(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--from",
        dest="tool",
        metavar="TOOL",
        choices=ADOPTED_TOOLS,
        help=f"one of {', '.join(ADOPTED_TOOLS)}; default: GATE_ADOPT",
    )
    _take_json(parser)


def _take_baseline(parser: ArgumentParser) -> None:
    parser.add_argument(
        "version",
        metavar="VERSION",
        help="the last one that the database has: a file name, with or without "
        "ending, or a number",
    )
    _take_json(parser)


def _take_last(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--to",
        metavar="VERSION",
        help="undo all that were applied after this one, which stays; 0: undo all; "
        "for all of GATE_TARGETS it is needed",
    )
    parser.add_argument(
        "--dry-run",
        dest="is_dry_run",
        action="store_true",
        help="show what would be undone, and by which files; undo nothing",
    )
    _take_json(parser)


def _take_name(parser: ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", help="words, such as add_orders_table")
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument(
        "--down",
        dest="with_down",
        action="store_true",
        help="write a second file, for what undoes it",
    )
    kind.add_argument(
        "--repeatable",
        dest="is_repeatable",
        action="store_true",
        help="a file without a number, applied again whenever its text changes",
    )


COMMANDS: Final = {
    "migrate": Command(
        "wait, apply what is pending, say how it went (the default)",
        module="migrate",
        function="migrate",
    ),
    "check": Command(
        "wait until every migration shipped here is applied; only looks",
        module="check",
        function="check",
    ),
    "wait": Command(
        "wait until the database answers and is writable",
        module="check",
        function="wait_for_server",
    ),
    "status": Command(
        "files and history side by side",
        module="status",
        function="show_status",
        arguments=_take_form,
        answers=True,
    ),
    "plan": Command(
        "what migrate would do, in order; applies nothing",
        module="status",
        function="show_plan",
        arguments=_take_json,
        answers=True,
    ),
    "rehearse": Command(
        "apply what is pending to a disposable database; tell what it locked and read",
        module="rehearse",
        function="rehearse",
        arguments=_take_rehearsal,
        answers=True,
    ),
    "resolve": Command(
        "say of migrations that they are applied, or that they are not",
        module="resolve",
        function="resolve",
        arguments=_take_answer,
    ),
    "rollback": Command(
        "undo the newest migration, or all after one, by the files that lead back",
        module="rollback",
        function="rollback",
        arguments=_take_last,
        answers=True,
    ),
    "adopt": Command(
        "take over the history of another tool; applies nothing",
        module="adopt",
        function="adopt",
        arguments=_take_tool,
        answers=True,
    ),
    "baseline": Command(
        "record all migrations up to one as applied, where there is no history yet",
        module="baseline",
        function="baseline",
        arguments=_take_baseline,
        answers=True,
    ),
    "new": Command(
        "write the next file from a template",
        module="new",
        function="new",
        arguments=_take_name,
        answers=True,
        needs_database=False,
    ),
}
