"""
What an error at COMMIT is about: a check that was deferred, and who wrote the rows.

Pure. PostgreSQL gives such an error no place: the statements are found by the names of
the tables that it speaks of.
"""

from __future__ import annotations

import re

from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import islice
from typing import Final

from migration_gate.execution.message import Share
from migration_gate.report.errors import SqlError, SqlFailure
from migration_gate.report.remedies import IN_CODE
from migration_gate.statements import Content, ScriptError, Statement, iter_forms
from migration_gate.statements.names import TokenReader


TARGETS: Final = ("insert into", "merge into", "delete from", "update", "copy")
WRITING: Final = frozenset({b"with", *(words.split()[0].encode() for words in TARGETS)})
FORMS_READ: Final = 200  # of a statement; the target stands near the start of each part
QUOTED: Final = re.compile(r'"((?:[^"]|"")*)"')
CONSTRAINT_CLASS: Final = "23"
LINES_SHOWN: Final = 3


def explain_at_commit(
    share: Share, failure: SqlFailure, error: SqlError, hint: str
) -> tuple[SqlError, str]:
    """
    Say that it was found at COMMIT, by what check, and which lines may have led to it.

    The place is that of the only statement that can be meant; none where there are
    several.
    """
    error = error._replace(error_message=f"at COMMIT: {error.error_message}")
    if not (failure.sqlstate or "").startswith(CONSTRAINT_CLASS):
        raised = "A constraint trigger that is deferred has raised it. "
        return error, (raised if IN_CODE.search(failure.context or "") else "") + hint
    tables, script = _tables(failure), share.task.script
    content = script.content
    writers = [s for s in _statements(share) if tables & set(_targets(content, s))]
    if len(writers) == 1:
        line, column = script.place(writers[0].first)
        error = error._replace(line=line, column=column)
    lines = [script.place(writer.first)[0] for writer in writers[:LINES_SHOWN]]
    told = _tell_writers(lines, len(writers) - len(lines), tables)
    return error, f"The constraint was checked at COMMIT; {told}. {hint}"


def _statements(share: Share) -> Sequence[Statement]:
    """Return those of the transaction, of which a message may hold the last ones."""
    script = share.task.script
    return script.units[0].statements if script.in_transaction else share.statements


def _tables(failure: SqlFailure) -> frozenset[str]:
    """Return the constraint's table, and what else the message names."""
    said = QUOTED.findall(failure.message or "")
    names = {failure.table, *(name.replace('""', '"') for name in said)}
    return frozenset(name for name in names - {failure.constraint} if name)


def _targets(content: Content, statement: Statement) -> Iterator[str]:
    """Yield the names of the tables that a statement writes, those of WITH included."""
    reader = TokenReader(tuple(_tokens(content, statement)))
    while reader.peek():
        if reader.take_any(*TARGETS):
            reader.take_words("only")
            table = reader.take_table()
            if table is not None:
                yield table[1]
        else:
            reader.take()


def _tokens(content: Content, statement: Statement) -> Iterator[bytes]:
    """Yield the first tokens of a statement that may write rows; no data of COPY."""
    first = next(iter(statement.tokens), b"")
    if first not in WRITING:
        return
    with suppress(ScriptError):
        for start, end, is_word in islice(
            iter_forms(content, statement.first), FORMS_READ
        ):
            token = bytes(content[start:end])
            token = token.lower() if is_word else token
            # A dump's rows are many.
            if token == b";" or (first, token) == (b"insert", b"values"):
                return
            yield token


def _tell_writers(lines: Sequence[int], more: int, tables: frozenset[str]) -> str:
    which = " or ".join(f'"{table}"' for table in sorted(tables))
    if not lines:
        return (
            f"no statement of the file names {which}: it is written by a function or "
            "trigger, or through a view or a partitioned table"
        )
    if len(lines) == 1:
        return f"line {lines[0]} writes {which}"
    *listed, last = [*map(str, lines), *([f"{more} more"] if more else [])]
    return f"lines {', '.join(listed)} and {last} write {which}"
