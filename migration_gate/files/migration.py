"""
A migration: its file name, checksum and directives. Pure.

Knows nothing of folders or databases; a file's content passes through and is not kept.
"""

from __future__ import annotations

import hashlib
import re

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Literal, NamedTuple, TypeAlias

from migration_gate.files.names import Number, classify, read_number
from migration_gate.report.errors import FileFault
from migration_gate.settings.durations import parse_duration, parse_positive_duration
from migration_gate.statements import Content, blocks


BYTE_ORDER_MARK = b"\xef\xbb\xbf"
WHITE_SPACE = b" \t\n\r\v\f"
CARRIAGE_RETURN = ord("\r")

Order: TypeAlias = tuple[bool, Number, bytes]
# What of a file is meant: what goes up, all of a file that goes back, or the part that
# goes back of a file that goes both ways.
Way = Literal["up", "back", "back part"]


class Replaced(NamedTuple):
    """
    What a file stands for: all up to one migration, whose name it may have.

    ``key`` is empty where all of that number are meant; ``is_open`` tells that it is
    all that comes before the file itself.
    """

    number: Number
    key: str = ""
    is_open: bool = False

    def covers(self, number: Number, key: str) -> bool:
        """Tell whether a migration is among what is replaced."""
        if number != self.number:
            return () < number < self.number
        return not self.key or key <= self.key

    def is_last(self, number: Number, key: str) -> bool:
        """Tell whether a migration is the one that all is up to."""
        return number == self.number and self.key in {"", key}


class Migration(NamedTuple):
    """
    A migration on disk.

    ``number`` is empty where it is repeatable: applied again when its text changes.
    ``version`` is the name of the file, or of the folder that is one migration; ``key``
    is what its spellings share and what history is compared by; ``checksum`` is
    ``sha256:`` and a hex digest. ``path`` is empty where it is the version;
    ``is_outside`` tells that what stands beside the file wants no transaction;
    ``replaces`` is what it stands for in a new database. ``is_after`` tells that it
    waits for the deployment of the application. ``rank`` comes before the number where
    something else than the name says the order. One that is to be undone has in
    ``path``, ``checksum`` and ``way`` what leads back.
    """

    version: str
    number: Number
    key: str
    checksum: str
    path: str = ""
    is_outside: bool = False
    replaces: Replaced | None = None
    way: Way = "up"
    is_after: bool = False
    rank: Number = ()

    @property
    def file(self) -> str:
        """Return the path of the file below the folder of migrations."""
        return self.path or self.version

    @property
    def is_repeatable(self) -> bool:
        """Return whether it is applied again when its text changes."""
        return not self.number

    @property
    def order(self) -> Order:
        """Return what migrations are sorted by: number, then name in byte order."""
        return self.is_repeatable, self.rank or self.number, self.version.encode()


class AppliedMigration(NamedTuple):
    """
    A row of the history.

    ``applied_at`` is ISO 8601 in UTC as the database gave it; ``checksum`` and
    ``duration_ms`` are None where another program wrote the row. ``superseded`` are the
    earlier texts of a repeatable one; see ``planning.repeatables``.
    """

    version: str
    checksum: str | None = None
    applied_at: str = ""
    duration_ms: int | None = None
    superseded: str = ""


class Replacement(NamedTuple):
    """
    The row of a repeatable migration, and what becomes of it with the file's text.

    ``checksum`` is the one that it has; ``superseded`` is what it gets.
    """

    key: str
    version: str
    checksum: str
    superseded: str


class ForeignRow(NamedTuple):
    """
    A row of another tool's history.

    ``version`` is as the tool has it, ``applied_at`` as in AppliedMigration, empty
    where the tool keeps no time; ``checksum`` is the tool's own, empty where it has
    none. A ``baseline`` stands for all up to it.
    """

    version: str
    state: Literal["applied", "undone", "failed", "baseline"]
    applied_at: str = ""
    checksum: str = ""


class Directives(NamedTuple):
    """
    What a file's ``-- gate:`` comments ask for; None where they are silent.

    ``accept`` are findings of a rehearsal, each with the reason why it may be.
    """

    transaction: Literal["inside", "outside"] | None = None
    lock_timeout_s: float | None = None
    statement_timeout_s: float | None = None
    one_way: bool = False
    after_deploy: bool = False
    no_placeholders: bool = False
    replaces: Replaced | None = None
    accept: tuple[tuple[str, str], ...] = ()


def version_to_key(version: str) -> str:
    """
    Reduce the spellings of one migration to one key.

    ``005_x``, ``005_x.sql``, ``005_x.up`` and ``005_x.up.sql`` are the same migration.
    """
    return version.removesuffix(".sql").removesuffix(".up")


def parse_replaced(word: str) -> Replaced | None:
    """Return what is up to a migration's name, with or without ending, or number."""
    number = read_number(word)
    if number:
        return Replaced(number)
    key = version_to_key(word)
    name = classify(f"{key}.sql")
    return Replaced(name.number, key) if name.kind == "up" else None


def changed(file: str) -> FileFault:
    """Return the fault of a file that is not what it was when the run began."""
    return FileFault(
        file=file,
        problem="changed while the gate was running",
        remedy="Start the gate again.",
    )


def checksum(content: Content) -> str:
    """
    Return the checksum that history records for a file's content.

    A byte order mark, the kind of line ends and white space at the end do not count,
    so that a checkout on another system is not a change.
    """
    start = len(BYTE_ORDER_MARK) if content[:3] == BYTE_ORDER_MARK else 0
    end = len(content)
    while end > start and content[end - 1] in WHITE_SPACE:
        end -= 1
    digest = hashlib.sha256()
    for block_start, whole in blocks(content, start, end):
        block = whole
        if block_start > start and content[block_start - 1] == CARRIAGE_RETURN:
            block = block.removeprefix(b"\n")
        if b"\r" in block:
            block = block.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        digest.update(block)
    return "sha256:" + digest.hexdigest()


DIRECTIVE = r"(?si)--\s*gate:(.*)"
# A lock timeout of 0 would be none: PostgreSQL would wait without end.
TIMEOUTS = {
    "lock-timeout": parse_positive_duration,
    "statement-timeout": parse_duration,
}
WORDS: Mapping[str, tuple[str, object]] = MappingProxyType(
    {
        "no-transaction": ("transaction", "outside"),
        "transaction": ("transaction", "inside"),
        "one-way": ("one_way", True),
        "after-deploy": ("after_deploy", True),
        "no-placeholders": ("no_placeholders", True),
    }
)
# What was meant for a directive: with other signs around it, or without its colon.
_PLAIN_WORDS = "|".join(word for word in (*WORDS, *TIMEOUTS) if "-" in word)
ALMOST = rf"(?si)[^a-z]*(?:migration-)?gate(?:\s*:|[^a-z]+(?:{_PLAIN_WORDS})\b).*"
KNOWN = (
    "no-transaction, transaction, one-way, after-deploy, no-placeholders, "
    "lock-timeout=10s, statement-timeout=1h, replaces 041_orders, "
    "accept rewrites-table and a reason"
)
NOT_PLAIN = 'directive that does not begin with "-- gate:"'
AFTER_DEPLOY = "after-deploy"
REPLACES = "replaces"
ACCEPT = "accept"


def parse_directives(
    version: str, comments: Iterable[tuple[int, str]]
) -> tuple[Directives, tuple[FileFault, ...]]:
    """
    Read the directives among the comments before a file's first statement.

    Args:
        version: Names the file in faults.
        comments: Line number, counted from 1, and text of each ``--`` comment.
    """
    found: dict[str, object] = {}
    accepted: list[object] = []
    faults = []
    for line, comment in comments:
        match = re.fullmatch(DIRECTIVE, comment)
        if match is None and re.fullmatch(ALMOST, comment) is None:
            continue
        setting = _parse_directive(match[1].strip()) if match else NOT_PLAIN
        if isinstance(setting, tuple) and setting[0] == ACCEPT:
            accepted.append(setting[1])
            continue
        if isinstance(setting, str):
            problem, repeated = setting, False
        else:
            problem, repeated = "directive is given twice", setting[0] in found
        if isinstance(setting, tuple) and not repeated:
            found[setting[0]] = setting[1]
            continue
        remedy = f"The directives are: {KNOWN}."
        faults.append(
            FileFault(file=version, line=line, problem=problem, remedy=remedy)
        )
    if accepted:
        found[ACCEPT] = tuple(accepted)
    return Directives(**found), tuple(faults)  # type: ignore[arg-type]  # names and types are those of _parse_directive


def _parse_directive(text: str) -> tuple[str, object] | str:
    """Return a field of Directives and its value, or what is wrong."""
    if text in WORDS:
        return WORDS[text]
    word, _, named = text.partition(" ")
    if word == REPLACES:
        replaced = parse_replaced(named.strip())
        return (REPLACES, replaced) if replaced else "names nothing that it replaces"
    if word == ACCEPT:
        return _parse_accepted(named)
    return _parse_timeout(text)


def _parse_timeout(text: str) -> tuple[str, object] | str:
    name, equals, value = (part.strip() for part in text.partition("="))
    if name not in TIMEOUTS:
        return "unknown directive"
    if not equals:
        return f'directive "{name}" has no "=" and no duration'
    try:
        return name.replace("-", "_") + "_s", TIMEOUTS[name](value)
    except ValueError as broken:
        return f'value of directive "{name}" {broken}'


def _parse_accepted(text: str) -> tuple[str, object] | str:
    """Return a finding's name and why it may be, or what is wrong."""
    from migration_gate.report.findings import FINDINGS, NAMES  # noqa: PLC0415  # for few

    name, _, reason = text.strip().partition(" ")
    reason = reason.strip(" \t-:")
    if name not in FINDINGS:
        return f"accepts what is no finding's name; the names are: {NAMES}"
    if not reason:
        return f'accepts "{name}" without a reason behind it'
    return ACCEPT, (name, reason)
