"""
What a session keeps of one schema's files that DISCARD ALL does not clear. Reads only.

A session serves the next schema of a fleet only where it is then as a new one would be:
where none of this is there.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from typing import Final

from migration_gate.connection.qualified import names, qualified


# Where PostgreSQL's own objects end: access/transam.h, FirstNormalObjectId.
LAST_OWN_OID: Final = 16383
# The others keep what their functions like: %_SHARED, GD, SD, modules.
LANGUAGES: Final = ("internal", "c", "sql", "plpgsql")
# Extensions whose functions keep nothing that another one could find. dblink keeps its
# connections by name, isn its weak mode, and so on: what is not here is not known.
EXTENSIONS: Final = (
    *("amcheck", "autoinc", "bloom", "btree_gin", "btree_gist", "citext", "cube"),
    *("dict_int", "dict_xsyn", "earthdistance", "file_fdw", "fuzzystrmatch", "hstore"),
    *("insert_username", "intagg", "intarray", "lo", "ltree", "moddatetime"),
    *("pageinspect", "pg_buffercache", "pg_freespacemap", "pg_prewarm"),
    *("pg_stat_statements", "pg_trgm", "pg_visibility", "pg_walinspect", "pgcrypto"),
    *("pgrowlocks", "pgstattuple", "plpgsql", "postgis", "seg", "sslinfo", "tablefunc"),
    *("tcn", "tsm_system_rows", "tsm_system_time", "unaccent", "uuid-ossp", "vector"),
)
# A role that the session begins with is gone after DISCARD ALL on some minor releases;
# what a trigger at the login sets is gone on all.
IS_ODD: Final = qualified(
    """
pg_catalog.current_setting('role') <> 'none'
OR EXISTS (SELECT FROM pg_catalog.pg_event_trigger
           WHERE evtevent = 'login' AND evtenabled <> 'D')
OR EXISTS (SELECT FROM pg_catalog.pg_language WHERE lanname <> ALL ({languages}))
OR EXISTS (SELECT FROM pg_catalog.pg_extension WHERE extname <> ALL ({extensions}))
"""
).format(languages=names(LANGUAGES), extensions=names(EXTENSIONS))
# The newest function, the schemas of the path, and those of newer functions than were
# seen that any schema's files may call. PL/pgSQL looks for the types of a function's
# variables once in a session, along the path of the first schema that calls it: not
# where the function has a path of its own, and for a trigger once for each table. C may
# do anything.
CODE: Final = qualified(
    """
(SELECT pg_catalog.max(oid)::pg_catalog.int8 FROM pg_catalog.pg_proc),
pg_catalog.current_schemas(false)::pg_catalog.text[],
ARRAY(
    SELECT DISTINCT n.nspname::pg_catalog.text
    FROM pg_catalog.pg_proc p
    JOIN pg_catalog.pg_language l ON l.oid = p.prolang
    JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
    WHERE p.oid > {since}::pg_catalog.oid
      AND (l.lanname = 'c' OR l.lanname = 'plpgsql'
           AND p.prorettype <> 'pg_catalog.trigger'::pg_catalog.regtype
           AND NOT EXISTS (
               SELECT FROM pg_catalog.unnest(p.proconfig) AS own (setting)
               WHERE pg_catalog.starts_with(own.setting, 'search_path=')))
      AND NOT EXISTS (
          SELECT FROM pg_catalog.pg_depend d
          WHERE d.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass
            AND d.objid = p.oid AND d.deptype = 'e')
)
"""
)


class Code:
    """What is known of the functions of a database that sessions keep something of."""

    def __init__(self, targets: Container[str]) -> None:
        self.newest_oid = LAST_OWN_OID
        self.is_shared = False
        self._targets = targets

    def note(
        self, newest_oid: int, path: Sequence[str], schemas: Sequence[str]
    ) -> None:
        """
        Note what is new.

        A target's own functions are called by its files alone, unless its schema is in
        the path that all have after their own.
        """
        self.newest_oid = max(self.newest_oid, newest_oid)
        own = [name for name in schemas if name in self._targets and name not in path]
        self.is_shared |= len(own) < len(schemas)
