"""
Files in the form of other tools: which part goes which way, by their marks. Pure.

Several tools keep both directions in one file, under marks that are comments; sqlx,
tern and Atlas mark a file that runs outside a transaction. A marked file is used only
where its marks are well-formed: what its tool would do with others is not guessed.
"""

from __future__ import annotations

import re

from collections.abc import Sequence
from typing import Final, Literal

from migration_gate.files.liquibase import is_liquibase, read_liquibase, read_rollback
from migration_gate.files.sections import REMEDY, Part, keep_only, require_whole
from migration_gate.files.tool_marks import (
    NODE_PG_MIGRATE,
    UNKNOWN,
    Direction,
    Mark,
    find_marks,
    find_statement_ends,
)
from migration_gate.statements import (
    Content,
    ScriptError,
    forms,
    has_any,
    iter_matches,
    leading_comments,
    split,
    up_to,
)


TERN_TRACE: Final = b"drop below"

# tern: migrate/migrate.go, LoadMigrations: the first of them, wherever it stands.
TERN: Final = re.compile(
    rb"-+[ \t]*create[ \t]+above[ \t]*/[ \t]*drop[ \t]+below[ \t]*-*", re.IGNORECASE
)
TERN_EXACT: Final = b"---- create above / drop below ----"
TERN_DISABLE_TX: Final = re.compile(rb"^---- tern: disable-tx ----\r?$", re.MULTILINE)
SQLX: Final = re.compile(rb"--[ \t]*no-transaction[ \t]*")
YOYO: Final = re.compile(rb"--[ \t]*transactional:[ \t]*false[ \t]*")
GRAPHILE: Final = re.compile(rb"--![ \t]*no-transaction\b.*", re.DOTALL)
ATLAS: Final = re.compile(rb"--[ \t]*atlas:txmode[ \t]+none[ \t]*")
OUTSIDE: Final = (ATLAS, TERN_DISABLE_TX, YOYO, GRAPHILE)
# drizzle-orm/src/migrator.ts splits there, whatever stands before it.
BREAKPOINT: Final = b"--> statement-breakpoint"
ENDS: Final = re.compile(BREAKPOINT)
UNENDED: Final = re.compile(rb"[^;\s]\s*" + BREAKPOINT)
# parser.go, sqlparse.go: a statement in their marks ends there, whatever it ends with.
WITH_ENDS: Final = frozenset({"goose", "sql-migrate"})
LOOKED_BACK: Final = 1 << 12
ENDED: Final = re.compile(rb"(?:\A|\n)(?:[^\n-]|-(?!-))*;\s*\Z")
HASH_LINE: Final = re.compile(rb"^[ \t]*#[^\r\n]*", re.MULTILINE)
DOLLAR: Final = ord("$")

ONE_WAY: Final = (
    'Correct the marks, or say "-- gate: one-way" in a comment before the first '
    "statement where the whole file is meant."
)


def cut_up_part(content: Content, *, is_one_way: bool = False) -> Part:
    """
    Return the part of a file that goes up: all of it where no tool has marked it.

    Args:
        content: The whole file.
        is_one_way: The file says that all of it is meant.

    Raises:
        ScriptError: The marks are not well-formed, or say something else.
    """
    if is_liquibase(content):
        return read_liquibase(content)
    if has_any(content, BREAKPOINT):
        content = _end_at_breakpoints(content)
    marks, separator = _read_marks(content, is_one_way=is_one_way)
    if separator:
        return _cut_tern(content, separator)
    if not marks:
        return Part(content=content, transaction=_read_header(content))
    if marks[0].tool == "MyBatis":
        # MigrationReader.java: everything up to the first of them.
        return Part(content=content[: marks[0].start])
    return _cut(content, marks)


def _end_at_breakpoints(content: Content) -> Content:
    """Put a semicolon in place of Drizzle's marks where statements go without."""
    if not any(iter_matches(content, UNENDED, lambda text: BREAKPOINT in text)):
        return content
    kept, start = [], 0
    for at, _ in iter_matches(content, ENDS, lambda text: BREAKPOINT in text):
        kept.append((start, at))
        start = at + len(BREAKPOINT)
    kept.append((start, len(content)))
    require_whole(content, kept)
    return keep_only(content, kept)


def cut_back_part(content: Content) -> Part | None:
    """
    Return the part of a file that goes back; None where no tool has marked one.

    Raises:
        ScriptError: The marks are not well-formed.
    """
    if is_liquibase(content):
        return read_rollback(content)
    marks, separator = _read_marks(content)
    if separator:
        return _cut_tern_back(content, separator)
    downs = [mark for mark in marks if mark.direction == "down"]
    has_up = any(mark.direction == "up" for mark in marks)
    if not downs or (marks[0].tool == NODE_PG_MIGRATE and not has_up):
        return None
    if marks[0].tool == "MyBatis":
        return Part(content=keep_only(content, [(downs[0].start, len(content))]))
    return _cut(content, marks, "down")


def read_back_file(content: Content) -> Part:
    """
    Return all of a file that goes back, by its name.

    Raises:
        ScriptError: A part of it goes up, by a mark.
    """
    marks, separator = _read_marks(content)
    ups = [mark.start for mark in marks if mark.direction == "up"]
    if ups or separator or is_liquibase(content):
        raise ScriptError(
            ups[0] if ups else separator[0] if separator else 0,
            "mark of another tool in a file that goes back, by its name",
            "Keep only what goes back, without marks.",
        )
    return Part(content=content, transaction=_read_header(content))


def _read_marks(
    content: Content, *, is_one_way: bool = False
) -> tuple[list[Mark], tuple[int, bytes] | None]:
    """Return the marks that count, or tern's line; both where a file has neither."""
    marks = list(find_marks(content))
    separator = _find_separator(content)
    strict = [mark for mark in marks if mark.tool != NODE_PG_MIGRATE]
    tools = {mark.tool for mark in strict} | ({"tern"} if separator else set())
    if len(tools) > 1:
        at = strict[-1].start
        raise ScriptError(at, "marks of two tools in one file", REMEDY)
    if is_one_way:
        _require_no_way_back(strict, separator)
    elif separator:
        return [], separator
    # node-pg-migrate's marks are what a comment may say by chance.
    return (strict if strict or is_one_way else marks), None


def _cut(content: Content, marks: Sequence[Mark], direction: Direction = "up") -> Part:
    """Keep the sections that go one way, in their order."""
    tool = marks[0].tool
    turns = [mark for mark in marks if mark.direction != "transaction"]
    ups = [mark for mark in turns if mark.direction == "up"]
    if tool == NODE_PG_MIGRATE and not ups and not split(content[turns[0].end :]):
        return Part(content=content, transaction=_read_header(content))
    _require_order(turns or marks)
    _require_nothing_before(content, turns[0])
    ends = [*(mark.start for mark in turns[1:]), len(content)]
    kept = [
        (mark.end if tool == "Play" else mark.start, end)
        for mark, end in zip(turns, ends, strict=True)
        if mark.direction == direction
    ]
    is_back = direction == "down"
    is_first = not is_back and turns[0] is ups[0]
    if is_first and len(kept) == 1 and tool != "Play":
        part = up_to(content, kept[0][1])
    else:
        require_whole(content, kept)
        part = keep_only(content, kept)
    if tool in WITH_ENDS:
        part = _end_statements(part)
    meant = [mark for mark in turns if mark.direction == direction]
    is_outside = any(m.is_outside for m in marks if m not in turns or m in meant)
    wholes = [
        stretch
        for mark, stretch in zip(meant, kept, strict=True)
        if len(meant) > 1 and not mark.is_outside
    ]
    return Part(
        content=_undouble(part[:]) if tool == "Play" else part,
        transaction="outside" if is_outside else None,
        wholes=tuple(wholes),
        # rambler/migration.go: the last section first.
        turns=tuple(reversed(kept)) if is_back and tool == "rambler" else (),
    )


def _end_statements(part: Content) -> Content:
    """Put a semicolon before each StatementEnd whose statement has none."""
    unended = [
        (start, end)
        for start, end in find_statement_ends(part)
        if not ENDED.search(part[max(start - LOOKED_BACK, 0) : start])
    ]
    if not unended:
        return part
    made = bytearray(part[:])
    for start, end in unended:
        made[start:end] = b";" + made[start : end - 1]
    starts = {start for start, _ in unended}
    starts.difference_update(start for start, _, _ in forms(bytes(made), 0))
    if starts:
        raise ScriptError(min(starts), "StatementEnd in a quote or comment", REMEDY)
    return bytes(made)


def _cut_tern(content: Content, separator: tuple[int, bytes]) -> Part:
    at, text = separator
    if text != TERN_EXACT:
        raise ScriptError(at, UNKNOWN, REMEDY)
    part = content[:at]
    _require_no_template(part)
    is_outside = TERN_DISABLE_TX.search(part) is not None
    return Part(content=part, transaction="outside" if is_outside else None)


def _cut_tern_back(content: Content, separator: tuple[int, bytes]) -> Part:
    at, text = separator
    _cut_tern(content, separator)  # refuses what its own half would be refused for
    part = keep_only(content, [(at + len(text), len(content))])
    _require_no_template(part)
    is_outside = TERN_DISABLE_TX.search(part) is not None
    return Part(content=part, transaction="outside" if is_outside else None)


def _require_no_template(part: bytes) -> None:
    template = part.find(b"{{")
    if template >= 0:
        raise ScriptError(
            template,
            "template of tern, which only tern fills in",
            "Write what it stands for.",
        )


def _find_separator(content: Content) -> tuple[int, bytes] | None:
    if not has_any(content, TERN_TRACE):
        return None
    return next(
        ((at, match[0]) for at, match in iter_matches(content, TERN, _may_separate)),
        None,
    )


def _read_header(content: Content) -> Literal["outside"] | None:
    """Read the marks of sqlx, on the first line, and of others, in the comments."""
    for number, (_, comment) in enumerate(leading_comments(content)):
        is_sqlx = number == 0 and SQLX.fullmatch(comment) is not None
        if is_sqlx or any(mark.fullmatch(comment) for mark in OUTSIDE):
            return "outside"
    return None


def _may_separate(text: bytes) -> bool:
    return TERN_TRACE in text


# Their sections may come in any order, and several of a direction.
ANY_ORDER: Final = frozenset({"sql-migrate", "rambler", "Play"})


def _require_no_way_back(
    strict: Sequence[Mark], separator: tuple[int, bytes] | None
) -> None:
    downs = [mark.start for mark in strict if mark.direction == "down"]
    downs += [separator[0]] if separator else []
    if downs:
        raise ScriptError(
            min(downs),
            'part that goes down in a file with the directive "one-way"',
            "Take out the directive, or the mark.",
        )


def _require_order(turns: Sequence[Mark]) -> None:
    """Refuse an order that the tool itself refuses, or reads in a way of its own."""
    tool = turns[0].tool
    remedy = ONE_WAY if tool == NODE_PG_MIGRATE else REMEDY
    if all(mark.direction != "up" for mark in turns):
        raise ScriptError(turns[0].start, "no part goes up", remedy)
    if tool in ANY_ORDER:
        return
    if turns[0].direction == "down" and tool != NODE_PG_MIGRATE:
        raise ScriptError(turns[0].start, "the part that goes down comes first", remedy)
    seen: set[Direction] = set()
    for mark in turns:
        # dbmate: each up and its down are a section, of which there may be several.
        if tool == "dbmate" and mark.direction == "up" and seen == {"up", "down"}:
            seen = set()
        if mark.direction in seen:
            problem = f"second mark of the part that goes {mark.direction}"
            raise ScriptError(mark.start, problem, remedy)
        seen.add(mark.direction)


def _require_nothing_before(content: Content, first: Mark) -> None:
    """Refuse statements that the tool leaves out without a word."""
    text = content[: first.start]
    if first.tool == "Play":
        text = HASH_LINE.sub(lambda line: b" " * len(line[0]), text)
    before = split(text)
    if before:
        problem = f"statement before the mark of the part that goes {first.direction}"
        remedy = ONE_WAY if first.tool == NODE_PG_MIGRATE else REMEDY
        raise ScriptError(before[0].first, problem, remedy)


def _undouble(part: bytes) -> bytes:
    """
    Write ";" for the ";;" with which Play keeps a statement whole.

    Evolutions.scala splits at every single ";". What follows it becomes a blank, so
    that each byte keeps its place: harmless in the body of a function, but not in data.
    """
    if part.find(b";;") < 0:
        return part
    made = bytearray(part)
    for start, end, _ in forms(part, 0):
        at = part.find(b";;", start, end)
        if at < 0:
            continue
        if part[start] != DOLLAR:
            problem = '";;" in a string, with which Play writes a ";"'
            raise ScriptError(at, problem, 'Write ";".')
        made[start:end] = part[start:end].replace(b";;", b"; ")
    return bytes(made)
