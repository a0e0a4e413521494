"""
Whose table it is, when it is not ours: the histories of other tools. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


CHARACTER_TYPES = frozenset({"text", "varchar", "bpchar"})


class Column(NamedTuple):
    """A column of the table; ``type_name`` as pg_type has it."""

    name: str
    type_name: str
    is_optional: bool


TOOLS = (
    ("golang-migrate", {"version", "dirty"}),
    ("Flyway", {"installed_rank", "script"}),
    ("goose", {"version_id", "is_applied"}),
    ("sqlx", {"version", "description", "installed_on", "success"}),
    ("Yandex pgmigrate", {"version", "description", "installed_by"}),
    ("Diesel", {"version", "run_on"}),
    ("node-pg-migrate", {"name", "run_on"}),
    ("Ecto", {"version", "inserted_at"}),
    ("Liquibase", {"orderexecuted", "md5sum"}),
    ("Atlas", {"version", "executed_at", "execution_time"}),
    ("yoyo", {"migration_hash", "migration_id"}),
    ("Alembic", {"version_num"}),
    ("Prisma", {"migration_name", "applied_steps_count"}),
    ("Django", {"app", "name", "applied"}),
    ("Knex", {"name", "batch", "migration_time"}),
    ("refinery", {"version", "name", "applied_on"}),
    ("Supabase", {"version", "statements"}),
)


def name_tool(columns: Sequence[Column]) -> str:
    """Name the tool whose table has these columns, as far as they tell."""
    names = {column.name for column in columns}
    for tool, marks in TOOLS:
        if marks <= names:
            return tool
    if names == {"version"}:
        is_text = columns[0].type_name in CHARACTER_TYPES
        return "dbmate or Rails" if is_text else "tern"
    return "another program"
