"""
What to do about an error of PostgreSQL's, in a sentence or two. Pure.

Told by SQLSTATE; by the text only where one SQLSTATE has several causes, and then a
translated text gets the general remedy.
"""

from __future__ import annotations

import re

from migration_gate.report.errors import SqlFailure


FIX_AND_RESTART = "Nothing of this file is left; correct it and start the gate again."
ALREADY_EXISTS = (
    "If the objects of this file exist already, say so with the command "
    "resolve VERSION --applied; if only some do, drop them, or write "
    "IF NOT EXISTS, and start the gate again."
)
OUTSIDE = (
    "Put the statement in a file of its own that begins with -- gate: no-transaction."
)
BY_STATE = {
    "25001": OUTSIDE,
    "2D000": OUTSIDE,
    "25006": "The transaction is read-only: check default_transaction_read_only of "
    "the role and the database.",
    "42P07": ALREADY_EXISTS,
    "42P06": ALREADY_EXISTS,
    "42701": ALREADY_EXISTS,
    "42710": ALREADY_EXISTS,
    "42723": ALREADY_EXISTS,
    "42P04": ALREADY_EXISTS,
    "42P01": "Check the name and the search_path: each file starts with that of the "
    "role or database. " + FIX_AND_RESTART,
    "53100": "The database server's disk is full: free or add space there, then "
    "start the gate again. Nothing of this file is left.",
    "53200": "The database server is out of memory; nothing of this file is left.",
    "53400": "A limit in the server's configuration is reached, such as "
    "temp_file_limit: raise it, or do less in one statement. Nothing of this file "
    "is left.",
    "54000": "A limit of PostgreSQL is reached; split the file.",
    "55006": "Other sessions use the object; end them or wait, then start the gate "
    "again.",
    "55P03": "Other sessions hold the locks that this migration needs. End them, or "
    "run it when there is less traffic, or raise GATE_DDL_LOCK_TIMEOUT.",
    "55P04": "A new enum value cannot be used in the transaction that adds it: put "
    "ALTER TYPE … ADD VALUE in a migration of its own, before this one.",
    "57014": "The statement was cancelled, or ran longer than "
    "GATE_STATEMENT_TIMEOUT; raise it, or begin the file with "
    "-- gate: statement-timeout=1h.",
    "22P05": "The database's encoding has no such character: write the text without "
    "it, or use a database whose encoding is UTF8. Nothing of this file is left.",
}
# 22023 is Amazon RDS's own: https://github.com/avances123/dynamodb_fdw/issues/1
EXTENSION_STATES = frozenset({"0A000", "22023", "42501", "58P01"})
CONSTRAINT_STATES = frozenset({"23502", "23503", "23505", "23514", "23P01"})
EXTENSION_PROVIDERS = (
    "On Azure add it to the server parameter azure.extensions, on AWS to "
    "rds.allowed_extensions"
)
UUID_REMEDY = (
    "gen_random_uuid() is built into PostgreSQL 13 and later: use it instead of "
    "uuid-ossp or pgcrypto and leave the extension out."
)


def find_remedy(failure: SqlFailure) -> str:
    """Return the hint for an error inside a migration."""
    sqlstate, message = failure.sqlstate, failure.message or ""
    if sqlstate is None:
        return "The connection was lost; start the gate again."
    if "uuid_generate" in message or "uuid-ossp" in message:
        return UUID_REMEDY
    if "extension" in message.lower() and sqlstate in EXTENSION_STATES:
        return _extension_remedy(sqlstate, message)
    if sqlstate in CONSTRAINT_STATES:
        return _constraint_remedy(failure.constraint, failure.table)
    if sqlstate == "42501":
        return (
            "The role that runs the file lacks this right: grant it, make it the "
            "owner's member, or name the owner in GATE_ROLE. Nothing of this file "
            "is left."
        )
    return BY_STATE.get(sqlstate, FIX_AND_RESTART)


def _extension_remedy(sqlstate: str, message: str) -> str:
    if "allow-listed" in message or "azure_pg_admin" in message:
        return (
            "Add the extension to the server parameter azure.extensions, and let a "
            "member of azure_pg_admin create it."
        )
    if re.search(r"\brds\b|rds\.", message, re.IGNORECASE):
        return (
            "Amazon RDS takes the extensions that SHOW rds.extensions lists and its "
            "parameter rds.allowed_extensions allows, from a member of rds_superuser."
        )
    if sqlstate == "42501":
        return (
            "Only trusted extensions can be created with CREATE on the database: "
            "GRANT CREATE ON DATABASE, or have an administrator create this one "
            f"once. {EXTENSION_PROVIDERS} first."
        )
    return (
        "The server does not have this extension: install its package there, or use "
        f"a built-in function. {EXTENSION_PROVIDERS}."
    )


def _constraint_remedy(constraint: str | None, table: str | None) -> str:
    if constraint and table:
        subject = f'Rows of table "{table}" violate constraint "{constraint}"'
    elif constraint:
        subject = f'Rows violate constraint "{constraint}"'
    else:
        subject = "Rows violate a constraint"
    return f"{subject}: correct the data or the file. Nothing of this file is left."
