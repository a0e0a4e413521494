"""
What to do about an error of PostgreSQL's, in a sentence or two. Pure.

Told by SQLSTATE; by the text only where one SQLSTATE has several causes, and then a
translated text gets the remedy that fits them all.
"""

from __future__ import annotations

import re

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from migration_gate.report.cleaning import is_raised
from migration_gate.report.errors import SqlFailure
from migration_gate.report.quoting import quote_name


@dataclass(frozen=True, slots=True)
class Remedy:
    """
    What to do where an error has one of the states, and its text the pattern.

    No pattern fits any text. ``inside`` is for an error inside a function or DO block,
    ``outside`` for a file that runs outside a transaction.
    """

    states: str
    hint: str
    pattern: str = ""
    inside: bool = False
    outside: bool = False


# A context tells of code in each language of the server's; REINDEX of a partitioned
# table has one too.
IN_CODE: Final = re.compile(r"\bPL/\w|\bSQL\b")
NOTHING_LEFT: Final = "Nothing this file did remains."
FIX_AND_RESTART: Final = (
    "Nothing this file did remains; correct it and start the gate again."
)
ALREADY_EXISTS: Final = (
    "Compare what is there with the file. If everything in this file exists as "
    "written, say so with the command resolve VERSION --applied; if only a part does "
    "and is alike, write IF NOT EXISTS there; if it is something else, give it another "
    "name in the file. Drop nothing before you know whose it is. Nothing this file did "
    "remains."
)
OUTSIDE: Final = (
    "Put the statement in a file of its own that begins with -- gate: no-transaction."
)
NEVER_INSIDE: Final = (
    "It can never run in a function or DO block: write the statement itself in a file "
    "that begins with -- gate: no-transaction."
)
ENDS_INSIDE: Final = (
    "It ends a transaction where it may not: inside a function, a block with "
    "EXCEPTION or a loop over a cursor, or in a procedure with SET or SECURITY "
    "DEFINER."
)
# aclchk.c: aclcheck_error(). A name stands there without its schema.
OWNED: Final = re.compile(
    r"^(?:must be owner of|permission denied for) "
    r"(relation|table|view|materialized view|sequence|function|type|foreign table) "
    r"(.+)$"
)
# ri_triggers.c: ri_ReportViolation(); the rest of such a detail is the key's values.
REFERENCED: Final = re.compile(
    r'\) is (?:not present in|still referenced from) table "([^"]*)"\.$'
)
HIDDEN_WORDS: Final = (
    "Its words may be made of rows, and are not logged: GATE_LOG_DETAIL=full shows "
    "them, and so does the server's log. "
)
UUID_REMEDY: Final = (
    "gen_random_uuid() is built into PostgreSQL 13 and later: use it instead of "
    "uuid-ossp or pgcrypto and leave the extension out."
)
EXTENSION_PROVIDERS: Final = (
    "On Azure add it to the server parameter azure.extensions, on AWS to "
    "rds.allowed_extensions"
)
NO_EXTENSION: Final = (
    "The server does not have this extension: check its spelling in "
    "pg_available_extensions; on a server of your own install its package, for this "
    "major version; a managed one has only those of its provider, and where this is "
    f"none of them, the file must do without it. {NOTHING_LEFT}"
)
ROWS_VIOLATE: Final = (
    "Rows violate a constraint; GATE_LOG_DETAIL=full shows which, and so does the "
    f"server's log: correct the data or the file. {NOTHING_LEFT}"
)
NO_UTF8: Final = (
    "A name, a row or PostgreSQL's own words have bytes that are no UTF-8, as a "
    "database whose encoding is SQL_ASCII may hold them: rename it, or correct the "
    "row, by a session with client_encoding = SQL_ASCII."
)
DISK_FULL: Final = (
    "The database server's disk is full, or a quota: free or add space there, then "
    "start the gate again."
)
REPLICA_IDENTITY: Final = (
    "A publication wants a replica identity: ALTER TABLE … REPLICA IDENTITY FULL, or "
    "give the table a primary key, or take it out of the publication."
)

# The first that fits counts. The causes are those that PostgreSQL's source, its
# extensions' and the providers' have for each state.
REMEDIES: Final[Sequence[Remedy]] = (
    # Extensions. 22023 is Amazon RDS's own:
    # https://github.com/avances123/dynamodb_fdw/issues/1
    Remedy("0A000 42501 42704 42883 58P01", UUID_REMEDY, r"uuid_generate|uuid-ossp"),
    Remedy(
        "0A000 22023 42501",
        "Add the extension to the server parameter azure.extensions, and let a "
        "member of azure_pg_admin create it.",
        r"allow-listed|azure_pg_admin",
    ),
    Remedy(
        "0A000 22023 42501 58P01",
        "Amazon RDS takes the extensions that SHOW rds.extensions lists and its "
        "parameter rds.allowed_extensions allows, from a member of rds_superuser.",
        r"(?i)\brds\b|rds\.",
    ),
    Remedy(
        "42501",
        "Leave the statement out: only the extension's owner may do this to it. A "
        "dump writes COMMENT ON EXTENSION; pg_dump --no-comments does not.",
        r"must be owner of extension",
    ),
    Remedy(
        "42501",
        "Only trusted extensions can be created with CREATE on the database: "
        "GRANT CREATE ON DATABASE, or have an administrator create this one "
        f"once. {EXTENSION_PROVIDERS} first.",
        r"permission denied to (create|update) extension",
    ),
    Remedy("0A000", NO_EXTENSION, r'extension "[^"]*" is not (available|in|supported)'),
    Remedy(
        "0A000",
        f"The extension has to stay in its schema. {FIX_AND_RESTART}",
        r'extension "[^"]*" does not support SET SCHEMA',
    ),
    Remedy("58P01", NO_EXTENSION, r"extension control file|\$libdir|access file"),
    Remedy(
        "22023",
        "The server has another version of this extension: look at "
        "pg_available_extension_versions, and name one of those, or none.",
        r'extension "[^"]*" has no (installation script|update path)',
    ),
    Remedy(
        "42704",
        "Create the extension that is required first, or write CREATE EXTENSION … "
        f"CASCADE. {NOTHING_LEFT}",
        r"required extension",
    ),
    Remedy(
        "55000 F0000 XX000",
        "The server has to load this library when it starts: have an administrator "
        f"add it to shared_preload_libraries, and restart. {NOTHING_LEFT}",
        r"shared_preload_libraries",
    ),
    # Transactions
    Remedy(
        "25001",
        "Before it, the gate has recorded the file: say it at the file's head, as "
        "BEGIN ISOLATION LEVEL …; or as SET TRANSACTION in the first statement.",
        r"before any query|^SET TRANSACTION",
    ),
    Remedy("25001", NEVER_INSIDE, inside=True),
    Remedy("25001", OUTSIDE),
    Remedy("2D000", ENDS_INSIDE, outside=True),
    Remedy("2D000", OUTSIDE),
    Remedy(
        "25006",
        "The transaction is read-only: check default_transaction_read_only of "
        "the role and the database, which some providers turn on when the disk is "
        "full, and SET in the file.",
    ),
    Remedy(
        "25P01",
        f"Write BEGIN; before it and COMMIT; after what belongs to it. {NOTHING_LEFT}",
    ),
    Remedy(
        "26000 34000 3B001",
        "Each file begins in a clean session: prepare, declare or set it in this file. "
        + FIX_AND_RESTART,
    ),
    # What exists already, and what does not
    Remedy(
        "42701",
        "The column stands twice in the statement, or the table has it already. "
        + FIX_AND_RESTART,
        r"more than once",
    ),
    Remedy(
        "42710",
        "Roles belong to the whole server, and another database may have made this "
        "one: create it only where pg_roles lacks it, in a DO block. " + NOTHING_LEFT,
        r'^role "',
    ),
    Remedy("42P04 42P06 42P07 42701 42710 42723", ALREADY_EXISTS),
    Remedy(
        "42P01",
        "Check the name and the search_path: each file starts with that of the "
        "role or database. " + FIX_AND_RESTART,
    ),
    Remedy(
        "42703",
        "Check the column's name, and whether the migration that adds it runs before. "
        + FIX_AND_RESTART,
    ),
    Remedy(
        "3F000",
        "Create the schema first, or check the search_path: each file starts with "
        "that of the role or database. " + FIX_AND_RESTART,
    ),
    Remedy(
        "42704",
        "Check the name. A type may belong to an extension that has to be created "
        "before, a role to another server. " + FIX_AND_RESTART,
    ),
    Remedy(
        "42883",
        "Check the name, the types of what it is given, and whether its extension is "
        "there, in a schema of the search_path. " + FIX_AND_RESTART,
    ),
    # Rows
    Remedy(
        "22012",
        "A divisor is 0: write NULLIF(divisor, 0), or correct the rows. "
        + FIX_AND_RESTART,
    ),
    Remedy(
        "22001 22003 22007 22008 22P02",
        "A value of the file, or of a row that it reads, does not fit its type: "
        "GATE_LOG_DETAIL=full shows it, and so does the server's log. "
        + FIX_AND_RESTART,
    ),
    Remedy(
        "23514",
        f"No partition takes this row: create one first. {NOTHING_LEFT}",
        r"no partition of relation",
    ),
    Remedy("23001 23502 23503 23505 23514 23P01 44000", ROWS_VIOLATE),
    Remedy("22021", f"{NO_UTF8} {NOTHING_LEFT}"),
    Remedy(
        "22P05",
        "The database's encoding has no such character: write the text without "
        f"it, or use a database whose encoding is UTF8. {NOTHING_LEFT}",
    ),
    # Objects in use
    Remedy(
        "55006",
        "Rows that the file itself has changed wait for their constraints or "
        "triggers: write SET CONSTRAINTS ALL IMMEDIATE; before this statement, or "
        f"put it in a later file. {NOTHING_LEFT}",
        r"pending trigger events",
    ),
    Remedy(
        "55006",
        "A query, loop or cursor of the file itself has it open: do this after its "
        f"end, or in a later file. {NOTHING_LEFT}",
        r"active queries in this session|active portal",
    ),
    Remedy(
        "55006",
        "The gate is logged in to it: do this once, as an administrator, from "
        "elsewhere.",
        r"current(ly open)? (user|database)|session user",
    ),
    Remedy(
        "55006",
        "A replication slot or subscription uses it: stop that first, then start the "
        "gate again.",
        r"slot|subscription|replication origin",
    ),
    Remedy(
        "55006",
        "Other sessions use the object: end them or wait, then start the gate again.",
        r"other (users|sessions)|being accessed|by other",
    ),
    Remedy(
        "55006",
        "Something uses the object: rows that this file has changed (write SET "
        "CONSTRAINTS ALL IMMEDIATE; before it), a loop of the file's, or another "
        f"session (end it or wait). {NOTHING_LEFT}",
    ),
    Remedy("55000", REPLICA_IDENTITY, r"replica identity"),
    Remedy(
        "55000",
        "The server's wal_level has to be logical: have an administrator set it, and "
        "restart.",
        r"wal_level",
    ),
    Remedy(
        "55000",
        "Fill it first: REFRESH MATERIALIZED VIEW. " + NOTHING_LEFT,
        r"has not been populated",
    ),
    Remedy(
        "55P02",
        "This parameter is the server's: have an administrator set it there, and take "
        f"it out of the file. {NOTHING_LEFT}",
    ),
    Remedy(
        "55P03",
        "Other sessions hold the locks that this migration needs. End them, or "
        "run it when there is less traffic, or raise GATE_DDL_LOCK_TIMEOUT.",
    ),
    Remedy(
        "55P04",
        "A new enum value cannot be used in the transaction that adds it: put "
        "ALTER TYPE … ADD VALUE in a migration of its own, before this one.",
    ),
    Remedy(
        "2BP01",
        "The role owns objects, or has rights, here or in another database: REASSIGN "
        f"OWNED and DROP OWNED in each, first. {NOTHING_LEFT}",
        r'^role "',
    ),
    Remedy(
        "2BP01",
        "Other objects need it: drop or change them first, in this file, or write "
        "CASCADE where all of them may go; error_detail and the server's log list "
        f"them. {NOTHING_LEFT}",
    ),
    # Limits
    Remedy("53100", f"{DISK_FULL} {NOTHING_LEFT}"),
    Remedy(
        "53200",
        "The statement locks more objects than the server has room for: split the "
        "file, or have max_locks_per_transaction raised, and restart. " + NOTHING_LEFT,
        r"shared memory",
    ),
    Remedy("53200", f"The database server is out of memory. {NOTHING_LEFT}"),
    Remedy(
        "53300",
        "The server, the database or the role has no connection left: end some that "
        "are idle (pg_stat_activity), or raise the limit of the one that the message "
        f"names. {NOTHING_LEFT}",
    ),
    Remedy(
        "53400",
        "A limit in the server's configuration is reached, such as temp_file_limit "
        "or max_replication_slots: raise it, or do less in one statement. "
        + NOTHING_LEFT,
    ),
    Remedy(
        "54000",
        "A value is too long for the index: index md5(column) or a part of it, or "
        f"use a hash index. {NOTHING_LEFT}",
        r"index row",
    ),
    Remedy(
        "54001",
        "A function calls itself without end, or an expression is too deep; else "
        f"max_stack_depth is too small. {NOTHING_LEFT}",
    ),
    Remedy(
        "54000 54011 54023",
        "A limit of PostgreSQL's is reached, which the message names: do less in one "
        f"statement or table. {NOTHING_LEFT}",
    ),
    Remedy(
        "57014",
        "It ran longer than GATE_STATEMENT_TIMEOUT, or than the statement_timeout that "
        "the file itself sets, or the role's or the database's: raise the one that is "
        "set; a directive at the file's head, -- gate: statement-timeout=1h, is above "
        f"all but the file's own SET. {NOTHING_LEFT}",
        r"statement timeout",
    ),
    Remedy(
        "57014",
        "Somebody cancelled the statement: ask who did, then start the gate again.",
        r"user request",
    ),
    Remedy(
        "57014",
        "The statement was cancelled, or ran longer than "
        "GATE_STATEMENT_TIMEOUT; raise it, or begin the file with "
        "-- gate: statement-timeout=1h.",
    ),
    # Rights
    Remedy(
        "42501",
        "Only its owner may, which \\dt in psql names: where it is this application's, "
        "let the owner or a superuser give it to the role that runs the files (ALTER … "
        "OWNER TO), or name the owner in GATE_ROLE where that is a role for the "
        "schema, never a superuser; where it is somebody else's, leave it. "
        + NOTHING_LEFT,
        r"must be owner",
    ),
    Remedy(
        "42501",
        "A policy forbids this row: name the table's owner in GATE_ROLE, or change the "
        f"policy. {NOTHING_LEFT}",
        r"row-level security|row level security",
    ),
    Remedy(
        "42501",
        "Only a superuser may have the server read and write files of its own: put the "
        f"data in the file itself, as COPY … FROM STDIN. {NOTHING_LEFT}",
        r"COPY (from|to) (a file|or from an external)|pg_(read|write)_server_files",
    ),
    Remedy(
        "42501",
        "Only a superuser, or a role that a superuser has granted it to, may: have an "
        f"administrator do it once, and take it out of the file. {NOTHING_LEFT}",
        r"(?i)superuser|system catalog|permission denied to (create|alter|drop|grant) "
        r"|permission denied to set|must be (able|a member)|pg_\w+ role",
    ),
    Remedy(
        "42501",
        "The role that runs the file lacks this right: grant it, make it the "
        "owner's member, or name the owner in GATE_ROLE. Nothing this file did "
        "remains.",
    ),
    # What PostgreSQL cannot do
    Remedy(
        "0A000",
        "Drop what uses the column, change it, and create that again, in this file. "
        + NOTHING_LEFT,
        r"cannot alter type of a column|used by a view",
    ),
    Remedy(
        "0A000",
        "Build it on each partition, CONCURRENTLY, then on the table itself with "
        f"CREATE INDEX … ON ONLY, and ATTACH PARTITION. {NOTHING_LEFT}",
        r"on partitioned table .*concurrently",
    ),
    # Files and damage
    Remedy(
        "58P01",
        "The path is one of the server's, not of this container's: put the data in the "
        f"file itself, as COPY … FROM STDIN. {NOTHING_LEFT}",
        r"for reading|could not stat file",
    ),
    Remedy(
        "58000 58030 58P01 XX001 XX002",
        "The server cannot read or write its own files: look at its log and disk "
        f"before anything else. {NOTHING_LEFT}",
    ),
    Remedy(
        "08000 08001 08003 08004 08006 08007 08P01 HV00N",
        "Another server that this statement asks cannot be reached from the database: "
        f"check its address and the user mapping. {NOTHING_LEFT}",
    ),
)
# For a statement of the gate's own.
OWN_REMEDIES: Final[Sequence[Remedy]] = (
    Remedy("22021 22P05", NO_UTF8),
    Remedy("53100", DISK_FULL),
    Remedy("53200", "The database server is out of memory."),
    Remedy("55000", REPLICA_IDENTITY, r"replica identity"),
    Remedy(
        "55P03 40P01 40001",
        "Other sessions are in the way: end them or wait, then start the gate again.",
    ),
    Remedy(
        "57014",
        "A session locks the history's table (pg_locks names it: wait, or where nobody "
        "needs it end that one), or a statement_timeout of the role or the database is "
        "too short (pg_db_role_setting has both): give the gate a longer one of its "
        "own, PGOPTIONS='-c statement_timeout=60s'.",
    ),
    Remedy(
        "58000 58030 58P01 XX001 XX002",
        "The server cannot read or write its own files: look at its log and disk "
        "before anything else.",
    ),
)
OWN_REMEDY: Final = (
    "This is a statement of the gate's own, and PostgreSQL's no to it: a right, an "
    "event trigger, a policy, a publication, a quota or a hook of an extension; the "
    "server's log has more."
)


def find_remedy(
    failure: SqlFailure,
    *,
    outside: bool = False,
    full: bool = False,
    role: str | None = None,
) -> str:
    """
    Return the hint for an error inside a migration.

    Args:
        outside: The file runs outside a transaction.
        full: GATE_LOG_DETAIL=full, all words are shown.
        role: GATE_ROLE, who should own what the files alter.
    """
    if failure.sqlstate is None:
        return "The connection was lost; start the gate again."
    if is_raised(failure):
        return FIX_AND_RESTART if full else HIDDEN_WORDS + FIX_AND_RESTART
    hint = _find(REMEDIES, failure, outside=outside)
    owned = OWNED.search(failure.message or "") if failure.sqlstate == "42501" else None
    if role is not None and owned is not None:
        return _give_to(role, owned[1], owned[2])
    if hint is None:
        return FIX_AND_RESTART
    return _name_constraint(failure) if hint == ROWS_VIOLATE else hint


def find_own_remedy(failure: SqlFailure, *, full: bool = False) -> str:
    """Return the hint for an error of a statement of the gate's own."""
    if is_raised(failure):
        return OWN_REMEDY if full else HIDDEN_WORDS + OWN_REMEDY
    return _find(OWN_REMEDIES, failure) or OWN_REMEDY


def _find(
    remedies: Sequence[Remedy], failure: SqlFailure, *, outside: bool = False
) -> str | None:
    message = failure.message or ""
    is_inside = IN_CODE.search(failure.context or "") is not None
    for remedy in remedies:
        if (
            failure.sqlstate in remedy.states.split()
            and (is_inside or not remedy.inside)
            and (outside or not remedy.outside)
            and re.search(remedy.pattern, message)
        ):
            return remedy.hint
    return None


def _give_to(role: str, kind: str, name: str) -> str:
    """Return what makes GATE_ROLE the owner, as it is of what the files have made."""
    what = "TABLE" if kind == "relation" else kind.upper()
    return (
        "It belongs to another role than GATE_ROLE. Where it is this application's, as "
        f"after a restore, let its owner or a superuser run ALTER {what} "
        f"{quote_name(name)} OWNER TO {quote_name(role)}; and start the gate again; "
        f"where it is somebody else's, leave it. {NOTHING_LEFT}"
    )


def _name_constraint(failure: SqlFailure) -> str:
    constraint, table = failure.constraint, failure.table
    if constraint and table:
        subject = f'Rows of table "{table}" violate constraint "{constraint}"'
    elif constraint:
        subject = f'Rows violate constraint "{constraint}"'
    else:
        return ROWS_VIOLATE
    other = REFERENCED.search(failure.detail or "")
    if other is not None and other[1] != table:
        subject += f' towards table "{other[1]}"'
    return (
        f"{subject}; GATE_LOG_DETAIL=full shows which, and so does the server's log: "
        f"correct the data or the file. {NOTHING_LEFT}"
    )
