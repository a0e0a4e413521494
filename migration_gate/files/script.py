"""
The text of one pending migration: decoded, split, and judged fit to run. Pure.

Everything that is wrong with a text is found here, before anything is applied.
"""

from __future__ import annotations

import codecs
import hashlib
import re

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Final

from migration_gate.files.fitness import find_unfit, find_unfit_outside, find_unread
from migration_gate.files.marks import (
    cut_back_part,
    cut_up_part,
    read_back_file,
)
from migration_gate.files.migration import (
    Directives,
    Migration,
    parse_directives,
)
from migration_gate.files.placeholders import fill_placeholders
from migration_gate.files.sections import Part
from migration_gate.files.stumbles import find_stumbles
from migration_gate.files.units import (
    Unit,
    group_inside,
    group_outside,
    has_own_blocks,
)
from migration_gate.files.ways_back import find_ways_back
from migration_gate.report.errors import FileFault, MigrationFilesError
from migration_gate.report.redaction import Redactor
from migration_gate.settings.settings import HistoryTableName
from migration_gate.statements import (
    Content,
    Filled,
    ScriptError,
    Statement,
    blocks,
    forbids_transaction,
    has_any,
    has_match,
    having,
    leading_comments,
    place,
    psql_command,
    setting_changed,
    split,
    string_syntax_set,
    without,
)
from migration_gate.statements.variables import fill_variables


OWN_BLOCKS: Final = "BEGIN … COMMIT blocks of its own"
NOT_AT_HEAD: Final = (
    'directive "after-deploy" in a part of a file that is not the first in it'
)
MOVE_UP: Final = "Put it into a comment before the first statement of the file."
NO_WAY_BACK: Final = "no way back"
WRITE_ONE: Final = (
    "Write one: a file with its number and words whose name ends in .down.sql. Or undo "
    "it by hand, and say so: resolve VERSION --not-applied."
)
NOTHING_GOES_BACK: Final = "way back without a statement"
SAY_NOTHING: Final = (
    "Write what undoes the migration; where nothing is to be undone, say so with a "
    "statement such as SELECT 1;"
)
UTF16_MARKS: Final = (b"\xff\xfe", b"\xfe\xff")


# What undoes a session's SET, beside a SET of the same: and who writes one names it.
PATH_WORDS: Final = (b"search_path", b"reset", b"discard")
# What DISCARD ALL leaves: parameters of others' own, which were NULL and are empty from
# then on, a seed, and a library. What had a temporary table keeps its temp_buffers.
LASTING_WORDS: Final = (b"set_config", b"setseed", b"temp_buffers")
_BLANK: Final = rb"(?:\s|--[^\r\n]*(?:[\r\n]|\Z)|/\*(?:[^*]|\*(?!/))*\*/)"
LASTING: Final = re.compile(
    rb"\bload\b|set%b+(?:(?:local|session)%b+)?(?:u&)?[\"\w$\\\x80-\xff]+%b*\."
    % ((_BLANK,) * 3)
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Script:
    """
    A migration's text, cut into what PostgreSQL gets.

    Inside a transaction there is one unit; outside, one for each statement or
    BEGIN … COMMIT block. ``source`` is the part of the file that is applied, every byte
    at its place in the file; ``filled`` is it with its variables filled in. ``why``
    says why it runs outside, empty inside.
    """

    migration: Migration
    directives: Directives
    units: Sequence[Unit]
    why: str
    source: Content = field(repr=False)
    filled: Filled = field(repr=False)

    @property
    def content(self) -> Content:
        """Return what is sent."""
        return self.filled.text

    def place(self, offset: int) -> tuple[int, int]:
        """Return line and column, in the file, of a byte of what is sent."""
        return place(self.source, self.filled.to_source(offset))

    @property
    def in_transaction(self) -> bool:
        """Return whether the whole file runs in one transaction."""
        return not self.why

    @property
    def statement_count(self) -> int:
        """Return how many statements PostgreSQL answers."""
        return sum(len(unit.statements) for unit in self.units)


def leaves_session(script: Script) -> bool:
    """Return whether a script plainly changes nothing that its session keeps."""
    return (
        script.in_transaction
        and not has_any(script.content, *PATH_WORDS, *LASTING_WORDS)
        and not has_match(script.content, LASTING)
    )


def parse_script(
    migration: Migration,
    content: Content,
    history: HistoryTableName,
    variables: Mapping[str, str] = MappingProxyType({}),
) -> Script:
    """
    Fill in and split a file's content, and refuse what the gate cannot run.

    Args:
        variables: The values of those that are set.

    Raises:
        MigrationFilesError: Lists every fault of the file, each with its line.
    """
    directives = check_text(migration, content)
    try:
        part = _cut(migration, content, directives)
        if part.content is not content:
            # A part that comes second has comments of its own before it, and what goes
            # back has only those.
            is_up = migration.way == "up"
            comments = dict(_comments(content)) if is_up else {}
            comments |= dict(_comments(part.content))
            directives = _read_directives(migration, sorted(comments.items()))
        filled = _fill(migration, part.content, directives, variables)
        part = _in_filled(part, filled)
        try:
            pieces = _arrange(split(filled.text), part)
        except ScriptError as error:
            raise _at_source(error, filled) from error
    except ScriptError as error:
        raise _to_files_error(migration, content, [error], variables) from error
    asked = "outside" if migration.is_outside else part.transaction
    if directives.transaction is None and asked is not None:
        directives = directives._replace(transaction=asked)
    statements = without(pieces, {at for at, _ in having(pieces, psql_command)})
    unfit = having(pieces, lambda piece: any(find_unfit(piece, history)))
    faults = [fault for _, piece in unfit for fault in find_unfit(piece, history)]
    faults += find_unread(statements)
    faults += find_stumbles(filled, pieces)
    if migration.way == "up" and not directives.one_way:
        faults += find_ways_back(filled.text, pieces)
    faults = [_at_source(fault, filled) for fault in faults]
    if migration.way != "up" and not statements and not part.may_be_empty:
        faults.append(ScriptError(_first_byte(part), NOTHING_GOES_BACK, SAY_NOTHING))
    if directives.after_deploy and migration.way == "up" and not migration.is_after:
        faults.append(ScriptError(_first_byte(part), NOT_AT_HEAD, MOVE_UP))
    why = _why_outside(statements, directives)
    units: Sequence[Unit]
    if why:
        units, found = group_outside(statements, part.wholes)
        unfit = having(statements, lambda statement: any(find_unfit_outside(statement)))
        found += tuple(f for _, s in unfit for f in find_unfit_outside(s))
        found += tuple(_find_contradictions(statements, directives))
    else:
        unit, found = group_inside(statements)
        units = (unit,)
    faults += [*part.faults, *(_at_source(fault, filled) for fault in found)]
    if faults:
        raise _to_files_error(migration, content, faults, variables)
    return Script(
        migration=migration,
        directives=directives,
        units=units,
        why=why,
        source=part.content,
        filled=filled,
    )


def _cut(migration: Migration, content: Content, directives: Directives) -> Part:
    """Return what of a file is meant; raises ScriptError, MigrationFilesError."""
    if migration.way == "back":
        return read_back_file(content)
    if migration.way == "up":
        return cut_up_part(content, is_one_way=directives.one_way)
    part = None if directives.one_way else cut_back_part(content)
    if part is None:
        fault = FileFault(migration.file, NO_WAY_BACK, WRITE_ONE)
        raise MigrationFilesError([fault])
    return part


def _arrange(pieces: Sequence[Statement], part: Part) -> Sequence[Statement]:
    """Put statements into the order in which their stretches are done."""
    if len(part.turns) <= 1:
        return pieces
    for piece in filter(string_syntax_set, pieces):
        raise ScriptError(
            piece.first,
            "standard_conforming_strings is set in a part that runs in another order "
            "than it is written",
            "Write strings with backslashes as E'…' and take the SET out.",
        )
    turns = [
        piece
        for start, end in part.turns
        for piece in pieces
        if start <= piece.first < end
    ]
    numbers = iter(range(1, len(turns) + 1))
    return [
        piece._replace(number=next(numbers)) if piece.number else piece
        for piece in turns
    ]


def _first_byte(part: Part) -> int:
    """Return where a part begins that has been cut out of a file."""
    content = part.content[:]
    return len(content) - len(content.lstrip())


def _fill(
    migration: Migration,
    part: Content,
    directives: Directives,
    variables: Mapping[str, str],
) -> Filled:
    """Fill in placeholders, then psql's variables; offsets of faults are the file's."""
    filled = Filled(part)
    if not directives.no_placeholders:
        filled = fill_placeholders(migration.version, filled, variables)
    try:
        return fill_variables(filled, variables)
    except ScriptError as error:
        raise _at_source(error, filled) from error


def _in_filled(part: Part, filled: Filled) -> Part:
    """Return a part whose stretches are those of the text that was filled in."""

    def moved(stretches: Iterable[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
        return tuple(
            (filled.from_source(start), filled.from_source(end))
            for start, end in stretches
        )

    if not filled.layers:
        return part
    wholes, turns = moved(part.wholes), moved(part.turns)
    return replace(part, wholes=wholes, turns=turns)


def _at_source(fault: ScriptError, filled: Filled) -> ScriptError:
    return ScriptError(filled.to_source(fault.offset), fault.problem, fault.remedy)


def check_text(migration: Migration, content: Content) -> Directives:
    """
    Check a file's encoding and directives, which need no database to be judged.

    Raises:
        MigrationFilesError: The text is not UTF-8, or a directive is malformed.
    """
    encoding_fault = _find_encoding_fault(migration.file, content)
    if encoding_fault is not None:
        raise MigrationFilesError([encoding_fault])
    return _read_directives(migration, _comments(content))


def _read_directives(
    migration: Migration, comments: Iterable[tuple[int, str]]
) -> Directives:
    directives, faults = parse_directives(migration.file, comments)
    if faults:
        raise MigrationFilesError(faults)
    return directives


def _comments(content: Content) -> Iterator[tuple[int, str]]:
    for offset, comment in leading_comments(content):
        if b"gate" in comment.lower():
            yield place(content, offset)[0], comment.decode()


def _find_encoding_fault(version: str, content: Content) -> FileFault | None:
    remedy = "Save the file as UTF-8."
    if content[:2] in UTF16_MARKS:
        return FileFault(file=version, problem="text is UTF-16", remedy=remedy)
    offset, problem = _find_bad_byte(content)
    if not problem:
        return None
    line, column = place(content, offset)
    return FileFault(
        file=version, line=line, column=column, problem=problem, remedy=remedy
    )


def _find_bad_byte(content: Content) -> tuple[int, str]:
    """Return offset and problem of the first NUL, or byte that is not UTF-8."""
    if isinstance(content, bytes) and content.isascii() and b"\0" not in content:
        return 0, ""
    decoder = codecs.getincrementaldecoder("utf-8")()
    size = len(content)
    for start, block in blocks(content, 0, size):
        carried = len(decoder.getstate()[0])
        found = []
        try:
            if carried or not block.isascii():
                decoder.decode(block, final=start + len(block) == size)
        except UnicodeDecodeError as error:
            found.append((start - carried + error.start, "text is not UTF-8"))
        nul = block.find(b"\0")
        if nul >= 0:
            found.append((start + nul, "text has a NUL byte"))
        if found:
            return min(found)
    return 0, ""


def _why_outside(statements: Sequence[Statement], directives: Directives) -> str:
    """Say why a file runs outside a transaction; empty where it runs in one."""
    barred = having(statements, forbids_transaction)
    reasons = [str(forbids_transaction(statement)) for _, statement in barred]
    if directives.transaction == "outside":
        return "directive no-transaction"
    if not reasons:
        is_asked_inside = directives.transaction == "inside"
        return "" if is_asked_inside or not has_own_blocks(statements) else OWN_BLOCKS
    others = len(statements) - len(reasons)
    settings = sum(1 for _ in having(statements, setting_changed))
    if others > settings:
        return f"{reasons[0]}, mixed with statements that need no such thing"
    return reasons[0]


def _find_contradictions(
    statements: Sequence[Statement], directives: Directives
) -> list[ScriptError]:
    if directives.transaction != "inside":
        return []
    return [
        ScriptError(
            statement.first,
            f"{why} in a file with the directive transaction",
            "Take the directive out, or move the statement to a file of its own.",
        )
        for _, statement in having(statements, forbids_transaction)
        if (why := forbids_transaction(statement)) is not None
    ]


def _to_files_error(
    migration: Migration,
    content: Content,
    errors: Sequence[ScriptError],
    variables: Mapping[str, str],
) -> MigrationFilesError:
    """Give each fault its line and column, in the order of the file, and no value."""
    redact = Redactor(variables)
    faults = []
    for error in sorted(errors, key=lambda error: error.offset):
        line, column = place(content, error.offset)
        faults.append(
            FileFault(
                file=migration.file,
                line=line,
                column=column,
                problem=redact(error.problem),
                remedy=redact(error.remedy),
            )
        )
    return MigrationFilesError(faults)


def digest_unit(script: Script, unit: Unit) -> str:
    """
    Return the checksum by which an edited statement is noticed.

    It is that of the file's text: a variable's value, which may be a secret, is not in.
    """
    digest = hashlib.sha256()
    for statement in unit.statements:
        first, end = map(script.filled.to_source, (statement.first, statement.end))
        data = statement.copy_data and tuple(
            map(script.filled.to_source, statement.copy_data)
        )
        start, end = data or (end, end)
        for words in _words(script.source, first, start):
            digest.update(words)
        digest.update(b"\n")
        for _, block in blocks(script.source, start, end):
            digest.update(block)
    return "sha256:" + digest.hexdigest()


def _words(content: Content, start: int, end: int) -> Iterator[bytes]:
    """Yield the words of a text with one blank between two of them."""
    is_first = is_open = True
    for _, block in blocks(content, start, end):
        words = block.split()
        goes_on = is_open and not block[:1].isspace()
        if words:
            yield b"" if is_first or goes_on else b" "
            yield b" ".join(words)
            is_first = False
            is_open = not block[-1:].isspace()
        elif block:
            is_open = False
