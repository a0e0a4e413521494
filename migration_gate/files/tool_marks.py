"""
The marks of other tools that tell which part of a file goes which way. Pure.

Each is read as its tool reads it; what only looks like a mark is refused.
"""

from __future__ import annotations

import re

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Literal

from migration_gate.files.sections import REMEDY
from migration_gate.statements import Content, ScriptError, has_any, iter_matches


Direction = Literal["up", "down", "transaction", "begin", "end"]

# What no mark is without, in lower case: a file is looked at closer only for these.
TRACES: Final = (b"migrat", b"+goose", b"rambler", b"!ups", b"!downs", b"@undo")
IN_DATA: Final = frozenset({b"migrat", b"rambler"})

# In any case and with any number of dashes: what looks like a mark, and is none to its
# own tool, is refused.
MARK: Final = re.compile(
    rb"""
    (?: ^ | (?<=\r) | (?<=\A\xef\xbb\xbf) )
    (?P<lead> [ \t]* )
    (?: --[ \t-]* migrate: (?P<dbmate> [^\r\n]* )
      | --[ \t-]* \+goose\b (?P<goose> [^\r\n]* )
      | --[ \t-]* \+migrate\b (?P<sql_migrate> [^\r\n]* )
      | --[ \t-]* rambler\b (?P<rambler> [^\r\n]* )
      | (?: \# | -- ) [^\r\n]* ! (?P<play> ups | downs ) [^\r\n]*
      | (?: -- | // ) [ \t]* // [ \t]* @ (?P<mybatis> undo ) [^\r\n]*
      | --[ \t-]* (?P<node_pg_migrate> (?: up | down ) [ \t]+ migration [^\r\n]* )
    )
    """,
    re.MULTILINE | re.IGNORECASE | re.VERBOSE,
)
UNKNOWN: Final = "unknown mark of another tool"


class _UnknownMarkError(Exception):
    """What looks like a mark of this tool is none to the tool itself."""


@dataclass(frozen=True, slots=True)
class Mark:
    """One mark of a tool: what begins after it, and the bytes of its line."""

    tool: str
    direction: Direction
    is_outside: bool
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class _Line:
    """A line that looks like a mark: all of it, and what follows the tool's name."""

    text: str
    words: str
    is_indented: bool


def find_marks(content: Content) -> Iterator[Mark]:
    """Yield the marks of all tools, in order; StatementBegin and its end must pair."""
    if not has_any(content, *TRACES):
        return
    opened: int | None = None
    for at, match in iter_matches(content, MARK, _may_mark):
        mark = _read_mark(match, at)
        if mark is None:
            continue
        if mark.direction == "begin":
            if opened is not None:
                raise ScriptError(mark.start, "StatementBegin in another", REMEDY)
            opened = mark.start
        elif mark.direction == "end":
            if opened is None:
                problem = "StatementEnd without StatementBegin"
                raise ScriptError(mark.start, problem, REMEDY)
            opened = None
        else:
            yield mark
    if opened is not None:
        raise ScriptError(opened, "StatementBegin without StatementEnd", REMEDY)


def find_statement_ends(content: Content) -> Iterator[tuple[int, int]]:
    """Yield start and end of each StatementEnd of goose's or sql-migrate's."""
    for at, match in iter_matches(content, MARK, _may_mark):
        mark = _read_mark(match, at)
        if mark is not None and mark.direction == "end":
            yield mark.start, mark.end


def _may_mark(text: bytes) -> bool:
    has_comment = b"--" in text
    return any(
        trace in text and (has_comment or trace not in IN_DATA) for trace in TRACES
    )


def _read_mark(match: re.Match[bytes], at: int) -> Mark | None:
    group = next(name for name in READERS if match[name] is not None)
    tool, read = READERS[group]
    start = at + len(match["lead"])
    text = match[0][len(match["lead"]) :].decode(errors="replace")
    words = match[group].decode(errors="replace")
    try:
        said = read(_Line(text, words, is_indented=bool(match["lead"])))
    except _UnknownMarkError as unknown:
        raise ScriptError(start, str(unknown) or UNKNOWN, REMEDY) from None
    return said and Mark(tool, *said, start, at + len(match[0]))


_Said = tuple[Direction, bool] | None


def _read_dbmate(line: _Line) -> _Said:
    """pkg/dbmate/migration.go: upRegExp, downRegExp, parseMigrationOptions."""
    direction, *options = line.words.lower().split() or [""]
    is_sentence = line.words[:1].isspace() and options and ":" not in line.words
    if is_sentence and direction not in {"up", "down"}:
        return None
    if line.is_indented or line.words[:1].isspace() or line.text[2:3] == "-":
        raise _UnknownMarkError
    if set(options) - {"transaction:false", "transaction:true"}:
        raise _UnknownMarkError
    if direction == "up":
        return "up", "transaction:false" in options
    if direction == "down":
        return "down", "transaction:false" in options
    raise _UnknownMarkError


def _read_goose(line: _Line) -> _Said:
    """internal/sqlparser/parser.go: extractAnnotation."""
    said = " ".join(line.words.replace("--", "").lower().split())
    if line.is_indented or line.text.replace("--", "")[:1] == "-" or said not in GOOSE:
        raise _UnknownMarkError
    return None if said in ENVSUBS else GOOSE[said]


def _read_sql_migrate(line: _Line) -> _Said:
    """sqlparse/sqlparse.go: parseCommand; case counts."""
    command, *options = line.words.split() or [""]
    if line.is_indented or not line.text.startswith("-- +migrate "):
        raise _UnknownMarkError
    if command not in SQL_MIGRATE or set(options) - {"notransaction"}:
        raise _UnknownMarkError
    return SQL_MIGRATE[command], bool(options)


def _read_rambler(line: _Line) -> _Said:
    """migration.go: scan; case counts."""
    said = line.words.strip()
    if said.lower() not in {"up", "down"}:
        return None
    if line.is_indented or not line.text.startswith("-- rambler"):
        raise _UnknownMarkError
    if said == "up":
        return "up", False
    if said == "down":
        return "down", False
    raise _UnknownMarkError


def _read_play(line: _Line) -> _Said:
    """EvolutionsApi.scala: upsMarker, downsMarker, of lines without their blanks."""
    if line.words == "Ups":
        return "up", False
    return ("down", False) if line.words == "Downs" else None


def _read_mybatis(line: _Line) -> _Said:
    """MigrationReader.java: determinePart; case counts."""
    return ("down", False) if line.words == "UNDO" else None


def _read_node_pg_migrate(line: _Line) -> _Said:
    """src/sqlMigration.ts: the line may go on with anything."""
    return ("up" if line.words[:1] in "uU" else "down"), False


NODE_PG_MIGRATE: Final = "node-pg-migrate"
READERS: Final[Mapping[str, tuple[str, Callable[[_Line], _Said]]]] = MappingProxyType(
    {
        "dbmate": ("dbmate", _read_dbmate),
        "goose": ("goose", _read_goose),
        "sql_migrate": ("sql-migrate", _read_sql_migrate),
        "rambler": ("rambler", _read_rambler),
        "play": ("Play", _read_play),
        "mybatis": ("MyBatis", _read_mybatis),
        "node_pg_migrate": (NODE_PG_MIGRATE, _read_node_pg_migrate),
    }
)
GOOSE: Final[Mapping[str, tuple[Direction, bool]]] = MappingProxyType(
    {
        "up": ("up", False),
        "down": ("down", False),
        "no transaction": ("transaction", True),
        "statementbegin": ("begin", False),
        "statementend": ("end", False),
        # What stands between them is for files.placeholders.
        **dict.fromkeys(("envsub on", "envsub off"), ("transaction", False)),
    }
)
ENVSUBS: Final = frozenset({"envsub on", "envsub off"})
SQL_MIGRATE: Final[Mapping[str, Direction]] = MappingProxyType(
    {"Up": "up", "Down": "down", "StatementBegin": "begin", "StatementEnd": "end"}
)
