"""What to do about an error of PostgreSQL's: each state with each of its causes."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from migration_gate.report.errors import SqlFailure
from migration_gate.report.remedies import (
    FIX_AND_RESTART,
    HIDDEN_WORDS,
    NEVER_INSIDE,
    OUTSIDE,
    OWN_REMEDIES,
    OWN_REMEDY,
    REMEDIES,
    ROWS_VIOLATE,
    UUID_REMEDY,
    find_own_remedy,
    find_remedy,
)


NOTHING = SqlFailure(
    sqlstate=None,
    message=None,
    detail=None,
    hint=None,
    context=None,
    constraint=None,
    table=None,
    position=None,
)
INSIDE = "PL/pgSQL function inline_code_block line 1 at EXECUTE"


def failure(sqlstate: str | None, message: str = "", **facts: str) -> SqlFailure:
    """Return an error of PostgreSQL's."""
    return NOTHING._replace(sqlstate=sqlstate, message=message, **facts)  # type: ignore[arg-type]  # texts


# State, PostgreSQL's words, and a word of the remedy: a cause that its source, an
# extension's or a provider's has for the state.
CAUSES = [
    # cannot be in a transaction, or not here
    ("25001", "VACUUM cannot run inside a transaction block", "no-transaction"),
    ("25001", "VACUUM cannot run inside a subtransaction", "no-transaction"),
    ("25001", "CREATE DATABASE cannot be executed within a pipeline", "no-transaction"),
    (
        "25001",
        "SET TRANSACTION ISOLATION LEVEL must be called before any query",
        "BEGIN ISOLATION LEVEL",
    ),
    (
        "25001",
        "transaction read-write mode must be set before any query",
        "BEGIN ISOLATION LEVEL",
    ),
    (
        "25001",
        "SET TRANSACTION [NOT] DEFERRABLE cannot be called within a subtransaction",
        "BEGIN ISOLATION LEVEL",
    ),
    ("2D000", "invalid transaction termination", "no-transaction"),
    ("2D000", "cannot commit while a subtransaction is active", "no-transaction"),
    (
        "2D000",
        "cannot perform transaction commands inside a cursor loop",
        "no-transaction",
    ),
    ("25006", "cannot execute CREATE TABLE in a read-only transaction", "read_only"),
    ("25006", "cannot execute INSERT during recovery", "read_only"),
    ("25P01", "LOCK TABLE can only be used in transaction blocks", "BEGIN;"),
    ("25P01", "SAVEPOINT can only be used in transaction blocks", "BEGIN;"),
    ("25P01", "DECLARE CURSOR can only be used in transaction blocks", "BEGIN;"),
    ("26000", 'prepared statement "p" does not exist', "clean session"),
    ("34000", 'cursor "c" does not exist', "clean session"),
    ("3B001", 'savepoint "s" does not exist', "clean session"),
    # exists, and exists not
    ("42P04", 'database "d" already exists', "resolve VERSION --applied"),
    ("42P06", 'schema "s" already exists', "resolve VERSION --applied"),
    ("42P07", 'relation "t" already exists', "resolve VERSION --applied"),
    ("42701", 'column "c" of relation "t" already exists', "resolve VERSION"),
    ("42701", 'column "c" specified more than once', "twice in the statement"),
    ("42710", 'type "t" already exists', "resolve VERSION --applied"),
    ("42710", 'trigger "t" for relation "r" already exists', "resolve VERSION"),
    ("42710", 'role "app" already exists', "pg_roles"),
    ("42723", 'function "f" already exists with same argument types', "resolve"),
    ("42P01", 'relation "t" does not exist', "search_path"),
    ("42P01", 'missing FROM-clause entry for table "t"', "Check the name"),
    ("3F000", 'schema "s" does not exist', "Create the schema first"),
    ("3F000", "no schema has been selected to create in", "search_path"),
    ("42704", 'type "citext" does not exist', "extension"),
    ("42704", 'role "app" does not exist', "a role to another server"),
    ("42704", 'required extension "cube" is not installed', "CASCADE"),
    ("42883", "function f(unknown) does not exist", "search_path"),
    ("42883", "operator does not exist: citext = text", "search_path"),
    ("42883", "function uuid_generate_v4() does not exist", "gen_random_uuid()"),
    ("42703", 'column "c" does not exist', "correct it"),
    ("42601", 'syntax error at or near "x"', "correct it"),
    # extensions
    ("0A000", 'extension "uuid-ossp" is not available', "gen_random_uuid()"),
    ("42501", 'permission denied to create extension "uuid-ossp"', "gen_random_uuid"),
    (
        "0A000",
        'extension "hstore" is not allow-listed for users in Azure Database for Post',
        "azure.extensions",
    ),
    (
        "42501",
        "Only members of azure_pg_admin are allowed to use CREATE EXTENSION",
        "azure_pg_admin",
    ),
    ("0A000", 'extension "x" is not in rds.allowed_extensions', "rds.allowed"),
    ("22023", 'Extension "x" is not supported by Amazon RDS', "SHOW rds.extensions"),
    ("0A000", 'extension "words" is not available', "install its package"),
    ("0A000", 'extension "x" does not support SET SCHEMA', "stay in its schema"),
    ("42501", 'permission denied to create extension "x"', "trusted extensions"),
    ("42501", 'permission denied to update extension "x"', "trusted extensions"),
    ("42501", "must be owner of extension plpgsql", "--no-comments"),
    ("58P01", 'could not open extension control file "x"', "install its package"),
    ("58P01", 'could not access file "$libdir/postgis-3"', "install its package"),
    (
        "22023",
        ('extension "x" has no installation script nor update path for version "9"'),
        "pg_available_extension_versions",
    ),
    (
        "22023",
        'extension "x" has no update path from version "1" to version "2"',
        "pg_available_extension_versions",
    ),
    (
        "55000",
        "pg_stat_statements must be loaded via shared_preload_libraries",
        "restart",
    ),
    # rows
    ("23001", "update or delete violates RESTRICT setting", "Rows violate"),
    ("23502", 'column "c" of relation "t" contains null values', "Rows violate"),
    ("23503", "insert or update violates foreign key", "Rows violate"),
    ("23505", "could not create unique index", "Rows violate"),
    ("23514", "check constraint is violated by some row", "Rows violate"),
    ("23514", 'no partition of relation "t" found for row', "create one first"),
    ("23P01", "conflicting key value violates exclusion", "Rows violate"),
    ("44000", "new row violates check option for view", "Rows violate"),
    ("22021", 'invalid byte sequence for encoding "UTF8"', "encoding"),
    ("22P05", "character has no equivalent in encoding", "encoding"),
    ("22P02", "invalid input syntax for type integer", "correct it"),
    ("22001", "value too long for type character varying(3)", "correct it"),
    ("22012", "division by zero", "correct it"),
    ("21000", "more than one row returned by a subquery", "correct it"),
    ("P0002", "query returned no rows", "correct it"),
    # in use
    (
        "55006",
        'cannot ALTER TABLE "t" because it has pending trigger events',
        "SET CONSTRAINTS ALL IMMEDIATE",
    ),
    (
        "55006",
        (
            'cannot DROP TABLE "t" because it is being used by active queries in this '
            "session"
        ),
        "later file",
    ),
    ("55006", 'cannot drop active portal "p"', "later file"),
    ("55006", "current user cannot be dropped", "administrator"),
    ("55006", "session user cannot be dropped", "administrator"),
    ("55006", "cannot drop the currently open database", "administrator"),
    (
        "55006",
        'database "d" is used by an active logical replication slot',
        "replication slot",
    ),
    ("55006", 'replication slot "s" is active for PID 7', "replication slot"),
    (
        "55006",
        'database "d" is being used by logical replication subscription',
        "subscription",
    ),
    (
        "55006",
        'database "d" is being accessed by other users',
        "Other sessions",
    ),
    ("55006", "ein Text in einer anderen Sprache", "SET CONSTRAINTS ALL IMMEDIATE"),
    (
        "55000",
        'cannot delete from table "t" because it does not have a replica identity',
        "REPLICA IDENTITY FULL",
    ),
    ("55000", "logical decoding requires wal_level >= logical", "wal_level"),
    ("55000", 'materialized view "m" has not been populated', "REFRESH"),
    ("55000", 'currval of sequence "s" is not yet defined', "correct it"),
    ("55000", 'cannot insert into view "v"', "correct it"),
    (
        "55P02",
        'parameter "max_connections" cannot be changed without restarting the server',
        "administrator",
    ),
    ("55P02", 'parameter "x" cannot be set after connection start', "administrator"),
    ("55P03", 'could not obtain lock on relation "t"', "GATE_DDL_LOCK_TIMEOUT"),
    ("55P03", "canceling statement due to lock timeout", "GATE_DDL_LOCK_TIMEOUT"),
    ("55P04", 'unsafe use of new value "b" of enum type e', "ALTER TYPE"),
    ("2BP01", "cannot drop table t because other objects depend on it", "CASCADE"),
    ("2BP01", "cannot drop function f() because extension x requires it", "CASCADE"),
    ("2BP01", 'role "r" cannot be dropped because some objects depend', "REASSIGN"),
    # limits
    ("53100", 'could not extend file "x": No space left on device', "disk is full"),
    ("53200", "out of memory", "out of memory"),
    ("53200", "out of shared memory", "max_locks_per_transaction"),
    ("53300", "remaining connection slots are reserved", "no connection left"),
    ("53300", 'too many connections for role "r"', "no connection left"),
    ("53400", "temporary file size exceeds temp_file_limit (1kB)", "temp_file_limit"),
    ("53400", "all replication slots are in use", "max_replication_slots"),
    ("54000", "index row size 3000 exceeds btree version 4 maximum", "md5"),
    ("54000", "row is too big: size 9000, maximum size 8160", "A limit of"),
    ("54001", "stack depth limit exceeded", "calls itself"),
    ("54011", "tables can have at most 1600 columns", "A limit of PostgreSQL's"),
    ("54023", "functions cannot have more than 100 arguments", "A limit of"),
    ("57014", "canceling statement due to statement timeout", "statement-timeout"),
    ("57014", "canceling statement due to user request", "ask who"),
    ("57014", "annulation de la requête", "cancelled, or ran longer"),
    # rights
    ("42501", "permission denied for table t", "GATE_ROLE"),
    ("42501", "permission denied for schema s", "grant it"),
    ("42501", "must be owner of table t", "Only its owner"),
    ("42501", 'new row violates row-level security policy for table "t"', "policy"),
    ("42501", "permission denied to create role", "administrator"),
    ("42501", "permission denied to create database", "administrator"),
    ("42501", 'permission denied to set parameter "x"', "administrator"),
    ("42501", 'permission denied: "pg_class" is a system catalog', "administrator"),
    ("42501", 'must be able to SET ROLE "owner"', "administrator"),
    ("42501", "must be superuser to create a base type", "administrator"),
    ("42501", "permission denied to COPY from a file", "FROM STDIN"),
    (
        "42501",
        "must be superuser or a member of pg_read_server_files to COPY from a file",
        "FROM STDIN",
    ),
    # not possible, damage, other servers
    ("0A000", "cannot alter type of a column used by a view or rule", "again"),
    ("0A000", "cannot alter type of a column used in a policy definition", "again"),
    (
        "0A000",
        'cannot create index on partitioned table "t" concurrently',
        "ATTACH PARTITION",
    ),
    ("0A000", "cross-database references are not implemented", "correct it"),
    ("58P01", 'could not open file "/x.csv" for reading: No such file', "FROM STDIN"),
    ("58P01", 'could not stat file "/x.csv": No such file', "FROM STDIN"),
    ("58030", "could not read block 0", "its own files"),
    ("XX001", "invalid page in block 0 of relation", "its own files"),
    ("XX002", 'index "i" contains unexpected zero page', "its own files"),
    ("XX000", "cache lookup failed for type 0", "correct it"),
    ("08001", 'could not connect to server "s"', "Another server"),
]


@pytest.mark.parametrize(("sqlstate", "message", "expected"), CAUSES)
def test_each_cause_of_a_state_has_its_own_remedy(
    sqlstate: str, message: str, expected: str
) -> None:
    """A remedy for another cause sends people the wrong way at night."""
    assert expected in find_remedy(failure(sqlstate, message))


def test_each_remedy_is_that_of_a_cause(
    record_property: Callable[[str, object], None],
) -> None:
    """None is written for what never happens; all of them are tried."""
    found = {find_remedy(failure(state, words)) for state, words, _ in CAUSES}
    found.add(find_remedy(failure("25001", "cannot be executed", context=INSIDE)))
    found.add(find_remedy(failure("2D000", "invalid"), outside=True))

    unused = [remedy for remedy in REMEDIES if remedy.hint not in found]
    assert unused == []
    record_property("causes", len(CAUSES))


def test_what_can_never_run_in_a_function_is_not_sent_in_a_circle() -> None:
    """A no-transaction file would not help it."""
    nested = failure("25001", "VACUUM cannot be executed from a function")
    assert find_remedy(nested._replace(context=INSIDE)) == NEVER_INSIDE
    assert find_remedy(nested) == OUTSIDE


def test_what_ends_a_transaction_outside_one_is_told_where_it_may_not() -> None:
    """It has what OUTSIDE says already."""
    ended = failure("2D000", "invalid transaction termination")
    assert "EXCEPTION" in find_remedy(ended, outside=True)


@pytest.mark.parametrize(
    ("message", "statement"),
    [
        ("must be owner of table t", "ALTER TABLE t OWNER TO owner;"),
        ("must be owner of relation t", "ALTER TABLE t OWNER TO owner;"),
        (
            "must be owner of materialized view My View",
            'ALTER MATERIALIZED VIEW "My View" OWNER TO owner;',
        ),
        ("permission denied for sequence t_id_seq", "ALTER SEQUENCE t_id_seq OWNER"),
    ],
)
def test_what_was_restored_by_another_role_is_given_to_gate_role(
    message: str, statement: str
) -> None:
    """It owns what the files have made; without it the owner is to be named."""
    refused = failure("42501", message)
    assert statement in find_remedy(refused, role="owner")
    assert statement not in find_remedy(refused)


def test_a_constraint_is_named() -> None:
    """Its table too, where PostgreSQL tells."""
    correct = (
        "GATE_LOG_DETAIL=full shows which, and so does the server's log: correct the "
        "data or the file. Nothing this file did remains."
    )
    assert find_remedy(failure("23505", constraint="c", table="t")) == (
        f'Rows of table "t" violate constraint "c"; {correct}'
    )
    assert find_remedy(failure("23505", constraint="c")) == (
        f'Rows violate constraint "c"; {correct}'
    )
    assert find_remedy(failure("23502")) == ROWS_VIOLATE


@pytest.mark.parametrize(
    "raised",
    [
        failure("P0001", "duplicate a@b.example"),
        failure("23505", "duplicate a@b.example", source="exec_stmt_raise"),
        failure("38000", "ValueError: a@b.example"),
        failure("MYERR", "a@b.example"),
    ],
)
def test_what_code_raises_has_no_remedy_of_a_state(raised: SqlFailure) -> None:
    """Whoever raises it chooses the SQLSTATE."""
    assert find_remedy(raised) == HIDDEN_WORDS + FIX_AND_RESTART
    assert find_own_remedy(raised) == HIDDEN_WORDS + OWN_REMEDY
    assert find_remedy(raised, full=True) == FIX_AND_RESTART
    assert find_own_remedy(raised, full=True) == OWN_REMEDY


def test_the_gates_own_statements_blame_no_file() -> None:
    """There is no file to correct."""
    states = [state for remedy in OWN_REMEDIES for state in remedy.states.split()]
    for state in (*states, "42501", "0A000", "P0001", "XX000"):
        assert "file" not in find_own_remedy(failure(state)).replace("own files", "")


def test_uuid_ossp_points_to_the_built_in_function() -> None:
    """However it is missed."""
    assert find_remedy(failure("58P01", "uuid-ossp.control")) == UUID_REMEDY


def test_a_lost_connection_is_no_error_of_the_file() -> None:
    """PostgreSQL said nothing."""
    expected = "The connection was lost; start the gate again."
    assert find_remedy(failure(None)) == expected
