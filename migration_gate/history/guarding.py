"""
What comes before a write to a table of the gate's: its lock, and then a question.

Whoever was granted TRIGGER, as by GRANT ALL, may make a trigger in a transaction that
a write waits for: judged before that wait, the table had none, and then the trigger's
function runs as the login role. Nothing is sent from here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from psycopg import sql

from migration_gate.connection.qualified import qualified
from migration_gate.history.table import HistoryTable


# All else that runs a function as who writes a table takes the table's owner.
UNTRIGGERED: Final = qualified(
    """(
SELECT CASE WHEN c.relhastriggers AND (
        SELECT true FROM pg_catalog.pg_trigger t
        WHERE t.tgrelid = c.oid AND NOT t.tgisinternal LIMIT 1) THEN 'gate:a trigger'
    ELSE 'on' END
FROM pg_catalog.pg_class c WHERE c.oid = {table}::pg_catalog.regclass
)::pg_catalog.bool"""
)


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


def untriggered(table: HistoryTable, suffix: str = "") -> sql.Composed:
    """Return the expression that fails with "gate:" where the table has a trigger."""
    name = sql.Identifier(table.schema, table.name + suffix).as_string()
    return UNTRIGGERED.format(table=sql.Literal(name))


def guarded(
    table: HistoryTable, suffixes: Sequence[str], write: sql.Composable
) -> sql.Composed:
    """Return statements to be sent as one message, or in a transaction."""
    lock = lock_tables(table, suffixes)
    questions = (untriggered(table, suffix) for suffix in suffixes)
    ask = sql.SQL("SELECT ") + sql.SQL(", ").join(questions)
    return sql.SQL("; ").join([*([lock] if lock else []), ask, write])
