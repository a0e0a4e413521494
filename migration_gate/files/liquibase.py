"""
Liquibase's formatted SQL: the change sets for PostgreSQL, and their way back. Pure.

The rules are those of AbstractFormattedChangeLogParser.java. What depends on how
Liquibase is called, or on what it found in the database, is refused, with its line.
"""

from __future__ import annotations

import re

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from types import MappingProxyType
from typing import Final

from migration_gate.files.sections import Part, keep_only, require_whole
from migration_gate.statements import (
    Content,
    ScriptError,
    find,
    forms,
    iter_matches,
    split,
)


HEAD_BYTES: Final = 1 << 12
# FIRST_LINE_PATTERN: of the first line that is not blank.
FIRST_LINE: Final = re.compile(
    rb"(?:\xef\xbb\xbf)?\s*--\s*liquibase\s*formatted", re.IGNORECASE
)
LINE: Final = re.compile(
    rb"(?: ^ | (?<=\r) ) [ \t]* --? [ \t]* (?P<word> changeset | ignoreLines"
    rb" | precondition-[a-z0-9-]+ | include | includeAll )\b (?P<rest> [^\r\n]*)",
    re.MULTILINE | re.IGNORECASE | re.VERBOSE,
)
CHANGE_SET: Final = re.compile(
    r"\s*--\s*changeset\s+(\"[^\"]+\"|[^:]+):\s*(\"[^\"]+\"|\S+).*", re.IGNORECASE
)
# ROLLBACK_PATTERN, ROLLBACK_MULTI_LINE_START_PATTERN: in lines of their own.
ROLLBACK: Final = re.compile(
    rb"(?: ^ | (?<=\r) ) \s*? (?: --\s*? rollback[ ] (?P<line> [^\r\n]* )"
    rb" | /\* \s* liquibase \s* rollback [ \t\r]* \n (?P<block> .*? ) \*/ )",
    re.MULTILINE | re.IGNORECASE | re.VERBOSE | re.DOTALL,
)
NOTHING: Final = re.compile(rb"\s*(?:not required|empty)", re.IGNORECASE)
IGNORE_LINES: Final = re.compile(r"--\s*ignoreLines:(start|end|[0-9]+)", re.IGNORECASE)
DBMS: Final = re.compile(r".*dbms:([^,][\w!,]+)", re.IGNORECASE)
END_DELIMITER: Final = re.compile(r".*\bendDelimiter:(\S*)", re.IGNORECASE)
PLACEHOLDER: Final = re.compile(rb"\$\{[^}\s]+\}")
# StringUtil.isDelimiter: what ends a statement where no delimiter is given.
USUAL_DELIMITERS: Final = frozenset({"/", "go"})
# What a regular expression, or a quote, would mean something by.
ODD_IN_DELIMITER: Final = re.compile(r"[\\.*+?()\[\]{}^|$'\"]")
LIKE_USUAL: Final = USUAL_DELIMITERS | {"", r"\n/", r"\n/$", r"\ngo"}

SPLIT_UP: Final = "Put the change set into a file that only those environments ship."
ONCE: Final = "Take the attribute out: the gate applies a file once."
REFUSED: Final[Mapping[str, tuple[str, str]]] = MappingProxyType(
    {
        r"contextFilter:(\".*?\"|\S+)": ("context", SPLIT_UP),
        r"\bcontext:(\".*?\"|\S+)": ("context", SPLIT_UP),
        r"\blabels:(\".*?\"|\S+)": ("labels", SPLIT_UP),
        r"\brunOnChange:(true)\b": ("runOnChange", ONCE),
        r"\brunAlways:(true)\b": ("runAlways", ONCE),
        r"\bfailOnError:(false)\b": (
            "failOnError:false",
            "Take the attribute out: the gate stops at an error.",
        ),
        r"\brunWith:(?!jdbc\b)(\S+)": (
            "runWith",
            "Take the attribute out, where plain SQL will do.",
        ),
    }
)
ATTRIBUTES: Final = tuple(
    (re.compile(pattern, re.IGNORECASE), name, remedy)
    for pattern, (name, remedy) in REFUSED.items()
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _ChangeSet:
    """A change set, by its line and the bytes up to the next one."""

    line: str
    start: int
    end: int

    def says(self, attribute: str) -> bool:
        pattern = rf".*\b{attribute}\b"
        return re.match(pattern, self.line, re.IGNORECASE) is not None


def is_liquibase(content: Content) -> bool:
    """Tell a file in Liquibase's formatted SQL from all others."""
    return FIRST_LINE.match(content[:HEAD_BYTES]) is not None


def read_liquibase(content: Content) -> Part:
    """
    Return the change sets that Liquibase runs on PostgreSQL, however it is called.

    Raises:
        ScriptError: The file has no change set, or statements before the first.
    """
    lines = list(iter_matches(content, LINE, lambda _: True))
    ignored = list(_find_ignored(content, lines))
    starts = [(at, match) for at, match in lines if not _is_in(at, ignored)]
    change_sets = list(_read_change_sets(content, starts))
    faults = [*_find_refused_lines(starts)]
    if not change_sets:
        raise ScriptError(
            0, "no change set, where Liquibase runs nothing", "Add a change set."
        )
    for piece in split(content[: change_sets[0].start]):
        raise ScriptError(
            piece.first,
            "statement before the first change set, which Liquibase leaves out",
            "Move it into a change set.",
        )
    run = [each for each in change_sets if _is_run(each)]
    for change_set in run:
        faults += _find_refused_attributes(change_set)
    kept = [
        stretch for each in run for stretch in _without(each.start, each.end, ignored)
    ]
    require_whole(content, kept)
    part = keep_only(content, kept)
    made = bytearray(part)
    for each in run[1:]:
        # What ends the one before ends its last statement: the head moves by a ";".
        end = each.start + len(each.line.encode())
        made[each.start : end] = b";" + made[each.start : end - 1]
    part = bytes(made)
    for match in PLACEHOLDER.finditer(part):
        faults.append(
            ScriptError(
                match.start(),
                "placeholder of Liquibase, which only Liquibase fills in",
                "Write what it stands for.",
            )
        )
    for each in run:
        part = _end_statements(part, each, faults)
    return Part(
        content=part,
        transaction=(
            "outside" if any(e.says("runInTransaction:false") for e in run) else None
        ),
        wholes=tuple(
            (each.start, each.end)
            for each in run
            if len(run) > 1 and not each.says("runInTransaction:false")
        ),
        faults=tuple(faults),
    )


def find_change_sets(content: Content) -> tuple[str, ...]:
    """
    Return the change sets that run on PostgreSQL, as "id::author".

    Raises:
        ScriptError: The file has a malformed one.
    """
    lines = list(iter_matches(content, LINE, lambda _: True))
    ignored = list(_find_ignored(content, lines))
    heads = [(at, match) for at, match in lines if not _is_in(at, ignored)]
    found = [each for each in _read_change_sets(content, heads) if _is_run(each)]
    said = [match for each in found if (match := CHANGE_SET.fullmatch(each.line))]
    names = [[part.strip().strip('"') for part in match.groups()] for match in said]
    return tuple(f"{name}::{author}" for author, name in names)


def read_rollback(content: Content) -> Part | None:
    """
    Return what rolls back the change sets that Liquibase runs, the last one first.

    None where none of them says how.

    Raises:
        ScriptError: One says how, and another one does not; or by another change set.
    """
    lines = list(iter_matches(content, LINE, lambda _: True))
    ignored = list(_find_ignored(content, lines))
    starts = [(at, match) for at, match in lines if not _is_in(at, ignored)]
    run = [each for each in _read_change_sets(content, starts) if _is_run(each)]
    found = {each.start: list(_find_rollback(content, each)) for each in run}
    if not any(found.values()):
        return None
    made = bytearray(keep_only(content, [(len(content), len(content))]))
    for each in run:
        if not found[each.start]:
            raise ScriptError(
                each.start,
                "change set without a rollback, beside others that have one",
                'Write how it is undone in lines that begin with "--rollback", or '
                '"--rollback empty".',
            )
        if each.says("rollbackEndDelimiter:"):
            raise ScriptError(
                each.start,
                "change set with the attribute rollbackEndDelimiter",
                'End the statements with ";" and take the attribute out.',
            )
        kept = [s for s in found[each.start] if not NOTHING.match(content[slice(*s)])]
        for start, end in kept:
            text = content[start:end]
            at = text.lower().find(b"changesetid")
            if at >= 0:
                raise ScriptError(
                    start + at,
                    "rollback by another change set",
                    "Write out the statements.",
                )
            made[start:end] = text
        if kept and each.end < len(content):
            made[each.end : each.end + 1] = b";"  # of the next head, left out
    return Part(
        content=bytes(made),
        transaction=(
            "outside" if any(e.says("runInTransaction:false") for e in run) else None
        ),
        turns=tuple((each.start, each.end) for each in reversed(run)),
        may_be_empty=True,
    )


def _find_rollback(
    content: Content, change_set: _ChangeSet
) -> Iterator[tuple[int, int]]:
    """Yield the bytes of what is to be done, line by line, and block by block."""
    text = content[change_set.start : change_set.end]
    for match in ROLLBACK.finditer(text):
        group = "line" if match["line"] is not None else "block"
        yield change_set.start + match.start(group), change_set.start + match.end(group)


def _read_change_sets(
    content: Content, lines: list[tuple[int, re.Match[bytes]]]
) -> Iterator[_ChangeSet]:
    heads = [(at, m) for at, m in lines if m["word"].lower() == b"changeset"]
    ends = [*(at for at, _ in heads), len(content)][1:]
    for (at, match), end in zip(heads, ends, strict=True):
        line = match[0].decode(errors="replace")
        if not CHANGE_SET.fullmatch(line):
            raise ScriptError(
                at, "malformed change set", 'Write "--changeset author:id".'
            )
        yield _ChangeSet(line=line, start=at, end=end)


def _find_refused_lines(
    lines: list[tuple[int, re.Match[bytes]]],
) -> Iterator[ScriptError]:
    for at, match in lines:
        word = match["word"].lower()
        if word.startswith(b"precondition"):
            yield ScriptError(
                at,
                "precondition, on which depends whether Liquibase runs the change set",
                "Take it out, or write the condition in SQL, as with IF NOT EXISTS.",
            )
        elif word.startswith(b"include"):
            yield ScriptError(
                at, "include of another file", "Put its statements into this file."
            )


def _find_refused_attributes(change_set: _ChangeSet) -> Iterator[ScriptError]:
    for pattern, name, remedy in ATTRIBUTES:
        if pattern.search(change_set.line):
            yield ScriptError(
                change_set.start, f"change set with the attribute {name}", remedy
            )


def _is_run(change_set: _ChangeSet) -> bool:
    """DatabaseList.definitionMatches, of the short name "postgresql"."""
    if change_set.says("ignore:true"):
        return False
    found = DBMS.match(change_set.line)
    names = set(found[1].lower().split(",")) if found else {"all"}
    if "all" in names:
        return True
    if "none" in names or "!postgresql" in names:
        return False
    wanted = {name for name in names if name and not name.startswith("!")}
    return not wanted or "postgresql" in wanted


def _find_ignored(
    content: Content, lines: list[tuple[int, re.Match[bytes]]]
) -> Iterator[tuple[int, int]]:
    """Yield the stretches between ignoreLines:start and end, or of so many lines."""
    opened: int | None = None
    until = 0
    for at, match in lines:
        if match["word"].lower() != b"ignorelines" or at < until:
            continue
        said = IGNORE_LINES.fullmatch(match[0].decode(errors="replace"))
        if said is None:
            raise ScriptError(
                at, "malformed ignoreLines", 'Write "--ignoreLines:start".'
            )
        if said[1].lower() == "start":
            opened = at if opened is None else opened
        elif said[1].lower() == "end":
            if opened is not None:
                yield opened, at + len(match[0])
            opened = None
        elif opened is None:
            until = at + len(match[0])
            for _ in range(int(said[1]) + 1):
                until = find(content, b"\n", start=until) + 1 or len(content)
            yield at, until
    if opened is not None:
        yield opened, len(content)


def _is_in(at: int, stretches: list[tuple[int, int]]) -> bool:
    return any(start <= at < end for start, end in stretches)


def _without(
    start: int, end: int, ignored: list[tuple[int, int]]
) -> Iterator[tuple[int, int]]:
    inner = [(a, b) for a, b in ignored if a < end and b > start]
    edges = [start, *(edge for stretch in inner for edge in stretch), end]
    yield from (pair for pair in list(pairwise(edges))[::2] if pair[0] < pair[1])


def _end_statements(
    part: bytes, change_set: _ChangeSet, faults: list[ScriptError]
) -> bytes:
    """Write ";" for the delimiters that stand on a line of their own."""
    said = END_DELIMITER.match(change_set.line)
    delimiter = said[1].lower() if said else ""
    if delimiter == ";":
        return part
    if delimiter in LIKE_USUAL:
        return _replace_lines(part, change_set, USUAL_DELIMITERS)
    if ODD_IN_DELIMITER.search(delimiter):
        faults.append(_odd_delimiter(change_set.start))
        return part
    made = _replace_lines(part, change_set, frozenset({delimiter}))
    text = made[change_set.start + len(change_set.line) : change_set.end].lower()
    at = text.find(delimiter.encode())
    if at >= 0:
        faults.append(_odd_delimiter(change_set.start + len(change_set.line) + at))
    return made


def _odd_delimiter(at: int) -> ScriptError:
    return ScriptError(
        at,
        "endDelimiter that does not stand on lines of its own",
        'End the statements with ";" and take the attribute out.',
    )


def _replace_lines(
    part: bytes, change_set: _ChangeSet, delimiters: frozenset[str]
) -> bytes:
    words = b"|".join(re.escape(each.encode()) for each in sorted(delimiters))
    pattern = re.compile(
        rb"^[ \t]*(?P<word>" + words + rb")[ \t\r]*$", re.MULTILINE | re.IGNORECASE
    )
    found = {
        match.start("word"): len(match["word"])
        for match in pattern.finditer(part, change_set.start, change_set.end)
    }
    if not found:
        return part
    made = bytearray(part)
    for start, _, _ in forms(part[: change_set.end], change_set.start):
        length = found.get(start)
        if length:
            made[start : start + length] = b";".ljust(length)
    return bytes(made)
