"""
What comes before a table of the gate's is written or read: its lock, then a question.

Whoever was granted TRIGGER, as by GRANT ALL, may make a trigger in a transaction that
a write waits for, and who owns the schema may put another table or a view in the
place of this one: judged before that wait, nothing was wrong, and then their functions
run as the login role. Nothing is sent from here.
"""

from __future__ import annotations

from collections.abc import Sequence

from psycopg import sql

from migration_gate.history.catalogue import still_trusted
from migration_gate.history.table import HistoryTable


def lock_tables(table: HistoryTable, suffixes: Sequence[str]) -> sql.Composed | None:
    """
    Return the statement that locks what is written next, for the transaction.

    It takes no snapshot, so that what comes after it sees what it has waited for. None
    where the login role may only write columns, for whom there is no such lock.

    Args:
        table: The history.
        suffixes: Of the tables' names: "" for the history itself.
    """
    if not table.can_lock:
        return None
    names = (sql.Identifier(table.schema, table.name + suffix) for suffix in suffixes)
    return sql.SQL("LOCK TABLE {} IN ROW EXCLUSIVE MODE").format(
        sql.SQL(", ").join(sql.SQL("ONLY {}").format(name) for name in names)
    )


def expect_trusted(
    table: HistoryTable, suffix: str = "", *, deletes: bool = False
) -> sql.Composed:
    """
    Return the expression that fails with "gate:" where the table cannot be trusted.

    Beside the history, a table may belong to a member of the role that owns it too.

    Args:
        table: The history.
        suffix: Of what stands beside it.
        deletes: Rows may be deleted next.
    """
    owners = table.owners
    if suffix:
        owners = owners._replace(groups=(*owners.groups, table.owner))
    name = table.name + suffix
    trusted = still_trusted(table.schema, name, owners, deletes=deletes)
    return sql.SQL("{}::pg_catalog.bool").format(trusted)


def guarded(
    table: HistoryTable, suffixes: Sequence[str], write: sql.Composable
) -> sql.Composed:
    """Return statements to be sent as one message, or in a transaction."""
    lock = lock_tables(table, suffixes)
    questions = (expect_trusted(table, suffix, deletes=True) for suffix in suffixes)
    ask = sql.SQL("SELECT ") + sql.SQL(", ").join(questions)
    return sql.SQL("; ").join([*([lock] if lock else []), ask, write])


def guarded_read(
    table: HistoryTable, suffix: str, query: sql.Composable
) -> sql.Composed:
    """Return the same of a query for rows, which takes the right to SELECT."""
    lock = sql.SQL("LOCK TABLE ONLY {} IN ACCESS SHARE MODE").format(
        sql.Identifier(table.schema, table.name + suffix)
    )
    ask = sql.SQL("SELECT ") + expect_trusted(table, suffix)
    return sql.SQL("; ").join([lock, ask, query])
