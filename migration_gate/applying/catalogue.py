"""
What the catalogue says of objects, by name and by oid. Reads only.
"""

from __future__ import annotations

from typing import Any, Final

import psycopg

from psycopg import sql

from migration_gate.connection.qualified import qualified


Conn = psycopg.Connection[Any]

# Object kinds that exist or not: the catalogue, its column of names.
NAMED: Final = {
    "DATABASE": ("pg_database", "datname"),
    "TABLESPACE": ("pg_tablespace", "spcname"),
    "SUBSCRIPTION": ("pg_subscription", "subname"),
}


def object_exists(conn: Conn, kind: str, name: str) -> bool:
    """Tell whether an object of one of the NAMED kinds exists."""
    catalogue, column = NAMED[kind]
    query = qualified("SELECT EXISTS (SELECT FROM pg_catalog.{} WHERE {} = {})").format(
        sql.Identifier(catalogue), sql.Identifier(column), name
    )
    row = conn.execute(query).fetchone()
    return row is not None and bool(row[0])


def find_oid(conn: Conn, schema: str | None, name: str) -> int | None:
    """Return the oid of a relation as the session's search path finds it."""
    parts = sql.Identifier(schema, name) if schema else sql.Identifier(name)
    row = conn.execute(
        "SELECT pg_catalog.to_regclass(%s)::pg_catalog.oid::pg_catalog.int8",
        (parts.as_string(conn),),
    ).fetchone()
    return None if row is None else row[0]


def has_class(conn: Conn, oid: int) -> bool:
    """Tell whether a relation still exists."""
    return class_name(conn, oid) is not None


def class_name(conn: Conn, oid: int) -> str | None:
    """Return a relation's name; None where it is gone."""
    row = conn.execute(
        qualified("SELECT relname FROM pg_catalog.pg_class WHERE oid = %s"), (oid,)
    ).fetchone()
    return None if row is None else str(row[0])


def qualified_name(conn: Conn, oid: int) -> sql.Identifier:
    """Return a relation's name with its schema, as SQL."""
    row = conn.execute(
        qualified(
            "SELECT n.nspname, c.relname FROM pg_catalog.pg_class c "
            "JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = %s"
        ),
        (oid,),
    ).fetchone()
    return sql.Identifier(*(row or ("", "")))
