"""
The statements that read and write the history table. Nothing is sent from here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final, Literal

from psycopg import sql

from migration_gate import __version__
from migration_gate.connection.qualified import (
    integers,
    qualified,
    quoted,
    relations,
)
from migration_gate.files.migration import AppliedMigration, Replacement
from migration_gate.history.table import HistoryTable


# A name that is longer is no file's; text of any length may stand there.
VERSION_READ_MAX: Final = 300
ADOPTED_FROM: Final = "adopted from "
ORIGIN: Final = sql.SQL(
    "pg_catalog.min(gate_version) FILTER (WHERE "
    "pg_catalog.starts_with(gate_version, {}))"
).format(ADOPTED_FROM)

# What comes before a query for rows, for one table or for many.
LOCK: Final = sql.SQL("LOCK TABLE ONLY {} IN ACCESS SHARE MODE; ")
NEXT: Final = sql.SQL(", ONLY ")
ASK: Final = qualified("SELECT 1 / CASE WHEN {} = {} THEN 1 ELSE 0 END; ")


def read_rows(table: HistoryTable) -> sql.Composed:
    """
    Return the query for all rows, as one JSON array of arrays, and the table's oid.

    A row has version, checksum, time with microseconds, duration in ms and, where there
    are any, earlier texts; the array is NULL where there are none. The oid tells
    whether it is the table that was judged. The third column is the origin of rows that
    were taken over, NULL where there are none.
    """
    name = sql.Identifier(table.schema, table.name)
    ours = {
        name: sql.Identifier(name) if name in table.our_columns else sql.NULL
        for name in ("checksum", "duration_ms", "superseded")
    }
    facts = sql.SQL(
        'pg_catalog."left"(version::pg_catalog.text, {length}), '
        "{checksum}, {time}, {duration_ms}"
    ).format(
        length=VERSION_READ_MAX,
        checksum=ours["checksum"],
        time=to_text(has_zone=table.has_zone, fraction="US"),
        duration_ms=ours["duration_ms"],
    )
    # Nearly no row has more, and a history may have ten thousand.
    return sql.SQL(
        "SELECT {name_text}::pg_catalog.regclass::pg_catalog.oid::pg_catalog.int8, "
        "pg_catalog.json_agg(CASE WHEN {superseded} IS NULL "
        "THEN pg_catalog.json_build_array({facts}) "
        "ELSE pg_catalog.json_build_array({facts}, {superseded}) END), {origin} "
        "FROM {name} WHERE version IS NOT NULL"
    ).format(
        name_text=name.as_string(),
        facts=facts,
        superseded=ours["superseded"],
        origin=ORIGIN if "gate_version" in table.our_columns else sql.NULL,
        name=name,
    )


def require_same(judged: Sequence[tuple[HistoryTable, int]]) -> sql.Composed:
    """
    Return what comes before a query for rows, in the same message.

    Who owns the schema may drop the table, and make a view or a table with policies in
    its place, whose functions the query would run: in a transaction that the query
    waits for. So the table is locked first, and the rows are asked for only where it is
    the one that was judged. A role that may only read columns has no such lock.

    Args:
        judged: Each table with its oid.
    """
    names = [quoted(table.schema, table.name) for table, _ in judged]
    ask = ASK.format(relations(names), integers(oid for _, oid in judged))
    locked = [
        name
        for name, (table, _) in zip(names, judged, strict=True)
        if table.can_read_all
    ]
    return LOCK.format(NEXT.join(locked)) + ask if locked else ask


def insert_row(
    table: HistoryTable,
    version: str | sql.Composable,
    checksum: str | sql.Composable,
    duration_ms: sql.Composable | None = None,
) -> sql.Composed:
    """Return the statement that records a version, with what columns there are."""
    ours: dict[str, str | sql.Composable] = {
        "checksum": checksum,
        "gate_version": __version__,
    }
    if duration_ms is not None:
        ours["duration_ms"] = duration_ms
    values: dict[str, str | sql.Composable] = {
        "version": version,
        "applied_at": clock(has_zone=table.has_zone),
        **{name: value for name, value in ours.items() if name in table.our_columns},
    }
    return sql.SQL("INSERT INTO {} ({}) VALUES ({})").format(
        sql.Identifier(table.schema, table.name),
        sql.SQL(", ").join(sql.Identifier(column) for column in values),
        sql.SQL(", ").join(values.values()),
    )


def replace_row(
    table: HistoryTable,
    row: Replacement,
    checksum: str,
    duration_ms: sql.Composable,
) -> sql.Composed:
    """
    Return the statement that records a repeatable migration's text in its row.

    Divides by the number of rows, so that it fails where the row is not what it was
    when the plan was made.
    """
    return sql.SQL(
        "WITH done AS (UPDATE {table} SET {values} WHERE {is_row} RETURNING 1) "
        "SELECT {one_by_count}"
    ).format(
        table=sql.Identifier(table.schema, table.name),
        values=_assign(
            {
                "checksum": checksum,
                "applied_at": clock(has_zone=table.has_zone),
                "duration_ms": duration_ms,
                "gate_version": __version__,
                "superseded": row.superseded,
            }
        ),
        is_row=qualified("version = {} AND checksum = {}").format(
            row.version, row.checksum
        ),
        one_by_count=qualified("1 / (SELECT pg_catalog.count(*) FROM done)"),
    )


def insert_adopted(
    table: HistoryTable, rows: Iterable[tuple[AppliedMigration, str]]
) -> sql.Composed:
    """
    Return the statement that records what another tool has applied.

    Args:
        rows: Each with what is recorded as gate_version; now, where it has no time.
    """
    with_zone = sql.SQL("{}::pg_catalog.timestamptz")
    time = with_zone if table.has_zone else sql.SQL("{}::pg_catalog.timestamp")
    values = []
    for row, origin in rows:
        each: dict[str, sql.Composable] = {
            "version": sql.Literal(row.version),
            "applied_at": time.format(row.applied_at)
            if row.applied_at
            else clock(has_zone=table.has_zone),
            "checksum": sql.Literal(row.checksum),
            "gate_version": sql.Literal(origin),
        }
        values.append([each[name] for name in _adopted_columns(table)])
    return sql.SQL("INSERT INTO {} ({}) VALUES {}").format(
        sql.Identifier(table.schema, table.name),
        sql.SQL(", ").join(map(sql.Identifier, _adopted_columns(table))),
        sql.SQL(", ").join(
            sql.SQL("({})").format(sql.SQL(", ").join(each)) for each in values
        ),
    )


def _adopted_columns(table: HistoryTable) -> tuple[str, ...]:
    ours = [name for name in ("checksum", "gate_version") if name in table.our_columns]
    return ("version", "applied_at", *ours)


def delete_rows(table: HistoryTable, versions: Sequence[str]) -> sql.Composed:
    """Return the statement that takes versions out of the history."""
    return qualified("DELETE FROM {} WHERE version = ANY (ARRAY[{}])").format(
        sql.Identifier(table.schema, table.name),
        sql.SQL(", ").join(map(sql.Literal, versions)),
    )


def declare_replaced(
    table: HistoryTable, row: Replacement, checksum: str
) -> sql.Composed:
    """Return the statement by which a repeatable's text counts as applied."""
    values = {"checksum": checksum, "superseded": row.superseded}
    return sql.SQL("UPDATE {} SET {} WHERE {}").format(
        sql.Identifier(table.schema, table.name),
        _assign({k: v for k, v in values.items() if k in table.our_columns}),
        qualified("version = {}").format(row.version),
    )


def _assign(values: Mapping[str, str | sql.Composable]) -> sql.Composed:
    return sql.SQL(", ").join(
        sql.SQL("{} = {}").format(sql.Identifier(name), value)
        for name, value in values.items()
    )


def remove_rows(table: HistoryTable, versions: Sequence[str]) -> sql.Composed:
    """
    Return the statement that takes a migration out of the history.

    Divides by 0 where one of them is not there: another session was faster, and nothing
    is undone twice.
    """
    return sql.SQL("WITH gone AS ({} RETURNING 1) {}").format(
        delete_rows(table, versions),
        qualified(
            "SELECT 1 / CASE WHEN pg_catalog.count(*) = {} THEN 1 ELSE 0 END FROM gone"
        ).format(len(versions)),
    )


# What a way back must not touch is counted before and after it, in a parameter of the
# transaction's own; where the file resets that, nothing is counted.
NOTED: Final = "migration_gate.written"


def note_written(table: HistoryTable) -> sql.Composed:
    """Return the statement that notes what was written in the history so far."""
    written = rows_written(table)
    call = sql.SQL("SELECT pg_catalog.set_config({}, {}::pg_catalog.text, true)")
    return call.format(NOTED, written)


def require_unwritten(table: HistoryTable) -> sql.Composed:
    """Return the statement that divides by 0 where more was written since."""
    return qualified(
        "SELECT 1 / CASE WHEN pg_catalog.length({noted}) > 0 "
        "AND {written} > {noted}::pg_catalog.int8 THEN 0 ELSE 1 END"
    ).format(
        written=rows_written(table),
        noted=sql.SQL("pg_catalog.current_setting({}, true)").format(NOTED),
    )


# The last two stand for a row that is gone: how long it took, and no time.
FINISH_UNDOING: Final = qualified(
    "SELECT (extract(epoch FROM pg_catalog.clock_timestamp() - "
    "pg_catalog.transaction_timestamp()) * 1000)::pg_catalog.int8, NULL"
)


def replace_checksum(
    table: HistoryTable, versions: Sequence[str], checksum: str
) -> sql.Composed:
    """Return the statement that takes a file as it is; a row without stays so."""
    is_row = qualified("version = ANY (ARRAY[{}]) AND checksum IS NOT NULL")
    return sql.SQL("UPDATE {} SET checksum = {} WHERE {}").format(
        sql.Identifier(table.schema, table.name),
        checksum,
        is_row.format(sql.SQL(", ").join(map(sql.Literal, versions))),
    )


def lock_row(table: HistoryTable, version: str) -> sql.Composed:
    """Return the statement that locks a version's row."""
    return qualified("SELECT FROM {} WHERE version = {} FOR UPDATE").format(
        sql.Identifier(table.schema, table.name), version
    )


# How many rows of the history this session has written since PostgreSQL last added them
# up, which is never amid a transaction; 0 where it counts nothing (track_counts). The
# number before the file waits in the row's duration_ms for the one after it.
WRITTEN: Final = qualified(
    "(pg_catalog.pg_stat_get_xact_tuples_inserted({table}::pg_catalog.regclass) + "
    "pg_catalog.pg_stat_get_xact_tuples_updated({table}::pg_catalog.regclass) + "
    "pg_catalog.pg_stat_get_xact_tuples_deleted({table}::pg_catalog.regclass))"
)


def rows_written(table: HistoryTable) -> sql.Composed:
    """Return the expression that counts what was written in the history."""
    name = sql.Identifier(table.schema, table.name).as_string()
    return WRITTEN.format(table=sql.Literal(name))


# Set by the statement that finds the row, and asked for by the next one: cheaper than
# one statement that counts what it has changed.
RECORDED: Final = "migration_gate.recorded"
REQUIRE_RECORDED: Final = f"SELECT pg_catalog.current_setting('{RECORDED}')::boolean"


def finish_row(table: HistoryTable, version: str | sql.Composable) -> sql.Composed:
    """
    Fill in when the migration ended and how long it took, and read both back.

    Its answer has the duration in ms and the time. Where the file has removed its own
    row, or written another one, REQUIRE_RECORDED fails after it.
    """
    now = clock(has_zone=table.has_zone)
    # The column may keep whole seconds, rounded.
    took = qualified(
        "greatest((extract(epoch FROM {} - applied_at) * 1000)::pg_catalog.int8, 0)"
    ).format(now)
    if "duration_ms" in table.our_columns and table.can_update:
        statement = sql.SQL(
            "UPDATE {table} SET applied_at = {now}, duration_ms = {took} "
            "WHERE {is_row} AND {has_written_one} "
            "RETURNING duration_ms, {time}, {recorded}"
        )
    else:
        statement = sql.SQL(
            "SELECT {took}, {time}, {recorded} FROM {table} WHERE {is_row}"
        )
    return statement.format(
        table=sql.Identifier(table.schema, table.name),
        now=now,
        took=took,
        is_row=qualified("version = {}").format(version),
        time=to_text(has_zone=table.has_zone),
        has_written_one=qualified("{} - duration_ms <= 1").format(rows_written(table)),
        recorded=sql.SQL("pg_catalog.set_config({}, 'on', true)").format(RECORDED),
    )


def clock(*, has_zone: bool) -> sql.SQL:
    """Return the time of the moment, as the type of applied_at wants it: in UTC."""
    if has_zone:
        return sql.SQL("pg_catalog.clock_timestamp()")
    return sql.SQL("(pg_catalog.clock_timestamp() AT TIME ZONE 'UTC')")


def to_text(*, has_zone: bool, fraction: Literal["MS", "US"] = "MS") -> sql.Composed:
    """Return applied_at as the log writes times, or with microseconds."""
    zone = sql.SQL(" AT TIME ZONE 'UTC'" if has_zone else "")
    return sql.SQL(
        'pg_catalog.to_char(applied_at{}, \'YYYY-MM-DD"T"HH24:MI:SS.{}"Z"\')'
    ).format(zone, sql.SQL(fraction))
