"""
Settings that a dump makes first and that this server may not have.

pg_dump writes for its own version: an older server, or a newer one, lacks some of the
parameters. What the server does not know is left out, with a warning.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from psycopg import sql

from migration_gate.files.script import Script
from migration_gate.files.units import Unit
from migration_gate.report.events import MIGRATION_SETTING_SKIPPED
from migration_gate.report.log import Log
from migration_gate.session.session import Session, translated_loss
from migration_gate.statements import Statement, place, setting_changed


# PostgreSQL 13 to 18 have these: no need to ask.
KNOWN_EVERYWHERE: Final = frozenset(
    {
        *("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout"),
        *("client_encoding", "standard_conforming_strings", "search_path", "role"),
        *("check_function_bodies", "xmloption", "client_min_messages", "timezone"),
        *("row_security", "default_tablespace", "default_table_access_method"),
        *("session_authorization", "session characteristics", "datestyle", "all"),
    }
)


def leave_out_unknown(held: Session, script: Script, log: Log) -> Script:
    """
    Return the script without the preamble's settings that the server does not have.

    Asks the server only where the preamble has a parameter that not every version has.
    """
    asked = {name: statement for statement, name in _preamble(script)}
    if not asked:
        return script
    query = sql.SQL("SELECT name FROM pg_catalog.pg_settings WHERE name = ANY ({})")
    with translated_loss():
        rows = held.conn.execute(query.format(list(asked))).fetchall()
    unknown = asked.keys() - {row[0] for row in rows}
    for name in unknown:
        line, _ = place(script.content, asked[name].first)
        log.emit(
            MIGRATION_SETTING_SKIPPED,
            version=script.migration.version,
            setting=name,
            line=line,
        )
    left_out = {asked[name].number for name in unknown}
    units = tuple(_without(unit, left_out) for unit in script.units)
    return replace(
        script, units=tuple(u for u in units if u.statements or not script.why)
    )


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
    kept = tuple(s for s in unit.statements if s.number not in numbers)
    return replace(unit, statements=kept)
