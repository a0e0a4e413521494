"""
The text of one pending migration: decoded, split, and judged fit to run. Pure.

Everything that is wrong with a text is found here, before anything is applied.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from migration_gate.errors import FileFault, MigrationFilesError
from migration_gate.migration import (
    BYTE_ORDER_MARK,
    Directives,
    Migration,
    parse_directives,
)
from migration_gate.settings import HistoryTableName
from migration_gate.statements import (
    ScriptError,
    Statement,
    forbids_transaction,
    is_copy_from_stdin,
    is_copy_to_stdout,
    leading_comments,
    place,
    psql_command,
    setting_changed,
    split,
    tables_written,
    transaction_control,
)


IGNORED_PSQL_COMMANDS = frozenset({"restrict", "unrestrict"})
SAVEPOINT_CONTROL = frozenset({"savepoint", "release", "rollback_to"})
UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")


@dataclass(frozen=True, slots=True, kw_only=True)
class Script:
    """
    What is sent for one migration.

    ``content`` is the file as it is; ``text`` is what PostgreSQL gets: of the same
    length, with what is not for it (a byte order mark, psql's ``\\restrict``, the
    file's own BEGIN and COMMIT) blanked out, so that places are those of the file.
    ``statements`` are the ones that PostgreSQL answers, in order.
    """

    migration: Migration
    directives: Directives
    statements: tuple[Statement, ...]
    content: bytes = field(repr=False)
    text: bytes = field(repr=False)


def parse_script(
    migration: Migration, content: bytes, history: HistoryTableName
) -> Script:
    """
    Split a file's content and refuse what the gate cannot run.

    Raises:
        MigrationFilesError: Lists every fault of the file, each with its line.
    """
    directives = check_text(migration, content)
    try:
        pieces = split(content)
    except ScriptError as error:
        raise MigrationFilesError(
            [_fault(migration, content, error.offset, error.problem, error.remedy)]
        ) from error
    own = _own_transaction(pieces)
    blanked = [
        piece
        for piece in pieces
        if piece in own or psql_command(piece) in IGNORED_PSQL_COMMANDS
    ]
    statements = tuple(piece for piece in pieces if piece not in blanked)
    faults = [
        _fault(migration, content, statement.first, problem, remedy)
        for statement in statements
        for problem, remedy in _find_faults(statement, directives, history)
    ]
    if faults:
        raise MigrationFilesError(faults)
    return Script(
        migration=migration,
        directives=directives,
        statements=statements,
        content=content,
        text=_blank(content, blanked),
    )


def check_text(migration: Migration, content: bytes) -> Directives:
    """
    Check a file's encoding and directives, which need no database to be judged.

    Raises:
        MigrationFilesError: The text is not UTF-8, or a directive is malformed.
    """
    encoding_fault = _find_encoding_fault(migration.version, content)
    if encoding_fault is not None:
        raise MigrationFilesError([encoding_fault])
    directives, faults = parse_directives(
        migration.version, _comments(content) if b"gate:" in content.lower() else ()
    )
    if faults:
        raise MigrationFilesError(faults)
    return directives


def _comments(content: bytes) -> Iterator[tuple[int, str]]:
    for offset, comment in leading_comments(content):
        yield place(content, offset)[0], comment.decode()


def _find_encoding_fault(version: str, content: bytes) -> FileFault | None:
    remedy = "Save the file as UTF-8."
    if content.startswith(UTF16_MARKS):
        return FileFault(file=version, problem="text is UTF-16", remedy=remedy)
    nul = content.find(b"\0")
    if nul >= 0:
        line = content.count(b"\n", 0, nul) + 1
        return FileFault(
            file=version, line=line, problem="text has a NUL byte", remedy=remedy
        )
    try:
        content.decode()
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        return FileFault(
            file=version, line=line, problem="text is not UTF-8", remedy=remedy
        )
    return None


def _own_transaction(pieces: Sequence[Statement]) -> tuple[Statement, ...]:
    """
    Return the BEGIN and COMMIT that a file has around everything, if it has them.

    Settings may be made before the BEGIN. The pair is then the gate's transaction.
    """
    control = [piece for piece in pieces if transaction_control(piece) is not None]
    outer = [c for c in control if transaction_control(c) not in SAVEPOINT_CONTROL]
    kinds = [transaction_control(piece) for piece in outer]
    if kinds != ["begin", "commit"] or not _has_no_modes(outer[0]):
        return ()
    begin, commit = outer
    before = pieces[: pieces.index(begin)]
    after = pieces[pieces.index(commit) + 1 :]
    if all(_only_sets(piece) for piece in before) and not any(
        psql_command(piece) is None for piece in after
    ):
        return begin, commit
    return ()


def _has_no_modes(begin: Statement) -> bool:
    words = set(begin.tokens) - {b";"}
    return words <= {b"begin", b"start", b"transaction", b"work"}


def _only_sets(piece: Statement) -> bool:
    return setting_changed(piece) is not None or psql_command(piece) is not None


def _find_faults(
    statement: Statement, directives: Directives, history: HistoryTableName
) -> Iterator[tuple[str, str]]:
    """Yield what of a statement the gate cannot run, with the remedy."""
    command = psql_command(statement)
    if command is not None:
        yield (
            f"psql command \\{command}: only psql can run it",
            "Write it in SQL, or take it out.",
        )
        return
    control = transaction_control(statement)
    if control is not None and control not in SAVEPOINT_CONTROL:
        yield (
            f"transaction control ({control.replace('_', ' ')}) in a migration",
            "Take it out: the gate runs each file in a transaction of its own.",
        )
    why = forbids_transaction(statement)
    if why is not None or directives.transaction == "outside":
        subject = why or "directive no-transaction"
        yield (
            f"{subject}: cannot run outside a transaction yet",
            "Run this statement by hand, then say so with the command resolve.",
        )
    if is_copy_from_stdin(statement) or is_copy_to_stdout(statement):
        yield (
            "COPY with the client: cannot be sent yet",
            "Use INSERT (pg_dump --inserts).",
        )
    yield from _find_session_faults(statement)
    for schema, table in tables_written(statement):
        if table == history.table and schema in {None, history.schema or schema}:
            yield (
                f'creates or fills the history table "{table}"',
                f"Leave it out of the dump: pg_dump -T '{table}*'.",
            )


def _find_session_faults(statement: Statement) -> Iterator[tuple[str, str]]:
    setting = setting_changed(statement)
    if setting is None:
        return
    name, value, _ = setting
    if name == "standard_conforming_strings" and (value or "on").lower() not in {
        "on",
        "true",
        "yes",
        "1",
    }:
        yield (
            "changes standard_conforming_strings, which changes how the file is read",
            "Write such strings as E'…' and take the SET out.",
        )
    if name == "client_encoding" and (value or "utf8").lower().replace(
        "-", ""
    ) not in {"utf8", "unicode"}:
        yield (
            "changes client_encoding, but the file is sent as UTF-8",
            "Save the file as UTF-8 and take the SET out.",
        )


def _fault(
    migration: Migration, content: bytes, offset: int, problem: str, remedy: str
) -> FileFault:
    line, column = place(content, offset)
    return FileFault(
        file=migration.version, line=line, column=column, problem=problem, remedy=remedy
    )


def _blank(content: bytes, pieces: Sequence[Statement]) -> bytes:
    """Overwrite these pieces, and a byte order mark, with spaces; keep line ends."""
    if not pieces and not content.startswith(BYTE_ORDER_MARK):
        return content
    text = bytearray(content)
    if content.startswith(BYTE_ORDER_MARK):
        text[:3] = b"   "
    for piece in pieces:
        span = slice(piece.first, piece.end)
        text[span] = bytes(byte if byte in b"\r\n" else 32 for byte in text[span])
    return bytes(text)
