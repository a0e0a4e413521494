"""
The progress of files that run outside a transaction: what of them is done.

One row for each unit, beside the history and made only when needed; a migration that is
applied has none. A unit of what undoes a migration has its number below zero: as long
as there is one, the migration is half undone. Written by the login role.
"""

from __future__ import annotations

import json

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import psycopg

from psycopg import sql

from migration_gate.connection.qualified import integers, qualified
from migration_gate.connection.refusals import translated
from migration_gate.history.companions import (
    Companion,
    companion_name,
    create_beside,
    look_beside,
    made_otherwise,
    read_beside,
)
from migration_gate.history.making import making
from migration_gate.history.rows import rows_written
from migration_gate.history.table import HistoryTable
from migration_gate.report.errors import HistoryError


State = Literal["started", "finished"]
SUFFIX: Final = "_progress"
COLUMNS: Final = qualified(
    """
    version varchar(255) NOT NULL,
    statement integer NOT NULL,
    digest pg_catalog.text NOT NULL,
    state pg_catalog.text NOT NULL
        CHECK (state = ANY (ARRAY['started', 'finished'])),
    changed_at timestamp NOT NULL,
    duration_ms bigint,
    before pg_catalog.json,
    PRIMARY KEY (version, statement)
    """
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """
    What is known of one unit of a migration.

    ``started`` is the intent, written before a statement that cannot be in a
    transaction; ``before`` is what the catalogue said at that moment.
    """

    number: int
    digest: str
    state: State
    before: Mapping[str, Any] = field(default_factory=dict)


def progress_table(table: HistoryTable) -> sql.Identifier:
    """Return the name of the progress table that belongs to a history table."""
    return companion_name(table, SUFFIX)


def ensure_progress(
    conn: psycopg.Connection[Any], table: HistoryTable, role: str, *, full: bool
) -> None:
    """
    Make the progress table unless it is there; needs the lock.

    Args:
        role: The login role.
        full: GATE_LOG_DETAIL=full, PostgreSQL's words as they are.

    Raises:
        HistoryError: There is such a table, and it cannot be trusted.
        LoginRefusedError: The login role may not make it.
        ServerRefusedError: PostgreSQL refuses it for another reason.
    """
    with translated("look for the progress table", full=full):
        seen = require_trusted(conn, table)
    if not seen.exists:
        make = create_beside(table, SUFFIX, seen, COLUMNS)
        name = table.name + SUFFIX
        with making(conn, table.schema, name, role, full=full):
            try:
                conn.execute(sql.SQL("BEGIN; {} COMMIT").format(make))
            except psycopg.errors.InvalidTextRepresentation as error:
                raise made_otherwise(conn, f"{table.schema}.{name}", error) from error


def require_trusted(conn: psycopg.Connection[Any], table: HistoryTable) -> Companion:
    """Return what is there. Raises HistoryError where that cannot be trusted."""
    seen = look_beside(conn, table, SUFFIX)
    if seen.faults:
        what = "; ".join(fault.what for fault in seen.faults)
        remedies = " ".join(fault.remedy for fault in seen.faults)
        name = f"{table.schema}.{table.name}{SUFFIX}"
        shown = companion_name(table, SUFFIX).as_string()
        hint = (
            f"It tells what of files outside a transaction has run: {remedies} "
            f"Where the gate has not made it: DROP TABLE {shown};"
        )
        if not remedies.strip():
            hint = (
                "The gate keeps there what of files outside a transaction has run: "
                "drop what has that name, or rename it."
            )
        raise HistoryError(
            f'table "{name}" cannot be trusted as progress: {what}', hint=hint
        )
    return seen


def read_progress(
    conn: psycopg.Connection[Any], table: HistoryTable, version: str
) -> dict[int, Progress]:
    """Return what is known of a migration's units, by their number. Reads only."""
    rows = _read(
        conn,
        table,
        qualified(
            "SELECT statement, digest, state, before::pg_catalog.text FROM {} "
            "WHERE version = {}"
        ).format(progress_table(table), sql.Literal(version)),
    )
    return {
        row[0]: Progress(
            number=row[0],
            digest=row[1],
            state=row[2],
            before=json.loads(row[3] or "{}"),
        )
        for row in rows
    }


def find_unfinished(
    conn: psycopg.Connection[Any], table: HistoryTable
) -> dict[str, int]:
    """
    Return the migrations that have progress, and the unit that each has reached.

    One below zero tells that the migration is half undone.
    """
    seen = require_trusted(conn, table)
    if not (seen.exists and seen.can_read):
        return {}
    query = sql.SQL(
        "SELECT version, pg_catalog.max(statement) FROM {} GROUP BY version"
    ).format(progress_table(table))
    return dict(_read(conn, table, query))


def find_begun(conn: psycopg.Connection[Any], table: HistoryTable) -> dict[str, int]:
    """
    Return the versions that have progress, and the lowest unit of each. Reads only.

    One below zero tells that the migration is half undone. Empty where the login role
    may not read the table, or it is not the gate's.
    """
    if not table.has_progress:
        return {}
    seen = look_beside(conn, table, SUFFIX)
    if not seen.exists or seen.faults or not seen.can_read:
        return {}
    query = sql.SQL(
        "SELECT version, pg_catalog.min(statement) FROM {} GROUP BY version"
    ).format(progress_table(table))
    return dict(_read(conn, table, query))


def _read(
    conn: psycopg.Connection[Any], table: HistoryTable, query: sql.Composable
) -> list[Any]:
    """Return rows. Raises HistoryError where the table is not what it was."""
    try:
        return read_beside(conn, table, SUFFIX, query)
    except psycopg.errors.InvalidTextRepresentation:
        require_trusted(conn, table)
        raise


NOW: Final = sql.SQL("(pg_catalog.clock_timestamp() AT TIME ZONE 'UTC')")
TOOK: Final = qualified(
    "greatest((extract(epoch FROM (pg_catalog.clock_timestamp() AT TIME ZONE 'UTC')"
    " - changed_at) * 1000)::pg_catalog.int8, 0)"
)
IS_UNIT: Final = qualified("version = {} AND statement = {}")


def insert_finished(
    table: HistoryTable, version: str, number: int, digest: str
) -> sql.Composed:
    """Return the statement that records a unit in the transaction that does it."""
    return sql.SQL(
        "INSERT INTO {} (version, statement, digest, state, changed_at, duration_ms) "
        "VALUES ({}, {}, {}, 'finished', {}, {})"
    ).format(progress_table(table), version, number, digest, NOW, rows_written(table))


def finish_finished(table: HistoryTable, version: str, number: int) -> sql.Composed:
    """
    Return the statement that fills in how long a unit took, before its COMMIT.

    Divides by the number of rows, so that a file fails that removed its own row, or
    wrote in the history.
    """
    return sql.SQL(
        "WITH done AS (UPDATE {} SET duration_ms = {} WHERE {} AND {} RETURNING 1) "
        "SELECT {}"
    ).format(
        progress_table(table),
        TOOK,
        IS_UNIT.format(version, number),
        qualified("{} - duration_ms <= 0").format(rows_written(table)),
        qualified("1 / (SELECT pg_catalog.count(*) FROM done)"),
    )


def write_intent(table: HistoryTable, version: str, intent: Progress) -> sql.Composed:
    """
    Return the statement that says what is about to be tried.

    An older intent for the unit keeps what the catalogue said before the first attempt.
    """
    return sql.SQL(
        "INSERT INTO {} (version, statement, digest, state, changed_at, before) "
        "VALUES ({}, {}, {}, 'started', {}, {}::pg_catalog.json) "
        "ON CONFLICT (version, statement) DO UPDATE "
        "SET changed_at = excluded.changed_at"
    ).format(
        progress_table(table),
        version,
        intent.number,
        intent.digest,
        NOW,
        json.dumps(intent.before),
    )


def begin_undoing(
    table: HistoryTable, version: str, intent: Progress, rows: Sequence[str]
) -> sql.Composed:
    """
    Return what takes a migration out of the history, and says what is to be tried.

    Its rows are kept with the intent, for ``give_up_undoing``.
    """
    return qualified(
        "WITH gone AS (DELETE FROM {history} AS h WHERE version = ANY "
        "(ARRAY[{rows}]) RETURNING pg_catalog.to_jsonb(h.*) AS kept) "
        "INSERT INTO {progress} "
        "(version, statement, digest, state, changed_at, before) "
        "SELECT {version}, {number} / (CASE WHEN pg_catalog.count(*) = {count} "
        "THEN 1 ELSE 0 END), {digest}, 'started', {now}, "
        "({before}::pg_catalog.jsonb || pg_catalog.jsonb_build_object("
        "'rows', pg_catalog.jsonb_agg(kept)))::pg_catalog.json FROM gone"
    ).format(
        history=sql.Identifier(table.schema, table.name),
        progress=progress_table(table),
        rows=sql.SQL(", ").join(map(sql.Literal, rows)),
        count=len(rows),
        version=version,
        number=intent.number,
        digest=intent.digest,
        now=NOW,
        before=json.dumps(intent.before),
    )


def give_up_undoing(table: HistoryTable, version: str, number: int) -> sql.Composed:
    """
    Return the statement that forgets a unit of what goes back, which has done nothing.

    Where the rows went with it, they come back, and all of the progress is forgotten.
    """
    return qualified(
        "WITH begun AS (DELETE FROM {progress} WHERE version = {version} "
        "AND (statement = {number} OR (SELECT pg_catalog.jsonb_exists("
        "before::pg_catalog.jsonb, 'rows') FROM {progress} WHERE version = {version} "
        "AND statement = {number})) RETURNING before::pg_catalog.jsonb AS before) "
        "INSERT INTO {history} OVERRIDING SYSTEM VALUE SELECT kept.* FROM begun, "
        "pg_catalog.jsonb_array_elements("
        "pg_catalog.jsonb_extract_path(begun.before, 'rows')) AS each, "
        "pg_catalog.jsonb_populate_record("
        "(SELECT h FROM {history} AS h LIMIT 0), each) AS kept"
    ).format(
        progress=progress_table(table),
        history=sql.Identifier(table.schema, table.name),
        version=version,
        number=number,
    )


def finish_unit(table: HistoryTable, version: str, number: int) -> sql.Composed:
    """Return the statement that says that a unit whose intent was written is done."""
    return sql.SQL(
        "UPDATE {} SET state = 'finished', duration_ms = {}, changed_at = {} WHERE {}"
    ).format(progress_table(table), TOOK, NOW, IS_UNIT.format(version, number))


def delete_units(
    table: HistoryTable, version: str, numbers: Sequence[int] | None = None
) -> sql.Composed:
    """Return the statement that forgets some units of a migration, or all."""
    statement = qualified("DELETE FROM {} WHERE version = {}").format(
        progress_table(table), version
    )
    if numbers is None:
        return statement
    return statement + qualified(" AND statement = ANY ({})").format(integers(numbers))
