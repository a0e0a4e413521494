"""
Scripts cut into statements, and what each statement is. Pure; bytes in, offsets out.

``forms`` tells where each lexical form ends; ``contents`` reads a large text block by
block, and ``streaming`` finds the forms in it; ``tokens`` are the first of a statement;
``statement`` is one piece, as a value, and ``pieces`` are many; ``copying`` finds the
data of a COPY; ``splitting`` cuts; ``places`` are lines and columns; ``surroundings``
tells what a place is in; ``names`` reads names and strings as PostgreSQL does;
``parameters`` tells which of PostgreSQL's parameters a statement changes;
``transactions`` what controls a transaction; ``recognition`` what a statement is and
names. ``variables`` fills in psql's, and ``filling`` is a text so filled in.
"""

from __future__ import annotations

from migration_gate.statements.contents import (
    BLOCK_BYTES,
    Content,
    LargeText,
    blocks,
    find,
    has_any,
    has_match,
    iter_matches,
    up_to,
)
from migration_gate.statements.filling import Edit, Filled
from migration_gate.statements.forms import ScriptError, forms
from migration_gate.statements.parameters import (
    SettingChange,
    may_change_defaults,
    reads_as_off,
    setting_changed,
    string_syntax_set,
)
from migration_gate.statements.pieces import Pieces, having, without
from migration_gate.statements.places import leading_comments, place
from migration_gate.statements.recognition import (
    ConcurrentIndex,
    CreatedIndex,
    concurrent_index,
    created_index,
    is_copy_from_stdin,
    is_copy_to_stdout,
    psql_command,
    tables_written,
)
from migration_gate.statements.splitting import iter_statements, split
from migration_gate.statements.statement import Statement
from migration_gate.statements.streaming import iter_forms
from migration_gate.statements.surroundings import Surroundings, surroundings
from migration_gate.statements.transactions import (
    TransactionControl,
    forbids_transaction,
    savepoint_name,
    transaction_control,
)


__all__ = [
    "BLOCK_BYTES",
    "ConcurrentIndex",
    "Content",
    "CreatedIndex",
    "Edit",
    "Filled",
    "LargeText",
    "Pieces",
    "ScriptError",
    "SettingChange",
    "Statement",
    "Surroundings",
    "TransactionControl",
    "blocks",
    "concurrent_index",
    "created_index",
    "find",
    "forbids_transaction",
    "forms",
    "has_any",
    "has_match",
    "having",
    "is_copy_from_stdin",
    "is_copy_to_stdout",
    "iter_forms",
    "iter_matches",
    "iter_statements",
    "leading_comments",
    "may_change_defaults",
    "place",
    "psql_command",
    "reads_as_off",
    "savepoint_name",
    "setting_changed",
    "split",
    "string_syntax_set",
    "surroundings",
    "tables_written",
    "transaction_control",
    "up_to",
    "without",
]
