"""
Parameters that a file sets first and that this server does not have.

pg_dump writes for its own version: an older server, or a newer one, lacks some of what
it sets. That is left out, with a warning, in a file that begins as a dump does; in any
other it is a slip of the pen, or the server's to refuse.
"""

from __future__ import annotations

import re

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import islice
from typing import Final

from migration_gate.files.script import Script
from migration_gate.files.units import Unit
from migration_gate.report.errors import FileFault, MigrationFilesError
from migration_gate.report.events import MIGRATION_SETTING_SKIPPED
from migration_gate.report.log import Log
from migration_gate.session.session import Session
from migration_gate.settings.spelling import closest
from migration_gate.statements import (
    Statement,
    leading_comments,
    setting_changed,
    without,
)


# PostgreSQL 13 to 18 have these: no need to ask.
KNOWN_EVERYWHERE: Final = frozenset(
    {
        *("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout"),
        *("client_encoding", "standard_conforming_strings", "search_path", "role"),
        *("check_function_bodies", "xmloption", "client_min_messages", "timezone"),
        *("row_security", "default_tablespace", "default_table_access_method"),
        *("session_authorization", "session characteristics", "datestyle", "all"),
        *("default_with_oids", "is_superuser", "seed"),  # not shown by pg_settings
    }
)
# pg_dump/pg_backup_archiver.c: _doSetFixedOutputState; pg_dumpall.c: main.
DUMPED: Final = KNOWN_EVERYWHERE | {"transaction_timeout", "escape_string_warning"}
DUMP_HEAD: Final = re.compile(rb"-- PostgreSQL database (?:cluster )?dump\b")
# As many as a dump begins with where its comments were taken out.
FIRST_OF_DUMP: Final = (
    ("statement_timeout", "lock_timeout"),
    ("statement_timeout", "client_encoding"),
)


def leave_out_unknown(held: Session, script: Script, log: Log) -> Script:
    """
    Return the script without a dump's settings that the server does not have.

    Asks the server only where the preamble has a parameter that not every version has.

    Raises:
        MigrationFilesError: A parameter is a slip of the pen away from one it has.
    """
    asked = {name: statement for statement, name in _preamble(script)}
    if not asked:
        return script
    with held.translated("ask which parameters the server has"):
        rows = held.conn.execute("SELECT name FROM pg_catalog.pg_settings").fetchall()
    known = {row[0] for row in rows}
    unknown = asked.keys() - known
    dropped = unknown & DUMPED if _begins_as_dump(script) else set()
    _require_no_slip(script, {name: asked[name] for name in unknown - dropped}, known)
    for name in sorted(dropped):
        line, _ = script.place(asked[name].first)
        log.emit(
            MIGRATION_SETTING_SKIPPED,
            version=script.migration.version,
            setting=name,
            line=line,
        )
    left_out = {asked[name].number for name in dropped}
    units = tuple(_without(unit, left_out) for unit in script.units)
    return replace(
        script, units=tuple(u for u in units if u.statements or not script.why)
    )


def _begins_as_dump(script: Script) -> bool:
    if any(DUMP_HEAD.match(comment) for _, comment in leading_comments(script.content)):
        return True
    statements = (s for unit in script.units for s in unit.statements)
    changes = map(setting_changed, islice(statements, 2))
    return tuple(change[0] for change in changes if change) in FIRST_OF_DUMP


def _require_no_slip(
    script: Script, unknown: Mapping[str, Statement], known: Iterable[str]
) -> None:
    faults = []
    for name, statement in unknown.items():
        meant = closest(name, known)
        if meant is None:
            continue  # or one that this role may not see: PostgreSQL will say
        line, column = script.place(statement.first)
        faults.append(
            FileFault(
                file=script.migration.file,
                line=line,
                column=column,
                problem=f'no parameter "{name}" on this server',
                remedy=f'Was "{meant}" meant?',
            )
        )
    if faults:
        raise MigrationFilesError(faults)


def _preamble(script: Script) -> Iterator[tuple[Statement, str]]:
    """Yield the settings before the first other statement that may be unknown."""
    for statement in (s for unit in script.units for s in unit.statements):
        change = setting_changed(statement)
        if change is None:
            return
        name, _, reach = change
        is_set = statement.tokens[:1] == (b"set",) and reach == "session"
        if is_set and name not in KNOWN_EVERYWHERE and "." not in name:
            yield statement, name


def _without(unit: Unit, numbers: set[int]) -> Unit:
    left_out = {at for at, s in enumerate(unit.statements) if s.number in numbers}
    return replace(unit, statements=without(unit.statements, left_out))
