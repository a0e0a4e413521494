"""What happens to the table between the two queries of one look."""

from __future__ import annotations

from contextlib import closing

import psycopg
import pytest

from migration_gate.history.look import LOOKS_MAX, Look, look
from migration_gate.report.errors import HistoryError
from migration_gate.report.outcomes import ConnectionLostError
from migration_gate.settings.settings import HistoryTableName
from tests.fix_postgres import Database
from tests.fix_proxy import Message, Proxy
from tests.history_tables import FULL


pytestmark = pytest.mark.server
NAME = HistoryTableName(schema=None, table="schema_migrations")
ROW = "INSERT INTO schema_migrations (version, checksum) VALUES ('1_a.sql', 'x');"


def reads_rows(message: Message) -> bool:
    """Whether it is the second query of a look."""
    return message.type == "Q" and b"regclass" in message.payload


def look_while(database: Database, proxy: Proxy, change: str) -> Look:
    """Look; the change comes right before the rows are read."""
    database.execute(FULL + ROW)
    proxy.when(reads_rows, lambda: database.execute(change))
    with closing(proxy.through(database).connect()) as conn:
        return look(conn, NAME, None)


@pytest.mark.parametrize(
    "change",
    [
        "DROP TABLE schema_migrations",
        "ALTER TABLE schema_migrations RENAME TO elsewhere",
    ],
    ids=["dropped", "renamed"],
)
def test_a_table_that_is_gone_is_not_there(
    database: Database, proxy: Proxy, change: str
) -> None:
    """The gate looks again, and sees what is there then."""
    seen = look_while(database, proxy, change)
    assert (seen.table, seen.history) == (None, ())


def test_a_table_that_is_moved_is_found_where_it_is(
    database: Database, proxy: Proxy
) -> None:
    """In a schema that the search path does not name."""
    change = "CREATE SCHEMA x; ALTER TABLE schema_migrations SET SCHEMA x"
    seen = look_while(database, proxy, change)
    assert (seen.schema, seen.is_elsewhere) == ("x", True)
    assert [row.version for row in seen.history] == ["1_a.sql"]


@pytest.mark.parametrize("column", ["checksum", "duration_ms"])
def test_a_column_that_is_gone_is_not_read(
    database: Database, proxy: Proxy, column: str
) -> None:
    """The other columns are."""
    change = f"ALTER TABLE schema_migrations DROP COLUMN {column}"
    seen = look_while(database, proxy, change)
    assert seen.table is not None
    assert column not in seen.table.our_columns
    assert [row.version for row in seen.history] == ["1_a.sql"]


def test_another_table_of_its_name_is_judged_before_it_counts(
    database: Database, proxy: Proxy
) -> None:
    """Its rows were read, by a name that meant another table a moment before."""
    seen = look_while(
        database,
        proxy,
        "ALTER TABLE schema_migrations RENAME TO elsewhere;"
        "CREATE TABLE schema_migrations (version text PRIMARY KEY,"
        " applied_at timestamp, checksum text, duration_ms bigint);"
        "INSERT INTO schema_migrations (version) VALUES ('2_b.sql')",
    )
    assert seen.table is not None
    assert seen.table.our_columns == {"checksum", "duration_ms"}
    assert [row.version for row in seen.history] == ["2_b.sql"]


def test_a_view_in_its_place_is_refused(database: Database, proxy: Proxy) -> None:
    """The second look judges what stands there."""
    with pytest.raises(HistoryError, match="it is not an ordinary table"):
        look_while(
            database,
            proxy,
            "ALTER TABLE schema_migrations RENAME TO elsewhere;"
            "CREATE VIEW schema_migrations AS SELECT version, applied_at, checksum,"
            " duration_ms FROM elsewhere",
        )


def test_a_table_that_never_stands_still_closes_the_gate(
    database: Database, proxy: Proxy
) -> None:
    """It is looked at a few times, and not for ever."""
    database.execute(FULL + ROW)
    names = ["schema_migrations", "elsewhere"]
    looks: list[bool] = []

    def rename() -> None:
        looks.append(True)
        database.execute(f"ALTER TABLE {names[0]} RENAME TO {names[1]}")
        names.reverse()
        proxy.when(lambda message: message.type == "Q", rename)

    proxy.when(reads_rows, rename)
    with (
        closing(proxy.through(database).connect()) as conn,
        pytest.raises(HistoryError, match="was changed each time"),
    ):
        look(conn, NAME, None)
    assert len(looks) == 2 * LOOKS_MAX - 1


def test_a_transaction_that_it_fails_is_a_lost_lock(
    database: Database, proxy: Proxy
) -> None:
    """Through a pooler the lock lives in it."""
    database.execute(FULL + ROW)
    proxy.when(reads_rows, lambda: database.execute("DROP TABLE schema_migrations"))
    with closing(proxy.through(database).connect()) as conn:
        conn.execute("BEGIN")
        with pytest.raises(ConnectionLostError) as caught:
            look(conn, NAME, None)
    assert isinstance(caught.value.__cause__, psycopg.errors.UndefinedTable)
