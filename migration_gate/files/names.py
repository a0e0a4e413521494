"""
What a name in the folder is: a migration, a way back, another thing, or a fault. Pure.

One function reads every name; nothing is passed over because it is not understood.
"""

from __future__ import annotations

import re

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, Literal, NamedTuple, TypeAlias


NAME_MAX_CHARACTERS: Final = 255  # history's version is varchar(255)

# Compared part by part; parts that are missing count as 0, so zeros at the end are
# left out: 1 and 1.0 are one number.
Number: TypeAlias = tuple[int, ...]
Kind = Literal["up", "down", "code", "ignored", "refused"]

ENDING: Final = ".sql"
NUMBERED: Final = re.compile(
    r"(?P<number> [0-9]{4}-[0-9]{2}-[0-9]{2}-[0-9]+ | [0-9]+ ) (?: [_-] .+ )?",
    re.DOTALL | re.VERBOSE,
)
# Flyway: MigrationVersion.java, of names with its usual prefixes and separator.
VERSIONED: Final = re.compile(
    r"(?P<prefix>[VUB]) (?P<parts> [0-9]+ (?:[._][0-9]+)* ) __ (?P<words>.+)",
    re.DOTALL | re.VERBOSE,
)
# Flyway's repeatable migrations; in any other case they are not, to it.
REPEATABLE: Final = "R__"
FORWARD: Final = re.compile(r"[._-]up\Z", re.IGNORECASE)
BACK: Final = re.compile(r"[._-](?:down|undo|rollback|revert)\Z", re.IGNORECASE)
FORM: Final = "name is not of the form NUMBER_words.sql"
RENAME: Final = (
    'Rename it to NUMBER_words.sql, or begin its name with "_" to have it ignored.'
)
IGNORE: Final = 'Begin its name with "_" to have it ignored.'

POSTGRES: Final = frozenset({"postgres", "postgresql", "pg", "psql", "pgsql"})
OTHER_DATABASES: Final = frozenset(
    {
        *("mysql", "mariadb", "sqlite", "sqlite3", "mssql", "sqlserver", "oracle"),
        *("h2", "hsqldb", "derby", "db2", "cockroach", "cockroachdb", "crdb", "tidb"),
        *("clickhouse", "snowflake", "bigquery", "duckdb", "spanner", "yugabyte"),
    }
)
# Flyway: Event.java; "beforeMigrate.sql", "afterEachMigrate__words.sql".
CALLBACK: Final = r"(?s)(?:before|after)(?:Each)?[A-Z][A-Za-z]*(?:__.*)?\Z"
_CODE: Final[Mapping[str, str]] = MappingProxyType(
    {
        "go": "Go",
        "rb": "Ruby",
        "py": "Python",
        "java": "Java",
        "kt": "Kotlin",
        "js": "JavaScript",
        "cjs": "JavaScript",
        "mjs": "JavaScript",
        "ts": "TypeScript",
        "cts": "TypeScript",
        "mts": "TypeScript",
        "php": "PHP",
        "cs": "C#",
        "rs": "Rust",
        "ex": "Elixir",
        "exs": "Elixir",
        "sh": "shell",
        "groovy": "Groovy",
        "scala": "Scala",
    }
)
CODE_NAME: Final = r"(?s)(?:[0-9]|V[0-9]+(?:[._][0-9]+)*__).*\.(?P<ending>[a-z]+)"
# goose ignores tests; a declaration holds no migration.
NO_CODE: Final = r"(?s).*(?:_test\.go|\.(?:test|spec|d)\.[cm]?[jt]s)"
# Texts: only what stands beside migrations is asked by them.
_MEANT: Final = (
    (
        r"(?is).*\.sql\.(?:gz|bz2|xz|zst|zip|lz4|br)",
        "compressed, and only plain SQL is read",
        f"Unpack it. {IGNORE}",
    ),
    (
        r"(?is).*\.sql\.(?:tmpl|tpl|template|j2|jinja2?|erb|ejs|hbs|mustache|in)",
        "template, and only plain SQL is read",
        f"Ship what is made of it. {IGNORE}",
    ),
    (
        r"(?is).*\.sql\.conf",
        "settings of Flyway's for one file, which are not read",
        f"Say what it asks for in directives of the file itself. {IGNORE}",
    ),
    (
        r"(?is).*\.(?:sql|psql|pgsql)\s*",
        'name does not end in ".sql"',
        f"Rename it. {IGNORE}",
    ),
)


class Name(NamedTuple):
    """
    What a name says; ``is_baseline`` tells that it stands for all up to its number.

    ``base`` is what a migration and its way back have in common; ``number`` and it are
    empty where there is no number, as in the name of a repeatable one. ``problem`` and
    ``remedy`` are of a refused name, or of code, which is refused beside SQL.
    """

    kind: Kind
    number: Number = ()
    base: str = ""
    problem: str = ""
    remedy: str = ""
    is_baseline: bool = False


IGNORED: Final = Name(kind="ignored")


def classify(name: str) -> Name:
    """
    Tell what the name of a file is.

    Of two names that are migrations, number and then byte order say which comes first;
    those of repeatable ones come last.
    """
    if name.startswith((".", "_")):
        return IGNORED
    if not name.endswith(ENDING):
        return _classify_other(name)
    if len(name) > NAME_MAX_CHARACTERS:
        return refused(
            f"name is longer than {NAME_MAX_CHARACTERS} characters", "Shorten the name."
        )
    return _classify_sql(name.removesuffix(ENDING))


NUMBER: Final = re.compile(r"[0-9]+(?:[-._][0-9]+)*")
# The parts of a number of Flyway's form, V1.2__words.
PARTED: Final = re.compile(r"[0-9]+(?:[._][0-9]+)+")


def read_number(word: str) -> Number:
    """Return the number that a word is; empty where it is none."""
    if not NUMBER.fullmatch(word):
        return ()
    parted = PARTED.fullmatch(word)
    return classify(f"V{word}__x.sql" if parted else f"{word}.sql").number


def _classify_sql(stem: str) -> Name:
    if not stem.isprintable():
        return refused(FORM, RENAME)
    database = _database_of(stem)
    if database in OTHER_DATABASES:
        return refused(
            f"migration for another database ({database})",
            f"Ship PostgreSQL's files alone. {IGNORE}",
        )
    if is_repeatable(stem) and stem != REPEATABLE:
        return _read_repeatable(stem)
    versioned = VERSIONED.fullmatch(stem)
    if versioned:
        return _read_versioned(versioned)
    numbered = NUMBERED.fullmatch(stem)
    return _read_numbered(stem, numbered) if numbered else _refuse(stem)


def _read_numbered(stem: str, match: re.Match[str]) -> Name:
    number = (int(match["number"].replace("-", "")),)
    if stem.endswith(".down"):
        # golang-migrate pairs them by the number alone (source/migration.go).
        return Name(kind="down", number=number)
    if BACK.search(stem):
        return Name(kind="down", number=number, base=BACK.sub("", stem))
    return Name(kind="up", number=number, base=FORWARD.sub("", stem))


def _read_versioned(match: re.Match[str]) -> Name:
    number = _trim(tuple(int(part) for part in re.split("[._]", match["parts"])))
    base = f"V{match['parts']}__{match['words']}"
    if match["prefix"] == "B":
        base = f"B{base[1:]}"
        return Name(kind="up", number=number, base=base, is_baseline=True)
    if match["prefix"] == "U":
        # Flyway knows them by the number alone.
        return Name(kind="down", number=number)
    if BACK.search(base):
        return Name(kind="down", number=number, base=BACK.sub("", base))
    return Name(kind="up", number=number, base=FORWARD.sub("", base))


def is_repeatable(version: str) -> bool:
    """Tell a repeatable migration by the name of its file, or by its version."""
    return version.startswith(REPEATABLE)


def _read_repeatable(stem: str) -> Name:
    if BACK.search(stem):
        return refused(
            "way back of a repeatable migration, and none is undone",
            "Put an earlier text into the repeatable file itself. " + IGNORE,
        )
    return Name(kind="up", base=FORWARD.sub("", stem))


def _trim(parts: Number) -> Number:
    while len(parts) > 1 and parts[-1] == 0:
        parts = parts[:-1]
    return parts


def _refuse(stem: str) -> Name:
    """Say of a name that ends in .sql why it is no migration."""
    if re.match(r"[rR]_", stem):
        return refused(
            "name is almost that of a repeatable migration, R__words.sql",
            "Rename it to R__words.sql. " + IGNORE,
        )
    if re.match(CALLBACK, stem):
        return refused(
            "callback of Flyway, which the gate does not call",
            f"Put what it does into a numbered migration. {IGNORE}",
        )
    return refused(FORM, RENAME)


def _classify_other(name: str) -> Name:
    """Tell what does not end in .sql, and could be meant, from what is no migration."""
    for pattern, problem, remedy in _MEANT:
        if re.fullmatch(pattern, name):
            return refused(problem, remedy)
    code = re.fullmatch(CODE_NAME, name)
    language = _CODE.get(code["ending"]) if code else None
    if language is None or re.fullmatch(NO_CODE, name):
        return IGNORED
    return Name(
        kind="code",
        problem=f"migration in {language}, and only SQL is read",
        remedy=f"Write it in SQL, or leave these to the tool that runs them. {IGNORE}",
    )


def _database_of(stem: str) -> str:
    """Return the database that a name ends with, as in 001_x.mysql.up.sql."""
    if "." not in stem:
        return ""
    plain = BACK.sub("", FORWARD.sub("", stem))
    return plain.rpartition(".")[2].lower() if "." in plain else ""


def without_database(base: str) -> str:
    """Return a migration's base without the word for PostgreSQL at its end."""
    return base.rpartition(".")[0] if _database_of(base) in POSTGRES else base


def refused(problem: str, remedy: str) -> Name:
    """Return what could be meant, with what to do about it."""
    return Name(kind="refused", problem=problem, remedy=remedy)
