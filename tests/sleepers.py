"""A killed gate's statement that sleeps: seen, and ended where the server would not."""

from __future__ import annotations

from tests.fix_postgres import Database


# client_connection_check_interval came with it: before, a statement runs on.
WATCHES_CLIENTS = 140000
SLEEPING = (
    "FROM pg_stat_activity WHERE wait_event = 'PgSleep'"
    " AND datname = current_database()"
)


def is_sleeping(database: Database) -> bool:
    """Whether a statement sleeps in a database."""
    return database.fetch(f"SELECT count(*) > 0 {SLEEPING}") == [(True,)]


def end_sleepers(database: Database) -> None:
    """End the statements of a gate that was killed, on a server that lets them be."""
    if database.server.version < WATCHES_CLIENTS:
        database.execute(f"SELECT pg_terminate_backend(pid) {SLEEPING}")
