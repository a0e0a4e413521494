"""
Indexes that are invalid: a build was cut short, and no query uses them. Reads only.

Found by the names that a statement has for them, in every schema where it names none:
the search path that the file ran with may be gone.
"""

from __future__ import annotations

import re

from collections.abc import Iterable
from typing import Any, Final, NamedTuple

import psycopg

from psycopg import sql

from migration_gate.connection.qualified import qualified
from migration_gate.report.quoting import quote_name
from migration_gate.statements import CreatedIndex


# A partitioned index is invalid until each partition has its own, which another file
# may see to.
INVALID: Final = qualified(
    """
SELECT n.nspname, t.relname, c.relname
FROM pg_catalog.pg_index i
JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid
JOIN pg_catalog.pg_class t ON t.oid = i.indrelid
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE NOT i.indisvalid AND c.relkind = 'i'
ORDER BY 1, 3
"""
)
# Divides by zero where the table, as the session finds it, has this one invalid.
REQUIRE_VALID: Final = qualified(
    """
SELECT 1 / CASE WHEN EXISTS (
    SELECT FROM pg_catalog.pg_index i
    JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid
    WHERE NOT i.indisvalid AND c.relkind = 'i' AND c.relname = {name}
      AND i.indrelid = pg_catalog.to_regclass({table})::pg_catalog.oid
) THEN 0 ELSE 1 END
"""
)
# What REINDEX CONCURRENTLY builds, or leaves.
OF_REINDEX: Final = re.compile(r".*_cc(?:new|old)[0-9]*")


class InvalidIndex(NamedTuple):
    """An index that is invalid, by its names in the catalogue."""

    schema: str
    table: str
    name: str

    @property
    def remedy(self) -> str:
        """Return the statement that drops it."""
        name = f"{quote_name(self.schema)}.{quote_name(self.name)}"
        return f"DROP INDEX CONCURRENTLY {name};"

    def __str__(self) -> str:
        """Return the name with its schema, as messages have it."""
        return f'"{self.schema}.{self.name}"'


def find_invalid(conn: psycopg.Connection[Any]) -> tuple[InvalidIndex, ...]:
    """Return the invalid indexes of the database."""
    return tuple(InvalidIndex(*row) for row in conn.execute(INVALID))


def is_built(index: InvalidIndex, created: Iterable[CreatedIndex]) -> bool:
    """Tell whether one of these statements builds it; unnamed, told by the table."""
    return any(_builds(each, index) for each in created)


def require_valid(created: CreatedIndex) -> sql.Composed:
    """Return the statement that fails where what IF NOT EXISTS has found is invalid."""
    names = [name for name in (created.schema, created.table) if name is not None]
    return REQUIRE_VALID.format(
        name=sql.Literal(created.name or ""),
        table=sql.Literal(sql.Identifier(*names).as_string()),
    )


def find_named(
    conn: psycopg.Connection[Any], created: CreatedIndex
) -> InvalidIndex | None:
    """Return the invalid index that has the name which a statement wants to give."""
    for index in find_invalid(conn):
        if index.name == created.name and created.schema in {None, index.schema}:
            return index
    return None


def tell_invalid(index: InvalidIndex) -> tuple[str, str]:
    """Return what is wrong with an index that is in the way, and what to do."""
    return f"index {index} exists and is invalid", (
        "An attempt to build it was cut short, and no query uses it. Drop it, unless "
        f"somebody is building it at this moment: {index.remedy} Then start the gate "
        "again."
    )


def _builds(created: CreatedIndex, index: InvalidIndex) -> bool:
    if created.table != index.table or created.schema not in {None, index.schema}:
        return False
    if created.name is None:
        return OF_REINDEX.fullmatch(index.name) is None
    return created.name == index.name
