"""
The tables that stand beside the history: whether one is there, and can be trusted.

Reads only the catalogue. Who made such a table could run code as the gate by a trigger,
a rule or a policy, as with the history itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import psycopg

from psycopg import sql

from migration_gate.connection.qualified import qualified
from migration_gate.history.catalogue import FOLLOWERS, owner_is_trusted
from migration_gate.history.guarding import expect_trusted, guarded_read
from migration_gate.history.table import HistoryTable
from migration_gate.history.trust import (
    Fault,
    find_faults,
    find_marked,
)
from migration_gate.report.errors import HistoryError
from migration_gate.report.quoting import quote_name


@dataclass(frozen=True, slots=True, kw_only=True)
class Companion:
    """
    What the catalogue says of a table beside the history, whether it is there or not.

    ``faults`` are why it cannot be trusted. ``can_create`` is the login role's right
    where ``maker`` is None; ``maker`` is the owner of the history, where the login role
    may make a table in its name. ``readers`` are the roles that were granted SELECT on
    the history, "" for PUBLIC.
    """

    exists: bool
    faults: tuple[Fault, ...]
    can_read: bool
    can_write: bool
    can_create: bool
    maker: str | None
    readers: tuple[str, ...]


# The history itself is not there.
ABSENT: Final = Companion(
    exists=False,
    faults=(),
    can_read=False,
    can_write=False,
    can_create=False,
    maker=None,
    readers=(),
)
QUERY: Final = qualified(
    """
SELECT CASE WHEN c.oid IS NOT NULL THEN pg_catalog.json_build_object(
           'schema', n.nspname, 'name', c.relname,
           'kind', c.relkind, 'persistence', c.relpersistence,
           'rules', ARRAY(SELECT r.rulename FROM pg_catalog.pg_rewrite r
                          WHERE r.ev_class = c.oid),
           'triggers', ARRAY(SELECT t.tgname FROM pg_catalog.pg_trigger t
                             WHERE t.tgrelid = c.oid AND NOT t.tgisinternal),
           'row_security',
               CASE WHEN c.relrowsecurity AND pg_catalog.row_security_active(c.oid)
               THEN CASE WHEN c.relforcerowsecurity THEN 'forced' ELSE 'active' END END,
           'followers', {followers},
           'can_alter', pg_catalog.pg_has_role(c.relowner, 'USAGE'),
           'owner', pg_catalog.pg_get_userbyid(c.relowner),
           'owner_is_trusted',
               pg_catalog.pg_has_role(c.relowner, h.relowner, 'MEMBER')
               OR {owner_is_trusted},
           'gate_role', pg_catalog.pg_get_userbyid(h.relowner)) END,
       coalesce(pg_catalog.has_table_privilege(c.oid, 'SELECT'), false),
       coalesce(pg_catalog.has_table_privilege(c.oid, 'INSERT')
                AND pg_catalog.has_table_privilege(c.oid, 'UPDATE')
                AND pg_catalog.has_table_privilege(c.oid, 'DELETE'), false),
       pg_catalog.has_schema_privilege(n.oid, 'CREATE'),
       CASE WHEN h.relowner <> (SELECT oid FROM pg_catalog.pg_roles
                                WHERE rolname = current_user)
                 AND pg_catalog.pg_has_role(h.relowner, 'USAGE')
                 AND pg_catalog.pg_has_role(h.relowner, {can_become})
                 AND pg_catalog.has_schema_privilege(h.relowner, n.oid, 'CREATE')
            THEN pg_catalog.pg_get_userbyid(h.relowner)::pg_catalog.text END,
       ARRAY(
           SELECT CASE WHEN a.grantee = 0 THEN ''
                       ELSE pg_catalog.pg_get_userbyid(a.grantee)::pg_catalog.text END
           FROM pg_catalog.aclexplode(h.relacl) a
           WHERE a.privilege_type = 'SELECT' AND a.grantee <> h.relowner)
FROM pg_catalog.pg_namespace n
JOIN pg_catalog.pg_class h ON h.relnamespace = n.oid AND h.relname = {history}
LEFT JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND c.relname = {name}
WHERE n.nspname = {schema}
"""
)


# A membership that may be used, but not become, came with version 16.
SET_OPTION_MIN_VERSION: Final = 160000


def right_to_become(conn: psycopg.Connection[Any]) -> str:
    """Return what pg_has_role() calls the right to SET ROLE."""
    return "SET" if conn.info.server_version >= SET_OPTION_MIN_VERSION else "MEMBER"


def companion_name(table: HistoryTable, suffix: str) -> sql.Identifier:
    """Return the name of a table beside a history table."""
    return sql.Identifier(table.schema, table.name + suffix)


def look_beside(
    conn: psycopg.Connection[Any], table: HistoryTable, suffix: str
) -> Companion:
    """Look whether a table is there beside the history. Reads only the catalogue."""
    row = conn.execute(
        QUERY.format(
            history=sql.Literal(table.name),
            schema=sql.Literal(table.schema),
            name=sql.Literal(table.name + suffix),
            followers=FOLLOWERS,
            owner_is_trusted=owner_is_trusted(table.owners),
            can_become=sql.Literal(right_to_become(conn)),
        )
    ).fetchone()
    if row is None:
        return ABSENT
    facts, can_read, can_write, can_create, maker, readers = row
    return Companion(
        exists=facts is not None,
        faults=() if facts is None else tuple(find_faults(facts)),
        can_read=can_read,
        can_write=can_write,
        can_create=can_create,
        maker=maker,
        readers=tuple(readers),
    )


def read_beside(
    conn: psycopg.Connection[Any],
    table: HistoryTable,
    suffix: str,
    query: sql.Composable,
) -> list[Any]:
    """Return the rows of a table that was looked at, where it still can be trusted."""
    cursor = conn.execute(guarded_read(table, suffix, query))
    while cursor.nextset():
        pass
    return cursor.fetchall()


def create_beside(
    table: HistoryTable,
    suffix: str,
    seen: Companion,
    columns: sql.SQL,
) -> sql.Composed:
    """
    Return the statements, for a transaction, that make a table beside the history.

    It belongs to the owner of the history where that can be, so that the next login
    role finds one that it may use, and whoever may read the history may read it.
    """
    name = companion_name(table, suffix)
    become: sql.Composable = sql.SQL("")
    leave = sql.SQL("")
    if seen.maker is not None:
        become = sql.SQL("SET LOCAL ROLE {};").format(sql.Identifier(seen.maker))
        leave = sql.SQL("RESET ROLE;")
    readers = (sql.Identifier(r) if r else sql.SQL("PUBLIC") for r in seen.readers)
    grants = (
        sql.SQL("GRANT SELECT ON {} TO {};").format(name, reader) for reader in readers
    )
    return sql.SQL(
        "{become} CREATE TABLE {name} ({columns}); {grants} {leave} SELECT {trusted};"
    ).format(
        become=become,
        name=name,
        columns=columns,
        grants=sql.SQL(" ").join(grants),
        leave=leave,
        trusted=expect_trusted(table, suffix),
    )


def made_otherwise(
    conn: psycopg.Connection[Any], name: str, error: psycopg.Error
) -> HistoryError:
    """Say who changes each new table: the one that was made is rolled back."""
    conn.execute("ROLLBACK")
    rows = conn.execute(
        "SELECT evtname FROM pg_catalog.pg_event_trigger "
        "WHERE evtenabled OPERATOR(pg_catalog.<>) 'D' ORDER BY 1"
    ).fetchall()
    names = ", ".join(quote_name(trigger) for (trigger,) in rows)
    what = find_marked(str(error)) or "another form"
    return HistoryError(
        f'table "{name}" would be made with {what}, and no start would trust it',
        hint=f"Event triggers of this database change each new table: {names}. Let "
        f"them pass over the gate's tables, by their names: {name} and what begins so.",
    )
